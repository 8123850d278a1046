// The files of a version, and what is different between two.
import { useMemo, useState } from 'preact/hooks';
import { Failure, type File, type WholeTask } from './api.ts';
import { type Change, changesBetween, difference, WHAT } from './diff.ts';
import { Markdown } from './markdown.tsx';
import { refine, route } from './state.ts';
import { oneLine, visible } from './text.ts';
import { Empty, Problem } from './ui.tsx';

/** Files of which all are open at first, and how many are where there are more. */
const MANY = 20;
const FIRST = 5;

/** The files of versions as far as they were read, and why one was not. */
export type Kept = ReadonlyMap<number, File[] | Failure>;

/** Which version; `newest` stands for 0. */
export function VersionSelect({ label, numbers, value, newest, onChange }: { label: string; numbers: number[]; value: number; newest?: string; onChange: (version: string) => void }) {
  return (
    <label>
      {label}{' '}
      <select value={String(value)} onChange={(event) => onChange(event.currentTarget.value)}>
        {newest && <option value="0">{newest}</option>}
        {numbers.map((number) => (
          <option key={number} value={String(number)}>
            version {number}
          </option>
        ))}
      </select>
    </label>
  );
}

/** A version that the address names, as far as there is one. */
export function versionOf(name: string, task: WholeTask, otherwise: number): number {
  const version = Number(route.value.query.get(name));
  return Number.isInteger(version) && version >= 1 && version <= task.context_version ? version : otherwise;
}

export function Files({ task, kept, numbers, rollBack }: { task: WholeTask; kept: Kept; numbers: number[]; rollBack: (version: number) => void }) {
  const version = versionOf('version', task, task.context_version);
  const files = kept.get(version);
  const isRaw = route.value.query.get('raw') === '1';
  return (
    <>
      <div class="options">
        <VersionSelect label="Files of" numbers={numbers} value={version} onChange={(version) => refine({ version })} />
        <label class="check">
          <input type="checkbox" checked={isRaw} onChange={(event) => refine({ raw: event.currentTarget.checked ? '1' : undefined })} />
          As written
        </label>
        {version !== task.context_version && Array.isArray(files) && <button onClick={() => rollBack(version)}>Go back to version {version}…</button>}
      </div>
      <Read files={files}>
        {(files) => (
          <>
            {files.length > 1 && (
              <nav class="contents" aria-label="Files">
                {files.map(({ filename }, i) => (
                  <button key={filename} onClick={() => document.getElementById(`file-${i}`)?.scrollIntoView()}>
                    <bdi>{oneLine(filename)}</bdi>
                  </button>
                ))}
              </nav>
            )}
            {files.map((file, i) => (
              <OneFile key={file.filename} file={file} id={`file-${i}`} isRaw={isRaw} isOpened={files.length <= MANY || i < FIRST} />
            ))}
          </>
        )}
      </Read>
    </>
  );
}

function OneFile({ file: { filename, content }, id, isRaw, isOpened }: { file: File; id: string; isRaw: boolean; isOpened: boolean }) {
  const [isOpen, setOpen] = useState(isOpened);
  return (
    <article class="file" id={id} aria-label={oneLine(filename)}>
      <h3>
        <bdi>{oneLine(filename)}</bdi>
        {!isOpened && (
          <button class="link" aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
            {isOpen ? 'Close' : 'Open'}
          </button>
        )}
      </h3>
      {isOpen && (
        <div class="paper">
          {isRaw ? (
            <pre class="raw" tabIndex={0}>
              {visible(content)}
            </pre>
          ) : (
            <Markdown text={content} />
          )}
        </div>
      )}
    </article>
  );
}

function Read({ files, children }: { files: File[] | Failure | undefined; children: (files: File[]) => preact.ComponentChildren }) {
  if (files === undefined) return <p class="faint" role="status">The files are being read…</p>;
  return files instanceof Failure ? <Problem failure={files} /> : <>{children(files)}</>;
}

export function Diff({ task, kept, numbers }: { task: WholeTask; kept: Kept; numbers: number[] }) {
  const to = versionOf('to', task, task.context_version);
  const from = versionOf('from', task, Math.max(1, to - 1));
  if (task.context_version === 1) return <Empty title="There is one version so far" />;
  return (
    <>
      <div class="options">
        <VersionSelect label="From" numbers={numbers} value={from} onChange={(from) => refine({ from, to: String(to) })} />
        <VersionSelect label="to" numbers={numbers} value={to} onChange={(to) => refine({ from: String(from), to })} />
        <button onClick={() => refine({ from: String(to), to: String(from) })}>Swap</button>
      </div>
      <Read files={kept.get(from)}>{(before) => <Read files={kept.get(to)}>{(after) => <Differences before={before} after={after} from={from} to={to} />}</Read>}</Read>
    </>
  );
}

function Differences({ before, after, from, to }: { before: File[]; after: File[]; from: number; to: number }) {
  const changes = changesBetween(before, after);
  const text = (files: File[], name: string) => files.find((file) => file.filename === name)?.content ?? '';
  if (changes.length === 0) return <Empty title={`Versions ${from} and ${to} have the same files`} />;
  return (
    <>
      {changes.map(({ filename, what }) => (
        <FileDiff key={filename} filename={filename} what={what} before={text(before, filename)} after={text(after, filename)} />
      ))}
    </>
  );
}

function FileDiff({ filename, what, before, after }: { filename: string; what: Change['what']; before: string; after: string }) {
  const rows = useMemo(() => difference(before, after), [before, after]);
  return (
    <article class="file" aria-label={oneLine(filename)}>
      <h3>
        <bdi>{oneLine(filename)}</bdi> <span class={`what w${what === '+' ? 'added' : what === '-' ? 'gone' : ''}`}>{WHAT[what]}</span>
      </h3>
      {rows ? (
        <div class="diff" role="region" aria-label={`What is different in ${oneLine(filename)}`} tabIndex={0}>
          {rows.map(({ kind, text }, i) => {
            const Line = kind === '+' ? 'ins' : kind === '-' ? 'del' : 'div';
            return (
              <Line key={i} class={kind === '…' ? 'same' : undefined}>
                <span class="sign">{kind === '-' ? '−' : kind === '…' ? '⋯' : kind}</span>
                {visible(text) || ' '}
              </Line>
            );
          })}
        </div>
      ) : (
        <p class="faint">The two are too different to compare line by line.</p>
      )}
    </article>
  );
}

// The versions of a task as bars on one line of time: waiting, running, and what became of them; who changed what when.
import type { ComponentChildren } from 'preact';
import type { WholeTask } from './api.ts';
import { type Change, WHAT } from './diff.ts';
import { now } from './state.ts';
import { duration, oneLine, person, scale, when } from './text.ts';
import { Badge } from './ui.tsx';
import { messageOf, type Version, versions } from './words.ts';

/** When a version came, began and ended, in milliseconds; each as far as it is known. */
export function times(version: Version, storedAt: Record<string, string>, task: WholeTask, at: number) {
  const time = (text: string | null | undefined) => (text ? Date.parse(text) : undefined);
  const { run, number } = version;
  const start = time(run.started_at);
  const created = number === 1 ? time(task.created_at) : undefined;
  const isOver = run.outcome !== null;
  const end = time(run.completed_at) ?? (isOver ? start : at);
  const came = created ?? time(storedAt[number]) ?? start;
  return { came: came === undefined ? undefined : Math.min(came, start ?? came), start, end };
}

export function Timeline({ task, storedAt, changes, actions }: { task: WholeTask; storedAt: Record<string, string>; changes: Map<number, Change[] | undefined>; actions: (version: number) => ComponentChildren }) {
  const all = versions(task).map((version) => ({ version, ...times(version, storedAt, task, now.value) }));
  const spans = all.flatMap(({ came, end }): [number, number][] => (came === undefined || end === undefined ? [] : [[came, end]]));
  const place = scale(spans);
  return (
    <ol class="timeline">
      {all.map(({ version, came, start, end }) => {
        const { number, run, state } = version;
        const took = start !== undefined && end !== undefined ? duration((end - start) / 1000) : '';
        const made = changes.get(number);
        return (
          <li key={number}>
            <span class="version">v{number}</span>
            <div class="track" aria-hidden="true">
              {came !== undefined && <Bar class="waiting" from={place(came)} to={place(start ?? end ?? came)} />}
              {start !== undefined && end !== undefined && <Bar class={state.toLowerCase()} from={place(start)} to={place(end)} />}
            </div>
            <span class="state">
              <Badge state={state} /> {took}
            </span>
            <p class="facts">
              {came !== undefined && <time dateTime={new Date(came).toISOString()}>{when(new Date(came).toISOString(), now.value)}</time>}
              {run.changed_by && (
                <>
                  {' by '}
                  <bdi>{person(run.changed_by)}</bdi>
                </>
              )}
              {made && <Changes made={made} />}
              {state !== 'Superseded' && <span class="message">{oneLine(messageOf(state, run.message ?? ''))}</span>}
            </p>
            <span class="actions">{actions(number)}</span>
          </li>
        );
      })}
    </ol>
  );
}

function Bar({ class: name, from, to }: { class: string; from: number; to: number }) {
  return <span class={`span ${name}`} style={{ insetInlineStart: `${from}%`, inlineSize: `max(3px, ${to - from}%)` }} />;
}

function Changes({ made }: { made: Change[] }) {
  return (
    <span class="changes">
      {made.length === 0 && <span>the same files again</span>}
      {made.slice(0, 6).map(({ filename, what }) => (
        <span key={filename} class="change">
          <abbr title={WHAT[what]}>{what === '-' ? '−' : what}</abbr>
          <bdi>{oneLine(filename)}</bdi>
        </span>
      ))}
      {made.length > 6 && <span>and {made.length - 6} more</span>}
    </span>
  );
}

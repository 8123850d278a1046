// The log of a run, as it is written. Escapes of terminals are taken away, and what is very long is cut: the rest can be
// saved as a file.
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { type Failure, follow, type Line, pathOf, texts, type WholeTask } from './api.ts';
import { BLOCK, Lines, MOST, type Shown } from './lines.ts';
import { Empty, Problem } from './ui.tsx';
import { isOver, LINE } from './words.ts';

/** Silence after which the connection may be dead, and is made anew: agents think for minutes. */
const SILENCE = 300_000;

export function Log({ task, version }: { task: WholeTask; version?: number }) {
  const [shown, setShown] = useState<Shown>({ blocks: [], dropped: 0 });
  const [line, setLine] = useState<Line>({ state: 'connecting' });
  const [failure, setFailure] = useState<Failure>();
  const [isEnded, setEnded] = useState(false);
  const [isWrapped, setWrapped] = useState(true);
  const box = useRef<HTMLDivElement>(null);
  const isAtEnd = useRef(true);
  const last = useRef(task);
  last.current = task;
  // what is written after all had ended, or was not there, is looked for when the task changes
  const [round, setRound] = useState(0);
  useEffect(() => {
    if ((isEnded || failure) && !hasEnded(task, version)) setRound((round) => round + 1);
  }, [task]);

  useEffect(() => {
    setFailure(undefined);
    setEnded(false);
    setShown({ blocks: [], dropped: 0 });
    let frame = 0;
    const query = new URLSearchParams({ follow: 'true', tail_lines: String(MOST) });
    if (version) query.set('version', String(version));
    let stop = () => {};
    stop = follow(
      `${pathOf(task.name)}/logs?${query}`,
      async (response, alive) => {
        const lines = new Lines();
        await texts(response, alive, (text) => {
          lines.add(text);
          cancelAnimationFrame(frame);
          frame = requestAnimationFrame(() => setShown(lines.shown()));
        });
        // otherwise the API has ended, and not the log
        if (!hasEnded(last.current, version)) return;
        setEnded(true);
        stop();
      },
      setLine,
      setFailure,
      SILENCE,
    );
    return () => {
      cancelAnimationFrame(frame);
      stop();
    };
  }, [task.name, version, round]);

  useLayoutEffect(() => {
    if (isAtEnd.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [shown, isWrapped]);

  const save = () => {
    const url = URL.createObjectURL(new Blob([shown.blocks.join('\n')], { type: 'text/plain' }));
    const link = Object.assign(document.createElement('a'), { href: url, download: `${task.name}.log` });
    link.click();
    URL.revokeObjectURL(url);
  };
  const isEmpty = shown.blocks.length === 0;
  return (
    <>
      <div class="options">
        <span class={`line ${isEnded || failure ? 'over' : line.state}`} role="status">
          {failure ? 'No log' : isEnded ? 'The log has ended' : LINE[line.state]}
        </span>
        <label class="check">
          <input type="checkbox" checked={isWrapped} onChange={(event) => setWrapped(event.currentTarget.checked)} />
          Wrap lines
        </label>
        <button onClick={save} disabled={isEmpty}>
          Save what is shown
        </button>
      </div>
      {failure && <Problem failure={failure} />}
      {isEmpty && !failure && !isEnded && (
        <Empty title="Nothing written yet">
          <p>Lines appear here as the agent writes them.</p>
        </Empty>
      )}
      {isEmpty && isEnded && <Empty title="The log is empty" />}
      {!isEmpty && (
        <div
          ref={box}
          class={`log ${isWrapped ? 'wrapped' : ''}`}
          role="log"
          aria-label="Log"
          aria-live="off"
          tabIndex={0}
          dir="ltr"
          onScroll={(event) => {
            const { scrollTop, scrollHeight, clientHeight } = event.currentTarget;
            isAtEnd.current = scrollTop + clientHeight > scrollHeight - 40;
          }}
        >
          {shown.dropped > 0 && <p class="faint">{shown.dropped.toLocaleString('en')} earlier lines are not shown.</p>}
          {shown.blocks.map((block, i) => (
            <pre key={shown.dropped / BLOCK + i}>{block}</pre>
          ))}
        </div>
      )}
    </>
  );
}

/** Whether nothing more is written: to the log of this version or, without one, of the task. */
function hasEnded(task: WholeTask, version: number | undefined): boolean {
  const { status } = task;
  if (version) return task.runs.some((run) => run.context_version === version && run.outcome);
  return status.context_version === task.context_version && isOver(status.phase);
}

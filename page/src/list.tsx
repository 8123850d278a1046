// All tasks, live: a table of which only the rows near what is looked at are drawn.
import { useLayoutEffect, useRef } from 'preact/hooks';
import { signal } from '@preact/signals';
import type { Task } from './api.ts';
import { asked } from './dialogs.tsx';
import { counts, isListed, link, listFailure, refine, route, services, shown, type SortKey, tasks, titleOf, wish } from './state.ts';
import { oneLine } from './text.ts';
import { Badge, Elapsed, Empty, Name, Problem, useRows } from './ui.tsx';

/** Of a row, in pixels; the style says the same. */
const ROW = 56;
const PHASES = ['Running', 'Pending', 'Failed', 'Succeeded'];
/** The row that the keys speak of. */
export const selected = signal(-1);

export function List() {
  const { q, phase, service } = wish.value;
  const all = Object.values(counts.value).reduce((sum, n) => sum + n, 0);
  return (
    <main class="list" aria-labelledby="title">
      <div class="bar">
        <h1 id="title">Tasks</h1>
        <button class="primary" onClick={() => (asked.value = { kind: 'submit' })}>
          New task
        </button>
        <search>
          <input
            type="search"
            id="search"
            aria-label="Search tasks"
            aria-keyshortcuts="/"
            placeholder="Search: name, title, service, message"
            value={q}
            onInput={(event) => refine({ q: event.currentTarget.value })}
          />
          <label>
            <span class="unseen">Service</span>
            <select value={service} onChange={(event) => refine({ service: event.currentTarget.value })}>
              <option value="">All services</option>
              {[...new Set([...services.value, ...(service ? [service] : [])])].map((name) => (
                <option key={name} value={name}>
                  {oneLine(name)}
                </option>
              ))}
            </select>
          </label>
          <fieldset class="phases">
            <legend class="unseen">Phase</legend>
            {['', ...PHASES].map((name) => (
              <label key={name} class={name.toLowerCase()}>
                <input type="radio" name="phase" checked={phase === name} onChange={() => refine({ phase: name })} />
                <span>
                  {name || 'All'} <b>{(name ? (counts.value[name] ?? 0) : all).toLocaleString('en')}</b>
                </span>
              </label>
            ))}
          </fieldset>
        </search>
      </div>
      <Rows />
    </main>
  );
}

function Rows() {
  const rows = shown.value;
  const { ref, first, last } = useRows(rows.length, ROW);
  const table = useRef<HTMLTableElement>(null);
  const at = Math.min(selected.value, rows.length - 1);

  // the keys move the row into sight, and the focus with it
  useLayoutEffect(() => {
    const box = ref.current;
    if (!box || at < 0) return;
    const head = table.current?.tHead?.offsetHeight ?? 0;
    const [top, bottom] = [at * ROW, (at + 1) * ROW + head];
    if (top < box.scrollTop) box.scrollTop = top;
    else if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight;
    table.current?.querySelector<HTMLElement>(`[data-row="${at}"] a`)?.focus({ preventScroll: true });
  }, [at, first, last]);

  if (listFailure.value) return <Problem failure={listFailure.value} />;
  if (rows.length === 0 && !isListed.value) return <Skeleton />;
  if (rows.length === 0) return tasks.value.size === 0 ? <NoTasks /> : <NoMatch />;
  return (
    <div class="scroller" ref={ref} tabIndex={0} role="region" aria-label="Tasks">
      <table ref={table} aria-rowcount={rows.length + 1}>
        <caption class="unseen" aria-live="polite">
          {rows.length.toLocaleString('en')} of {tasks.value.size.toLocaleString('en')} tasks
        </caption>
        <thead>
          <tr aria-rowindex={1}>
            <Head sort="task" class="task">
              Task
            </Head>
            <Head sort="service" class="service">
              Service
            </Head>
            <th scope="col" class="agent">
              Agent
            </th>
            <th scope="col" class="version">
              Version
            </th>
            <Head sort="phase" class="phase">
              Phase
            </Head>
            <th scope="col" class="attempts">
              Attempts
            </th>
            <Head sort="started" class="elapsed">
              Elapsed
            </Head>
          </tr>
        </thead>
        <tbody>
          <Space rows={first} />
          {rows.slice(first, last).map((task, i) => (
            <Row key={task.name} task={task} at={first + i} isSelected={first + i === at} />
          ))}
          <Space rows={rows.length - last} />
        </tbody>
      </table>
    </div>
  );
}

/** Rows that are not drawn. */
function Space({ rows }: { rows: number }) {
  return rows > 0 ? <tr aria-hidden="true" class="space" style={{ height: `${rows * ROW}px` }} /> : null;
}

function Head({ sort, class: name, children }: { sort: SortKey; class: string; children: string }) {
  const { key, down } = wish.value;
  const isOn = key === sort;
  return (
    <th scope="col" class={name} aria-sort={isOn ? (down ? 'descending' : 'ascending') : undefined}>
      <button type="button" onClick={() => refine({ sort: isOn && down ? sort : `-${sort}` })}>
        {children}
        <span aria-hidden="true">{isOn ? (down ? ' ↓' : ' ↑') : ''}</span>
      </button>
    </th>
  );
}

function Row({ task, at, isSelected }: { task: Task; at: number; isSelected: boolean }) {
  const isOver = task.phase === 'Succeeded' || task.phase === 'Failed';
  const elapsed = <Elapsed start={task.started_at} end={isOver ? (task.completed_at ?? task.started_at) : null} />;
  return (
    <tr aria-rowindex={at + 2} data-row={at} class={isSelected ? 'selected' : ''}>
      <td class="task">
        <a href={link(task.name)} onFocus={() => (selected.value = at)}>
          <span class="number">{task.task_id}</span> <Name text={titleOf(task)} />
        </a>
        <small>
          <span class="narrow">
            <Name text={task.service} /> · v{task.context_version} · {elapsed} {task.started_at && '· '}
          </span>
          <Name text={task.message} />
        </small>
      </td>
      <td class="service">
        <Name text={task.service} />
      </td>
      <td class="agent">
        <Name text={task.agent_name} />
      </td>
      <td class="version">{task.context_version}</td>
      <td class="phase">
        <Badge state={task.phase} />
      </td>
      <td class="attempts">{task.attempts}</td>
      <td class="elapsed">{elapsed}</td>
    </tr>
  );
}

function Skeleton() {
  return (
    <div class="skeleton" role="status" aria-label="The tasks are being read">
      {Array.from({ length: 8 }, (_, i) => (
        <div key={i} />
      ))}
    </div>
  );
}

function NoTasks() {
  return (
    <Empty title="No tasks yet">
      <p>A task is a few markdown files for an agent. Each version of them is run once.</p>
      <button class="primary" onClick={() => (asked.value = { kind: 'submit' })}>
        Submit the first task
      </button>
    </Empty>
  );
}

function NoMatch() {
  return (
    <Empty title="Nothing matches">
      <p>
        None of the {tasks.value.size.toLocaleString('en')} tasks is like that.
      </p>
      <button onClick={() => refine(Object.fromEntries([...route.value.query.keys()].map((key) => [key, undefined])))}>Show all tasks</button>
    </Empty>
  );
}

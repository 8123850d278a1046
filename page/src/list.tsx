// All tasks, live: a table of which only the rows near what is looked at are drawn.
import { signal } from '@preact/signals';
import { Component } from 'preact';
import { useLayoutEffect, useRef } from 'preact/hooks';
import type { Task } from './api.ts';
import { asked } from './dialogs.tsx';
import { counts, isListed, link, listFailure, listTries, PHASES, refine, route, services, shown, type SortKey, tasks, titleOf, wish } from './state.ts';
import { oneLine } from './text.ts';
import { Badge, Elapsed, Empty, Name, Problem, useRows } from './ui.tsx';
import { isOver, messageOf } from './words.ts';

/** Of a row, in pixels; the style says the same. */
const ROW = 56;
/** Name of the task that the keys speak of. */
export const selected = signal('');

/** Wants other tasks, or another order: no row is spoken of then, and the focus stays where it is. */
function want(query: Record<string, string | undefined>) {
  selected.value = '';
  refine(query);
}

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
            onInput={(event) => want({ q: event.currentTarget.value })}
          />
          <label>
            <span class="unseen">Service</span>
            <select value={service} onChange={(event) => want({ service: event.currentTarget.value })}>
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
                <input type="radio" name="phase" checked={phase === name} onChange={() => want({ phase: name })} />
                <span>
                  {name || 'All'} {isListed.value && <b>{(name ? (counts.value[name] ?? 0) : all).toLocaleString('en')}</b>}
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
  if (listFailure.value) {
    return (
      <Problem failure={listFailure.value}>
        <button onClick={() => listTries.value++}>Try again</button>
      </Problem>
    );
  }
  if (rows.length === 0 && !isListed.value) return <Skeleton />;
  if (rows.length === 0) return tasks.value.size === 0 ? <NoTasks /> : <NoMatch />;
  return <Table rows={rows} />;
}

function Table({ rows }: { rows: Task[] }) {
  const { ref, first, last, near } = useRows(rows.length, ROW);
  const table = useRef<HTMLTableElement>(null);
  const isFocusWanted = useRef(false);
  const name = selected.value;
  const { q, phase, service, key, down } = wish.value;
  useLayoutEffect(() => {
    ref.current!.scrollTop = 0;
  }, [q, phase, service, key, down]);

  // the keys move the row into sight, and the focus with it once it is drawn
  useLayoutEffect(() => {
    const box = ref.current!;
    const at = rows.findIndex((task) => task.name === name);
    if (at < 0) return;
    isFocusWanted.current = true;
    const head = table.current?.tHead?.offsetHeight ?? 0;
    const [top, bottom] = [at * ROW, (at + 1) * ROW + head];
    if (top < box.scrollTop) box.scrollTop = top;
    else if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight;
  }, [name]);
  // a row that is used for another task gives the focus on, to where its task is now, or to the whole list
  useLayoutEffect(() => {
    const link = table.current?.querySelector<HTMLElement>('tr.selected a');
    const isInRows = table.current?.tBodies[0]?.contains(document.activeElement);
    if (isFocusWanted.current ? !link : !isInRows || document.activeElement === link) return;
    isFocusWanted.current = false;
    (link ?? ref.current!).focus({ preventScroll: true });
  });

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
            // what leaves on one side is used on the other
            <Row key={(first + i) % near} task={task} at={first + i} isSelected={task.name === name} />
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
      <button type="button" onClick={() => want({ sort: isOn && down ? sort : `-${sort}` })}>
        {children}
        <span aria-hidden="true">{isOn ? (down ? ' ↓' : ' ↑') : ''}</span>
      </button>
    </th>
  );
}

interface RowProps {
  task: Task;
  at: number;
  isSelected: boolean;
}

/** A row, which is drawn anew only where it says something else: a list that scrolls has little time. */
class Row extends Component<RowProps> {
  override shouldComponentUpdate(next: RowProps) {
    return next.task !== this.props.task || next.at !== this.props.at || next.isSelected !== this.props.isSelected;
  }

  override render({ task, at, isSelected }: RowProps) {
    const elapsed = <Elapsed start={task.started_at} end={isOver(task.phase) ? (task.completed_at ?? task.started_at) : null} />;
    const service = oneLine(task.service);
    return (
      <tr aria-rowindex={at + 2} data-row={at} class={isSelected ? 'selected' : ''}>
        <td class="task">
          <a href={link(task.name)} onFocus={() => (selected.value = task.name)}>
            <span class="number">{task.task_id}</span> <Name text={titleOf(task)} />
          </a>
          <small>
            <span class="narrow">
              {service} · v{task.context_version} · {elapsed} {task.started_at && '· '}
            </span>
            {oneLine(messageOf('', task.message))}
          </small>
        </td>
        <td class="service">{service}</td>
        <td class="agent">{oneLine(task.agent_name)}</td>
        <td class="version">{task.context_version}</td>
        <td class="phase">
          <Badge state={task.phase} />
        </td>
        <td class="attempts">{task.attempts}</td>
        <td class="elapsed">{elapsed}</td>
      </tr>
    );
  }
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
      <button onClick={() => want(Object.fromEntries([...route.value.query.keys()].map((key) => [key, undefined])))}>Show all tasks</button>
    </Empty>
  );
}

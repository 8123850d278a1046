// What the page knows: where it is, its theme, the time, and the tasks of the list, kept up to date by one stream.
import { computed, effect, signal } from '@preact/signals';
import { ahead, type Failure, follow, type Line, serverSent, type Task } from './api.ts';
import { oneLine } from './text.ts';

/** The API's time, told each second while the page is looked at. */
export const now = signal(Date.now());
setInterval(() => {
  if (!document.hidden) now.value = Date.now() + ahead;
}, 1000);

// Where: `#/`, `#/?q=…&phase=…`, `#/tasks/task-7?tab=log&version=2`. No secret stands in it -------------------------

export interface Route {
  task?: string;
  query: URLSearchParams;
}

function read(): Route {
  const [path = '', query = ''] = location.hash.slice(1).split('?');
  const task = /^\/tasks\/([^/]+)$/.exec(path)?.[1];
  let name: string | undefined;
  try {
    name = task && decodeURIComponent(task);
  } catch {
    // no name of a task: the list
  }
  return { task: name, query: new URLSearchParams(query) };
}

export const route = signal<Route>(read());
addEventListener('hashchange', () => {
  route.value = read();
});

/** The address of a task, or of the list. */
export function link(task?: string, query: Record<string, string | undefined> = {}): string {
  const given = Object.entries(query).filter((entry): entry is [string, string] => Boolean(entry[1]));
  const text = new URLSearchParams(given).toString();
  return `#/${task ? `tasks/${encodeURIComponent(task)}` : ''}${text ? `?${text}` : ''}`;
}

/** Changes what stands after the `?`, without a step back for each letter. */
export function refine(query: Record<string, string | undefined>): void {
  const all = { ...Object.fromEntries(route.value.query), ...query };
  history.replaceState(null, '', link(route.value.task, all));
  route.value = read();
}

// Theme: nothing else is kept in the browser -----------------------------------------------------------------------

export type Theme = 'auto' | 'light' | 'dark';
const kept = localStorage.getItem('theme');
export const theme = signal<Theme>(kept === 'light' || kept === 'dark' ? kept : 'auto');
effect(() => {
  document.documentElement.dataset.theme = theme.value;
  localStorage.setItem('theme', theme.value);
});

// Tasks ------------------------------------------------------------------------------------------------------------

/** How it is with what is followed. */
export const line = signal<Line>({ state: 'connecting' });
/** All tasks by name; each change is a new map. */
export const tasks = signal<ReadonlyMap<string, Task>>(new Map());
/** Whether all are there that there are. */
export const isListed = signal(false);
export const listFailure = signal<Failure | undefined>(undefined);
/** How often the user wanted them anew after that. */
export const listTries = signal(0);

/** Follows all tasks, until the function is called that this returns. */
export function followTasks(): () => void {
  let old = new Set<string>();
  listFailure.value = undefined;
  return follow(
    '/pm/tasks/events',
    (response, alive) =>
      serverSent(response, alive, (event, data) => {
        const told = data as { tasks: Task[]; deleted?: string[]; first?: boolean; last?: boolean };
        const all = new Map(tasks.value);
        if (told.first) old = new Set(all.keys());
        for (const task of told.tasks) {
          all.set(task.name, task);
          old.delete(task.name);
        }
        for (const name of told.deleted ?? []) all.delete(name);
        if (event === 'snapshot' && told.last) for (const name of old) all.delete(name);
        tasks.value = all;
        if (told.last) isListed.value = true;
      }),
    (how) => {
      line.value = how;
    },
    (failure) => {
      listFailure.value = failure;
    },
  );
}

export type SortKey = 'task' | 'service' | 'phase' | 'started';
/** In the order in which they are shown. */
export const PHASES = ['Running', 'Pending', 'Failed', 'Succeeded'];

const order: Record<SortKey, (a: Task, b: Task) => number> = {
  task: (a, b) => a.task_id - b.task_id || a.name.localeCompare(b.name),
  service: (a, b) => a.service.localeCompare(b.service) || a.task_id - b.task_id,
  phase: (a, b) => PHASES.indexOf(b.phase) - PHASES.indexOf(a.phase) || a.task_id - b.task_id,
  started: (a, b) => (a.started_at ?? '').localeCompare(b.started_at ?? '') || a.task_id - b.task_id,
};

/** How the list is sorted and what of it is wanted, as the address says. */
export const wish = computed(() => {
  const { query } = route.value;
  const sort = query.get('sort') ?? '-task';
  const key = sort.replace('-', '');
  return {
    q: query.get('q') ?? '',
    phase: query.get('phase') ?? '',
    service: query.get('service') ?? '',
    key: (Object.hasOwn(order, key) ? key : 'task') as SortKey,
    down: sort.startsWith('-'),
  };
});

const found = computed(() => {
  const { q, service } = wish.value;
  const words = q.toLowerCase().split(/\s+/).filter(Boolean);
  const has = (task: Task) => {
    const text = `${task.name} ${task.title} ${task.service} ${task.agent_name} ${task.message}`.toLowerCase();
    return words.every((word) => text.includes(word));
  };
  return [...tasks.value.values()].filter((task) => (!service || task.service === service) && (words.length === 0 || has(task)));
});

/** How many there are in each phase, of those that are searched for. */
export const counts = computed(() => {
  const all: Record<string, number> = {};
  for (const task of found.value) all[task.phase] = (all[task.phase] ?? 0) + 1;
  return all;
});

/** What the list shows. */
export const shown = computed(() => {
  const { phase, key, down } = wish.value;
  const rows = found.value.filter((task) => !phase || task.phase === phase);
  rows.sort((a, b) => (down ? order[key](b, a) : order[key](a, b)));
  return rows;
});

const distinct = (field: 'service' | 'agent_name') => computed(() => [...new Set([...tasks.value.values()].map((task) => task[field]))].sort());
export const services = distinct('service');
export const agents = distinct('agent_name');

/** What a task is called: its title, or else its name. */
export function titleOf(task: { title: string; name: string }): string {
  return oneLine(task.title) || task.name;
}

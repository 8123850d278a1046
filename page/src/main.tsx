// The page: what stands on every view, the keys, and which view there is.
import { signal, useSignalEffect } from '@preact/signals';
import { render } from 'preact';
import { useEffect, useLayoutEffect } from 'preact/hooks';
import { signOut, user, wanted } from './api.ts';
import { asked, AskedDialog } from './dialogs.tsx';
import { List, selected } from './list.tsx';
import { forgetDrafts } from './request.tsx';
import { SignIn } from './signin.tsx';
import { followTasks, isListed, line, link, listTries, route, shown, tasks, type Theme, theme } from './state.ts';
import './style.css';
import { TaskView } from './task.tsx';
import { person } from './text.ts';
import { Dialog } from './ui.tsx';
import { LINE } from './words.ts';

const isHelp = signal(false);
/** WCAG 2.1.4: keys of one letter can be turned off. */
const hasKeys = signal(true);
/** Where the list was left. */
let lastList = link();

const NEXT: Record<Theme, Theme> = { auto: 'light', light: 'dark', dark: 'auto' };
const KEYS: [string, string][] = [
  ['/', 'Search tasks'],
  ['j  k  or  ↓  ↑', 'Next, previous task'],
  ['Enter', 'Open the task'],
  ['n', 'New task'],
  ['a', 'Add context to the task'],
  ['Ctrl+Enter', 'Send what is written'],
  ['Esc', 'Close, or back to the list'],
  ['?', 'These keys'],
];

function App() {
  const { task } = route.value;
  useEffect(() => (task === undefined && wanted.value === undefined ? followTasks() : undefined), [task, wanted.value === undefined, listTries.value]);
  // a dialog speaks of what is behind it
  useEffect(() => {
    asked.value = undefined;
  }, [task]);
  // what was another's is not this one's
  useLayoutEffect(() => {
    asked.value = undefined;
    forgetDrafts();
    [tasks.value, isListed.value] = [new Map(), false];
  }, [user.value]);
  useEffect(() => {
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  }, []);
  useSignalEffect(() => {
    if (route.value.task === undefined) lastList = link(undefined, Object.fromEntries(route.value.query));
  });
  useEffect(() => {
    if (task === undefined) document.title = 'Tasks';
  }, [task]);
  return (
    <>
      <a class="skip" href="#title" onClick={toTitle}>
        Skip to the content
      </a>
      <Header />
      {task === undefined ? <List /> : <TaskView key={`${user.value} ${task}`} name={task} back={lastList} />}
      <AskedDialog />
      {isHelp.value && <Help />}
      {wanted.value !== undefined && <SignIn />}
    </>
  );
}

/** The hash is where the page is: a link inside it may not change it. */
function toTitle(event: Event) {
  event.preventDefault();
  const title = document.getElementById('title');
  title?.setAttribute('tabindex', '-1');
  title?.focus();
}

function Header() {
  return (
    <header class="top">
      <a class="brand" href={lastList}>
        <svg viewBox="0 0 32 32" aria-hidden="true">
          <rect width="32" height="32" rx="8" />
          <path d="M8 10h10M8 16h16M8 22h7" />
        </svg>
        <span>Task runs</span>
      </a>
      <Connection />
      <span class="user">{person(user.value)}</span>
      <button class="icon" aria-label={`Theme: ${theme.value}`} title={`Theme: ${theme.value}`} onClick={() => (theme.value = NEXT[theme.value])}>
        <svg viewBox="0 0 24 24" aria-hidden="true">
          {theme.value === 'dark' && <path d="M20 14.5A8 8 0 0 1 9.5 4a8 8 0 1 0 10.5 10.5z" />}
          {theme.value === 'light' && <path d="M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6L19 19M5 19l1.4-1.4M17.6 6.4L19 5" />}
          {theme.value === 'auto' && <path d="M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 3v18M12 7h6.5M12 12h9M12 17h6.5" />}
        </svg>
      </button>
      <button class="icon" aria-label="Keys" title="Keys (?)" aria-keyshortcuts="?" onClick={() => (isHelp.value = true)}>
        <svg viewBox="0 0 24 24" aria-hidden="true">
          <path d="M3 7h18v10H3zM7 14h10M7 10.5h.01M10.3 10.5h.01M13.7 10.5h.01M17 10.5h.01" />
        </svg>
      </button>
      {wanted.value === undefined && (
        <button class="icon" aria-label="Sign out" title="Sign out" onClick={signOut}>
          <svg viewBox="0 0 24 24" aria-hidden="true">
            <path d="M14 4H5v16h9M10 12h11M17 8l4 4-4 4" />
          </svg>
        </button>
      )}
    </header>
  );
}

/** Whether what is shown is as it is now. */
function Connection() {
  if (wanted.value !== undefined) return <span class="line" />;
  const how = line.value;
  return (
    <span class={`line ${how.state}`} role="status" title={how.state === 'away' ? how.why : undefined}>
      {LINE[how.state]}
    </span>
  );
}

function Help() {
  return (
    <Dialog title="Keys" onClose={() => (isHelp.value = false)}>
      <dl class="keys">
        {KEYS.map(([key, what]) => (
          <div key={key}>
            <dt>
              {key.split('  ').map((part) => (part === 'or' ? ' or ' : <kbd key={part}>{part}</kbd>))}
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <label class="check">
        <input type="checkbox" checked={hasKeys.value} onChange={(event) => (hasKeys.value = event.currentTarget.checked)} />
        Keys are on
      </label>
      <p class="about">
        <a href="/api/v1/docs/">The API</a> · <a href="/licenses.txt">Licences of what this page is made of</a>
      </p>
    </Dialog>
  );
}

function onKey(event: KeyboardEvent) {
  const target = event.target as HTMLElement;
  const isTyping = /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
  if (event.key === 'Escape') {
    if (isTyping) target.blur();
    else if (route.value.task !== undefined) location.hash = lastList;
    return;
  }
  if (isTyping || !hasKeys.value) return;
  const does = keys(target)[event.key];
  if (does) {
    event.preventDefault();
    does();
  }
}

function keys(target: HTMLElement): Record<string, (() => void) | undefined> {
  const isList = route.value.task === undefined;
  const move = (by: number) => {
    const rows = shown.value;
    const at = rows.findIndex((task) => task.name === selected.value) + by;
    selected.value = rows[Math.max(0, Math.min(rows.length - 1, at))]?.name ?? '';
  };
  // arrows scroll where something else is in focus
  const isRow = target === document.body || target.closest('.scroller') !== null;
  return {
    '?': () => (isHelp.value = true),
    '/': isList ? () => document.getElementById('search')?.focus() : undefined,
    n: () => (asked.value = { kind: 'submit' }),
    a: isList ? undefined : () => document.getElementById('add')?.click(),
    j: isList ? () => move(1) : undefined,
    k: isList ? () => move(-1) : undefined,
    ArrowDown: isList && isRow ? () => move(1) : undefined,
    ArrowUp: isList && isRow ? () => move(-1) : undefined,
  };
}

render(<App />, document.getElementById('page')!);

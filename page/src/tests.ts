// What is pure in the page, by node's own test runner: `npm run check`.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Status, WholeTask } from './api.ts';
import { changesBetween, difference } from './diff.ts';
import { Lines } from './lines.ts';
import { duration, list, logLine, oneLine, safeUrl, scale, visible } from './text.ts';
import { eventWords, messageOf, REASONS, versions, willDo, willRollBack } from './words.ts';

const RLO = String.fromCodePoint(0x202e);
const ESC = String.fromCodePoint(0x1b);

test('what turns or hides text is shown by its code', () => {
  assert.equal(visible(`a${RLO}b\u0007c\r\nd\te`), 'a⟨U+202E⟩b⟨U+0007⟩c\nd\te');
  assert.equal(oneLine(' a\n\tb\u200b '), ' a b⟨U+200B⟩ ');
  assert.equal(visible('שלום 👩‍💻 é'), 'שלום 👩‍💻 é');
});

test('a line of a log is what a terminal would leave of it', () => {
  assert.equal(logLine(`${ESC}[1;31mred${ESC}[0m ${ESC}]8;;http://x${ESC}\\link${ESC}]8;;${ESC}\\ ${ESC}]0;title\u0007end`, 100), 'red link end');
  assert.equal(logLine('10 %\r50 %\r100 %\r', 100), '100 %');
  assert.equal(logLine('x'.repeat(1000), 10), `${'x'.repeat(10)}… (the line goes on)`);
  assert.ok(!logLine(`${ESC}[${'1;'.repeat(50)}m${ESC}c${ESC}Pq#0${ESC}\\`, 100).includes(ESC));
});

test('a log is kept in blocks, without its beginning where it is long, and a line without an end is cut', () => {
  const lines = new Lines();
  lines.add('one\ntw');
  lines.add('o\nthree');
  assert.deepEqual(lines.shown(), { blocks: ['one\ntwo', 'three'], dropped: 0 });
  lines.add('\n' + 'x\n'.repeat(30_000));
  const { blocks, dropped } = lines.shown();
  assert.ok(dropped >= 9_800 && blocks.length <= 102);
  for (let i = 0; i < 1000; i++) lines.add('y'.repeat(10_000));
  lines.add('\nlast\n');
  const end = lines.shown().blocks.join('\n');
  assert.ok(end.endsWith('\nlast') && end.length < 200_000);
});

test('links go only where nothing runs', () => {
  for (const bad of ['javascript:alert(1)', ' JaVaScRiPt:x', 'data:text/html,x', 'vbscript:x', 'file:///etc', 'blob:x', '/pm', '#x', 'java\nscript:x'])
    assert.equal(safeUrl(bad), undefined, bad);
  assert.equal(safeUrl('https://example.test/a'), 'https://example.test/a');
  assert.equal(safeUrl('mailto:a@example.test'), 'mailto:a@example.test');
});

test('times in words', () => {
  assert.deepEqual([0, 59.9, 65, 7260, 200_000].map(duration), ['0s', '59s', '1m 05s', '2h 01m', '2d 7h']);
  assert.equal(list(['a', 'b', 'c']), 'a, b and c');
});

test('what a message tells those with kubectl to do is left out', () => {
  const cancelled = 'set spec.cancel to false and raise spec.contextVersion by 1 to run it again (kubectl taskrun rerun)';
  assert.equal(messageOf('Cancelled', `cancelled; ${cancelled}`), '');
  assert.equal(messageOf('Cancelled', `cancelled before it started; ${cancelled}`), 'cancelled before it started');
  assert.equal(messageOf('Suspended', 'suspended: set spec.suspend to false to run it (kubectl taskrun resume)'), '');
  assert.equal(messageOf('JobFailed', 'exit code 1: set spec.x'), 'exit code 1: set spec.x');
});

test('a line of time cuts short where nothing went on, and keeps the order', () => {
  const day = 86_400_000;
  const place = scale([[0, 1000], [day, day + 1000], [day + 500, day + 2000]]);
  assert.equal(place(0), 0);
  assert.ok(place(1000) > 30 && place(day) < 40, 'a day of nothing is short');
  assert.equal(Math.round(place(day + 2000)), 100);
  const times = [0, 500, 1000, 5000, day, day + 700, day + 2000].map(place);
  assert.deepEqual(times, [...times].sort((a, b) => a - b));
  assert.equal(scale([])(5), 0);
});

test('differences name files and keep three lines around', () => {
  const file = (filename: string, content: string) => ({ filename, content });
  assert.deepEqual(changesBetween([file('a', '1'), file('b', '1'), file('c', '1')], [file('a', '1'), file('b', '2'), file('d', '1')]), [
    { filename: 'b', what: '~' },
    { filename: 'd', what: '+' },
    { filename: 'c', what: '-' },
  ]);
  const lines = Array.from({ length: 40 }, (_, i) => `line ${i}`);
  const after = lines.with(20, 'other');
  const rows = difference(lines.join('\n'), after.join('\n'))!;
  assert.equal(rows.map((row) => row.kind).join(''), '…   -+   …');
  assert.equal(rows[0]!.text, '17 lines the same');
});

function task(part: Partial<WholeTask>, phase: Status['phase'] = 'Running'): WholeTask {
  const version = part.context_version ?? 2;
  const status: Status = {
    phase, context_version: version, latest_context_version: version, deleting: false, job_name: null, attempts: 1, message: '',
    started_at: null, completed_at: null, conditions: [],
  };
  return {
    name: 'task-7', uid: 'a-uid', namespace: 'n', task_id: 7, service: 'auth', agent_name: 'a', title: '', context_version: version, changed_by: 'eve',
    created_at: null, suspend: false, cancel: false, context_update_policy: 'Restart', env: {}, runs: [], status,
    markdown_files: [{ filename: 'task.md', content: 'x' }], ...part,
  };
}

const run = (context_version: number, part = {}) => ({
  context_version, outcome: null, job_name: `auth-7-v${context_version}`, attempts: 1, message: null, changed_by: 'eve',
  started_at: '2026-01-01T00:00:00Z', completed_at: null, ...part,
});

test('what will happen depends on what goes on', () => {
  const says = (part: Partial<WholeTask>, action: 'add' | 'rerun' | 'cancel' = 'add') => willDo(action, task(part)).join(' ');
  assert.match(says({ runs: [run(2)] }), /Version 2 is running: it will be ended.*Version 3 starts when its pod is gone/);
  assert.match(says({ runs: [run(2)], context_update_policy: 'AfterCompletion' }), /goes on. Version 3 starts when it has ended/);
  assert.match(says({ runs: [run(2, { job_name: 'helm-job' })] }), /goes on. Version 3 starts/);
  assert.match(says({ cancel: true, runs: [run(2, { outcome: 'Cancelled' })] }), /does not run until the task is run again/);
  assert.match(says({ cancel: true, runs: [run(2, { outcome: 'Cancelled' })] }, 'rerun'), /Version 3 starts at once/);
  assert.match(says({ suspend: true }), /starts when it is resumed/);
  assert.match(says({ runs: [run(2, { outcome: 'Succeeded' })] }, 'cancel'), /nothing will change/);
  assert.match(willRollBack(task({ runs: [run(2)] }), 1, []).join(' '), /Left out: task.md/);
});

test('versions are those that were recorded, and the present one, newest first', () => {
  const states = (part: Partial<WholeTask>) => versions(task(part)).map(({ number, state }) => `${number} ${state}`);
  assert.deepEqual(states({ runs: [run(1, { outcome: 'Superseded' }), run(2)] }), ['2 Running', '1 Superseded']);
  assert.deepEqual(states({ runs: [run(1)] }), ['2 Running', '1 Ending']);
  assert.deepEqual(states({ runs: [run(2)], cancel: true }), ['2 Ending']);
});

test('an Event of the Job is not taken for one of the task', () => {
  const event = { severity: 'Normal', reason: 'Suspended', message: '', count: 1, at: null };
  assert.match(eventWords({ ...event, kind: 'TaskRun' }), /until it is resumed/);
  assert.match(eventWords({ ...event, kind: 'Job' }), /may not start yet/);
  assert.equal(eventWords({ ...event, kind: 'Job', reason: 'constructor' }), 'The cluster says:');
});

test('each reason that is said to need somebody says what to do', () => {
  for (const [reason, { says }] of Object.entries(REASONS)) assert.match(says, /\.$/, reason);
  for (const reason of ['AgentNotFound', 'InvalidAgent', 'NameConflict', 'ImagePullBackOff', 'Unschedulable', 'FailedCreate', 'DeadlineExceeded', 'JobFailed', 'JobGone'])
    assert.ok(REASONS[reason]!.remedy, reason);
});

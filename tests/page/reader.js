// Somebody who may look and not act: all is shown, and what the cluster refuses is said in its own words.
import assert from 'node:assert/strict';
import { finish, kubectl, kubectlOn, looksWell, namespace, open, signIn, taskRun } from './browser.js';

const { PAGE_READER: reader, PAGE_NARROW: narrow } = process.env;
kubectlOn('create', taskRun(1, { 'task.md': '# Look at me\n' }, { title: 'To be looked at' }), taskRun(2, { 'task.md': 'x' }, { title: 'Waits for its agent', agent: 'nobody' }));
kubectl('wait', '--for=jsonpath={.status.phase}=Running', 'taskrun/task-1', '--timeout=60s');

// With the cluster's role `view`
const page = await open();
await signIn(page, reader);
await page.getByRole('row', { name: /Waits for its agent/ }).getByText('there is no Agent "nobody"').waitFor();
await page.getByRole('link', { name: /Waits for its agent/ }).click();
await page.getByText('There is no Agent of that name here').waitFor();
await page.getByText('Ask the platform team for the Agent').waitFor();
await looksWell(page, 'a task that needs somebody');
await page.goto(`${page.url().split('#')[0]}#/tasks/task-1?tab=events`);
await page.locator('.events').getByText('The agent is working.').waitFor();
await page.getByRole('button', { name: 'Add context' }).click();
const dialog = page.getByRole('dialog');
await dialog.getByLabel('context-v2.md').fill('May I?');
await dialog.getByRole('button', { name: 'Add context' }).click();
await dialog.getByText(/cannot patch resource "taskruns"/).waitFor();
await dialog.getByText('forbidden', { exact: true }).waitFor();
await looksWell(page, 'forbidden');
assert.equal(await dialog.getByLabel('context-v2.md').inputValue(), 'May I?');
await dialog.getByRole('button', { name: 'Close' }).last().click();
for (const [button, verb] of [['Cancel…', 'Cancel the run'], ['Suspend…', 'Suspend'], ['Run again…', 'Run again']]) {
  await page.getByRole('button', { name: button }).click();
  await dialog.getByRole('button', { name: verb }).click();
  await dialog.getByText(/cannot patch resource "taskruns"/).waitFor();
  await dialog.getByRole('button', { name: 'Close' }).last().click();
}
assert.equal(JSON.parse(kubectl('get', 'taskrun', 'task-1', '-o', 'json')).spec.contextVersion, 1);

// With nothing but TaskRuns: no Events, no log, and the rest is there
const other = await open({ at: '#/tasks/task-1?tab=events' });
await signIn(other, narrow);
await other.locator('#title:focus').waitFor();
await other.getByText(/cannot list resource "events"/).waitFor();
await other.getByText('All else on this page is there without them.').waitFor();
await other.getByText('The agent is working.').waitFor();
await looksWell(other, 'without Events');
await other.getByRole('tab', { name: 'Log' }).click();
await other.getByText(/cannot list resource "pods"/).waitFor();
await looksWell(other, 'without a log');
await other.getByRole('tab', { name: 'Files' }).click();
await other.getByRole('heading', { name: 'Look at me' }).waitFor();

// Rights that come later are taken up where "Try again" stands, and the view is live again
const { origin } = new URL(other.url());
const account = `system:serviceaccount:${namespace}:narrow`;
const may = () => kubectl('auth', 'can-i', '--list', `--as=${account}`).includes('taskruns.orchestrator.io');
const allow = (is) => {
  const args = is ? ['create', 'rolebinding', 'narrow-0', '--role=narrow-0', `--serviceaccount=${namespace}:narrow`] : ['delete', 'rolebinding', 'narrow-0'];
  kubectl(...args);
  for (let tries = 0; may() !== is; tries++) assert.ok(tries < 100, 'the API server knows of it');
};
for (const [at, shown] of [['#/', 'row'], ['#/tasks/task-1', 'heading']]) {
  allow(false);
  const later = await open({ at });
  await signIn(later, narrow);
  await later.getByText(/cannot (get|list) resource "taskruns"/).waitFor();
  await later.getByRole('banner').getByText('Not live').waitFor();
  allow(true);
  await later.getByRole('button', { name: 'Try again' }).click();
  await later.getByRole(shown, { name: /To be looked at/ }).waitFor();
  await later.getByRole('banner').getByText('Live', { exact: true }).waitFor();
}

// What is not there
await other.goto(`${origin}/#/tasks/task-99`);
await other.getByText('"task-99" not found').waitFor();
await looksWell(other, 'no such task');
await finish();

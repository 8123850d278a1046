// A day's work: a task is submitted and watched, gets context, is compared, refused, cancelled and taken back; and the
// API ends in the middle of it.
import assert from 'node:assert/strict';
import { finish, kubectl, kubectlOn, looksWell, open, operator, podOf, PATIENCE, signIn, takeScreenshots, taskRun, until, writeLog } from './browser.js';

const { PAGE_EDITOR: editor } = process.env;
const TASK = `# Refresh tokens for the auth service

The mobile apps lose their session after an hour. Issue **refresh tokens**.

## Rules

- [x] An access token lives for an hour.
- [ ] A refresh token lives for 30 days.

| case | answer |
|---|---|
| good token | 200 |
| used token | 401, and the session ends |
`;
const NOTE = 'A token works **once**: using it a second time ends the session.\n\n- Tests cover expiry and clock skew.\n';

const page = await open();
const dialog = page.getByRole('dialog');
const badge = (state) => page.locator('dl.facts .badge', { hasText: state });
const version = (n) => page.locator('.timeline li', { has: page.locator('.version', { hasText: `v${n}` }) });

// Sign in: what the API says of a wrong token is shown as it is
await dialog.waitFor();
await takeScreenshots(page, 'sign-in');
await page.getByLabel('Token', { exact: true }).fill('not-a-token');
await page.getByRole('button', { name: 'Sign in' }).click();
await dialog.getByText('Unauthorized').waitFor();
await looksWell(page, 'sign-in, refused');
await signIn(page, editor);
await page.getByText('No tasks yet').waitFor();
await looksWell(page, 'no tasks');

// Submit, by keys. A file that is empty is refused, and the refusal stands beside it
await page.keyboard.press('n');
await dialog.getByLabel('Number', { exact: true }).fill('7');
await dialog.getByLabel('Service', { exact: true }).fill('auth-service');
await dialog.getByLabel('Agent', { exact: true }).fill('agent');
await dialog.getByLabel('Title', { exact: true }).fill('Refresh tokens for the auth service');
await dialog.getByLabel('Text of file 1').fill(TASK);
await dialog.getByRole('button', { name: 'One more file' }).click();
await dialog.getByLabel('Name of file 2').fill('notes.md');
await dialog.getByLabel('Text of file 2').fill('<!-- later -->');
await dialog.getByRole('button', { name: 'Submit the task' }).click();
const second = dialog.locator('fieldset.file').nth(1);
await second.getByText('is empty').waitFor();
assert.equal(await dialog.locator('fieldset.file').nth(0).getByText('is empty').count(), 0, 'it stands beside its own file');
await takeScreenshots(page, 'submit-refused');
await second.getByLabel('Text of file 2').fill('<!-- later --> now');
assert.equal(await second.getByText('is empty').count(), 0, 'and is gone when that changes');
await second.getByRole('button', { name: 'Leave out' }).click();
await dialog.getByRole('button', { name: 'Submit the task' }).click();
await page.waitForURL(/#\/tasks\/task-7$/);

// Watch it run
await badge('Running').waitFor();
await page.getByText('The agent is working.').waitFor();
await page.getByRole('heading', { name: 'Rules' }).waitFor();
const first = await podOf('auth-service', 7, 1);
await page.getByRole('tab', { name: 'Log' }).click();
await page.getByText('Nothing written yet').waitFor();
writeLog(first, 'reading task.md\n\u001b[32mok\u001b[0m 12 tests\n');
await page.locator('.log').getByText('ok 12 tests').waitFor();
assert.match(page.url(), /#\/tasks\/task-7\?tab=log$/);

// Add context: what will happen is said first; an empty note is refused beside its text
await page.keyboard.press('a');
await dialog.getByText('Version 1 is running: it will be ended').waitFor();
const text = dialog.getByLabel('context-v2.md');
await text.fill('<!-- nothing -->');
await dialog.getByRole('button', { name: 'Add context' }).click();
await dialog.locator('.editor').getByText('is empty').waitFor();
await looksWell(page, 'an empty note is refused');
await text.fill(NOTE);
await dialog.getByRole('button', { name: 'Preview' }).click();
await dialog.locator('strong', { hasText: 'once' }).waitFor();
await takeScreenshots(page, 'add-context');
await dialog.getByRole('button', { name: 'Add context' }).click();
await dialog.waitFor({ state: 'detached' });
await page.getByText('Context added successfully').waitFor();
await page.getByRole('button', { name: 'OK', exact: true }).click();

// Version 2 supersedes version 1
await version(1).getByText('Superseded').waitFor();
await version(2).getByText('Running').waitFor();
await version(2).getByText('context-v2.md').waitFor();
await version(2).getByText(/by .*:editor/).waitFor();
writeLog(await podOf('auth-service', 7, 2), 'reading context-v2.md\n');
await page.locator('.log').getByText('reading context-v2.md').waitFor();
await takeScreenshots(page, 'log', { full: true });

// What is different
await version(2).getByRole('link', { name: 'Changes' }).click();
await page.locator('.diff ins', { hasText: 'A token works' }).waitFor();
await takeScreenshots(page, 'diff', { full: true });
await page.getByRole('tab', { name: 'Events' }).click();
await page.locator('.events').getByText('This run was ended because a newer version exists.').first().waitFor();
await takeScreenshots(page, 'events', { full: true });
await page.getByRole('tab', { name: 'Files' }).click();
await page.getByText('used token').waitFor();

// The API ends while a note is being sent: what was typed stays, and is added once
await page.keyboard.press('a');
await dialog.getByLabel('context-v3.md').waitFor();
await page.keyboard.type('Written while the API was away.');
await operator('stop');
await page.locator('.line.away').waitFor();
await dialog.getByRole('button', { name: 'Add context' }).click();
await dialog.getByText('It is tried again until it answers').waitFor();
await takeScreenshots(page, 'away');
await operator('start');
await dialog.waitFor({ state: 'detached' });
await page.locator('.line.live').waitFor();
await version(3).getByText('Running').waitFor();
const files = () => JSON.parse(kubectl('get', 'taskrun', 'task-7', '-o', 'json')).spec.markdownFiles.map((file) => file.filename);
assert.deepEqual(files(), ['task.md', 'context-v2.md', 'context-v3.md']);

// The token ends while somebody types: the text is there when another one is given
await page.keyboard.press('a');
await dialog.getByLabel('context-v4.md').fill('Written with two tokens.');
const sent = [];
await page.route('**/context', async (route) => {
  sent.push(route.request().headers()['idempotency-key']);
  if (sent.length > 1) return route.continue();
  await route.fulfill({ status: 401, json: { success: false, code: 'unauthenticated', message: 'it has ended' } });
});
await page.keyboard.press('Control+Enter');
await page.getByText('The API no longer takes your token: it has ended').waitFor();
assert.equal(await page.locator('textarea').inputValue(), 'Written with two tokens.');
// and is really refused from now on
kubectl('delete', 'serviceaccount', 'editor');
kubectl('create', 'serviceaccount', 'editor');
await looksWell(page, 'sign in again');
await page.getByRole('button', { name: 'Sign out, and lose what was typed' }).waitFor();
await page.getByLabel('Token', { exact: true }).fill(kubectl('create', 'token', 'editor').trim());
await page.getByRole('button', { name: 'Sign in' }).click();
await page.getByLabel('Token', { exact: true }).waitFor({ state: 'detached' });
await dialog.waitFor({ state: 'detached' });
await version(4).getByText('Running').waitFor();
assert.equal(files().length, 4);
assert.ok(sent.length === 2 && sent[0] === sent[1], sent);
await page.unroute('**/context');

// Cancel, and go back
await page.getByRole('button', { name: 'Cancel…' }).click();
await dialog.getByText('Version 4 is running: its pod is told to end').waitFor();
await looksWell(page, 'cancel');
await dialog.getByRole('button', { name: 'Cancel the run' }).click();
await badge('Failed').waitFor();
await page.getByText('The run was cancelled.').waitFor();
await page.locator('#title:focus').waitFor();
assert.ok(!(await page.locator('main').innerText()).includes('kubectl'));
await version(1).getByRole('button', { name: 'Go back to it…' }).click();
await dialog.getByText('Left out: context-v2.md, context-v3.md, context-v4.md').waitFor();
await looksWell(page, 'roll back');
await dialog.getByRole('button', { name: 'Go back' }).click();
await version(5).getByText('Running').waitFor();
assert.deepEqual(files(), ['task.md']);

// Suspend, resume, and to its end
await page.getByRole('button', { name: 'Suspend…' }).click();
await dialog.getByRole('button', { name: 'Suspend' }).click();
await page.getByText('The task is suspended: nothing runs until it is resumed.').waitFor();
// or the pod that ends would be told to succeed
await until('the pod has ended', () => kubectl('get', 'pods', '-l', 'context-version=5', '-o', 'name') === '');
await page.getByRole('button', { name: 'Resume…' }).click();
await dialog.getByRole('button', { name: 'Resume' }).click();
await badge('Running').waitFor();
kubectl('annotate', 'pods', '-l', 'context-version=5', 'kwok.test/outcome=succeeded');
await badge('Succeeded').waitFor();
await page.getByText('The run ended well.').waitFor();
await page.getByRole('button', { name: 'OK', exact: true }).click();
await takeScreenshots(page, 'task');
await page.getByRole('tab', { name: 'Log' }).click();
await page.locator('.line.over').waitFor();
await page.getByRole('button', { name: 'Run again…' }).click();
await dialog.getByText('Version 6 starts at once.').waitFor();
await dialog.getByRole('button', { name: 'Run again' }).click();
await version(6).getByText('the same files again').waitFor();
await version(6).getByText('Running').waitFor();
writeLog(await podOf('auth-service', 7, 6), 'once more\n');
await page.locator('.log').getByText('once more').waitFor();

// A task that needs somebody, and one that failed, in plain words
kubectl('annotate', 'pods', '-l', 'context-version=6', 'kwok.test/outcome=failed', 'kwok.test/message=3 tests failed: clock skew');
await badge('Failed').waitFor();
await page.getByText('What to do').waitFor();
await page.locator('.now').getByText('3 tests failed: clock skew').waitFor();
await looksWell(page, 'failed');

// The list is live, is searched by keys, and remembers where it was
await page.keyboard.press('Escape');
await page.getByRole('row', { name: /Refresh tokens/ }).waitFor();
await page.keyboard.press('/');
await page.keyboard.type('refresh');
await page.waitForURL(/\?q=refresh$/);
await page.getByLabel('Search tasks').press('Escape');
await page.keyboard.press('j');
await page.keyboard.press('Enter');
await badge('Failed').waitFor();
await page.keyboard.press('Escape');
await page.waitForURL(/\?q=refresh$/);
await page.getByLabel('Search tasks').fill('nothing like it');
await page.getByText('Nothing matches').waitFor();
await looksWell(page, 'nothing matches');
await page.getByRole('button', { name: 'Show all tasks' }).click();
await page.keyboard.press('?');
await dialog.getByText('These keys').waitFor();
await looksWell(page, 'keys');
await page.keyboard.press('Escape');

// What others do is seen; a task that is deleted while it is looked at is said to be
await page.getByRole('link', { name: /Refresh tokens/ }).click();
await badge('Failed').waitFor();
kubectl('delete', 'taskrun', 'task-7', '--wait=false');
await page.getByText('This task is deleted').waitFor();
await page.keyboard.press('Escape');
await page.getByText('No tasks yet').waitFor({ timeout: PATIENCE });

// as is one that went while nobody could tell
kubectlOn('create', taskRun(8, { 'task.md': 'Go.' }, { title: 'Deleted unseen' }));
await page.getByRole('link', { name: /Deleted unseen/ }).click();
await badge('Running').waitFor();
await operator('stop');
await page.locator('.line.away').waitFor();
kubectl('delete', 'taskrun', 'task-8', '--wait=false');
kubectl('patch', 'taskrun', 'task-8', '--type=merge', '-p', '{"metadata":{"finalizers":null}}');
await operator('start');
await page.getByText('This task is deleted').waitFor();
await page.getByText('Not live').waitFor();
await page.keyboard.press('Escape');
await page.getByText('No tasks yet').waitFor();

// One that is made again under the same name is another one: what was typed for the first is not for it
kubectlOn('create', taskRun(9, { 'task.md': 'The first.' }, { title: 'Made twice' }));
await page.getByRole('link', { name: /Made twice/ }).click();
await page.getByText('The first.').waitFor();
await page.keyboard.press('a');
await dialog.getByLabel('context-v2.md').fill('For the first alone.');
kubectl('delete', 'taskrun', 'task-9');
kubectlOn('create', taskRun(9, { 'task.md': 'The second.' }, { title: 'Made twice' }));
await page.getByText('The second.').waitFor();
await dialog.waitFor({ state: 'detached' });
await badge('Running').waitFor();
await page.keyboard.press('a');
assert.equal(await dialog.getByLabel('context-v2.md').inputValue(), '');
await page.keyboard.press('Escape');
await page.keyboard.press('Escape');
kubectl('delete', 'taskrun', 'task-9');
await page.getByText('No tasks yet').waitFor();

// No token is anywhere but in memory
const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, location.href]));
assert.ok(!kept.includes(editor.slice(0, 20)) && kept.includes('theme'), kept);
await page.reload();
await dialog.getByText('Sign in', { exact: true }).first().waitFor();
await until('the page asks again', () => page.getByLabel('Token', { exact: true }).isVisible());
await finish();

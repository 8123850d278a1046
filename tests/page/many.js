// Five thousand tasks: time to the first rows and to all, and how smoothly they scroll, beside a plain table of the same
// rows, which a page of its own reads from the same API and writes into one table.
import assert from 'node:assert/strict';
import { browser, finish, kubectl, looksWell, open, takeScreenshots, url } from './browser.js';

const { PAGE_EDITOR: editor, PAGE_TASKS } = process.env;
const TASKS = Number(PAGE_TASKS);

/** Scrolls a box by so many steps of wheel, and says how long frames took: median, 95th of 100, longest; in ms. */
function scroll(selector) {
  const box = document.querySelector(selector);
  return new Promise((resolve) => {
    const frames = [];
    let last = performance.now();
    const step = (now) => {
      frames.push(now - last);
      last = now;
      // in 240 steps from top to end, the later ones larger: a wheel, and a drag of the bar
      box.scrollTop += frames.length < 120 ? 150 : box.scrollHeight / 120;
      if (frames.length < 240) return requestAnimationFrame(step);
      frames.shift();
      frames.sort((a, b) => a - b);
      const at = (part) => Math.round(frames[Math.floor(frames.length * part)] * 10) / 10;
      resolve({ median: at(0.5), p95: at(0.95), longest: at(0.999), nodes: document.querySelectorAll('*').length });
    };
    requestAnimationFrame(step);
  });
}

/** Marks when rows are there, as a user sees them: after the frame that draws them. */
function watchRows({ selector, total }) {
  const began = performance.now();
  const seen = {};
  return new Promise((resolve) => {
    const look = () => {
      const rows = document.querySelector(selector)?.getAttribute('data-rows') ?? document.querySelector(`${selector} table`)?.getAttribute('aria-rowcount');
      const shown = document.querySelectorAll(`${selector} tbody tr`).length;
      if (shown > 0) seen.first ??= Math.round(performance.now() - began);
      if (Number(rows) >= total) return resolve({ ...seen, all: Math.round(performance.now() - began) });
      requestAnimationFrame(look);
    };
    look();
  });
}

const pageFigures = async () => {
  const page = await open();
  await page.getByLabel('Token', { exact: true }).fill(editor);
  const rows = page.evaluate(watchRows, { selector: '.scroller', total: TASKS + 1 });
  await page.getByRole('button', { name: 'Sign in' }).click();
  const times = await rows;
  const frames = await page.evaluate(scroll, '.scroller');
  return { page, figures: { ...times, ...frames } };
};

// The plain table: all pages of the list, then all rows at once. It stands on the API's own origin.
const plainTable = async () => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  const page = await context.newPage();
  await page.route(`${url}/plain`, (route) => route.fulfill({
    contentType: 'text/html',
    body: '<!doctype html><style>#box{height:700px;overflow:auto}</style><div id=box><table><thead><tr><th>Task<th>Service<th>Agent<th>Version<th>Phase<th>Attempts<th>Elapsed</thead><tbody></table></div>',
  }));
  await page.goto(`${url}/plain`);
  const rows = page.evaluate(watchRows, { selector: '#box', total: TASKS });
  await page.evaluate(async (token) => {
    const headers = { Authorization: `Bearer ${token}` };
    const tasks = [];
    for (let after = ''; after !== undefined; ) {
      const answer = await (await fetch(`/api/v1/pm/tasks?limit=500${after}`, { headers })).json();
      tasks.push(...answer.data.tasks);
      after = answer.data.continue ? `&continue=${encodeURIComponent(answer.data.continue)}` : undefined;
    }
    const body = document.querySelector('tbody');
    for (const task of tasks) {
      const row = body.insertRow();
      for (const text of [`${task.task_id} ${task.title}`, task.service, task.agent_name, task.context_version, task.phase, task.attempts, task.started_at ?? '']) row.insertCell().textContent = text;
    }
    document.querySelector('#box').setAttribute('data-rows', tasks.length);
  }, editor);
  const times = await rows;
  const frames = await page.evaluate(scroll, '#box');
  await context.close();
  return { ...times, ...frames };
};

// in turn, and the middle one of three
const rounds = { page: [], plain: [] };
let page;
for (let i = 0; i < 3; i++) {
  rounds.plain.push(await plainTable());
  const round = await pageFigures();
  rounds.page.push(round.figures);
  if (i < 2) await round.page.context().close();
  else page = round.page;
}
const middle = (all) => Object.fromEntries(Object.keys(all[0]).map((key) => [key, all.map((one) => one[key]).sort((a, b) => a - b)[1]]));
const [ours, plain] = [middle(rounds.page), middle(rounds.plain)];
const line = (name, it) => `${name.padEnd(12)} first rows ${it.first} ms, all ${it.all} ms; scrolling: frames of ${it.median} ms, p95 ${it.p95}, longest ${it.longest}; ${it.nodes} elements`;
console.log(`${TASKS} tasks, the middle of three rounds each:\n${line('the page', ours)}\n${line('plain table', plain)}`);
// times are told, not judged: the machine may be busy
assert.ok(ours.nodes < 2_000, 'few elements, whatever there is');

// All of them can be reached by keys and found, and what changes is seen in its place
await page.evaluate(() => (document.querySelector('.scroller').scrollTop = 0));
const shown = () => page.locator('tbody tr[data-row]').count();
assert.ok((await shown()) < 80);
await page.locator('tbody tr[data-row="0"]').waitFor();
await takeScreenshots(page, 'tasks');
for (let i = 0; i < 40; i++) await page.keyboard.press('j');
await page.locator('tr.selected[data-row="39"] a:focus').waitFor();
// scrolled out of sight, the row gives the focus to the list, and the keys go on from it
await page.evaluate(() => (document.querySelector('.scroller').scrollTop = 100_000));
await page.locator('.scroller:focus').waitFor();
await page.keyboard.press('j');
await page.locator('tr.selected[data-row="40"] a:focus').waitFor();
await looksWell(page, 'a row that the keys have chosen');
const began = Date.now();
await page.getByLabel('Search tasks').fill('task-2500');
await page.locator('table[aria-rowcount="2"]').waitFor();
console.log(`found one of ${TASKS} in ${Date.now() - began} ms`);
kubectl('annotate', '--overwrite', 'taskrun', 'task-2500', 'orchestrator.io/title=Seen at once');
await page.getByRole('link', { name: 'Seen at once' }).waitFor();
await page.getByLabel('Search tasks').fill('');
const failed = page.locator('.phases label.failed b');
const count = Number((await failed.textContent()).replace(',', ''));
await page.locator('.phases label.failed').click();
await page.locator(`table[aria-rowcount="${count + 1}"]`).waitFor();
assert.ok((await page.locator('tbody .badge').allTextContents()).every((phase) => phase === 'Failed'));
await finish();

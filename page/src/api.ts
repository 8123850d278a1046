// Every call to the PM API, with the user's own token. The token lives here, in memory, and nowhere else: a reload asks
// for it again. A call that finds it refused waits for another one and goes on, so nothing that was typed is lost.
import { signal } from '@preact/signals';

export interface Violation {
  field: string;
  message: string;
}

/** What the API says is wrong, as it says it. */
export class Failure extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code = 'unreachable',
    readonly violations: Violation[] = [],
    readonly retryAfter = 0,
  ) {
    super(message);
  }

  /** Whether the same may succeed later: the API is away, or busy. */
  get isPassing(): boolean {
    // a proxy before the API answers 502 and 504 while that is away
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }

  /** Whether the API says that there is no such task. What only stands before it says so of anything. */
  get isGone(): boolean {
    return this.code === 'not_found';
  }
}

export type Phase = 'Pending' | 'Running' | 'Succeeded' | 'Failed';
export type Outcome = 'Succeeded' | 'Failed' | 'Superseded' | 'Cancelled' | 'Unknown';

/** A task on one line. */
export interface Task {
  name: string;
  task_id: number;
  service: string;
  agent_name: string;
  title: string;
  context_version: number;
  phase: Phase;
  attempts: number;
  started_at: string | null;
  completed_at: string | null;
  job_name: string | null;
  message: string;
}

export interface File {
  filename: string;
  content: string;
  request_id?: string;
}

export interface Condition {
  type: string;
  status: string;
  reason: string;
  message: string;
  lastTransitionTime: string;
}

export interface Status {
  phase: Phase;
  context_version: number;
  latest_context_version: number;
  deleting: boolean;
  job_name: string | null;
  attempts: number;
  message: string;
  started_at: string | null;
  completed_at: string | null;
  conditions: Condition[];
}

export interface Run {
  context_version: number;
  outcome: Outcome | null;
  job_name: string | null;
  attempts: number;
  message: string | null;
  changed_by: string | null;
  started_at: string | null;
  completed_at: string | null;
}

export interface WholeTask {
  name: string;
  uid: string;
  namespace: string;
  task_id: number;
  service: string;
  agent_name: string;
  title: string;
  context_version: number;
  changed_by: string | null;
  created_at: string | null;
  suspend: boolean;
  cancel: boolean;
  context_update_policy: 'Restart' | 'AfterCompletion';
  env: Record<string, string>;
  markdown_files: File[];
  status: Status;
  runs: Run[];
}

export interface KubernetesEvent {
  kind: string;
  severity: string;
  reason: string;
  message: string;
  count: number;
  at: string | null;
}

/** Silence after which a stream is taken for dead: the API says every 15 s that it lives. */
const SILENCE = 40_000;
const LONGEST_WAIT = 10;

let token = '';
/** Who signed in, by what the token says of itself: it is only shown. */
export const user = signal('');
/** Why a token is asked for; nothing while there is one. */
export const wanted = signal<string | undefined>('');
/** How far the API's clock is ahead of this one, in milliseconds. */
export let ahead = 0;
const waiting = new Set<{ goOn: () => void; end: (why: unknown) => void }>();

/** Whose token it is and when it ends, if it says. */
function claims(text: string): { sub?: string; exp?: number } {
  try {
    return JSON.parse(atob((text.split('.')[1] ?? '').replace(/-/g, '+').replace(/_/g, '/')));
  } catch {
    return {};
  }
}

/** Takes a token if the API knows it; otherwise fails as the API says. */
export async function signIn(text: string): Promise<void> {
  if (!/^[!-~]+$/.test(text)) throw new Failure('A token is one word of letters, digits and signs.', 400, 'invalid_token');
  const response = await send('GET', '/pm/tasks?limit=1', text);
  // who may not list may still do other things
  if (!response.ok && response.status !== 403) throw await failure(response);
  const who = claims(text).sub ?? 'signed in';
  const isOther = user.value !== '' && user.value !== who;
  token = text;
  user.value = who;
  wanted.value = undefined;
  // nothing is done in another's name
  for (const { goOn, end } of waiting) isOther ? end(new Failure('Somebody else has signed in.', 401, 'unauthenticated')) : goOn();
  waiting.clear();
}

export function signOut(): void {
  token = '';
  // what waits for an answer, and what is on the screen, is the old user's
  location.reload();
}

function signedIn(signal?: AbortSignal): Promise<void> {
  if (wanted.value === undefined) return Promise.resolve();
  return new Promise((goOn, end) => {
    const one = { goOn, end };
    waiting.add(one);
    signal?.addEventListener('abort', () => {
      waiting.delete(one);
      end(signal.reason);
    });
  });
}

async function send(method: string, path: string, bearer: string, init: RequestInit = {}): Promise<Response> {
  const headers = { ...init.headers, Authorization: `Bearer ${bearer}` };
  try {
    const response = await fetch(`/api/v1${path}`, { ...init, method, headers, cache: 'no-store', credentials: 'omit' });
    const date = Date.parse(response.headers.get('Date') ?? '');
    // it tells whole seconds
    if (Math.abs(date - Date.now() - ahead) > 2_000) ahead = date - Date.now();
    return response;
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new Failure('The API does not answer.', 0);
  }
}

async function failure(response: Response): Promise<Failure> {
  const retryAfter = Number(response.headers.get('Retry-After')) || 0;
  const body = await response.json().catch(() => ({}));
  const message = body.message ?? `${response.status} ${response.statusText}`;
  return new Failure(message, response.status, body.code, body.violations, retryAfter);
}

/** Sends with the present token, once more with the next one where it is refused. */
async function authorized(method: string, path: string, init: RequestInit = {}): Promise<Response> {
  for (;;) {
    await signedIn(init.signal ?? undefined);
    const used = token;
    const response = await send(method, path, used, init);
    if (response.ok) return response;
    const wrong = await failure(response);
    if (response.status !== 401) throw wrong;
    if (used === token && wanted.value === undefined) wanted.value = wrong.message;
  }
}

export interface Answer<T> {
  message: string;
  data: T;
}

/** Where a task is. */
export function pathOf(name: string): string {
  return `/pm/tasks/${encodeURIComponent(name)}`;
}

/** Reads something. */
export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await authorized('GET', path, { signal });
  return ((await response.json()) as Answer<T>).data;
}

/**
 * Does something, and says what came of it. While the API is away it goes on trying: each request says what it is for, so
 * that it is not carried out twice, nor on what has come since.
 */
export async function act<T>(
  path: string,
  body: unknown,
  { key, signal, waits }: { key?: string; signal: AbortSignal; waits: (why: string) => void },
): Promise<Answer<T>> {
  const headers: Record<string, string> = { 'Content-Type': 'application/json' };
  if (key) headers['Idempotency-Key'] = key;
  let isRepeated = false;
  const once = async () => {
    const response = await authorized('POST', path, { headers, body: JSON.stringify(body), signal });
    return (await response.json()) as Answer<T>;
  };
  const again = (why: string) => {
    isRepeated = true;
    waits(why);
  };
  return persist(once, signal, again).catch((error) => {
    // the version that it was for is no longer the present one, perhaps by what got no answer
    const isPerhapsDone = isRepeated && error instanceof Failure && error.status === 409;
    throw isPerhapsDone ? new Failure(`It may have been done already: ${error.message}. Look at the versions first.`, 409, error.code) : error;
  });
}

/** Does something until it succeeds or fails for good: what may pass is waited for. */
export async function persist<T>(once: () => Promise<T>, signal: AbortSignal, waits: (why: string) => void = () => {}): Promise<T> {
  for (let failures = 0; ; failures++) {
    try {
      return await once();
    } catch (error) {
      if (!(error instanceof Failure && error.isPassing)) throw error;
      waits(error.message);
      await pause(wait(failures, error.retryAfter), signal);
    }
  }
}

/** How long to wait, in seconds, with jitter: many pages come back at once when the API does. */
export function wait(failures: number, least: number): number {
  return Math.max(least, Math.min(LONGEST_WAIT, 0.5 * 2 ** failures)) * (0.75 + Math.random() / 2);
}

export function pause(seconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', end);
      resolve();
    }, seconds * 1000);
    signal.addEventListener('abort', end);
  });
}

/** How it is with a stream. */
export type Line = { state: 'connecting' | 'live' | 'over' } | { state: 'away'; why: string };

/**
 * Follows a stream for as long as the page is looked at: reads it, and begins anew where it breaks off. Ends with what
 * cannot pass, which the caller is told.
 */
export function follow(
  path: string,
  read: (response: Response, alive: () => void, signal: AbortSignal) => Promise<void>,
  tell: (line: Line) => void,
  fails: (error: Failure) => void,
  silence = SILENCE,
): () => void {
  let attempt = new AbortController();
  let isOver = false;
  const run = async () => {
    tell({ state: 'connecting' });
    attempt = new AbortController();
    const { signal } = attempt;
    for (let failures = 0; !signal.aborted; failures++) {
      const once = new AbortController();
      const end = () => once.abort(signal.reason);
      signal.addEventListener('abort', end);
      let timer = 0;
      const alive = () => {
        clearTimeout(timer);
        timer = window.setTimeout(() => once.abort(), silence);
      };
      try {
        alive();
        const response = await authorized('GET', path, { signal: once.signal });
        tell({ state: 'live' });
        failures = 0;
        await read(response, alive, once.signal);
        throw new Failure('The connection has ended.', 0);
      } catch (error) {
        if (signal.aborted) return;
        const why = error instanceof Failure ? error : new Failure('The connection broke off.', 0);
        // a new token is asked for at the next attempt
        if (!why.isPassing && why.status !== 401) {
          isOver = true;
          tell({ state: 'over' });
          return fails(why);
        }
        tell({ state: 'away', why: why.message });
        await pause(wait(failures, why.retryAfter), signal).catch(() => {});
      } finally {
        clearTimeout(timer);
        signal.removeEventListener('abort', end);
        once.abort();
      }
    }
  };
  // a browser has few connections for all its tabs: those that nobody looks at give theirs back
  let hidden = 0;
  const look = () => {
    clearTimeout(hidden);
    if (document.hidden) hidden = window.setTimeout(() => attempt.abort(), 60_000);
    else if (attempt.signal.aborted && !isOver) void run();
  };
  document.addEventListener('visibilitychange', look);
  void run();
  return () => {
    isOver = true;
    clearTimeout(hidden);
    document.removeEventListener('visibilitychange', look);
    attempt.abort();
  };
}

/** Calls back with the text of a response as it comes. */
export async function texts(response: Response, alive: () => void, each: (text: string) => void): Promise<void> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    alive();
    each(value);
  }
}

/** Calls back with each server-sent event. One called `error` ends it. */
export async function serverSent(
  response: Response,
  alive: () => void,
  each: (event: string, data: unknown) => void,
): Promise<void> {
  let rest = '';
  await texts(response, alive, (text) => {
    const parts = (rest + text).split('\n\n');
    rest = parts.pop() ?? '';
    for (const part of parts) {
      const lines = part.split('\n');
      const field = (name: string) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      const [event, data] = [field('event'), field('data')];
      if (!event || data === undefined) continue;
      const value = JSON.parse(data);
      if (event === 'error') {
        // on a stream that was read before
        const status = value.code === 'forbidden' ? 403 : value.code === 'unauthenticated' ? 401 : 503;
        throw new Failure(value.message, status, value.code);
      }
      each(event, value);
    }
  });
}

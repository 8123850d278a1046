// What the dialogs share: what was typed, a request that is sent until the API answers, what will happen, and the editor.
import { signal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect, useId, useRef, useState } from 'preact/hooks';
import { act, type Answer, Failure } from './api.ts';
import { Markdown } from './markdown.tsx';
import { oneLine, visible } from './text.ts';

/** What was done last, in the API's words, for a while. */
export const told = signal('');
let forgets = 0;

function tell(message: string): void {
  told.value = message;
  clearTimeout(forgets);
  forgets = window.setTimeout(() => (told.value = ''), 10_000);
}

export interface TypedFile {
  filename: string;
  content: string;
}

// what was typed and not taken yet, notes by their task's uid: it outlives its dialog
export const draft = { note: new Map<string, { text: string; key: string }>(), submit: emptyTask() };

/** Of another user. */
export function forgetDrafts(): void {
  draft.note.clear();
  draft.submit = emptyTask();
}

export function emptyTask() {
  return { id: '', service: '', agent: '', title: '', env: '', files: [{ filename: 'task.md', content: '' }] as TypedFile[] };
}

function isTyped(): boolean {
  return [...draft.note.values()].some((note) => note.text) || draft.submit.files.some((file) => file.content);
}

addEventListener('beforeunload', (event) => {
  if (isTyped()) event.preventDefault();
});

/** Sends one request at a time, and tells how it goes. */
export function useRequest() {
  const [failure, setFailure] = useState<Failure>();
  const [waits, setWaits] = useState('');
  const [isSent, setSent] = useState(false);
  const attempt = useRef<AbortController>(undefined);
  useEffect(() => () => attempt.current?.abort(), []);
  const send = async <T,>(path: string, body: unknown, then: (answer: Answer<T>) => void, key?: string) => {
    if (isSent) return;
    attempt.current = new AbortController();
    const { signal } = attempt.current;
    setSent(true);
    setFailure(undefined);
    try {
      const answer = await act<T>(path, body, { key, signal, waits: setWaits });
      tell(answer.message);
      then(answer);
    } catch (error) {
      if (!signal.aborted) setFailure(error instanceof Failure ? error : new Failure(String(error), 0));
    } finally {
      setWaits('');
      setSent(false);
    }
  };
  return { send, failure, waits, isSent, stop: () => attempt.current?.abort(), forget: () => setFailure(undefined) };
}

type Request = ReturnType<typeof useRequest>;

export function Buttons({ verb, request, close, danger }: { verb: string; request: Request; close: () => void; danger?: boolean }) {
  return (
    <>
      {request.waits && (
        <p class="waits" role="status">
          {visible(request.waits)} It is tried again until it answers. Nothing is done twice.
        </p>
      )}
      <footer>
        {request.isSent ? (
          <button type="button" onClick={request.stop}>
            Stop trying
          </button>
        ) : (
          <button type="button" onClick={close}>
            Close
          </button>
        )}
        <button class={danger ? 'danger' : 'primary'} disabled={request.isSent}>
          {request.isSent ? 'Sending…' : verb}
        </button>
      </footer>
    </>
  );
}

/** What will happen, one sentence a line. */
export function Says({ lines, children }: { lines: string[]; children?: ComponentChildren }) {
  return (
    <div class="says">
      <h3>What will happen</h3>
      <ul>
        {lines.map((line) => (
          <li key={line}>{oneLine(line)}</li>
        ))}
      </ul>
      {children}
    </div>
  );
}

/** Markdown being written, beside what it will look like, with what is wrong with it. */
export function Editor({ label, text, wrong, isSent, isFirst, onType }: { label: string; text: string; wrong: string[]; isSent?: boolean; isFirst?: boolean; onType: (text: string) => void }) {
  const [isPreview, setPreview] = useState(false);
  const id = useId();
  return (
    <div class={`editor ${isPreview ? 'preview' : ''}`}>
      <div class="tabs">
        <button type="button" aria-pressed={!isPreview} onClick={() => setPreview(false)}>
          Write
        </button>
        <button type="button" aria-pressed={isPreview} onClick={() => setPreview(true)}>
          Preview
        </button>
      </div>
      {isPreview ? (
        <div class="paper" role="region" aria-label={`Preview of ${label}`} tabIndex={0}>
          <Markdown text={text} />
        </div>
      ) : (
        <textarea
          id={id}
          aria-label={label}
          aria-invalid={wrong.length > 0}
          aria-describedby={wrong.length > 0 ? `${id}-wrong` : undefined}
          placeholder="What the agent needs to know, as markdown"
          rows={10}
          autofocus={isFirst}
          // what is sent is what is seen
          readOnly={isSent}
          value={text}
          onInput={(event) => onType(event.currentTarget.value)}
        />
      )}
      <Wrong id={`${id}-wrong`} messages={wrong} />
    </div>
  );
}

/** The violations of one field. */
export function Wrong({ id, messages }: { id: string; messages: string[] }) {
  if (messages.length === 0) return null;
  return (
    <div class="wrong" id={id} role="alert">
      <ul>
        {messages.map((message) => (
          <li key={message}>{visible(message)}</li>
        ))}
      </ul>
    </div>
  );
}

// Acting on tasks. Each dialog says first what will happen. What was typed stays until it was taken: over errors, a
// token that ends, and an API that restarts; and each request has a key, so that sending it again adds nothing twice.
import { signal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { act, Failure, type Answer, type WholeTask } from './api.ts';
import { Markdown } from './markdown.tsx';
import { agents, link, services, tasks } from './state.ts';
import { oneLine, visible } from './text.ts';
import { Dialog, Problem } from './ui.tsx';
import { type Action, willDo, willRollBack } from './words.ts';

/** What the user wants to do; nothing where no dialog is open. */
export type Asked =
  | { kind: 'submit' }
  | { kind: Action; task: WholeTask; done: () => void }
  | { kind: 'rollback'; task: WholeTask; version: number; names: string[]; done: () => void };
export const asked = signal<Asked | undefined>(undefined);
/** What was done last, in the API's words. */
export const told = signal('');

const VERBS: Record<Action, { title: string; verb: string; path: string }> = {
  add: { title: 'Add context', verb: 'Add context', path: 'context' },
  rerun: { title: 'Run again', verb: 'Run again', path: 'rerun' },
  cancel: { title: 'Cancel the run', verb: 'Cancel the run', path: 'cancel' },
  suspend: { title: 'Suspend', verb: 'Suspend', path: 'suspend' },
  resume: { title: 'Resume', verb: 'Resume', path: 'resume' },
};

interface TypedFile {
  filename: string;
  content: string;
}

// what was typed and not taken yet: it outlives its dialog
const draft = { note: new Map<string, { text: string; key: string }>(), submit: emptyTask() };

function emptyTask() {
  return { id: '', service: '', agent: '', title: '', env: '', files: [{ filename: 'task.md', content: '' }] as TypedFile[] };
}

function isTyped(): boolean {
  return [...draft.note.values()].some((note) => note.text) || draft.submit.files.some((file) => file.content);
}

addEventListener('beforeunload', (event) => {
  if (isTyped()) event.preventDefault();
});

export function AskedDialog() {
  const what = asked.value;
  const close = () => (asked.value = undefined);
  return (
    <>
      <p class="told" role="status">
        {told.value && (
          <span>
            {visible(told.value)} <button onClick={() => (told.value = '')}>OK</button>
          </span>
        )}
      </p>
      {what?.kind === 'submit' && <SubmitDialog close={close} />}
      {what?.kind === 'add' && <AddDialog {...what} close={close} />}
      {what?.kind === 'rollback' && (
        <ConfirmDialog
          title={`Go back to version ${what.version}`}
          verb="Roll back"
          says={willRollBack(what.task, what.version, what.names)}
          task={what.task}
          path="rollback"
          body={{ context_version: what.version }}
          done={what.done}
          close={close}
        />
      )}
      {what && what.kind !== 'submit' && what.kind !== 'add' && what.kind !== 'rollback' && (
        <ConfirmDialog
          {...VERBS[what.kind]}
          says={willDo(what.kind, what.task)}
          task={what.task}
          body={what.kind === 'rerun' ? { context_version: what.task.context_version } : {}}
          done={what.done}
          close={close}
        />
      )}
    </>
  );
}

/** Sends one request at a time, and tells how it goes. */
function useRequest() {
  const [failure, setFailure] = useState<Failure>();
  const [waits, setWaits] = useState('');
  const [isSent, setSent] = useState(false);
  const attempt = useRef<AbortController>(undefined);
  useEffect(() => () => attempt.current?.abort(), []);
  const send = async <T,>(path: string, body: unknown, then: (answer: Answer<T>) => void, key?: string) => {
    attempt.current = new AbortController();
    const { signal } = attempt.current;
    setSent(true);
    setFailure(undefined);
    try {
      const answer = await act<T>(path, body, { key, signal, waits: setWaits });
      told.value = answer.message;
      then(answer);
    } catch (error) {
      if (!signal.aborted) setFailure(error instanceof Failure ? error : new Failure(String(error), 0));
    } finally {
      setWaits('');
      setSent(false);
    }
  };
  return { send, failure, waits, isSent, stop: () => attempt.current?.abort() };
}

type Request = ReturnType<typeof useRequest>;

function Buttons({ verb, request, close, danger }: { verb: string; request: Request; close: () => void; danger?: boolean }) {
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
function Says({ lines, children }: { lines: string[]; children?: ComponentChildren }) {
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

function ConfirmDialog({
  title,
  verb,
  says,
  task,
  path,
  body,
  done,
  close,
}: {
  title: string;
  verb: string;
  says: string[];
  task: WholeTask;
  path: string;
  body: unknown;
  done: () => void;
  close: () => void;
}) {
  const request = useRequest();
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    void request.send(`/pm/tasks/${encodeURIComponent(task.name)}/${path}`, body, () => {
      close();
      done();
    });
  };
  return (
    <Dialog title={title} onClose={close}>
      <form onSubmit={submit}>
        <Says lines={says} />
        {request.failure && <Problem failure={request.failure} />}
        <Buttons verb={verb} request={request} close={close} danger={path === 'cancel'} />
      </form>
    </Dialog>
  );
}

function AddDialog({ task, done, close }: { task: WholeTask; done: () => void; close: () => void }) {
  const kept = draft.note.get(task.name) ?? { text: '', key: crypto.randomUUID() };
  const [text, setText] = useState(kept.text);
  const request = useRequest();
  const type = (text: string) => {
    setText(text);
    // another text is another request
    draft.note.set(task.name, { text, key: crypto.randomUUID() });
  };
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const note = draft.note.get(task.name) ?? kept;
    draft.note.set(task.name, note);
    const then = () => {
      // unless there is more by now
      if (draft.note.get(task.name)?.key === note.key) draft.note.delete(task.name);
      close();
      done();
    };
    void request.send(`/pm/tasks/${encodeURIComponent(task.name)}/context`, { additional_context: note.text }, then, note.key);
  };
  // the new file is the last one
  const isIts = (field: string) => /^spec\.markdownFiles\[\d+\]\.content$/.test(field);
  const wrong = request.failure?.violations.filter((violation) => isIts(violation.field)) ?? [];
  return (
    <Dialog title={`Add context to ${oneLine(task.name)}`} onClose={close} wide>
      <form onSubmit={submit}>
        <Says lines={willDo('add', task)} />
        <Editor label={`context-v${task.context_version + 1}.md`} text={text} wrong={wrong.map((violation) => violation.message)} onType={type} />
        {request.failure && <Problem failure={request.failure} beside={isIts} />}
        <Buttons verb="Add context" request={request} close={close} />
      </form>
    </Dialog>
  );
}

/** Markdown being written, beside what it will look like, with what is wrong with it. */
function Editor({ label, text, wrong, onType }: { label: string; text: string; wrong: string[]; onType: (text: string) => void }) {
  const [isPreview, setPreview] = useState(false);
  const id = `text-${label}`;
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
          value={text}
          onInput={(event) => onType(event.currentTarget.value)}
        />
      )}
      <Wrong id={`${id}-wrong`} messages={wrong} />
    </div>
  );
}

/** The violations of one field. */
function Wrong({ id, messages }: { id: string; messages: string[] }) {
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

/** What the API calls a field of the form, by what admission calls it. */
const FIELDS: Record<string, RegExp> = {
  id: /^spec\.taskId$|^metadata\.name$/,
  service: /^spec\.serviceName$/,
  agent: /^spec\.agentName$/,
  env: /^spec\.env/,
};
const fileField = (i: number) => new RegExp(`^spec\\.markdownFiles\\[${i}\\]`);

function SubmitDialog({ close }: { close: () => void }) {
  const [form, setForm] = useState(draft.submit);
  const request = useRequest();
  const change = (part: Partial<typeof form>) => {
    draft.submit = { ...draft.submit, ...part };
    setForm(draft.submit);
  };
  const changeFile = (i: number, part: Partial<TypedFile>) => change({ files: form.files.map((file, j) => (i === j ? { ...file, ...part } : file)) });
  const violations = request.failure?.violations ?? [];
  const wrong = (field: RegExp) => violations.filter((violation) => field.test(violation.field)).map((violation) => violation.message);
  const isBeside = (field: string) => Object.values(FIELDS).some((its) => its.test(field)) || form.files.some((_, i) => fileField(i).test(field));
  const next = Math.max(0, ...[...tasks.value.values()].map((task) => task.task_id)) + 1;
  const take = async (files: FileList) => {
    const read = await Promise.all([...files].map(async (file) => ({ filename: file.name, content: await file.text() })));
    change({ files: [...form.files.filter((file) => file.content), ...read] });
  };
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const env = Object.fromEntries(
      form.env
        .split('\n')
        .filter((line) => line.trim())
        .map((line) => [line.split('=')[0]!.trim(), line.slice(line.indexOf('=') + 1)]),
    );
    const body = { id: Number(form.id), service_name: form.service, agent_name: form.agent, title: form.title, env, markdown_files: form.files };
    void request.send<{ name: string }>('/pm/tasks', body, ({ data }) => {
      draft.submit = emptyTask();
      close();
      location.hash = link(data.name);
    });
  };
  return (
    <Dialog title="New task" onClose={close} wide>
      <form onSubmit={submit}>
        <div class="fields">
          <Field label="Number" wrong={wrong(FIELDS.id!)}>
            {(props) => <input {...props} type="number" required min={1} max={4294967295} placeholder={String(next)} value={form.id} onInput={(e) => change({ id: e.currentTarget.value })} />}
          </Field>
          <Field label="Service" wrong={wrong(FIELDS.service!)}>
            {(props) => <input {...props} required list="services" autocapitalize="off" value={form.service} onInput={(e) => change({ service: e.currentTarget.value })} />}
          </Field>
          <Field label="Agent" wrong={wrong(FIELDS.agent!)}>
            {(props) => <input {...props} required list="agents" autocapitalize="off" value={form.agent} onInput={(e) => change({ agent: e.currentTarget.value })} />}
          </Field>
          <Field label="Title" wrong={[]}>
            {(props) => <input {...props} value={form.title} placeholder="A line for people" onInput={(e) => change({ title: e.currentTarget.value })} />}
          </Field>
          <Options id="services" all={services.value} />
          <Options id="agents" all={agents.value} />
        </div>
        {form.files.map((file, i) => (
          <fieldset class="file" key={i}>
            <legend class="unseen">File {i + 1}</legend>
            <div class="name">
              <input aria-label={`Name of file ${i + 1}`} required value={file.filename} autocapitalize="off" spellcheck={false} onInput={(e) => changeFile(i, { filename: e.currentTarget.value })} />
              {form.files.length > 1 && (
                <button type="button" onClick={() => change({ files: form.files.filter((_, j) => i !== j) })}>
                  Leave out
                </button>
              )}
            </div>
            <Editor label={`Text of file ${i + 1}`} text={file.content} wrong={wrong(fileField(i))} onType={(content) => changeFile(i, { content })} />
          </fieldset>
        ))}
        <div class="more">
          <button type="button" onClick={() => change({ files: [...form.files, { filename: '', content: '' }] })}>
            One more file
          </button>
          <label class="button">
            Take files from this machine
            <input type="file" accept=".md,text/markdown" multiple class="unseen" onChange={(e) => e.currentTarget.files && void take(e.currentTarget.files)} />
          </label>
        </div>
        <details open={wrong(FIELDS.env!).length > 0}>
          <summary>Variables</summary>
          <Field label="One NAME=VALUE a line. No secrets: those belong to the Agent." wrong={wrong(FIELDS.env!)}>
            {(props) => <textarea {...props} rows={3} spellcheck={false} value={form.env} onInput={(e) => change({ env: e.currentTarget.value })} />}
          </Field>
        </details>
        <Says lines={[`The task is made${form.id ? ` as number ${form.id}` : ''}, and version 1 starts at once${form.agent ? ` with the Agent ${form.agent}` : ''}.`, 'If the same was submitted before, nothing happens.']} />
        {request.failure && <Problem failure={request.failure} beside={isBeside} />}
        <Buttons verb="Submit the task" request={request} close={close} />
      </form>
    </Dialog>
  );
}

function Options({ id, all }: { id: string; all: string[] }) {
  return (
    <datalist id={id}>
      {all.map((name) => (
        <option key={name} value={name} />
      ))}
    </datalist>
  );
}

interface FieldProps {
  id: string;
  'aria-invalid': boolean;
  'aria-describedby'?: string;
}

function Field({ label, wrong, children }: { label: string; wrong: string[]; children: (props: FieldProps) => ComponentChildren }) {
  const id = `field-${label.split(' ')[0]!.toLowerCase()}`;
  const isWrong = wrong.length > 0;
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children({ id, 'aria-invalid': isWrong, 'aria-describedby': isWrong ? `${id}-wrong` : undefined })}
      <Wrong id={`${id}-wrong`} messages={wrong} />
    </div>
  );
}

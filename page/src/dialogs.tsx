// Acting on tasks. Each dialog says first what will happen. What was typed stays until it was taken: over errors, a
// token that ends, and an API that restarts; and each request has a key, so that sending it again adds nothing twice.
import { signal } from '@preact/signals';
import { useEffect, useState } from 'preact/hooks';
import { pathOf, type WholeTask } from './api.ts';
import { Buttons, draft, Editor, Says, told, useRequest } from './request.tsx';
import { SubmitDialog } from './submit.tsx';
import { oneLine, visible } from './text.ts';
import { Dialog, Problem } from './ui.tsx';
import { type Action, willDo, willRollBack } from './words.ts';

/** What the user wants to do; nothing where no dialog is open. */
export type Asked =
  | { kind: 'submit' }
  | { kind: Action; task: WholeTask; done: () => void }
  | { kind: 'rollback'; task: WholeTask; version: number; names: string[]; done: () => void };
export const asked = signal<Asked | undefined>(undefined);

const VERBS: Record<Action, { title: string; verb: string; path: string }> = {
  add: { title: 'Add context', verb: 'Add context', path: 'context' },
  rerun: { title: 'Run again', verb: 'Run again', path: 'rerun' },
  cancel: { title: 'Cancel the run', verb: 'Cancel the run', path: 'cancel' },
  suspend: { title: 'Suspend', verb: 'Suspend', path: 'suspend' },
  resume: { title: 'Resume', verb: 'Resume', path: 'resume' },
};

export function AskedDialog() {
  const what = asked.value;
  const close = () => (asked.value = undefined);
  useEffect(() => {
    if (what) told.value = '';
  }, [what?.kind]);
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
          title={`Go back to version ${what.version}: ${oneLine(what.task.name)}`}
          verb="Go back"
          says={willRollBack(what.task, what.version, what.names)}
          task={what.task}
          path="rollback"
          body={{ context_version: what.version, present_version: what.task.context_version, uid: what.task.uid }}
          done={what.done}
          close={close}
        />
      )}
      {what && what.kind !== 'submit' && what.kind !== 'add' && what.kind !== 'rollback' && (
        <ConfirmDialog
          {...VERBS[what.kind]}
          title={`${VERBS[what.kind].title}: ${oneLine(what.task.name)}`}
          says={willDo(what.kind, what.task)}
          task={what.task}
          body={{ context_version: what.kind === 'rerun' || what.kind === 'cancel' ? what.task.context_version : undefined, uid: what.task.uid }}
          done={what.done}
          close={close}
        />
      )}
    </>
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
    void request.send(`${pathOf(task.name)}/${path}`, body, () => {
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
  const kept = draft.note.get(task.uid) ?? { text: '', key: crypto.randomUUID() };
  const [text, setText] = useState(kept.text);
  const request = useRequest();
  const type = (text: string) => {
    setText(text);
    // what was refused was the text before
    request.forget();
    // another text is another request
    draft.note.set(task.uid, { text, key: crypto.randomUUID() });
  };
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const note = draft.note.get(task.uid) ?? kept;
    draft.note.set(task.uid, note);
    const then = () => {
      // unless there is more by now
      if (draft.note.get(task.uid)?.key === note.key) draft.note.delete(task.uid);
      close();
      done();
    };
    void request.send(`${pathOf(task.name)}/context`, { additional_context: note.text, uid: task.uid }, then, note.key);
  };
  // the new file is the last one
  const isIts = (field: string) => /^spec\.markdownFiles\[\d+\]\.content$/.test(field);
  const wrong = request.failure?.violations.filter((violation) => isIts(violation.field)) ?? [];
  return (
    <Dialog title={`Add context to ${oneLine(task.name)}`} onClose={close} wide>
      <form onSubmit={submit}>
        <Says lines={willDo('add', task)} />
        <Editor label={`context-v${task.context_version + 1}.md`} text={text} wrong={wrong.map((violation) => violation.message)} isSent={request.isSent} isFirst onType={type} />
        {request.failure && <Problem failure={request.failure} beside={isIts} />}
        <Buttons verb="Add context" request={request} close={close} />
      </form>
    </Dialog>
  );
}

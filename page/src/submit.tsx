// The dialog that submits a task. What admission refuses stands beside the field or the file that it speaks of.
import type { ComponentChildren } from 'preact';
import { useRef, useState } from 'preact/hooks';
import { Buttons, draft, Editor, emptyTask, Says, type TypedFile, useRequest, Wrong } from './request.tsx';
import { agents, link, services, tasks } from './state.ts';
import { Dialog, Problem } from './ui.tsx';

/** What the API calls a field of the form, by what admission calls it. */
const FIELDS = {
  id: /^spec\.taskId$|^metadata\.name$/,
  service: /^spec\.serviceName$/,
  agent: /^spec\.agentName$/,
  env: /^spec\.env/,
};
const fileField = (i: number) => new RegExp(`^spec\\.markdownFiles\\[${i}\\]`);

export function SubmitDialog({ close }: { close: () => void }) {
  const [form, setForm] = useState(draft.submit);
  const request = useRequest();
  const change = (part: Partial<typeof form>) => {
    draft.submit = { ...draft.submit, ...part };
    setForm(draft.submit);
  };
  const changeFile = (i: number, part: Partial<TypedFile>) => change({ files: form.files.map((file, j) => (i === j ? { ...file, ...part } : file)) });
  // what is refused is what was sent: a field or file that has changed since is not spoken of
  const sent = useRef(form);
  const violations = request.failure?.violations ?? [];
  const messages = (field: RegExp) => violations.filter((violation) => field.test(violation.field)).map((violation) => violation.message);
  const wrong = (field: keyof typeof FIELDS) => (form[field] === sent.current[field] ? messages(FIELDS[field]) : []);
  const wrongOf = (file: TypedFile) => messages(fileField(sent.current.files.indexOf(file)));
  const isBeside = (field: string) => Object.values(FIELDS).some((its) => its.test(field)) || sent.current.files.some((_, i) => fileField(i).test(field));
  const next = Math.max(0, ...[...tasks.value.values()].map((task) => task.task_id)) + 1;
  const take = async (files: FileList) => {
    const read = await Promise.all([...files].map(async (file) => ({ filename: file.name, content: await file.text() })));
    change({ files: [...draft.submit.files.filter((file) => file.content), ...read] });
  };
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    sent.current = form;
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
        <fieldset class="all" disabled={request.isSent}>
          <div class="fields">
            <Field label="Number" wrong={wrong('id')}>
              {(props) => <input {...props} type="number" autofocus required min={1} max={4294967295} placeholder={String(next)} value={form.id} onInput={(e) => change({ id: e.currentTarget.value })} />}
            </Field>
            <Field label="Service" wrong={wrong('service')}>
              {(props) => <input {...props} required list="services" autocapitalize="off" value={form.service} onInput={(e) => change({ service: e.currentTarget.value })} />}
            </Field>
            <Field label="Agent" wrong={wrong('agent')}>
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
              <Editor label={`Text of file ${i + 1}`} text={file.content} wrong={wrongOf(file)} onType={(content) => changeFile(i, { content })} />
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
          <details open={wrong('env').length > 0}>
            <summary>Variables</summary>
            <Field label="One NAME=VALUE a line. No secrets: those belong to the Agent." wrong={wrong('env')}>
              {(props) => <textarea {...props} rows={3} spellcheck={false} value={form.env} onInput={(e) => change({ env: e.currentTarget.value })} />}
            </Field>
          </details>
        </fieldset>
        <Says lines={[`The task is made${form.id ? ` as number ${form.id}` : ''}, and version 1 starts as soon as there is an Agent ${form.agent || 'of that name'}.`, 'If the same was submitted before, nothing happens.']} />
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

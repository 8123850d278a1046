// One task: what goes on, in plain words, with what to do about it; its versions; its files, differences, log and Events.
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { Failure, type File, follow, get, type KubernetesEvent, pathOf, pause, persist, serverSent, wait, type WholeTask } from './api.ts';
import { asked } from './dialogs.tsx';
import { type Change, changesBetween } from './diff.ts';
import { Diff, Files, type Kept, versionOf, VersionSelect } from './files.tsx';
import { Log } from './log.tsx';
import { draft } from './request.tsx';
import { line, link, now, refine, route, titleOf } from './state.ts';
import { oneLine, person, visible, when } from './text.ts';
import { Timeline } from './timeline.tsx';
import { Badge, Elapsed, Empty, Name, Problem } from './ui.tsx';
import { type Action, CONDITIONS, eventWords, isBeingCancelled, isStalled, messageOf, reasonOf, versions, wordsFor } from './words.ts';

const TABS: [string, string][] = [
  ['files', 'Files'],
  ['diff', 'Changes'],
  ['log', 'Log'],
  ['events', 'Events'],
];
/** Versions whose files are read by themselves, to say what each changed. */
const LATEST = 10;
/** How often Events are read while they are looked at, in milliseconds. */
const EVENTS = 15_000;

interface Read {
  task?: WholeTask;
  failure?: Failure;
  isGone?: boolean;
}

/** A task as it is, read anew whenever it changes. */
function useTask(name: string) {
  const [read, setRead] = useState<Read>({});
  const [storedAt, setStoredAt] = useState<Record<string, string>>({});
  const [events, setEvents] = useState<KubernetesEvent[] | Failure>();
  const look = useRef(() => {});
  // a stream that has ended for good is begun anew
  const [round, setRound] = useState(0);
  useEffect(() => {
    const end = new AbortController();
    const path = pathOf(name);
    let [isReading, isOld, isGone] = [false, false, false];
    let uid = '';
    // what was read stays to be seen where it cannot be read again; with no failure its end was told
    const fail = (failure?: Failure) => {
      isGone ||= !failure || failure.isGone;
      setRead(({ task }) => (task && isGone ? { task, isGone } : { task, failure }));
    };
    // one reading at a time; what changes meanwhile is read after it
    const again = async () => {
      isOld = true;
      if (isReading) return;
      isReading = true;
      for (let failures = 0; isOld && !end.signal.aborted; ) {
        isOld = false;
        try {
          const task = await get<WholeTask>(path, end.signal);
          // an answer that was under way is older than the end
          if (isGone) continue;
          setRead({ task });
          failures = 0;
          if (asked.value && 'task' in asked.value) {
            // a dialog says what will happen to the task as it is now, if it is the same
            asked.value = asked.value.task.uid === task.uid ? { ...asked.value, task } : undefined;
          }
          if (uid !== task.uid) setStoredAt({});
          uid = task.uid;
          const history = await get<{ stored_at?: Record<string, string> }>(`${path}/history`, end.signal);
          setStoredAt(history.stored_at ?? {});
        } catch (failure) {
          // what is known by now is newer
          if (isOld || !(failure instanceof Failure)) continue;
          if (failure.isPassing) {
            isOld = true;
            await pause(wait(failures++, failure.retryAfter), end.signal).catch(() => {});
            continue;
          }
          fail(failure);
          if (isGone) continue;
        }
        try {
          setEvents((await get<{ events: KubernetesEvent[] }>(`${path}/kubernetes-events`, end.signal)).events);
        } catch (failure) {
          if (failure instanceof Failure && !failure.isPassing) setEvents(failure);
        }
      }
      isReading = false;
    };
    look.current = () => void again();
    const stop = follow(
      `${path}/events`,
      (response, alive) =>
        serverSent(response, alive, (event) => {
          if (event === 'deleted') return fail();
          isGone = false;
          void again();
        }),
      (how) => {
        line.value = how;
      },
      (failure) => {
        // without the right to follow it may be read all the same
        if (failure.status === 403) void again();
        else fail(failure);
      },
    );
    return () => {
      end.abort();
      stop();
    };
  }, [name, round]);
  return { ...read, storedAt, events, look: () => look.current(), restart: () => setRound(round + 1) };
}

/** The files of the versions that are wanted; those of a version never change. */
function useFiles(task: WholeTask, wanted: number[]): Kept {
  const [kept, setKept] = useState<Kept>(new Map());
  const present = task.context_version;
  const read = useRef(new Set<number>());
  useEffect(() => {
    const keep = (version: number, files: File[] | Failure) => setKept((old) => new Map(old).set(version, files));
    keep(present, task.markdown_files);
    read.current.add(present);
    const end = new AbortController();
    const readAll = async () => {
      for (const version of wanted.filter((version) => !read.current.has(version))) {
        try {
          const once = () => get<{ markdown_files: File[] }>(`${pathOf(task.name)}/history/${version}`, end.signal);
          keep(version, (await persist(once, end.signal)).markdown_files);
          read.current.add(version);
        } catch (failure) {
          if (!(failure instanceof Failure)) throw failure;
          // it may be there later
          keep(version, failure);
        }
      }
    };
    readAll().catch(() => {});
    return () => end.abort();
  }, [present, wanted.join()]);
  return kept;
}

/** What each version changed, as far as the files of both are there. */
function changesOf(numbers: number[], kept: Kept): Map<number, Change[] | undefined> {
  return new Map(
    numbers.map((number) => {
      const [after, before] = [kept.get(number), number === 1 ? [] : kept.get(number - 1)];
      return [number, Array.isArray(after) && Array.isArray(before) ? changesBetween(before, after) : undefined];
    }),
  );
}

export function TaskView({ name, back }: { name: string; back: string }) {
  const { task, failure, isGone, storedAt, events, look, restart } = useTask(name);
  return (
    <main class="whole" aria-labelledby="title">
      <p class="back">
        <a href={back}>← All tasks</a>
      </p>
      {failure && (
        <Problem failure={failure}>
          {failure.isGone && <p>It may have been deleted, or have another number.</p>}
          <button onClick={restart}>Try again</button>
        </Problem>
      )}
      {!task && !failure && (
        <div class="skeleton" role="status" aria-label="The task is being read">
          <div />
          <div />
        </div>
      )}
      {!task && <h1 id="title" class="unseen">{name}</h1>}
      {task && <Whole key={task.uid} task={task} isGone={isGone === true} storedAt={storedAt} events={events} look={look} />}
    </main>
  );
}

interface WholeProps {
  task: WholeTask;
  isGone: boolean;
  storedAt: Record<string, string>;
  events: KubernetesEvent[] | Failure | undefined;
  look: () => void;
}

/** A task that was read. */
function Whole({ task, isGone, storedAt, events, look }: WholeProps) {
  const numbers = [...new Set(versions(task).map((version) => version.number))];
  const tab = TABS.find(([key]) => key === route.value.query.get('tab'))?.[0] ?? 'files';
  const named = ['version', 'from', 'to'].map((key) => versionOf(key, task, 0)).filter(Boolean);
  const kept = useFiles(task, [...new Set([...named, ...numbers.slice(0, LATEST)])]);
  useEffect(() => {
    document.title = `${task.task_id} ${titleOf(task)}`;
  }, [task.title]);
  const title = useRef<HTMLHeadingElement>(null);
  useEffect(() => title.current?.focus({ preventScroll: true }), []);
  // no stream tells of Events
  useEffect(() => {
    if (tab !== 'events' || isGone) return;
    look();
    const timer = setInterval(() => document.hidden || look(), EVENTS);
    return () => clearInterval(timer);
  }, [tab, isGone]);

  const ask = (kind: Action) => (asked.value = { kind, task, done: look });
  const rollBack = (version: number) => {
    const files = kept.get(version);
    if (Array.isArray(files)) asked.value = { kind: 'rollback', task, version, names: files.map((file) => file.filename), done: look };
  };
  const unsent = draft.note.get(task.uid)?.text;
  return (
    <>
      <div class="heading">
        <h1 id="title" tabIndex={-1} ref={title} title={titleOf(task)}>
          <span class="number">{task.task_id}</span> <Name text={titleOf(task)} />
        </h1>
        <Actions task={task} isGone={isGone} ask={ask} />
      </div>
      <Facts task={task} />
      {isGone ? (
        <div class="now failed" role="status">
          <h2>This task is deleted</h2>
          <p>What you see is what it was.</p>
          {unsent && (
            <>
              <p>This was not sent:</p>
              <pre>{visible(unsent)}</pre>
            </>
          )}
        </div>
      ) : (
        <Now task={task} />
      )}
      <section aria-labelledby="versions">
        <h2 id="versions">Versions</h2>
        <Timeline
          task={task}
          storedAt={storedAt}
          changes={changesOf(numbers, kept)}
          actions={(version) => (
            <>
              <a href={link(task.name, { tab: 'files', version: String(version) })} onClick={toPanel}>
                Files
              </a>
              {version > 1 && (
                <a href={link(task.name, { tab: 'diff', from: String(version - 1), to: String(version) })} onClick={toPanel}>
                  Changes
                </a>
              )}
              <a href={link(task.name, { tab: 'log', version: String(version) })} onClick={toPanel}>
                Log
              </a>
              {version !== task.context_version && Array.isArray(kept.get(version)) && (
                <button class="link" onClick={() => rollBack(version)}>
                  Go back to it…
                </button>
              )}
            </>
          )}
        />
      </section>
      <section class="tabbed">
        <Tabs now={tab} />
        <div role="tabpanel" id="panel" aria-labelledby={`tab-${tab}`}>
          {tab === 'files' && <Files task={task} kept={kept} numbers={numbers} rollBack={rollBack} />}
          {tab === 'diff' && <Diff task={task} kept={kept} numbers={numbers} />}
          {tab === 'log' && <LogOf task={task} numbers={numbers} />}
          {tab === 'events' && <Events task={task} events={events} />}
        </div>
      </section>
    </>
  );
}

function toPanel() {
  document.querySelector('.tabbed')?.scrollIntoView();
}

function Actions({ task, isGone, ask }: { task: WholeTask; isGone: boolean; ask: (kind: Action) => void }) {
  if (isGone) return null;
  const hasEnded = task.runs.some((run) => run.context_version === task.context_version && run.outcome);
  return (
    <div class="actions">
      <button class="primary" id="add" aria-keyshortcuts="a" onClick={() => ask('add')}>
        Add context
      </button>
      <button onClick={() => ask('rerun')}>Run again…</button>
      {task.suspend ? <button onClick={() => ask('resume')}>Resume…</button> : <button onClick={() => ask('suspend')}>Suspend…</button>}
      {!task.cancel && !hasEnded && (
        <CancelButton onClick={() => ask('cancel')} />
      )}
    </div>
  );
}

/** It goes when it was heard, and then the focus has to be somewhere. */
function CancelButton({ onClick }: { onClick: () => void }) {
  const ref = useRef<HTMLButtonElement>(null);
  useLayoutEffect(() => {
    const button = ref.current;
    return () => {
      if (document.activeElement === button) document.getElementById('title')?.focus({ preventScroll: true });
    };
  }, []);
  return (
    <button class="danger" ref={ref} onClick={onClick}>
      Cancel…
    </button>
  );
}

function Facts({ task }: { task: WholeTask }) {
  const { status } = task;
  const facts: [string, preact.ComponentChildren][] = [
    ['Phase', <Badge state={status.phase} />],
    ['Version', status.context_version === task.context_version ? task.context_version : `${status.context_version} of ${task.context_version}`],
    ['Service', <Name text={task.service} />],
    ['Agent', <Name text={task.agent_name} />],
    ['Attempts', status.attempts],
    ['Elapsed', status.started_at ? <Elapsed start={status.started_at} end={status.completed_at} /> : '–'],
    ['Last changed by', task.changed_by ? <bdi>{person(task.changed_by)}</bdi> : '–'],
    ['Namespace', <Name text={task.namespace} />],
  ];
  const env = Object.entries(task.env);
  return (
    <>
      <dl class="facts">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {env.length > 0 && (
        <details class="env">
          <summary>Variables</summary>
          <ul>
            {env.map(([name, value]) => (
              <li key={name}>
                <code>
                  {oneLine(name)}={oneLine(value)}
                </code>
              </li>
            ))}
          </ul>
        </details>
      )}
    </>
  );
}

/** What goes on, and what to do about it. */
function Now({ task }: { task: WholeTask }) {
  const { status } = task;
  const reason = reasonOf(status);
  const words = wordsFor(reason);
  const message = messageOf(reason, status.message);
  const kind = status.deleting ? 'pending' : isStalled(status) ? 'stalled' : reason === 'Suspended' ? 'suspended' : status.phase.toLowerCase();
  const isOlder = status.context_version !== task.context_version;
  return (
    <div class={`now ${kind}`} role="status">
      <h2>{status.deleting ? 'The task is being deleted: its run ends first.' : isBeingCancelled(task) ? 'The run is being cancelled: its pod is told to end.' : words.says || oneLine(reason)}</h2>
      {message && <p>{visible(message)}</p>}
      {isOlder && <p>That is about version {status.context_version}. Version {task.context_version} has not been looked at yet.</p>}
      {words.remedy && !status.deleting && (
        <p class="remedy">
          <strong>What to do</strong> {words.remedy}
        </p>
      )}
    </div>
  );
}

function Tabs({ now }: { now: string }) {
  const move = (event: KeyboardEvent) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const at = TABS.findIndex(([key]) => key === now);
    const next = TABS[(at + by + TABS.length) % TABS.length]![0];
    refine({ tab: next });
    document.getElementById(`tab-${next}`)?.focus();
  };
  return (
    <div role="tablist" aria-label="About this task" onKeyDown={move}>
      {TABS.map(([key, name]) => (
        <button key={key} role="tab" id={`tab-${key}`} aria-selected={key === now} aria-controls="panel" tabIndex={key === now ? 0 : -1} onClick={() => refine({ tab: key })}>
          {name}
        </button>
      ))}
    </div>
  );
}

function LogOf({ task, numbers }: { task: WholeTask; numbers: number[] }) {
  const version = versionOf('version', task, 0);
  return (
    <>
      <div class="options">
        <VersionSelect
          label="Log of"
          numbers={numbers}
          value={version}
          newest="the newest run, and those that come"
          onChange={(version) => refine({ version: version.replace(/^0$/, '') })}
        />
      </div>
      <Log task={task} version={version || undefined} />
    </>
  );
}

function Events({ task, events }: { task: WholeTask; events: KubernetesEvent[] | Failure | undefined }) {
  return (
    <>
      <h3>Conditions</h3>
      {task.status.conditions.length === 0 && <p class="faint">Nobody has looked at the task yet.</p>}
      <ul class="conditions">
        {task.status.conditions.map(({ type, status, reason, message, lastTransitionTime }) => (
          <li key={type} class={status === 'True' ? 'on' : ''}>
            <strong>{type}</strong> {status === 'True' ? 'yes' : 'no'}
            <small>
              {status === 'True' && `${CONDITIONS[type] ?? ''} ${oneLine(reason)}: ${oneLine(messageOf('', message))}. `}
              Since {when(lastTransitionTime, now.value)}
            </small>
          </li>
        ))}
      </ul>
      <h3>Events</h3>
      {events instanceof Failure && (
        <Problem failure={events}>
          <p>All else on this page is there without them.</p>
        </Problem>
      )}
      {Array.isArray(events) && events.length === 0 && (
        <Empty title="No Events">
          <p>The cluster keeps them for an hour, mostly.</p>
        </Empty>
      )}
      {Array.isArray(events) && events.length > 0 && (
        <ol class="events">
          {events.toReversed().map((event, i) => (
            <li key={i} class={event.severity === 'Warning' ? 'warning' : ''}>
              <time dateTime={event.at ?? undefined}>{event.at ? when(event.at, now.value) : ''}</time>
              <div>
                <strong>{oneLine(event.reason)}</strong> {eventWords(event)}
                {event.count > 1 && <span class="times"> {event.count} times</span>}
                <p>
                  {event.kind !== 'TaskRun' && `${oneLine(event.kind)}: `}
                  {visible(event.message)}
                </p>
                {event.severity === 'Warning' && wordsFor(event.reason).remedy && <p class="remedy">{wordsFor(event.reason).remedy}</p>}
              </div>
            </li>
          ))}
        </ol>
      )}
    </>
  );
}

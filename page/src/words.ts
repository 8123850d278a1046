// What the reasons of conditions and Events mean, and what to do about them: one table. And what an action will do,
// said before it is done. Pure.
import type { KubernetesEvent, Line, Outcome, Phase, Run, Status, WholeTask } from './api.ts';
import { count } from './text.ts';

export interface Words {
  /** One sentence: what goes on. */
  says: string;
  /** What to do about it; nothing where nothing need be done. */
  remedy?: string;
}

/** Reasons of `src/crd/condition.rs`, of Jobs and of containers that do not start, and those that only Events have. */
export const REASONS: Record<string, Words> = {
  Pending: { says: 'Nobody has looked at this version yet.', remedy: 'If that stays so for a minute, the operator may not be running: tell the platform team.' },
  Starting: { says: 'The run is allowed to start, and its pod is being made.' },
  Running: { says: 'The agent is working.' },
  Succeeded: { says: 'The run ended well.' },
  WaitingForPreviousRun: { says: 'An earlier version’s run is still ending; two never run at the same time.', remedy: 'Usually seconds. If it lasts, look at the earlier version’s log: its agent may be slow to stop.' },
  Superseded: { says: 'This run was ended because a newer version exists.' },
  Queued: { says: 'The run waits for its turn in a queue.', remedy: 'It starts by itself when there is room. Whoever runs the queue can say how long that takes.' },
  Suspended: { says: 'The task is suspended: nothing runs until it is resumed.', remedy: 'Resume it when it may go on.' },
  Cancelled: { says: 'The run was cancelled.', remedy: 'Run it again when it shall start anew.' },
  AgentNotFound: { says: 'There is no Agent of that name here, so nothing can run.', remedy: 'Ask the platform team for the Agent: the task starts by itself once it is there. Was the name wrong? Cancel this task, and submit it under another number.' },
  InvalidAgent: { says: 'The Agent’s template cannot be run.', remedy: 'The platform team has to mend the Agent; the task then starts by itself.' },
  InvalidSpec: { says: 'The task breaks a rule and cannot be run as it is.', remedy: 'Mend what the message names, by adding context or submitting the task anew.' },
  TooLarge: { says: 'The files and variables are too large to become a run.', remedy: 'Shorten them, or move parts to where the agent can fetch them.' },
  NameConflict: { says: 'Something else in the cluster has the name that this run needs.', remedy: 'The platform team has to remove or rename what the message names.' },
  Forbidden: { says: 'The cluster does not allow the run: a quota, or a policy.', remedy: 'The platform team can raise the quota or look at the policy; it is tried again by itself.' },
  FailedCreate: { says: 'The run may start, but its pod cannot be made: a quota or a policy, mostly.', remedy: 'The Events below say which; the platform team can lift it.' },
  Unschedulable: { says: 'No machine has room for the run.', remedy: 'It starts by itself when there is room. If it lasts, the platform team has to add machines, or let the Agent ask for less.' },
  UnboundPersistentVolumeClaim: { says: 'The task’s workspace has no volume yet.', remedy: 'The platform team has to look at the storage of the cluster.' },
  ImagePullBackOff: { says: 'The agent’s image cannot be fetched.', remedy: 'Its name may be wrong, or the cluster may not read it: the platform team has to mend the Agent.' },
  ErrImageNeverPull: { says: 'The agent’s image is not on the machine, and may not be fetched.', remedy: 'The platform team has to mend the Agent.' },
  InvalidImageName: { says: 'The agent’s image has a name that cannot be one.', remedy: 'The platform team has to mend the Agent.' },
  CreateContainerConfigError: { says: 'The agent’s container lacks a Secret or a ConfigMap that it names.', remedy: 'The platform team has to make it, or mend the Agent.' },
  CreateContainerError: { says: 'The agent’s container cannot be made.', remedy: 'The platform team has to look at the pod.' },
  JobFailed: { says: 'The run failed.', remedy: 'The message and the log say why. Add what the agent lacked, or run it again.' },
  BackoffLimitExceeded: { says: 'The agent ended with an error.', remedy: 'The message and the log say why. Add what it lacked as context, or run it again.' },
  DeadlineExceeded: { says: 'The run took longer than its Agent allows, and was ended.', remedy: 'Make the task smaller, or ask the platform team for more time; then run it again.' },
  PodFailurePolicy: { says: 'The agent ended in a way that its Agent counts as final.', remedy: 'The log says why. Mend it, and run it again.' },
  JobGone: { says: 'The run’s Job is gone: whether it had ended well is not known.', remedy: 'Look at what the agent has left. Run it again if that is not enough.' },
  JobStays: { says: 'The task was deleted, but a Job that it had taken over goes on.' },
  CleanupDeadline: { says: 'The task was deleted although something of it still lived.', remedy: 'The platform team has to see to it that it ends.' },
  SuccessfulCreate: { says: 'A pod was made for the run.' },
  SuccessfulDelete: { says: 'The run’s pod was told to end.' },
  'Job Suspended': { says: 'The Job is made, and may not start yet.' },
  Resumed: { says: 'The Job may start.' },
  Completed: { says: 'The Job has ended well.' },
  AsExpected: { says: 'Nothing is wrong.' },
};

/** What it means when a condition is true. */
export const CONDITIONS: Record<string, string> = {
  Complete: 'The newest run ended well.',
  Failed: 'The newest run ended badly.',
  Suspended: 'Nothing starts until the task is resumed.',
  Reconciling: 'Something is still to come.',
  Stalled: 'Somebody has to do something.',
};

/** The reason that all of a task's conditions have in common; nothing where nobody has looked at it yet. */
export function reasonOf(status: Status): string {
  return status.conditions.find((condition) => condition.status === 'True')?.reason ?? 'Pending';
}

/** Whether what is shown is as it is now. */
export const LINE: Record<Line['state'], string> = { connecting: 'Connecting…', live: 'Live', away: 'Reconnecting…', over: 'Not live' };

/** Whether a run in this phase has ended. */
export function isOver(phase: Phase): boolean {
  return phase === 'Succeeded' || phase === 'Failed';
}

/** Whether a person has to act before it goes on. */
export function isStalled(status: Status): boolean {
  const stalled = status.conditions.some((condition) => condition.type === 'Stalled' && condition.status === 'True');
  return stalled && (status.phase === 'Pending' || status.phase === 'Running');
}

/** What is said of a reason that is not in the table: nothing, and the message has to do. */
export function wordsFor(reason: string): Words {
  return (Object.hasOwn(REASONS, reason) && REASONS[reason]) || { says: '' };
}

/** What a message says beside its reason, and beside what it tells those who have kubectl to do: the page has buttons. */
export function messageOf(reason: string, message: string): string {
  const rest = message.replace(/[:;] set spec\.[^()]* \(kubectl taskrun \w+\)$/, '');
  return rest.toLowerCase() === reason.toLowerCase() ? '' : rest;
}

export function eventWords(event: KubernetesEvent): string {
  return wordsFor(`${event.kind} ${event.reason}`).says || wordsFor(event.reason).says || 'The cluster says:';
}

/** Whether the present run is told to end, and has not ended yet. */
export function isBeingCancelled(task: WholeTask): boolean {
  return task.cancel && task.status.phase === 'Running' && task.status.context_version === task.context_version;
}

/** One word for what became of a version. */
export type State = Phase | Outcome | 'Ending' | 'Suspended';

export interface Version {
  number: number;
  state: State;
  run: Run;
}

/** The versions that were recorded, and the present one, newest first: as `kubectl taskrun history` has them. */
export function versions(task: WholeTask): Version[] {
  const { status, context_version: present } = task;
  const phase = (version: number): State => {
    if (status.context_version !== version) return 'Pending';
    if (isBeingCancelled(task)) return 'Ending';
    return status.phase === 'Pending' && reasonOf(status) === 'Suspended' ? 'Suspended' : status.phase;
  };
  const found = task.runs.map((run): Version => {
    const isEnding = run.context_version < present && status.context_version === present;
    return { number: run.context_version, state: run.outcome ?? (isEnding ? 'Ending' : phase(run.context_version)), run };
  });
  if (!found.some((version) => version.number === present)) {
    const run: Run = {
      context_version: present, outcome: null, job_name: null, attempts: 0, started_at: null, completed_at: null,
      message: status.context_version === present ? status.message : null, changed_by: task.changed_by,
    };
    found.push({ number: present, state: phase(present), run });
  }
  return found.reverse();
}

/** The run that goes on, if one does. */
function goingOn(task: WholeTask): Version | undefined {
  return versions(task).find((version) => version.run.started_at && !version.run.outcome);
}

/** Whether that run's Job was made by somebody else: it is never ended for a newer version. */
function isAdopted(task: WholeTask, version: Version): boolean {
  return version.run.job_name !== null && version.run.job_name !== `${task.service}-${task.task_id}-v${version.number}`;
}

/** What a new version does to what goes on, and when it runs. */
function nextRuns(task: WholeTask, isRunAgain: boolean): string[] {
  const next = task.context_version + 1;
  const running = goingOn(task);
  if (task.cancel && !isRunAgain) return [`The task is cancelled: version ${next} is kept, and does not run until the task is run again.`];
  if (task.suspend) return [`The task is suspended: version ${next} starts when it is resumed.`];
  if (!running) {
    const waits = versions(task)[0]!;
    return waits.state === 'Pending'
      ? [`Version ${task.context_version} has not started yet: version ${next} takes its place.`]
      : [`Version ${next} starts at once.`];
  }
  if (task.context_update_policy === 'AfterCompletion' || isAdopted(task, running))
    return [`Version ${running.number} is running and goes on. Version ${next} starts when it has ended.`];
  return [
    `Version ${running.number} is running: it will be ended, and what its agent has not saved is lost.`,
    `Version ${next} starts when its pod is gone.`,
  ];
}

export type Action = 'add' | 'rerun' | 'cancel' | 'suspend' | 'resume';

/** What an action will do to a task as it is now, sentence by sentence. */
export function willDo(action: Action, task: WholeTask): string[] {
  const present = task.context_version;
  const files = task.markdown_files.length;
  const running = goingOn(task);
  switch (action) {
    case 'add':
      return [`Your text becomes context-v${present + 1}.md, beside the ${count(files, 'file')} that ${files === 1 ? 'is' : 'are'} there.`, ...nextRuns(task, false)];
    case 'rerun':
      return [`Version ${present + 1} gets the same ${count(files, 'file')} as version ${present}.`, ...nextRuns(task, true)];
    case 'cancel':
      return task.runs.some((run) => run.context_version === present && run.outcome)
        ? [`Version ${present} has ended already: nothing will change.`]
        : [
            running ? `Version ${running.number} is running: its pod is told to end, and it counts as failed.` : `Version ${present} will not start, and counts as failed.`,
            'Its files and its log are kept. Nothing runs until somebody runs the task again.',
          ];
    case 'suspend':
      return [
        running ? `Version ${running.number} is running: its pod ends, and the version starts over when the task is resumed.` : `No version starts until the task is resumed.`,
      ];
    case 'resume':
      if (task.cancel) return ['The task is cancelled as well: it does not run until it is run again.'];
      return [versions(task)[0]!.run.outcome ? `Version ${present} has ended already; the next one may start.` : `Version ${present} starts.`];
  }
}

/** What a rollback to a version with these files will do. */
export function willRollBack(task: WholeTask, version: number, names: string[]): string[] {
  const gone = task.markdown_files.map((file) => file.filename).filter((name) => !names.includes(name));
  return [
    `Version ${task.context_version + 1} gets the ${count(names.length, 'file')} of version ${version}.`,
    gone.length > 0 ? `Left out: ${gone.join(', ')}. Older versions keep them as long as they are kept.` : 'No file is left out.',
    ...nextRuns(task, true),
  ];
}

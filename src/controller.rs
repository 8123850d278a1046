//! The reconciler: reconcile = observe, plan, execute.
//!
//! Nothing here may depend on why `reconcile` was called. A look into the caches only decides whether
//! there is anything to do; all that is written is decided on what the API server says now.

mod agents;
mod cache;
mod lists;
mod measure;
mod notices;
mod observe;
mod packed;
mod queue;
mod turns;
mod versions;
mod written;

use crate::client::{ApiServer, Error, WATCH_SECONDS};
use crate::clock::now;
use crate::crd::{TASK_LABEL, TaskNames, TaskRun};
use crate::leader::Leadership;
use crate::metrics::{Failure, Metrics};
use crate::plan::{Next, Plan, Step, plan};
use crate::telemetry::{Span, Task};
use cache::{Caches, GuardedAgent, Kept, Look};
use futures::channel::mpsc::UnboundedReceiver;
use futures::stream::{self, Stream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::core::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::controller::{self, Action, Config, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event, watcher};
use lists::Lists;
use notices::Notices;
use packed::Packed;
use queue::Queue;
use std::collections::HashMap;
use std::future::{Future, Ready, ready};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tracing::Instrument;
use turns::{Priority, Turns};
use versions::Versions;
use written::Written;

/// Reconciles that call the API server at the same time.
const CONCURRENCY: usize = 32;
/// The longest that calls in flight are waited for at the end: they have their own.
const GRACE: Duration = Duration::from_secs(20);
/// TaskRuns that are looked at one after another before anything else has its turn.
const AT_A_TIME: usize = 64;
/// Plans in one reconcile: a start takes four, each conflict one more.
const MAX_ROUNDS: usize = 12;
/// Objects a page of a list: the page, not the store, is what takes memory.
const PAGE_SIZE: u32 = 50;
/// First and longest wait after errors of one object.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// The first where the API server refuses what we make: it will, until somebody changes something.
const BACKOFF_REFUSED: Duration = Duration::from_secs(10);

/// What the reconciler is told.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// How TaskRuns are named.
    pub names: TaskNames,
    /// The Agent for tasks whose own does not exist.
    pub default_agent: Option<String>,
}

struct Context {
    api_server: ApiServer,
    caches: Caches,
    settings: Settings,
    metrics: Arc<Metrics>,
    leadership: Leadership,
    written: Written,
    queue: Queue,
    versions: Versions,
    turns: Turns,
    passed_over: Notify,
    jobs: Lists<Job>,
    pods: Lists<Pod>,
    notices: Notices,
    /// In a row, by object.
    failures: Mutex<HashMap<ObjectRef<DynamicObject>, u32>>,
}

/// Watches the TaskRuns and Agents of a namespace, or of all, and sees to them while this process leads,
/// until `shutdown` resolves; calls in flight are finished first.
pub async fn run(
    api_server: ApiServer,
    namespace: Option<String>,
    settings: Settings,
    metrics: Arc<Metrics>,
    leadership: Leadership,
    shutdown: impl Future<Output = ()> + Clone + Send + Sync + 'static,
) {
    let namespace = namespace.as_deref();
    let ended = shutdown.clone();
    let agents_are_tried = agents::run(api_server.clone(), namespace, leadership.clone(), shutdown.clone());
    let (caches, writers) = Caches::new();
    let watch = watcher::Config::default().page_size(PAGE_SIZE).timeout(WATCH_SECONDS);
    let ours = watch.clone().labels(TASK_LABEL);
    let (ctx, called) = Context::new(api_server.clone(), caches.clone(), settings, metrics, leadership);
    let [heard, of_task_runs, of_jobs, of_pods, of_agents, ended_with, ending] = std::array::from_fn(|_| ctx.clone());
    let task_runs = watcher(api_server.api::<Kept>(namespace), watch.clone())
        .default_backoff()
        .inspect(move |event| heard.hear(event))
        .reflect(writers.task_runs)
        .filter_map(news(&ctx))
        .inspect_ok(move |task_run| of_task_runs.due(&ObjectRef::from_obj(task_run)));
    let jobs = watcher(api_server.api::<Packed<Job>>(namespace), ours.clone())
        .default_backoff()
        .reflect(writers.jobs)
        .filter_map(news(&ctx));
    let index = caches.pods.clone();
    let pods = watcher(api_server.api::<Packed<Pod>>(namespace), ours)
        .default_backoff()
        .inspect(move |event| index.apply(event))
        .filter_map(news(&ctx));
    let agents = watcher(api_server.api::<GuardedAgent>(namespace), watch)
        .default_backoff()
        .reflect(writers.agents)
        .filter_map(news(&ctx));
    let task_runs_are_reconciled = Controller::for_stream(task_runs, caches.task_runs)
        // bounded by turns, which are given in order: kube takes what comes first in a hash table, so that in a burst some
        // would wait for all others
        .with_config(Config::default().concurrency(0))
        .reconcile_on(passed_over(ctx.clone()))
        .reconcile_on(called)
        .watches_stream(jobs, move |job| cache::task_run_of(&job).inspect(|object| of_jobs.due(object)))
        .watches_stream(pods, move |pod| cache::task_run_of(&pod).inspect(|object| of_pods.due(object)))
        .watches_stream(agents, move |agent: GuardedAgent| {
            let waiting = of_agents.caches.waiting_for(&agent, of_agents.settings.default_agent.as_deref());
            waiting.into_iter().inspect(|object| of_agents.due(object)).collect::<Vec<_>>()
        })
        .graceful_shutdown_on(shutdown)
        .run(reconcile, error_policy, ctx)
        .for_each(|result| {
            // errors of reconciles were told by error_policy
            if let Err(controller::Error::ObjectNotFound(object)) = result {
                ended_with.forget(&object);
            }
            ready(())
        });
    let both = futures::future::join(task_runs_are_reconciled, agents_are_tried);
    tokio::select! {
        _ = both => {}
        // a controller whose caches were never filled would not end
        () = async {
            ended.await;
            // nobody else begins
            ending.turns.close();
            tokio::time::sleep(GRACE).await;
        } => {}
    }
}

/// What a watch says of one object. Where it has listed, all TaskRuns are looked at instead. Its errors are told and kept from
/// the Controller, which would look at no watch for up to half a minute: each has a backoff of its own.
fn news<K>(ctx: &Arc<Context>) -> impl Fn(watcher::Result<Event<K>>) -> Ready<Option<watcher::Result<K>>> + use<K> {
    let ctx = ctx.clone();
    move |event| {
        ready(match event {
            Ok(Event::Apply(object) | Event::Delete(object)) => Some(Ok(object)),
            Ok(Event::Init | Event::InitApply(_)) => None,
            Ok(Event::InitDone) => {
                ctx.passed_over.notify_one();
                None
            }
            Err(error) => {
                tracing::warn!(%error, "failed to watch");
                None
            }
        })
    }
}

/// Names all TaskRuns once this process leads and its caches are filled, each time that one was passed over before. A few at
/// a time: tables that had to hold all of them would stay as large.
fn passed_over(ctx: Arc<Context>) -> impl Stream<Item = ObjectRef<Kept>> + Send {
    stream::unfold((ctx, vec![]), |(ctx, mut all)| async move {
        while all.is_empty() {
            ctx.passed_over.notified().await;
            if !ctx.leadership.acquired().await {
                return None;
            }
            ctx.caches.filled().await;
            // of those until now
            let _ = ctx.passed_over.notified().now_or_never();
            all = ctx.caches.task_runs.state();
        }
        if all.len().is_multiple_of(AT_A_TIME) {
            tokio::task::yield_now().await;
        }
        let object = ObjectRef::from_obj(&*all.pop()?);
        ctx.due(&object);
        Some((object, (ctx, all)))
    })
}

async fn reconcile(task_run: Arc<Kept>, ctx: Arc<Context>) -> Result<Action, Error> {
    let object = ObjectRef::from_obj(&*task_run);
    let turn = ctx.turns.of(&object);
    if !ctx.leadership.may_begin() || !ctx.caches.are_filled() {
        return Ok(ctx.pass_over(&object.erase()));
    }
    let started = Instant::now();
    let looked = task_run.unpack().map(|cached| (ctx.look_at_copies(&cached), cached)).ok();
    if let Some((Look::Settled(next), _)) = looked {
        let object = object.erase();
        ctx.begin(&object);
        ctx.forget_failures(&object);
        ctx.end(object, &Ok(next), started.elapsed());
        return Ok(next.into());
    }
    let priority = if matches!(looked, Some((Look::Tell(_), _))) { Priority::Low } else { Priority::Normal };
    match turn.or_else(|| ctx.turns.take(&object, priority)) {
        Some(_turn) => Box::pin(reconcile_in_turn(object.erase(), &task_run, looked, &ctx)).await,
        // it is called when its turn has come
        None => Ok(Action::await_change()),
    }
}

async fn reconcile_in_turn(
    object: ObjectRef<DynamicObject>,
    task_run: &Kept,
    looked: Option<(Look, TaskRun)>,
    ctx: &Context,
) -> Result<Action, Error> {
    let started = Instant::now();
    ctx.begin(&object);
    let result = tokio::select! {
        biased;
        // a call that hangs must not be sent later
        () = ctx.leadership.lost() => return Ok(ctx.pass_over(&object)),
        result = async {
            match looked {
                None => reconcile_unreadable(task_run, ctx).await,
                Some((Look::Tell(plan), cached)) => tell(&cached, &plan, ctx).await,
                Some((_, cached)) => reconcile_task_run(&cached, ctx).await,
            }
        } => result,
    };
    if result.is_ok() {
        ctx.forget_failures(&object);
    }
    ctx.end(object, &result, started.elapsed());
    result.map(Action::from)
}

/// Writes a status that was found in the copies, if they are those of now.
async fn tell(cached: &TaskRun, plan: &Plan, ctx: &Context) -> Result<Next, Error> {
    match execute(ctx, cached, plan, now()).await {
        Ok(()) => Ok(plan.next),
        Err(Error::Conflict(_)) => reconcile_task_run(cached, ctx).await,
        Err(error) => Err(error),
    }
}

async fn reconcile_task_run(cached: &TaskRun, ctx: &Context) -> Result<Next, Error> {
    let mut refused = None;
    for round in 0..MAX_ROUNDS {
        if !ctx.leadership.may_begin() {
            return Ok(Next::Again);
        }
        let began = now();
        let Some(mut observed) = observe::observe(ctx, cached, round == 0).await? else {
            return Ok(Next::Wait);
        };
        let version = observed.task_run.metadata.resource_version.clone();
        // a Job that is there was not refused, whatever was: the API server says so before it looks
        let refused_now = refused.take().filter(|(of, _)| *of == version && observed.job.is_none());
        observed.refused = refused_now.map(|(_, refusal)| refusal);
        let plan = plan(&observed);
        match execute(ctx, &observed.task_run, &plan, began).await {
            Ok(()) if plan.next == Next::Again => {}
            // the status says so; when to try again is a matter of backoff
            Ok(()) if let (Some((reason, message)), Next::After(_)) = (observed.refused, plan.next) => {
                return Err(Error::Refused { reason, message });
            }
            Ok(()) => return Ok(plan.next),
            Err(Error::Refused { reason, message }) => refused = Some((version, (reason, message))),
            Err(Error::Conflict(message)) => tracing::debug!(message, "conflict, observing again"),
            Err(error) => return Err(error),
        }
    }
    Err(Error::Conflict(format!("no end after {MAX_ROUNDS} rounds")))
}

/// An object that does not fit our types: only an edit can mend it, and the others go on. It can be
/// deleted all the same, for which its metadata is enough.
async fn reconcile_unreadable(task_run: &Kept, ctx: &Context) -> Result<Next, Error> {
    let Ok(metadata) = task_run.unpack_metadata() else { return Ok(Next::Wait) };
    if metadata.deletion_timestamp.is_none() {
        let (name, namespace) = (&metadata.name, &metadata.namespace);
        tracing::warn!(task_run = name, namespace, "cannot be read: its spec or status does not fit the schema");
        return Ok(Next::Wait);
    }
    let began = now();
    let observed = observe::observe_unreadable(ctx, &metadata).await?;
    let plan = plan(&observed);
    execute(ctx, &observed.task_run, &plan, began).await?;
    Ok(plan.next)
}

/// Carries the plan out, in order. No choices are left. What writes something is told as a span, from where its
/// observation began.
async fn execute(ctx: &Context, task_run: &TaskRun, plan: &Plan, began: Timestamp) -> Result<(), Error> {
    if plan.steps.is_empty() {
        return Ok(());
    }
    let TaskRun { metadata, spec, .. } = task_run;
    let text = |text: &'_ Option<String>| text.clone().unwrap_or_default();
    let (namespace, name, uid) = (text(&metadata.namespace), text(&metadata.name), text(&metadata.uid));
    let task = Task { namespace: &namespace, name: &name, uid: &uid, version: Some(spec.context_version.into()) };
    let mut span = Span::begin("reconcile", task_run.traceparent(), began);
    span.describe(&task, || vec![("steps", plan.steps.len().to_string())]);
    let logs = span.logs(&task);
    let steps = async {
        for step in &plan.steps {
            if !ctx.leadership.may_act() {
                return Err(Error::Conflict("leading no longer".to_owned()));
            }
            if let Step::Publish(notice) = step {
                ctx.notices.tell(task_run, notice);
                continue;
            }
            let mut span = span.child(step.words());
            let result = Box::pin(ctx.api_server.execute(task_run, step)).await;
            if let Err(error) = &result {
                span.fail(Failure::from(error).as_str());
            }
            result?;
            ctx.take_note(task_run, step);
            ctx.measure(task_run, step);
        }
        Ok(())
    };
    steps.instrument(logs).await
}

impl Context {
    fn new(
        api_server: ApiServer,
        caches: Caches,
        settings: Settings,
        metrics: Arc<Metrics>,
        leadership: Leadership,
    ) -> (Arc<Self>, UnboundedReceiver<ObjectRef<Kept>>) {
        let (written, queue, versions, passed_over, jobs, pods, failures) = Default::default();
        let (turns, called) = Turns::new(CONCURRENCY);
        let notices = Notices::new(api_server.clone(), turns.clone());
        let ctx = Arc::new(Self {
            api_server,
            caches,
            settings,
            metrics,
            leadership,
            written,
            queue,
            versions,
            turns,
            passed_over,
            jobs,
            pods,
            notices,
            failures,
        });
        let seen = ctx.clone();
        ctx.metrics.reconciler.look_at(move || seen.look());
        (ctx, called)
    }

    /// Notes what was written: all these writes are made under a resourceVersion.
    fn take_note(&self, task_run: &TaskRun, step: &Step) {
        let TaskRun { metadata, .. } = task_run;
        match step {
            Step::PatchStatus(_) | Step::SetFinalizers { .. } => {
                self.written.note(metadata.uid.as_deref(), metadata.resource_version.as_deref());
            }
            Step::PatchJob { patch, .. } => {
                let metadata = &patch["metadata"];
                self.written.note(metadata["uid"].as_str(), metadata["resourceVersion"].as_str());
            }
            _ => {}
        }
    }

    /// What is to be done, as far as the copies of it say.
    fn look_at_copies(&self, cached: &TaskRun) -> Look {
        match self.wait_for_copies(cached) {
            Some(wait) => Look::Settled(Next::After(wait)),
            None => self.caches.look(cached, self.settings.names),
        }
    }

    /// How long to wait for newer copies than ours of what was written last.
    fn wait_for_copies(&self, cached: &TaskRun) -> Option<Duration> {
        let job = self.caches.packed_job(cached, cached.spec.context_version);
        let copies = [Some(&cached.metadata), job.as_ref().map(|job| job.meta())];
        copies.into_iter().flatten().find_map(|copy| self.written.wait_for(copy))
    }

    /// The object is looked at once this process leads.
    fn pass_over(&self, object: &ObjectRef<DynamicObject>) -> Action {
        self.queue.take(object);
        self.passed_over.notify_one();
        Action::await_change()
    }

    /// The object is gone.
    fn forget(&self, object: &ObjectRef<DynamicObject>) {
        self.forget_failures(object);
        self.queue.take(object);
        let namespace = object.namespace.as_deref().unwrap_or_default();
        drop(self.turns.of(&ObjectRef::new(&object.name).within(namespace)));
    }

    fn forget_failures(&self, object: &ObjectRef<DynamicObject>) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
    }
}

impl From<Next> for Action {
    fn from(next: Next) -> Self {
        match next {
            Next::Again => Self::requeue(Duration::ZERO),
            Next::After(wait) => Self::requeue(wait),
            Next::Wait => Self::await_change(),
        }
    }
}

/// Exponential per object, with jitter, capped.
#[expect(clippy::needless_pass_by_value, reason = "kube calls it so")]
fn error_policy(task_run: Arc<Kept>, error: &Error, ctx: Arc<Context>) -> Action {
    let object = ObjectRef::from_obj(&*task_run).erase();
    let mut failures = ctx.failures.lock().unwrap_or_else(PoisonError::into_inner);
    let count = failures.entry(object.clone()).or_default();
    *count += 1;
    let first = if matches!(error, Error::Refused { .. }) { BACKOFF_REFUSED } else { BACKOFF.0 };
    let version = task_run.unpack().ok().map(|task_run| task_run.spec.context_version);
    let (namespace, uid) = (&object.namespace, &object.extra.uid);
    tracing::warn!(%error, task_run = object.name, namespace, uid, version, failures = *count, "reconcile failed");
    let wait = backoff(first, *count);
    ctx.due_after(object, wait);
    Action::requeue(wait)
}

/// How long to wait after so many failures: exponential, with jitter and a cap.
fn backoff(first: Duration, failures: u32) -> Duration {
    let wait = first.saturating_mul(1 << (failures - 1).min(16)).min(BACKOFF.1);
    wait.mul_f64(0.5 + fastrand::f64() / 2.0)
}

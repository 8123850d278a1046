//! Observing: what the API server says now of one TaskRun and all that belongs to it.

use super::Context;
use crate::client::Error;
use crate::clock::now;
use crate::crd::{Agent, RunStatus, TASK_RUN_UID_LABEL, TaskRun, TaskRunSpec};
use crate::plan::{
    Observed, build_job, is_finished, is_foreign, is_owned, is_queued, is_suspended, pods_of_job, task_selector,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::core::DynamicObject;
use std::collections::BTreeSet;

/// Everything that a plan may need, read live wherever it decides over creating, deleting, recording
/// or releasing; none where the TaskRun is gone. The TaskRun is read first: what was recorded in it
/// must be older than what is seen of its Jobs.
///
/// At `first` a version that has no run, and no Job in the cache, is taken for one that has none if it can be run: creating
/// what is there is a conflict, and then they are read. Not while an older run goes on, which would be ended by then.
pub async fn observe(ctx: &Context, cached: &TaskRun, first: bool) -> Result<Option<Observed>, Error> {
    let (namespace, name) = (cached.namespace().unwrap_or_default(), cached.name_any());
    let Some(task_run) = ctx.api_server.fetch::<TaskRun>(&namespace, &name).await? else {
        return Ok(None);
    };
    let is_deleted = task_run.metadata.deletion_timestamp.is_some();
    let is_recorded = task_run.present_run().is_some();
    let agent = agent(ctx, &task_run);
    let is_new = first && looks_new(ctx, &task_run, agent.as_ref());
    let job = match is_new {
        true => None,
        false => ctx.api_server.fetch::<Job>(&namespace, &task_run.present_job()).await?,
    };
    let adopted = match task_run.adoption().filter(|adoption| adoption.is_legal() && !is_deleted) {
        Some(adoption) => ctx.api_server.fetch::<Job>(&namespace, adoption.job).await?,
        None => None,
    };
    let config_map = match (&job, is_recorded || is_new) {
        (None, false) => ctx.api_server.fetch_config_map(&namespace, &task_run.spec.run_id().to_string()).await?,
        _ => None,
    };
    let found = job.as_ref().map(|job| &job.metadata).or(config_map.as_ref());
    if found.is_some_and(|found| !is_owned(found, &task_run.metadata)) {
        // a predecessor's object is to be deleted, a successor's is not: it is the former if we are there still
        let now = ctx.api_server.fetch::<TaskRun>(&namespace, &name).await?;
        if now.is_none_or(|now| now.metadata.uid != task_run.metadata.uid) {
            return Ok(None);
        }
    }
    let is_surplus = is_recorded && !task_run.surplus_runs().is_empty();
    let config_maps = match is_surplus {
        true => Some(ctx.api_server.list_config_maps(&namespace, &task_selector(&task_run.spec.run_id())).await?),
        false => None,
    };
    let other_jobs = other_jobs(ctx, &task_run, is_surplus).await?;
    Ok(Some(Observed {
        pods: pods(ctx, &task_run, job.as_ref(), &other_jobs, adopted.as_ref()).await?,
        workload: workload(ctx, &task_run, job.iter().chain(&other_jobs)).await?,
        other_jobs,
        agent,
        task_run,
        job,
        adopted,
        config_map,
        config_maps,
        refused: None,
        names: ctx.settings.names,
        now: now(),
    }))
}

/// Whether this version is one to make a Job of now, as far as is known without asking; then no older run goes on.
fn looks_new(ctx: &Context, task_run: &TaskRun, agent: Option<&Result<Agent, String>>) -> bool {
    let is_plain = task_run.metadata.deletion_timestamp.is_none()
        && !task_run.spec.is_held()
        && task_run.adoption().is_none()
        && task_run.present_run().is_none();
    let has_job = || ctx.caches.packed_job(task_run, task_run.spec.context_version).is_some();
    let can_run = || agent.is_some_and(|agent| agent.as_ref().is_ok_and(|agent| build_job(task_run, agent).is_ok()));
    is_plain && task_run.runs().iter().all(|run| run.outcome.is_some()) && !has_job() && can_run()
}

/// Jobs other than the present version's: all of the task where a run may begin or all must be found, else
/// what the cache has, if all of it has ended. Those that may have pods are recorded, so they are read live in
/// any case, by their names: a label can be taken away.
async fn other_jobs(ctx: &Context, task_run: &TaskRun, is_surplus: bool) -> Result<Vec<Job>, Error> {
    let (present, run) = (task_run.present_job(), task_run.spec.run_id());
    let is_asked = task_run.present_run().is_none() || is_surplus || task_run.metadata.deletion_timestamp.is_some();
    let copies = if is_asked { None } else { Some(ctx.caches.other_jobs(task_run)) };
    // a copy that says that a Job goes on may be old, and the Job would be ended for it
    let copies = copies.filter(|jobs| jobs.iter().all(is_finished));
    let is_live = copies.is_none();
    let mut jobs = match copies {
        Some(jobs) => jobs,
        None => ctx.jobs.of_task(&ctx.api_server, &task_run.namespace().unwrap_or_default(), &run).await?,
    };
    jobs.retain(|job| job.name_any() != present);
    // one that was adopted may have been made again by whom it belonged to
    let begins = task_run.present_run().is_none();
    let may_live = |run: &&RunStatus| run.outcome.is_none() || (begins && task_run.is_adopted(run));
    let runs = task_run.runs().iter().filter(may_live);
    for name in runs.filter_map(|run| run.job_name.as_ref()).filter(|name| **name != present) {
        let is_there = jobs.iter().any(|job| job.name_any() == *name);
        if !is_live || !is_there {
            jobs.retain(|job| job.name_any() != *name);
            jobs.extend(ctx.api_server.fetch::<Job>(&task_run.namespace().unwrap_or_default(), name).await?);
        }
    }
    Ok(jobs)
}

/// Pods of the task: live where it is decided whether a run may start or how it ended. Those of an adopted Job are
/// found by its uid, since they get our labels only once they are seen.
async fn pods(
    ctx: &Context,
    task_run: &TaskRun,
    job: Option<&Job>,
    others: &[Job],
    adopted: Option<&Job>,
) -> Result<Vec<Pod>, Error> {
    let records = task_run.present_run().is_none() && job.is_some();
    let runs = task_run.runs().iter().filter(|run| run.outcome.is_none());
    let goes_on: Vec<_> = runs.filter_map(|run| run.job_uid.as_ref()).collect();
    let is_the_end =
        |job: &Job| is_finished(job) && job.metadata.uid.as_ref().is_some_and(|uid| goes_on.contains(&uid));
    let ends = job.into_iter().chain(others).any(is_the_end);
    let mut runs = task_run.runs().iter();
    let recorded = runs.find(|run| task_run.is_adopted(run) && (records || run.outcome.is_none()));
    let adopted = adopted.and_then(|job| job.metadata.uid.as_ref()).or(recorded.and_then(|run| run.job_uid.as_ref()));
    let is_live = records || ends || adopted.is_some() || task_run.metadata.deletion_timestamp.is_some();
    let namespace = task_run.namespace().unwrap_or_default();
    let mut pods = match is_live {
        true => ctx.pods.of_task(&ctx.api_server, &namespace, &task_run.spec.run_id()).await?,
        false => ctx.caches.pods.of_task(task_run),
    };
    let foreign = others.iter().filter(|job| is_foreign(job) && !is_finished(job));
    let uids: BTreeSet<&String> =
        adopted.into_iter().chain(foreign.filter_map(|job| job.metadata.uid.as_ref())).collect();
    for uid in uids {
        let found: Vec<Pod> = ctx.api_server.list(&namespace, &pods_of_job(uid)).await?;
        pods.retain(|pod| found.iter().all(|other| other.metadata.uid != pod.metadata.uid));
        pods.extend(found);
    }
    Ok(pods)
}

/// What Kueue made of the run's Job, where a queued run is suspended or was.
async fn workload<'a>(
    ctx: &Context,
    task_run: &TaskRun,
    mut jobs: impl Iterator<Item = &'a Job>,
) -> Result<Option<DynamicObject>, Error> {
    let run = task_run.present_run().or(task_run.run_waited_for()).filter(|run| run.outcome.is_none());
    let Some(uid) = run.filter(|_| is_suspended(task_run)).and_then(|run| run.job_uid.as_ref()) else {
        return Ok(None);
    };
    if !jobs.any(|job| job.metadata.uid.as_ref() == Some(uid) && is_queued(job)) {
        return Ok(None);
    }
    ctx.api_server.fetch_workload(&task_run.namespace().unwrap_or_default(), uid).await
}

/// What the deletion of a TaskRun that cannot be read needs: its Jobs and pods, by its uid.
pub async fn observe_unreadable(ctx: &Context, metadata: &ObjectMeta) -> Result<Observed, Error> {
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let selector = format!("{TASK_RUN_UID_LABEL}={}", metadata.uid.as_deref().unwrap_or_default());
    let mut other_jobs: Vec<Job> = ctx.api_server.list(&namespace, &selector).await?;
    other_jobs.retain(|job| is_owned(&job.metadata, metadata));
    Ok(Observed {
        other_jobs,
        pods: ctx.api_server.list(&namespace, &selector).await?,
        task_run: TaskRun { metadata: metadata.clone(), spec: TaskRunSpec::default(), status: None },
        job: None,
        adopted: None,
        config_map: None,
        config_maps: None,
        workload: None,
        agent: None,
        refused: None,
        names: ctx.settings.names,
        now: now(),
    })
}

fn agent(ctx: &Context, task_run: &TaskRun) -> Option<Result<Agent, String>> {
    let named = ctx.caches.agent(task_run, &task_run.spec.agent_name);
    named.or_else(|| ctx.caches.agent(task_run, ctx.settings.default_agent.as_deref()?))
}

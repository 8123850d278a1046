//! Leader election: of all replicas one acts, the one that holds a Lease.
//!
//! As client-go does it, every write of the Lease is under its resourceVersion, and no clock is compared
//! with another one's. A candidate takes a Lease over that has not changed for its duration, by the
//! candidate's own clock. The leader stops by itself some seconds earlier, counted from the moment
//! before it sent its last renewal. So a paused leader finds, when it wakes, that its time is over.

use crate::client::{ApiServer, Error};
use crate::clock::now;
use crate::metrics::Metrics;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Name of the Lease, as in `deploy/rbac.yaml`.
pub const LEASE: &str = "taskrun-operator";
/// How long the others wait after a renewal, in seconds.
const DURATION_SECONDS: i32 = 15;
/// How long a renewal lets us act. The rest of the duration is for what was sent before its end.
const TERM: Duration = Duration::from_secs(10);
/// From one renewal to the next.
const RENEWAL: Duration = Duration::from_secs(2);
/// From one look of a candidate at the Lease to the next, and before what failed is tried again.
const LOOK: Duration = Duration::from_secs(1);
/// The longest that one look and one write may take: if a renewal hangs, one more fits into the term.
const ATTEMPT: Duration = Duration::from_secs(3);

/// Whether this process may act.
#[derive(Clone)]
pub struct Leadership(watch::Receiver<Standing>);

#[derive(Clone, Copy, Default)]
struct Standing {
    until: Option<Instant>,
    is_ending: bool,
}

impl Standing {
    fn may_act(self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }
}

impl Leadership {
    /// Whether what was begun may go on.
    #[must_use]
    pub fn may_act(&self) -> bool {
        self.0.borrow().may_act()
    }

    /// Whether something new may begin: not where this process is ending.
    #[must_use]
    pub fn may_begin(&self) -> bool {
        self.may_act() && !self.0.borrow().is_ending
    }

    /// Waits until something may begin; false if this process is ending.
    pub async fn acquired(&self) -> bool {
        let mut standing = self.0.clone();
        let standing = standing.wait_for(|standing| standing.may_act() || standing.is_ending).await;
        standing.is_ok_and(|standing| !standing.is_ending)
    }

    /// Waits until we may act no longer.
    pub async fn lost(&self) {
        let mut standing = self.0.clone();
        loop {
            let now = *standing.borrow_and_update();
            let Some(until) = now.until.filter(|_| now.may_act()) else { return };
            if let Ok(Err(_)) = timeout_at(until, standing.changed()).await {
                return;
            }
        }
    }
}

/// A process that holds the Lease or wants to.
pub struct Candidate {
    api_server: ApiServer,
    namespace: String,
    pod: String,
    identity: String,
    standing: watch::Sender<Standing>,
    seen: Option<(LeaseSpec, Instant)>,
    is_fresh: bool,
    metrics: Arc<Metrics>,
}

impl Candidate {
    /// A candidate for the Lease in `namespace`, best with connections of its own: a renewal must wait for
    /// nothing else. `pod` is the pod's name, and no two processes may live under one: the later one takes
    /// the Lease over at once, as a container does that was restarted in its pod. Without it the process
    /// has a name of its own.
    #[must_use]
    pub fn new(api_server: ApiServer, namespace: String, pod: Option<String>, metrics: Arc<Metrics>) -> Self {
        let random = || format!("{:016x}", fastrand::u64(..));
        let pod = pod.unwrap_or_else(|| format!("process-{}", random()));
        let identity = format!("{pod}_{}", random());
        let standing = watch::Sender::default();
        Self { api_server, namespace, pod, identity, standing, seen: None, is_fresh: true, metrics }
    }

    /// What this candidate may do.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        Leadership(self.standing.subscribe())
    }

    /// Holds the Lease while `work` goes on, or waits for it, and releases it then. From `stop` on nothing
    /// new may begin, and `work` has to end.
    pub async fn run<T>(mut self, stop: impl Future<Output = ()>, work: impl Future<Output = T>) -> T {
        let standing = self.standing.clone();
        let stopping = async {
            stop.await;
            standing.send_modify(|standing| standing.is_ending = true);
            std::future::pending::<()>().await;
        };
        let result = tokio::select! {
            result = work => result,
            () = self.campaign() => unreachable!(),
            () = stopping => unreachable!(),
        };
        self.release().await;
        result
    }

    async fn campaign(&mut self) {
        loop {
            let result = timeout(ATTEMPT, self.attempt()).await.unwrap_or(Err(Error::Timeout));
            match &result {
                Ok(()) => {}
                Err(Error::Conflict(message)) => tracing::debug!(message, "somebody else wrote the lease"),
                Err(error) => tracing::warn!(%error, "failed to look at or write the lease"),
            }
            let leads = self.standing.borrow().may_act();
            if !leads {
                self.stand_until(None);
            }
            sleep(if leads && result.is_ok() { RENEWAL } else { LOOK }).await;
        }
    }

    /// Looks at the Lease, and takes or renews it where it may.
    async fn attempt(&mut self) -> Result<(), Error> {
        let found = self.api_server.fetch::<Lease>(&self.namespace, LEASE).await?;
        let (metadata, spec) = found.map(|lease| (lease.metadata, lease.spec.unwrap_or_default())).unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != spec) {
            self.seen = Some((spec.clone(), Instant::now()));
        }
        if !self.may_take(&spec) {
            self.is_fresh = false;
            self.stand_until(None);
            return Ok(());
        }
        let sent = Instant::now();
        self.api_server.write(&self.namespace, &self.build_lease(metadata, spec)).await?;
        self.is_fresh = false;
        self.stand_until(Some(sent + TERM));
        Ok(())
    }

    fn may_take(&self, spec: &LeaseSpec) -> bool {
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        // a container that was restarted in this pod: the one that was here before is dead
        let was_here = || holder.rsplit_once('_').is_some_and(|(pod, _)| pod == self.pod);
        let duration = spec.lease_duration_seconds.unwrap_or(DURATION_SECONDS).unsigned_abs();
        let is_over = |since: Instant| since.elapsed() >= Duration::from_secs(duration.into());
        holder.is_empty()
            || holder == self.identity
            || (self.is_fresh && was_here())
            || self.seen.as_ref().is_some_and(|(_, since)| is_over(*since))
    }

    fn build_lease(&self, metadata: ObjectMeta, spec: LeaseSpec) -> Lease {
        let is_renewal = spec.holder_identity.as_ref() == Some(&self.identity);
        let now = Some(MicroTime(now()));
        let spec = LeaseSpec {
            acquire_time: if is_renewal { spec.acquire_time } else { now.clone() },
            renew_time: now,
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(DURATION_SECONDS),
            lease_transitions: Some(spec.lease_transitions.unwrap_or_default().saturating_add((!is_renewal).into())),
            ..spec
        };
        Lease { metadata: ObjectMeta { name: Some(LEASE.to_owned()), ..metadata }, spec: Some(spec) }
    }

    fn stand_until(&self, until: Option<Instant>) {
        let (mut led, leads) = (false, until.is_some());
        self.standing.send_modify(|standing| led = std::mem::replace(&mut standing.until, until).is_some());
        if led != leads {
            tracing::info!(identity = self.identity, leads, "leadership has changed");
            self.metrics.reconciler.leads(leads);
        }
    }

    /// Gives the Lease back, so that another replica need not wait for its end.
    async fn release(&self) {
        self.stand_until(None);
        let released = timeout(ATTEMPT, async {
            loop {
                match self.try_release().await {
                    // a renewal of ours was under way
                    Err(Error::Conflict(_)) => {}
                    result => return result,
                }
            }
        });
        if let Err(error) = released.await.unwrap_or(Err(Error::Timeout)) {
            tracing::warn!(%error, "failed to release the lease");
        }
    }

    async fn try_release(&self) -> Result<(), Error> {
        let Some(mut lease) = self.api_server.fetch::<Lease>(&self.namespace, LEASE).await? else { return Ok(()) };
        match &mut lease.spec {
            Some(spec) if spec.holder_identity.as_ref() == Some(&self.identity) => spec.holder_identity = None,
            _ => return Ok(()),
        }
        self.api_server.write(&self.namespace, &lease).await.map(|_| ())
    }
}

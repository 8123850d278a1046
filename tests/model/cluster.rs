//! What the Job controller, the kubelet and the garbage collector do. Each of them may act at any
//! time, or never. Pods start here, so it is here that most laws are held.

use super::world::{Cascade, Job, JobUid, Law, Link, Outcome, Phase, Pod, World};

impl World {
    /// The Job controller learns of all that has become of Jobs.
    pub fn catch_up(&mut self) {
        self.seen.clone_from(&self.jobs);
    }

    /// The Job controller looks at a Job, as it knows it. A write of what has changed since fails.
    pub fn sync_job(&mut self, uid: JobUid, retries: bool) {
        let Some(seen) = self.seen.iter().find(|job| job.uid == uid).copied() else { return };
        let is_fresh = self.job(uid) == Some(&seen);
        let pods: Vec<Pod> =
            self.pods.iter().filter(|pod| pod.job == uid && pod.link == Link::Owned).copied().collect();
        let ended = |phase: Phase| pods.iter().filter(|pod| pod.phase == phase).count();
        let active: Vec<&Pod> = pods.iter().filter(|pod| !pod.has_ended()).collect();
        let end = match () {
            () if ended(Phase::Succeeded) > 0 => Some(Outcome::Succeeded),
            () if ended(Phase::Failed) > usize::from(retries) => Some(Outcome::Failed),
            () if seen.cancelled && !seen.suspended => Some(Outcome::Cancelled),
            () => None,
        };
        if seen.deleting || seen.end.is_some() {
        } else if end.is_some() && active.is_empty() {
            if is_fresh {
                self.write_job_status(uid, end);
            }
        } else if seen.suspended || seen.cancelled {
            let going: Vec<_> = active.iter().filter(|pod| !pod.deleting).map(|pod| pod.id()).collect();
            for id in going {
                self.delete_pod(id);
            }
        } else if active.is_empty() && self.pods.iter().all(|pod| pod.job != uid || pod.link == Link::Owned) {
            // a pod that was orphaned it would first adopt, which fails where the Job is gone
            self.create_pod(&seen);
        }
        if is_fresh && !seen.deleting && seen.end.is_none() && (seen.suspended || !active.is_empty()) {
            self.write_job_status(uid, seen.end);
        }
    }

    /// The Job controller knows what it wrote itself. Ended pods tell nothing more than an ended Job.
    fn write_job_status(&mut self, uid: JobUid, end: Option<Outcome>) {
        for job in self.jobs.iter_mut().chain(&mut self.seen).filter(|job| job.uid == uid) {
            (job.end, job.known) = (end, true);
        }
        self.pods.retain(|pod| pod.job != uid || end.is_none());
    }

    fn create_pod(&mut self, job: &Job) {
        let free = (0..u8::MAX).find(|n| self.pod((job.uid, *n)).is_none());
        self.pods.push(Pod {
            job: job.uid,
            n: free.unwrap_or_default(),
            owner: job.owner,
            link: Link::Owned,
            gated: job.gated,
            phase: Phase::Pending,
            deleting: false,
        });
        self.pods.sort_unstable();
    }

    /// The kubelet starts a pod that may: here the laws are held. It may not know yet that the pod is
    /// to be deleted.
    pub fn start_pod(&mut self, id: (JobUid, u8)) {
        let Some(pod) = self.pod(id).copied() else { return };
        let beside = self.pods.iter().any(|other| other.phase == Phase::Running);
        let owner = self.task_runs.iter().find(|task_run| task_run.uid == pod.owner);
        let run = owner.and_then(|owner| owner.run(pod.job.run()));
        let is_recorded = run.is_some_and(|run| run.job == Some(pod.job));
        let is_over = run.is_some_and(|run| run.outcome.is_some());
        let (has_owner, is_copy) = (owner.is_some(), owner.is_some_and(|owner| owner.is_copy));
        self.breaks(Law::OneAtATime, beside);
        self.breaks(Law::RecordedFirst, has_owner && !is_recorded);
        // a pod whose Job is gone is out of the operator's hands: a person's doing, or a late Job controller's
        self.breaks(Law::OverIsOver, is_over && self.job(pod.job).is_some());
        self.breaks(Law::CopiesWait, is_copy && !pod.job.is_helms());
        self.note_start(pod.owner, pod.job);
        self.pods.iter_mut().filter(|pod| pod.id() == id).for_each(|pod| pod.phase = Phase::Running);
        self.pods.sort_unstable();
    }

    /// A pod's containers end; nothing is left of one that was to be deleted.
    pub fn end_pod(&mut self, id: (JobUid, u8), phase: Phase) {
        self.pods.retain(|pod| pod.id() != id || !pod.deleting);
        self.pods.iter_mut().filter(|pod| pod.id() == id).for_each(|pod| pod.phase = phase);
        self.pods.sort_unstable();
    }

    /// Whether the garbage collector has something to do with this Job.
    pub fn is_garbage(&self, job: &Job) -> bool {
        let of = |pod: &Pod| pod.job == job.uid && pod.link == Link::Owned;
        let pods_go = self.pods.iter().filter(|pod| of(pod)).all(|pod| pod.deleting && !pod.has_ended());
        !self.has_owner(job.owner) || (job.deleting && (!pods_go || !self.pods.iter().any(of)))
    }

    /// The garbage collector looks at a Job: one without its TaskRun goes, one that is being deleted
    /// goes after its pods.
    pub fn collect_job(&mut self, uid: JobUid) {
        let Some(job) = self.job(uid).copied() else { return };
        let pods = self.pods.iter().filter(|pod| pod.job == uid && pod.link == Link::Owned);
        let pods: Vec<_> = pods.map(Pod::id).collect();
        if pods.is_empty() || !self.has_owner(job.owner) {
            self.delete_job(uid, Cascade::Background, Link::Owned);
        } else if job.deleting {
            for id in pods {
                self.delete_pod(id);
            }
        }
    }

    /// Whether the garbage collector would delete this pod: its Job is gone.
    pub fn is_lost(&self, pod: &Pod) -> bool {
        pod.link == Link::Owned && !pod.deleting && self.job(pod.job).is_none()
    }

    /// Whether a ConfigMap has lost its TaskRun.
    pub fn has_lost_config_map(&self) -> bool {
        self.config_maps.iter().any(|(_, owner)| !self.has_owner(*owner))
    }

    pub fn collect_config_maps(&mut self) {
        let owners: Vec<u8> = self.task_runs.iter().map(|task_run| task_run.uid).collect();
        self.config_maps.retain(|(_, owner)| owners.contains(owner));
    }
}

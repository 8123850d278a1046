//! The model bites: with any one protection taken out of the protocol it finds a way to break it.
//! Printed is how many things must happen for that.

use super::mutation::Mutation::{
    self, AdoptedIsOurs, AdoptsNothing, AnyName, AnyOwner, CancelRecordedFirst, CancelUnlocked, CancelWithoutJob,
    CopiesRun, CreatesAgain, DeletesByDefault, DeletionDoesNotWait, EndsOlderLate, FinalizerStays, NoGate, NoRecord,
    NoWaitForAdopted, NoWaitForAdoptedPods, NoWaitForController, NoWaitForForeignJobs, NoWaitForForeignPods,
    NoWaitForGatedPods, NoWaitForJobs, NoWaitForPods, NotSuspended, OlderRunsStay, OrphansStay, PodsStayGated,
    ReleaseBeforeRecord, ReleaseUnconditional, ReleaseUnlocked, ReleaseWithoutUid, StartsAtOnce, StatusUnlocked,
    StraysStay,
};
use super::operator::Planner;
use super::people::{Life, Meddling, Use};
use super::system::{
    ALL_TOLD, Action, COMES_TO_REST, COPIES_WAIT, ENDED_FIRST, NOTHING_LEFT, ONE_AT_A_TIME, OTHERS_STAY, OUTCOMES_STAY,
    OVER_IS_OVER, OWN_JOBS, RECORDED_FIRST, RUN_ONCE, System,
};
use super::world::Cascade;
use super::{check, holds};

/// With this taken out, the shortest way to break the property is found.
fn breaks(mutation: Mutation, property: &'static str, mut system: System) {
    system.planner.mutation = Some(mutation);
    system.only = Some(property);
    let found = check(&format!("{mutation:?}"), system);
    let (_, way) = found.first().unwrap_or_else(|| panic!("{mutation:?} breaks nothing"));
    println!("{mutation:?}: \"{property}\" is broken after {} steps", way.len());
}

/// One operator, and a Job controller that is always up to date.
fn one(uses: u8, lives: u8, meddles: u8) -> System {
    System { is_late: false, ..super::one(uses, lives, meddles) }
}

/// Two operators.
fn two(uses: u8, lives: u8, meddles: u8) -> System {
    System { more_operators: 1, ..one(uses, lives, meddles) }
}

fn late(system: System) -> System {
    System { is_late: true, ..system }
}

fn edits_and_expiry(deed: Action) -> bool {
    matches!(deed, Action::Use(Use::Edit) | Action::Meddle(Meddling::Expire(_)))
}

fn edits_and_orphans(deed: Action) -> bool {
    let orphan = |what| matches!(what, Meddling::Unsuspend(_) | Meddling::DeleteJob(_, Cascade::Orphan));
    matches!(deed, Action::Use(Use::Edit)) || matches!(deed, Action::Meddle(what) if orphan(what))
}

/// The Jobs of another TaskRun are not looked at, only their pods: one may be about to come.
#[test]
fn a_job_of_a_task_run_whose_finalizer_was_taken_off_by_hand_starts_a_pod() {
    let people = |deed| {
        matches!(deed, Action::Use(Use::Edit) | Action::Live(Life::Delete | Life::TakeFinalizer | Life::CreateAnew))
    };
    breaks(NoWaitForForeignJobs, ONE_AT_A_TIME, System { people: Some(people), ..one(1, 3, 0) });
}

// the seven ways that broke simpler protocols

#[test]
fn a_stale_status_write_forgets_a_run() {
    breaks(StatusUnlocked, OUTCOMES_STAY, two(0, 0, 0));
}

#[test]
fn a_stale_status_write_runs_a_version_again() {
    breaks(StatusUnlocked, RUN_ONCE, System { people: Some(edits_and_expiry), ..two(1, 0, 1) });
}

#[test]
fn a_job_that_is_gone_may_have_left_a_pod() {
    breaks(NoWaitForPods, ONE_AT_A_TIME, one(1, 0, 1));
}

#[test]
fn a_cancelled_run_starts_where_its_job_was_left() {
    breaks(CancelWithoutJob, OVER_IS_OVER, two(1, 0, 0));
}

#[test]
fn a_foreign_unsuspend_starts_what_is_not_recorded() {
    breaks(NoGate, RECORDED_FIRST, one(0, 0, 1));
}

#[test]
fn a_foreign_unsuspend_starts_a_run_beside_another() {
    breaks(NoGate, ONE_AT_A_TIME, one(1, 0, 1));
}

#[test]
fn a_stray_job_stays() {
    breaks(StraysStay, NOTHING_LEFT, two(0, 0, 1));
}

#[test]
fn a_job_that_is_gone_is_made_again() {
    breaks(CreatesAgain, RUN_ONCE, one(0, 0, 1));
}

#[test]
fn two_task_runs_of_one_task_run_beside_each_other() {
    breaks(AnyName, ONE_AT_A_TIME, System { has_twin: true, ..one(1, 0, 0) });
}

#[test]
fn the_pods_of_a_task_run_that_is_gone_are_still_there() {
    breaks(NoWaitForForeignPods, ONE_AT_A_TIME, one(0, 3, 0));
}

#[test]
fn a_restored_task_run_runs_again() {
    breaks(CopiesRun, COPIES_WAIT, one(0, 2, 0));
}

// all the others

#[test]
fn a_job_that_may_start_at_once_does() {
    breaks(StartsAtOnce, RECORDED_FIRST, one(0, 0, 0));
}

#[test]
fn a_release_comes_before_the_record() {
    breaks(ReleaseBeforeRecord, RECORDED_FIRST, one(0, 0, 0));
}

#[test]
fn a_run_that_is_not_recorded_runs_twice() {
    breaks(NoRecord, RUN_ONCE, one(0, 0, 1));
}

#[test]
fn a_release_by_name_alone_releases_another_job() {
    breaks(ReleaseUnconditional, RECORDED_FIRST, two(0, 0, 1));
}

#[test]
fn an_older_job_that_goes_on_makes_a_pod() {
    breaks(NoWaitForJobs, ONE_AT_A_TIME, one(1, 0, 0));
}

#[test]
fn a_gated_pod_is_released_by_an_older_plan() {
    breaks(NoWaitForGatedPods, ONE_AT_A_TIME, System { people: Some(edits_and_orphans), ..two(1, 0, 2) });
}

#[test]
fn a_late_job_controller_makes_a_pod_of_a_job_that_is_gone() {
    breaks(NoWaitForController, ONE_AT_A_TIME, late(one(1, 0, 0)));
}

#[test]
fn a_late_job_controller_knows_the_new_job_before_the_older_ones_end() {
    breaks(EndsOlderLate, ONE_AT_A_TIME, late(one(1, 0, 0)));
}

#[test]
fn a_default_delete_leaves_the_pod_of_an_older_run() {
    breaks(DeletesByDefault, ALL_TOLD, one(1, 0, 0));
}

#[test]
fn a_cancel_is_told_before_the_job_ends() {
    breaks(CancelRecordedFirst, OVER_IS_OVER, one(1, 0, 0));
}

#[test]
fn an_older_run_is_never_ended() {
    breaks(OlderRunsStay, ALL_TOLD, one(1, 0, 0));
}

#[test]
fn a_pod_stays_behind_the_gate_of_a_job_that_somebody_unsuspended() {
    breaks(PodsStayGated, ALL_TOLD, one(0, 0, 1));
}

#[test]
fn an_orphan_behind_the_gate_is_waited_for_for_ever() {
    breaks(OrphansStay, ALL_TOLD, System { people: Some(edits_and_orphans), ..one(1, 0, 2) });
}

#[test]
fn a_deletion_leaves_a_run() {
    breaks(DeletionDoesNotWait, ENDED_FIRST, one(0, 1, 0));
}

#[test]
fn a_deletion_never_ends() {
    breaks(FinalizerStays, COMES_TO_REST, one(0, 1, 0));
}

#[test]
fn a_job_of_another_is_taken_for_ours() {
    breaks(AnyOwner, OWN_JOBS, one(0, 3, 0));
}

// of a Job that is adopted

fn adopted(system: System) -> System {
    System { adopts: true, ..system }
}

#[test]
fn a_task_that_helm_runs_is_run_again() {
    breaks(AdoptsNothing, RUN_ONCE, adopted(one(0, 0, 0)));
}

#[test]
fn new_context_does_not_wait_for_an_adopted_job() {
    let system = System { retries: true, ..adopted(one(1, 0, 0)) };
    breaks(NoWaitForAdopted, OVER_IS_OVER, system);
}

#[test]
fn a_pod_of_an_adopted_job_that_is_gone_is_not_found() {
    breaks(NoWaitForAdoptedPods, ONE_AT_A_TIME, System { retries: true, ..adopted(one(1, 0, 1)) });
}

#[test]
fn a_deletion_takes_an_adopted_job_with_it() {
    breaks(AdoptedIsOurs, OTHERS_STAY, adopted(one(0, 1, 0)));
}

// What the model does not need: another protection is there as well. Each is kept for another reason.

fn is_not_alone(mutation: Mutation, system: System) {
    let planner = Planner { mutation: Some(mutation), ..Planner::default() };
    holds(&format!("{mutation:?}"), System { planner, ..system });
}

#[test]
fn a_gate_holds_even_a_job_that_is_not_suspended() {
    is_not_alone(NotSuspended, late(one(1, 0, 0)));
    is_not_alone(NotSuspended, two(0, 0, 1));
}

#[test]
fn a_resource_version_is_of_one_uid() {
    is_not_alone(ReleaseWithoutUid, two(0, 0, 1));
}

#[test]
fn a_release_of_the_recorded_uid_is_undone_where_it_is_too_late() {
    is_not_alone(ReleaseUnlocked, late(one(1, 0, 0)));
    is_not_alone(ReleaseUnlocked, two(1, 0, 0));
}

#[test]
fn a_cancel_that_deletes_a_released_job_ends_it_as_well() {
    is_not_alone(CancelUnlocked, two(1, 0, 0));
}

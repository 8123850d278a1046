//! The Agent's `Valid` condition.

use super::*;
use crate::crd::AgentStatus;

#[test]
fn the_trial_is_the_job_that_a_task_would_get_but_nobodys() {
    let job = build_trial_job(&agent()).unwrap();
    let spec = job.spec.unwrap();
    assert_eq!((spec.suspend, job.metadata.owner_references), (Some(true), None));
    assert_eq!(job.metadata.name.as_deref(), Some("taskrun-operator-trial"));
    let mut agent = agent();
    agent.spec.job_template.spec.as_mut().unwrap().suspend = Some(true);
    assert!(build_trial_job(&agent).unwrap_err().contains("spec.jobTemplate.spec.suspend"));
}

#[test]
fn a_verdict_is_written_once_a_generation_and_others_conditions_stay() {
    let now = Timestamp::UNIX_EPOCH;
    let metadata = ObjectMeta { generation: Some(3), ..ObjectMeta::default() };
    let theirs = json!({"conditions": [
        {"type": "Theirs", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
    ]});
    let status: AgentStatus = serde_json::from_value(theirs).unwrap();
    assert!(!is_judged(&metadata, Some(&status)));
    let patch = judge_agent(&metadata, Some(&status), &Err("cpu: banana".into()), now).unwrap();
    let judged: AgentStatus = serde_json::from_value(patch["status"].clone()).unwrap();
    let told: Vec<_> = judged.conditions.iter().map(|c| (&*c.type_, &*c.status, &*c.message)).collect();
    assert_eq!(told, [("Theirs", "True", ""), ("Valid", "False", "cpu: banana")]);
    assert!(is_judged(&metadata, Some(&judged)));
    assert_eq!(judge_agent(&metadata, Some(&judged), &Err("cpu: banana".into()), now), None);
    assert!(judge_agent(&metadata, Some(&judged), &Ok(()), now).is_some());
}

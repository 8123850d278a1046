//! The annotation by which all that happens to a version is told as one: it comes and goes with the version.

use super::*;
use crate::crd::TRACEPARENT;

const FIRST: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const SECOND: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn mutate_in(new: &Value, old: Option<&Value>, traceparent: Option<&str>) -> Value {
    let answer = Answer::told_in(Webhook::Mutate, &request(new, old), TaskNames::ById, traceparent);
    patched(new, &answer)
}

fn traceparent(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][TRACEPARENT].as_str()
}

fn annotated(object: Value, traceparent: &str) -> Value {
    let mut object = object;
    object["metadata"]["annotations"][TRACEPARENT] = json!(traceparent);
    object
}

fn edited(object: &Value) -> Value {
    with(object.clone(), "/spec/markdownFiles/0/content", json!("# Do it well"))
}

#[test]
fn a_new_version_gets_the_span_of_its_admission() {
    assert_eq!(traceparent(&mutate_in(&manifest(), None, Some(FIRST))), Some(FIRST));
    let old = stored(3);
    let new = mutate_in(&edited(&old), Some(&old), Some(FIRST));
    assert_eq!((traceparent(&new), &new["spec"]["contextVersion"]), (Some(FIRST), &json!(4)));
    let again = mutate_in(&with(new.clone(), "/spec/contextVersion", json!(5)), Some(&new), Some(SECOND));
    assert_eq!(traceparent(&again), Some(SECOND), "a re-run of the same context, by the same user");
}

#[test]
fn an_older_span_never_stays_with_a_newer_version() {
    let old = annotated(stored(3), FIRST);
    assert_eq!(traceparent(&mutate_in(&edited(&old), Some(&old), Some(SECOND))), Some(SECOND));
    assert_eq!(traceparent(&mutate_in(&edited(&old), Some(&old), None)), None, "nor where traces are off by now");
    let copy = with(annotated(manifest(), FIRST), "/spec/contextVersion", json!(1));
    assert_eq!(traceparent(&mutate_in(&copy, None, Some(SECOND))), Some(SECOND), "nor in a copy");
}

#[test]
fn it_changes_with_the_version_alone() {
    let old = annotated(stored(3), FIRST);
    for written in [SECOND, "", "malformed"] {
        for given in [None, Some(SECOND)] {
            assert_eq!(mutate_in(&annotated(old.clone(), written), Some(&old), given), old, "{written:?}");
        }
    }
    assert_eq!(mutate_in(&stored(3), Some(&old), Some(SECOND)), old, "left out");
    assert_eq!(mutate_in(&annotated(stored(3), SECOND), Some(&stored(3)), Some(FIRST)), stored(3), "made up");
}

#[test]
fn asked_again_the_first_span_stays() {
    let old = annotated(stored(3), SECOND);
    for (new, old) in [(manifest(), None), (edited(&old), Some(&old))] {
        let once = mutate_in(&new, old, Some(FIRST));
        let third = FIRST.replace("4bf9", "5bf9");
        let answer = Answer::told_in(Webhook::Mutate, &request(&once, old), TaskNames::ById, Some(&third));
        assert_eq!(answer.patch, None);
    }
    let odd = annotated(mutate_in(&manifest(), None, Some(FIRST)), "00-malformed");
    assert_eq!(traceparent(&mutate_in(&odd, None, Some(SECOND))), Some(SECOND));
}

#[test]
fn without_traces_nothing_is_written() {
    let old = stored(3);
    assert_eq!(traceparent(&mutate_in(&manifest(), None, None)), None);
    assert_eq!(traceparent(&mutate_in(&edited(&old), Some(&old), None)), None);
    assert_eq!(mutate_in(&old, Some(&old), None), old);
}

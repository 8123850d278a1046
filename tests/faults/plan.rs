//! The matrix: what fails, and where. A plan has a name that says all of it, and that replays it.

use std::fmt;

/// What is watched, each by a watch of its own.
pub const WATCHED: [&str; 4] = ["taskruns", "jobs", "pods", "agents"];

/// One thing that goes wrong in one run of a scenario.
#[derive(Clone, Debug)]
pub struct Plan {
    pub scenario: &'static str,
    pub fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Nothing does.
    None,
    /// The operator's n-th write, from 1.
    Write(usize, WriteFault),
    /// The watch of a kind, from the start or from the first change on.
    Watch(&'static str, WatchFault, When),
    /// Each seventh read: answered with 500, or not at all.
    Reads(ReadFault),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WriteFault {
    /// The operator is killed, and the write does not arrive.
    CrashBefore,
    /// The write is carried out, and the operator killed before it hears of it.
    CrashAfter,
    /// The write is carried out, and the connection closed.
    AnswerLost,
    /// The write does not arrive; 409, 429 with `Retry-After`, 500 or 504 is the answer.
    Refused(u16),
    /// The write is carried out, and 504 is the answer.
    TimeoutAfter,
    /// The operator stops (SIGSTOP) while its write is on its way, and another takes over; it goes on when that one
    /// has written, and only then the write arrives.
    StoppedBefore,
    /// The same, and it goes on when all is over.
    StoppedBeforeLong,
    /// The operator stops before it hears the answer, until another has written.
    StoppedAfter,
    /// The same, until all is over.
    StoppedAfterLong,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WatchFault {
    /// Events come some seconds late.
    Frozen,
    /// The connection is reset.
    Dropped,
    /// No byte comes any more, until the client gives up.
    HalfOpen,
    /// The next event is 410.
    Expired,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    AtStart,
    AtChange,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ReadFault {
    Refused,
    Lost,
}

impl Fault {
    /// Whether a second operator takes part, on what it sees by itself.
    pub fn is_by_two(self) -> bool {
        use WriteFault::{StoppedAfter, StoppedAfterLong, StoppedBefore, StoppedBeforeLong};
        matches!(self, Self::Write(_, StoppedBefore | StoppedBeforeLong | StoppedAfter | StoppedAfterLong))
    }
}

const WRITE_FAULTS: [WriteFault; 12] = [
    WriteFault::StoppedBefore,
    WriteFault::StoppedBeforeLong,
    WriteFault::StoppedAfter,
    WriteFault::StoppedAfterLong,
    WriteFault::CrashBefore,
    WriteFault::CrashAfter,
    WriteFault::AnswerLost,
    WriteFault::TimeoutAfter,
    WriteFault::Refused(409),
    WriteFault::Refused(429),
    WriteFault::Refused(500),
    WriteFault::Refused(504),
];
const WATCH_FAULTS: [WatchFault; 4] =
    [WatchFault::HalfOpen, WatchFault::Frozen, WatchFault::Dropped, WatchFault::Expired];

/// All plans of a scenario whose clean run takes so many writes; those that take longest come first.
pub fn matrix(scenario: &'static str, writes: usize, changes: bool) -> Vec<Plan> {
    let whens = if changes { vec![When::AtStart, When::AtChange] } else { vec![When::AtStart] };
    let watches = WATCH_FAULTS.iter().flat_map(|fault| WATCHED.map(|kind| (kind, *fault)));
    let watches = watches.flat_map(|(kind, fault)| whens.iter().map(move |when| Fault::Watch(kind, fault, *when)));
    let writes = WRITE_FAULTS.iter().flat_map(|fault| (1..=writes).map(|number| Fault::Write(number, *fault)));
    let reads = [ReadFault::Refused, ReadFault::Lost].map(Fault::Reads);
    watches.chain(writes).chain(reads).map(|fault| Plan { scenario, fault }).collect()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.scenario)?;
        match self.fault {
            Fault::None => write!(f, "clean"),
            Fault::Write(number, fault) => write!(f, "write-{number}/{fault}"),
            Fault::Watch(kind, fault, when) => write!(f, "watch-{kind}/{}-{}", kebab(fault), kebab(when)),
            Fault::Reads(fault) => write!(f, "reads/{}", kebab(fault)),
        }
    }
}

impl fmt::Display for WriteFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(code) => write!(f, "{code}"),
            Self::TimeoutAfter => write!(f, "504-after"),
            other => write!(f, "{}", kebab(other)),
        }
    }
}

/// `HalfOpen` as `half-open`.
fn kebab(variant: impl fmt::Debug) -> String {
    let name = format!("{variant:?}");
    let dashed = name.char_indices().map(|(at, letter)| match at > 0 && letter.is_uppercase() {
        true => format!("-{}", letter.to_lowercase()),
        false => letter.to_lowercase().to_string(),
    });
    dashed.collect()
}

#[test]
fn plans_have_names_of_their_own() {
    let plans = matrix("context-during-run", 14, true);
    let names: std::collections::BTreeSet<String> = plans.iter().map(ToString::to_string).collect();
    assert_eq!(names.len(), plans.len());
    for name in ["write-3/answer-lost", "write-14/504-after", "watch-jobs/half-open-at-change", "reads/lost"] {
        assert!(names.contains(&format!("context-during-run/{name}")), "{name}: {names:?}");
    }
}

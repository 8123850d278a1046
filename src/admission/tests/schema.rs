//! The schema and the functions say the same of names: whoever writes past the webhook meets the schema.

use crate::crd::{
    MAX_ENV, MAX_FILENAME, MAX_FILES, MAX_SERVICE_NAME, custom_resource_definitions, is_env_name, is_filename,
    is_label, is_subdomain,
};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeSet;

fn schema(field: &str) -> Value {
    let crds = serde_json::to_value(custom_resource_definitions()).unwrap();
    let pointer = format!("/0/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/{field}");
    crds.pointer(&pointer).unwrap_or_else(|| panic!("no {pointer}")).clone()
}

fn pattern(field: &str) -> Pattern {
    Pattern::parse(schema(field)["pattern"].as_str().unwrap())
}

/// As much of regular expressions as our patterns need: classes, groups, `?` and `*`, `^` and `$` around.
#[derive(Debug)]
enum Pattern {
    Class(Vec<(char, char)>),
    Sequence(Vec<(Pattern, char)>),
}

impl Pattern {
    fn parse(text: &str) -> Self {
        let text = text.strip_prefix('^').and_then(|text| text.strip_suffix('$')).expect("anchored");
        let mut chars: Vec<char> = text.chars().rev().collect();
        let pattern = Self::sequence(&mut chars);
        assert!(chars.is_empty(), "unread: {chars:?}");
        pattern
    }

    fn sequence(rest: &mut Vec<char>) -> Self {
        let mut items = vec![];
        while let Some(c) = rest.pop().filter(|c| *c != ')') {
            let item = match c {
                '(' => Self::sequence(rest),
                '[' => Self::class(rest),
                '\\' => rest.pop().map(|c| Self::Class(vec![(c, c)])).unwrap(),
                c => {
                    assert!(!".+|{}?*^$".contains(c), "{c} is more than this test knows");
                    Self::Class(vec![(c, c)])
                }
            };
            let times = rest.pop_if(|c| *c == '*' || *c == '?');
            items.push((item, times.unwrap_or('1')));
        }
        Self::Sequence(items)
    }

    fn class(rest: &mut Vec<char>) -> Self {
        let mut ranges = vec![];
        while let Some(from) = rest.pop().filter(|c| *c != ']') {
            let is_range = rest.last() == Some(&'-') && rest.get(rest.len().wrapping_sub(2)).is_some_and(|c| *c != ']');
            let to = if is_range { rest.pop().and_then(|_| rest.pop()).unwrap() } else { from };
            ranges.push((from, to));
        }
        Self::Class(ranges)
    }

    fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        self.ends(&text, 0).contains(&text.len())
    }

    /// Where a match that begins at `start` may end.
    fn ends(&self, text: &[char], start: usize) -> BTreeSet<usize> {
        match self {
            Self::Class(ranges) => {
                let c = text.get(start).filter(|c| ranges.iter().any(|(from, to)| (from..=to).contains(c)));
                c.map(|_| start + 1).into_iter().collect()
            }
            Self::Sequence(items) => items.iter().fold([start].into(), |ends, (item, times)| {
                let once = |from: &BTreeSet<usize>| from.iter().flat_map(|end| item.ends(text, *end)).collect();
                let mut all: BTreeSet<usize> = if *times == '1' { once(&ends) } else { ends.clone() };
                let mut last = ends;
                while *times != '1' && !last.is_empty() {
                    last = &once(&last) - &all;
                    all.extend(&last);
                    last.retain(|_| *times == '*');
                }
                all
            }),
        }
    }
}

/// Names near the edge of what is legal.
fn name() -> impl Strategy<Value = String> {
    let letters =
        prop::sample::select(vec!["a", "z", "A", "Z", "0", "9", "-", "_", ".", ".md", "md", "/", " ", "\n", "é", "["]);
    prop::collection::vec(letters, 0..7).prop_map(|parts| parts.concat())
}

type Rule = fn(&str) -> bool;

#[test]
fn patterns_and_functions_agree() {
    let rules: [(&str, Rule); 4] = [
        ("markdownFiles/items/properties/filename", is_filename),
        ("serviceName", is_label),
        ("agentName", is_subdomain),
        ("env/items/properties/name", is_env_name),
    ];
    for (field, function) in rules {
        let pattern = pattern(field);
        let mut runner = proptest::test_runner::TestRunner::default();
        let agree = |name: String| {
            prop_assert_eq!(pattern.matches(&name), function(&name), "{}: {:?}", field, name);
            Ok(())
        };
        runner.run(&name(), agree).unwrap();
        for good in ["a", "a-b", "a.b", "A_1", "a.md"] {
            assert_eq!(pattern.matches(good), function(good), "{field}: {good}");
        }
    }
    assert!(pattern("agentName").matches("a.b-c.d") && !pattern("agentName").matches("a..b"));
}

#[test]
fn limits_agree() {
    assert_eq!(schema("serviceName")["maxLength"], MAX_SERVICE_NAME);
    assert_eq!(schema("markdownFiles")["maxItems"], MAX_FILES);
    assert_eq!(schema("markdownFiles/items/properties/filename")["maxLength"], MAX_FILENAME);
    assert_eq!(schema("env")["maxItems"], MAX_ENV);
    assert_eq!(schema("agentName")["maxLength"], 253);
}

//! Rules and their unit tests agree, with each other and with the runbooks.

use crate::prometheus::promtool;
use crate::read;
use crate::support::Output;
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

const RULES: &str = "deploy/options/monitoring/rules.yaml";
const TESTS: &str = "deploy/options/monitoring/rules.test.yaml";

/// The shipped rules, as a rule file has them.
pub fn rules() -> Value {
    let mut shipped: Value = serde_saphyr::from_str(&read(RULES)).expect(RULES);
    shipped["spec"].take()
}

/// The rules that have this field, `alert` or `record`.
pub fn having(rules: &Value, field: &str) -> Vec<Value> {
    let groups = rules["groups"].as_array().into_iter().flatten();
    let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
    rules.filter(|rule| rule[field].is_string()).cloned().collect()
}

/// The names of all alerts.
pub fn alerts(rules: &Value) -> BTreeSet<String> {
    having(rules, "alert").iter().filter_map(|rule| rule["alert"].as_str()).map(ToOwned::to_owned).collect()
}

#[test]
fn the_rules_pass_their_unit_tests() {
    let folder = std::env::temp_dir().join(format!("taskrun-rules-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (rules_file, tests_file) = (folder.join("rules.yaml"), folder.join("rules.test.yaml"));
    // JSON is YAML
    std::fs::write(&rules_file, rules().to_string()).expect("a file");
    std::fs::write(&tests_file, read(TESTS)).expect("a file");
    let checked = promtool(&["check", "rules", "--lint=all", "--lint-fatal"], &rules_file);
    let tested = promtool(&["test", "rules"], &tests_file);
    std::fs::remove_dir_all(&folder).expect("removed");
    checked.ok();
    tested.ok();
}

#[test]
fn the_dashboard_ships_as_the_config_map_that_grafana_looks_for() {
    let mut kubectl = Command::new("kubectl");
    kubectl.args(["kustomize", "deploy/options/monitoring"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let built = Output::of(kubectl, "").ok();
    let objects: Vec<Value> = built.split("\n---\n").map(|o| serde_saphyr::from_str(o).expect("YAML")).collect();
    let kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).expect("it ships");
    let dashboard = kind("ConfigMap");
    assert_eq!(dashboard["metadata"]["name"], "taskrun-operator-dashboard");
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    assert_eq!(dashboard["data"]["taskrun-operator.json"], read("deploy/options/monitoring/dashboard.json"));
    assert_eq!(kind("PrometheusRule")["spec"], rules());
}

/// What is expected of an expression that names this: the number of samples in each test.
fn expected(tests: &Value, name: &str) -> Vec<(usize, String)> {
    let tests = tests["tests"].as_array().into_iter().flatten();
    let asked = tests.flat_map(|test| test["promql_expr_test"].as_array().into_iter().flatten());
    let about = asked.filter(|asked| asked["expr"].as_str().is_some_and(|expr| expr.contains(name)));
    about.map(|asked| (asked["exp_samples"].as_array().map_or(0, Vec::len), asked["exp_samples"].to_string())).collect()
}

#[test]
fn every_rule_has_a_unit_test_and_every_alert_a_runbook() {
    let (rules, operations) = (rules(), read("docs/operations.md"));
    let tests: Value = serde_saphyr::from_str(&read(TESTS)).expect(TESTS);
    for rule in having(&rules, "record") {
        let name = rule["record"].as_str().expect("a name");
        assert!(expected(&tests, name).iter().any(|(samples, _)| *samples > 0), "{name} has no unit test");
    }
    for rule in having(&rules, "alert") {
        let name = rule["alert"].as_str().expect("a name");
        let expected = expected(&tests, &format!("\"{name}\""));
        let fires = |(_, samples): &(usize, String)| samples.contains("firing");
        assert!(expected.iter().any(fires), "no unit test has {name} fire");
        assert!(!expected.iter().all(fires), "no unit test has {name} not fire");
        let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
        assert!(["critical", "warning"].contains(&severity), "{name}: severity {severity:?}");
        for annotation in ["summary", "description"] {
            assert!(
                rule["annotations"][annotation].as_str().is_some_and(|text| !text.is_empty()),
                "{name}: {annotation}"
            );
        }
        assert_eq!(rule["annotations"]["runbook"], format!("docs/operations.md#{}", name.to_lowercase()), "{name}");
        assert!(operations.contains(&format!("\n### {name}\n")), "docs/operations.md has no section {name}");
    }
    let told: BTreeSet<String> = operations
        .split("\n## Alerts\n")
        .nth(1)
        .and_then(|rest| rest.split("\n## ").next())
        .into_iter()
        .flat_map(|section| section.lines().filter_map(|line| line.strip_prefix("### ").map(ToOwned::to_owned)))
        .collect();
    assert_eq!(told, alerts(&rules), "runbooks and alerts");
}

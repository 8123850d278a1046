//! The shipped YAML agrees with the code that it is for.

use serde_json::Value;
use std::fs;
use std::path::Path;
use taskrun_operator::client::WEBHOOK_CONFIGURATION;
use taskrun_operator::crd::{CHANGED_BY, GROUP, TRACEPARENT, custom_resource_definitions};
use taskrun_operator::metrics::Metrics;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).expect(path)
}

#[test]
fn crds_are_current() {
    for crd in custom_resource_definitions() {
        let path = format!("crds/{}.yaml", crd.spec.names.plural);
        let shipped: Value = yaml(&path);
        let generated = serde_json::to_value(&crd).expect("JSON");
        assert_eq!(without_float(shipped), without_float(generated), "{path} is stale: run `make generate`");
    }
}

#[test]
fn the_table_of_metrics_is_current() {
    let generated = Metrics::new().expect("metrics").document();
    assert_eq!(read("docs/metrics.md"), generated, "docs/metrics.md is stale: run `make generate`");
}

/// `1` and `1.0` are one number to JSON, but two to this comparison.
fn without_float(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().map_or(Value::Null, Value::from),
        Value::Array(list) => list.into_iter().map(without_float).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, without_float(value))).collect(),
        other => other,
    }
}

#[test]
fn webhook_configurations_fit_the_webhook() {
    for (path, verb) in [("webhook-config/mutating.yaml", "mutate"), ("webhook-config/validating.yaml", "validate")] {
        let configuration = yaml(path);
        assert_eq!(configuration["metadata"]["name"], WEBHOOK_CONFIGURATION, "{path}");
        let webhook = &configuration["webhooks"][0];
        assert_eq!(webhook["name"], format!("{verb}.taskruns.{GROUP}"), "{path}");
        assert_eq!(webhook["clientConfig"]["service"]["path"], format!("/{verb}"), "{path}");
        assert_eq!(webhook["rules"][0]["resources"], serde_json::json!(["taskruns"]), "{path}: no subresources");
        for (field, value) in [("failurePolicy", "Fail"), ("matchPolicy", "Equivalent"), ("sideEffects", "None")] {
            assert_eq!(webhook[field], value, "{path}: {field}");
        }
        let condition = webhook["matchConditions"][0]["expression"].as_str().expect("an expression");
        for field in ["taskId", "serviceName", "agentName", "contextVersion", "markdownFiles", "env"] {
            assert!(
                condition.contains(&format!("object.spec[?'{field}'] != oldObject.spec[?'{field}']")),
                "{path}: {field}"
            );
        }
        assert!(condition.contains(CHANGED_BY), "{path}");
        for exempt in ["suspend", "cancel", "historyLimit"] {
            assert!(!condition.contains(exempt), "{path}: {exempt} must work while the webhook is down");
        }
    }
    let mutating = &yaml("webhook-config/mutating.yaml")["webhooks"][0];
    assert_eq!(mutating["reinvocationPolicy"], "IfNeeded");
    let condition = mutating["matchConditions"][0]["expression"].as_str().expect("an expression");
    assert!(condition.contains(TRACEPARENT), "who changes that annotation alone gets it back");
}

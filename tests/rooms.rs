//! The arrows between rooms: who may import whom, and what pure rooms must not know.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room with those that it may import.
const ARROWS: [(&str, &[&str]); 19] = [
    ("crd", &[]),
    ("admission", &["crd"]),
    ("plan", &["crd", "admission"]),
    ("task", &["crd", "admission"]),
    ("helm", &["crd", "admission"]),
    ("client", &["crd", "metrics", "plan", "task"]),
    ("clock", &[]),
    ("certificate", &[]),
    ("rotator", &["certificate", "client", "clock", "leader", "metrics", "server"]),
    ("leader", &["clock", "client", "metrics"]),
    ("controller", &["clock", "crd", "plan", "client", "leader", "metrics", "telemetry"]),
    ("webhook", &["clock", "crd", "admission", "metrics", "telemetry"]),
    ("migration", &["clock", "crd", "helm", "client"]),
    ("api", &["clock", "crd", "admission", "task", "client"]),
    ("plugin", &["clock", "crd", "task", "client"]),
    ("server", &["api", "certificate", "webhook", "metrics"]),
    ("metrics", &["admission", "crd"]),
    ("telemetry", &["crd"]),
    (
        "cli",
        &[
            "api",
            "certificate",
            "clock",
            "crd",
            "client",
            "controller",
            "helm",
            "leader",
            "metrics",
            "migration",
            "rotator",
            "server",
            "telemetry",
            "webhook",
        ],
    ),
];
const PURE: [&str; 6] = ["certificate", "crd", "admission", "helm", "plan", "task"];
/// What no pure room says.
const IMPURE: [&str; 14] = [
    "async fn",
    ".await",
    "tokio::",
    "actix_web",
    "kube::Client",
    "kube::Api",
    "Api<",
    "std::fs",
    "std::env",
    "std::net",
    "::now()",
    "Instant",
    "prometheus",
    "tracing::",
];

/// The sources of a room, without tests and comments.
fn sources(room: &str) -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![src.join(format!("{room}.rs"))];
    if let Ok(folder) = fs::read_dir(src.join(room)) {
        files.extend(folder.map(|entry| entry.expect("an entry").path()));
    }
    let code = |text: &str| {
        let lines = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().lines();
        lines.map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
    };
    files.retain(|file| file.extension().is_some_and(|e| e == "rs") && !file.ends_with("tests.rs"));
    files
        .into_iter()
        .map(|file| {
            let text = fs::read_to_string(&file).expect("a file");
            (file, code(&text))
        })
        .collect()
}

#[test]
fn every_room_has_its_arrows_stated() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = fs::read_dir(src).expect("a folder").map(|entry| entry.expect("an entry").path());
    let rooms: BTreeSet<String> = files
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| !["lib", "bin"].contains(&name.as_str()))
        .collect();
    assert_eq!(rooms, ARROWS.iter().map(|(room, _)| (*room).to_owned()).collect());
}

#[test]
fn rooms_import_only_along_the_arrows() {
    for (room, allowed) in ARROWS {
        for (file, code) in sources(room) {
            for import in code.split("crate::").skip(1) {
                let name: String = import.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                // `use crate::{a, b}` names several; none of ours is written so
                assert!(!name.is_empty() || import.starts_with('{'), "{}", file.display());
                let names = if name.is_empty() { list(import) } else { vec![name] };
                for name in names {
                    let is_room = ARROWS.iter().any(|(other, _)| *other == name);
                    let is_legal = !is_room || name == room || allowed.contains(&name.as_str());
                    assert!(is_legal, "{}: {room} must not import {name}", file.display());
                }
            }
        }
    }
}

/// The names of `{a, b::c}`.
fn list(import: &str) -> Vec<String> {
    let inside = import.trim_start_matches('{').split('}').next().unwrap_or_default();
    inside.split(',').map(|name| name.trim().split("::").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn pure_rooms_know_no_clock_no_client_and_no_files() {
    for room in PURE {
        for (file, code) in sources(room) {
            for word in IMPURE {
                assert!(!code.contains(word), "{}: a pure room must not say \"{word}\"", file.display());
            }
        }
    }
}

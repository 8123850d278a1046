//! Tells the metric `taskrun_build_info` which compiler it is.

use std::process::Command;

#[expect(clippy::disallowed_methods, reason = "cargo tells it so")]
fn main() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = Command::new(rustc).arg("--version").output().map(|told| told.stdout).unwrap_or_default();
    let told = String::from_utf8_lossy(&told);
    let version = told.split(' ').nth(1).unwrap_or("unknown");
    println!("cargo::rustc-env=TASKRUN_RUSTC={version}");
    println!("cargo::rerun-if-changed=build.rs");
}

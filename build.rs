//! Tells the metric `taskrun_build_info` which compiler it is, and takes in the page, as far as `make page` has built it.

use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

#[expect(clippy::disallowed_methods, reason = "cargo tells it so")]
fn main() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = Command::new(rustc).arg("--version").output().map(|told| told.stdout).unwrap_or_default();
    let told = String::from_utf8_lossy(&told);
    let version = told.split(' ').nth(1).unwrap_or("unknown");
    println!("cargo::rustc-env=TASKRUN_RUSTC={version}");
    println!("cargo::rerun-if-changed=build.rs");
    let [root, out] = ["CARGO_MANIFEST_DIR", "OUT_DIR"].map(|name| PathBuf::from(std::env::var_os(name).expect(name)));
    std::fs::write(out.join("page.rs"), page(&root.join("page"))).expect("OUT_DIR can be written");
}

/// The list of the page's files, as code.
fn page(folder: &Path) -> String {
    let dist = folder.join("dist");
    let is_built = dist.join("index.html").is_file();
    // a folder that is not there would count as changed each time
    println!("cargo::rerun-if-changed={}", if is_built { &dist } else { folder }.display());
    if !is_built {
        println!("cargo::warning=the operator is built without its page: `make page` builds that, and needs Node");
        return "static FILES: &[File] = &[];\n".to_owned();
    }
    let mut code = "static FILES: &[File] = &[\n".to_owned();
    let mut files = [files_of(&dist), files_of(&dist.join("assets"))].concat();
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_none_or(|end| end != "gz")) {
        let name = file.strip_prefix(&dist).expect("it is in there").to_str().expect("UTF-8");
        let path = if name == "index.html" { "" } else { name };
        let packed = PathBuf::from(format!("{}.gz", file.display()));
        let gzip = if packed.is_file() { include(&packed) } else { "&[]".to_owned() };
        let mut hash = DefaultHasher::new();
        std::fs::read(file).expect("it can be read").hash(&mut hash);
        let etag = format!("\"{:016x}\"", hash.finish());
        writeln!(code, "File {{ path: \"/{path}\", body: {}, gzip: {gzip}, etag: {etag:?} }},", include(file))
            .expect("a String takes it");
    }
    code + "];\n"
}

fn include(file: &Path) -> String {
    format!("include_bytes!({:?})", file.to_str().expect("UTF-8"))
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

//! A network namespace for a test: addresses that are not loopback, whose traffic never leaves it.

use crate::support::build;
use std::io::Read;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

/// Set where the test's binary runs itself.
const INSIDE: &str = "TASKRUN_TEST_NETWORK";
const NEEDS: &str = "this test needs `ip` (iproute2), `unshare` (util-linux) and the right to make a network \
    namespace: root, or a kernel that lets users have user namespaces";

/// Runs the body of the test of this name in a network namespace of its own, with these addresses: in a new process of
/// this binary, which ends with this one.
pub fn in_namespace(test: &str, addresses: &[Ipv4Addr], body: impl FnOnce()) {
    if is_inside() {
        std::thread::spawn(|| {
            let _ = std::io::stdin().read_to_end(&mut vec![]);
            std::process::exit(1);
        });
        ip("link set lo up");
        for address in addresses {
            ip(&format!("address add {address}/32 dev lo"));
        }
        return body();
    }
    // what it may fetch cannot be fetched in there
    build("control-plane");
    assert_allowed();
    let mut inside = unshare()
        .arg(std::env::current_exe().expect("a path"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect(NEEDS);
    let stdin = inside.stdin.take();
    let output = inside.wait_with_output().expect("it ends");
    drop(stdin);
    let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    println!("{stdout}");
    assert!(output.status.success(), "failed in its network namespace: {stderr}");
    assert!(stdout.contains("1 passed"), "no test is called {test}: {stdout}");
}

#[expect(clippy::disallowed_methods, reason = "this binary hands it to itself")]
fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

fn unshare() -> Command {
    let mut unshare = Command::new("unshare");
    unshare.arg("--net");
    if !rustix::process::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    unshare.arg("--");
    unshare
}

fn assert_allowed() {
    let output = unshare().args(["ip", "link", "set", "lo", "up"]).output().expect(NEEDS);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{NEEDS} ({})", why.trim());
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().expect(NEEDS);
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

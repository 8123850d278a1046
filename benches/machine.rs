//! The machine: what it is, what a process takes of it, and who runs on which core.

use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes.
pub const MIB: f64 = 1024.0 * 1024.0;
/// The core of the server under load, where each is to have one.
pub const SERVER: usize = 0;
/// The core of those who cause the load.
pub const CLIENT: usize = 1;

/// Runs this thread on one core from now on.
pub fn pin_this_thread(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).expect("a machine with two cores");
}

/// A process of the bench's own; it ends with this one, however that ends.
pub struct Process {
    wrapper: Child,
    /// Its process id.
    pub pid: String,
}

impl Process {
    /// Starts it, on one core where that is given.
    pub fn start(core: Option<usize>, command: &Command) -> Self {
        let mut wrapper = Command::new("sh");
        wrapper.args(["-c", "\"$@\" >&2 & echo $!; cat >/dev/null; kill -KILL $! 2>/dev/null; wait", "sh"]);
        if let Some(core) = core {
            wrapper.args(["taskset", "-c", &core.to_string()]);
        }
        wrapper.arg(command.get_program()).args(command.get_args());
        let mut wrapper = wrapper.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh starts");
        let mut pid = String::new();
        BufReader::new(wrapper.stdout.take().expect("a pipe")).read_line(&mut pid).expect("a pid");
        Self { wrapper, pid: pid.trim().to_owned() }
    }

    /// Waits until it listens there.
    pub fn wait_for(&self, address: SocketAddr) {
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            // a reflector first lists all
            assert!(began.elapsed() < Duration::from_mins(2), "process {} does not listen", self.pid);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it has taken so far.
    pub fn usage(&self) -> Usage {
        usage(&self.pid)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.wrapper.stdin.take());
        let _ = self.wrapper.wait();
    }
}

/// What a process has taken.
#[derive(Clone, Copy)]
pub struct Usage {
    /// Seconds of processor, its own and the kernel's for it.
    pub cpu: f64,
    /// Bytes of memory that it holds now.
    pub rss: f64,
    /// The most that it ever held.
    pub peak: f64,
}

/// Of a process.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub fn usage(pid: &str) -> Usage {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("it runs");
    let stat = read("stat");
    // after the name in brackets come the state and ten more
    let ticks: u64 = stat
        .rsplit(')')
        .next()
        .into_iter()
        .flat_map(|rest| rest.split_whitespace().skip(11).take(2))
        .map(|ticks| ticks.parse::<u64>().expect("a number"))
        .sum();
    let status = read("status");
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("memory");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") * 1024.0
    };
    let cpu = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    Usage { cpu, rss: kib("VmRSS:"), peak: kib("VmHWM:") }
}

/// What it is, for whoever reads the figures.
pub fn describe() -> Value {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let (processors, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split(':').nth(1).unwrap_or_default().trim().to_owned()
    };
    let output = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&output).trim().to_owned()
    };
    json!({
        "processor": field(&processors, "model name"),
        "cores": std::thread::available_parallelism().map_or(0, Into::into),
        "memory": field(&memory, "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "rust": env!("TASKRUN_RUSTC"),
        "go": output("go", &["env", "GOVERSION"]),
    })
}

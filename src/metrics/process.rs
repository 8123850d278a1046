//! This process and its build, by the names that all Prometheus clients have. Read from Linux' `/proc`.

use super::declare::Declare;
use prometheus::{Counter, Error, IntGauge};
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use std::fs;
use std::sync::Mutex;

/// Of this process.
pub struct Process {
    cpu: Mutex<Counter>,
    start: IntGauge,
    resident: IntGauge,
    virtual_memory: IntGauge,
    open_files: IntGauge,
    max_files: IntGauge,
    threads: IntGauge,
}

impl Process {
    pub(super) fn new(declare: &mut Declare) -> Result<Self, Error> {
        let build = declare.gauges(
            "taskrun_build_info",
            "1; its labels tell the operator's version, the commit that it was built from, where the build was told, \
             and the compiler.",
            &[("version", &[]), ("revision", &[]), ("rustc", &[])],
        )?;
        let revision = option_env!("TASKRUN_REVISION").unwrap_or("unknown");
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), revision, env!("TASKRUN_RUSTC")]).set(1);
        let cpu = ("process_cpu_seconds_total", "Processor time, of user and system, in seconds.");
        Ok(Self {
            cpu: Mutex::new(declare.other((cpu.0, "counter", cpu.1), Counter::new(cpu.0, cpu.1)?)?),
            start: declare.gauge("process_start_time_seconds", "When the process started, in seconds since 1970.")?,
            resident: declare.gauge("process_resident_memory_bytes", "Memory that is held.")?,
            virtual_memory: declare.gauge("process_virtual_memory_bytes", "Memory that is mapped.")?,
            open_files: declare.gauge("process_open_fds", "Open files, sockets among them.")?,
            max_files: declare.gauge("process_max_fds", "The limit of open files.")?,
            threads: declare.gauge("process_threads", "Threads.")?,
        })
    }

    /// Reads it anew; what cannot be read stays as it was.
    pub(super) fn look(&self) {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // proc_pid_stat(5): the second field may have spaces, and ends with the last bracket; 3 is the first after it
        let fields: Vec<i64> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split(' ')
            .map(|field| field.parse().unwrap_or_default())
            .collect();
        let field = |number: usize| fields.get(number - 2).copied().unwrap_or_default();
        let ticks = i64::try_from(clock_ticks_per_second()).unwrap_or(100);
        #[expect(clippy::cast_precision_loss, reason = "some seconds")]
        let used = (field(14) + field(15)) as f64 / ticks as f64;
        if let Ok(cpu) = self.cpu.lock() {
            cpu.inc_by((used - cpu.get()).max(0.0));
        }
        self.threads.set(field(20));
        if self.start.get() == 0 {
            self.start.set(boot_time() + field(22) / ticks); // once: the clock may be set
        }
        self.virtual_memory.set(field(23));
        self.resident.set(field(24) * i64::try_from(page_size()).unwrap_or_default());
        // one is open to read the folder
        let open = fs::read_dir("/proc/self/fd").map_or(0, |files| files.count().saturating_sub(1));
        self.open_files.set(i64::try_from(open).unwrap_or_default());
        let limit = getrlimit(Resource::Nofile).current.unwrap_or_default();
        self.max_files.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }
}

/// When the machine started, in seconds since 1970.
fn boot_time() -> i64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok()).unwrap_or_default()
}

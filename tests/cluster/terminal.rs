//! `kubectl taskrun` in a terminal: what stands on the screen, not what was written to it.

use crate::plugin::{PLUGIN, submit, taskrun};
use crate::reconcile::{end, until_told};
use crate::support::{Namespace, PATIENCE};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const ROWS: u16 = 12;
const COLUMNS: u16 = 100;

/// A terminal in which a shell runs commands.
struct Terminal {
    script: Child,
    parser: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// `$PLUGIN` is the binary.
    fn start(ns: &Namespace<'_>, commands: &str) -> Self {
        let commands = format!("stty rows {ROWS} cols {COLUMNS}; {commands}");
        let mut script = ns.cluster.command("script");
        script.args(["-qfec", &commands, "/dev/null"]).env("PLUGIN", PLUGIN).env("TERM", "xterm-256color");
        script.env("SHELL", "/bin/sh").env_remove("NO_COLOR").env_remove("CLICOLOR");
        let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("util-linux' script");
        let size = |size| NonZeroU16::new(size).expect("not 0");
        let parser = Arc::new(Mutex::new(vt100::Parser::new(size(ROWS), size(COLUMNS), 0)));
        let (mut output, screen) = (script.stdout.take().expect("a pipe"), parser.clone());
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut chunk) {
                screen.lock().expect("no panic").process(&chunk[..length]);
            }
        });
        Self { script, parser }
    }

    /// The lines on the screen.
    fn lines(&self) -> Vec<String> {
        self.parser.lock().expect("no panic").screen().contents().lines().map(str::to_owned).collect()
    }

    /// Waits until the screen is as it should be, and returns its lines.
    #[track_caller]
    fn wait(&self, what: &str, is_so: impl Fn(&[String]) -> bool) -> Vec<String> {
        let started = Instant::now();
        loop {
            let lines = self.lines();
            if is_so(&lines) {
                return lines;
            }
            assert!(started.elapsed() < PATIENCE, "the screen does not show {what}:\n{}", lines.join("\n"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn press(&mut self, key: &[u8]) {
        let keyboard = self.script.stdin.as_mut().expect("a pipe");
        keyboard.write_all(key).expect("it reads");
        keyboard.flush().expect("it reads");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

/// A line with these words, in this order.
fn has(lines: &[String], words: &[&str]) -> bool {
    lines.iter().any(|line| line.split_whitespace().collect::<Vec<_>>().starts_with(words))
}

#[test]
fn watch_is_drawn_in_its_place_and_ctrl_c_leaves_the_terminal_as_it_was() {
    let ns = until_told();
    submit(&ns, Path::new("README.md"), &[]).ok();
    let mut terminal = Terminal::start(
        &ns,
        &format!(
            "trap : INT; stty -a >/dev/null; before=$(stty -g); \"$PLUGIN\" -n {} watch; echo code $?; [ \"$before\" = \"$(stty -g)\" ] && echo sane; sleep 60",
            ns.name
        ),
    );
    terminal.wait("version 1 running", |lines| has(lines, &["task-7", "svc", "1", "Running", "1"]));
    taskrun(&ns, &["add-context", "7", "-m", "more"]).ok();
    let lines =
        terminal.wait("version 2 running", |lines| lines.iter().any(|line| line.ends_with("Job svc-7-v2 is running")));
    assert_eq!(lines.len(), 2, "{lines:?}");
    end(&ns, 2, "succeeded");
    let lines = terminal.wait("its end", |lines| has(lines, &["task-7", "svc", "2", "Succeeded", "1"]));
    assert!(lines.len() == 2 && lines[0].starts_with("NAME     SERVICE   VERSION   PHASE"), "{lines:?}");
    let phase = u16::try_from(lines[1].find("Succeeded").expect("it")).expect("a column");
    let colour = terminal.parser.lock().expect("no panic").screen().cell(1, phase).map(vt100::Cell::fgcolor);
    assert_eq!(colour, Some(vt100::Color::Idx(2)));
    taskrun(&ns, &["submit", "README.md", "--id", "8", "--service", "svc", "--agent", "agent"]).ok();
    let lines = terminal.wait("task 8", |lines| has(lines, &["task-8", "svc", "1", "Running", "1"]));
    assert_eq!(lines.len(), 3, "{lines:?}");

    terminal.press(b"\x03");
    let lines = terminal.wait("its exit code", |lines| has(lines, &["sane"]));
    assert!(has(&lines, &["code", "130"]) && lines[1].starts_with("task-7"), "{lines:?}");
    let parser = terminal.parser.lock().expect("no panic");
    let screen = parser.screen();
    assert!(!screen.hide_cursor() && !screen.alternate_screen() && screen.fgcolor() == vt100::Color::Default);
}

#[test]
fn watch_ends_when_all_are_at_rest_and_cuts_what_does_not_fit() {
    let ns = until_told();
    submit(&ns, Path::new("README.md"), &[]).ok();
    ns.wait_phase("taskrun/task-7", 1, "Running");
    let terminal = Terminal::start(
        &ns,
        &format!("stty cols 80; \"$PLUGIN\" -n {} watch 7 --until-done; echo code $?; sleep 60", ns.name),
    );
    terminal.wait("the run", |lines| has(lines, &["task-7", "svc", "1", "Running"]));
    let message = json!({"metadata": {"annotations": {"kwok.test/message": "\u{1b}[2Jall of it is done, and the words of it are many"}}});
    let pods = ns.list("pods");
    let pod = format!("pod/{}", pods[0]["metadata"]["name"].as_str().expect("a name"));
    ns.merge(&pod, &message).ok();
    end(&ns, 1, "succeeded");
    let lines = terminal.wait("its exit code", |lines| has(lines, &["code", "0"]));
    assert!(lines.len() == 3 && lines[1].chars().count() == 80 && lines[1].ends_with('…'), "{lines:?}");
}

#[test]
fn a_difference_is_coloured() {
    let ns = until_told();
    submit(&ns, Path::new("README.md"), &[]).ok();
    // a version that another one follows at once may never be run, and its files are not kept
    ns.wait_phase("taskrun/task-7", 1, "Running");
    taskrun(&ns, &["add-context", "7", "-m", "\u{1b}[7mmore"]).ok();
    ns.wait_phase("taskrun/task-7", 2, "Running");
    let terminal = Terminal::start(&ns, &format!("\"$PLUGIN\" -n {} diff 7 2 1; sleep 60", ns.name));
    let lines = terminal.wait("the difference", |lines| lines.len() >= 4);
    assert_eq!(lines[3], "-\\u{1b}[7mmore", "{lines:?}");
    let parser = terminal.parser.lock().expect("no panic");
    let colour = |row| parser.screen().cell(row, 0).expect("a cell").fgcolor();
    assert_eq!((colour(2), colour(3)), (vt100::Color::Idx(6), vt100::Color::Idx(1)));
    assert!(parser.screen().cell(0, 0).expect("a cell").bold());
}

#[test]
fn watch_says_that_the_connection_is_lost_and_goes_on_when_it_is_back() {
    let ns = until_told();
    submit(&ns, Path::new("README.md"), &[]).ok();
    ns.wait_phase("taskrun/task-7", 1, "Running");
    let admin =
        ns.cluster.kubectl(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]).ok();
    let line = Line::start(admin.trim_start_matches("https://"));
    let kubeconfig = ns.cluster.kubeconfig(&format!("{}-line", ns.name), |config| {
        config["clusters"][0]["cluster"]["server"] = json!(format!("https://127.0.0.1:{}", line.port));
    });
    let kubeconfig = kubeconfig.to_string_lossy();
    let terminal = Terminal::start(&ns, &format!("\"$PLUGIN\" -n {} --kubeconfig {kubeconfig} watch", ns.name));
    terminal.wait("the run", |lines| has(lines, &["task-7", "svc", "1", "Running"]));
    line.cut();
    let lines = terminal.wait("what is wrong", |lines| has(lines, &["connection", "lost,", "trying", "again:"]));
    assert!(lines.len() == 3 && has(&lines, &["task-7", "svc", "1", "Running"]), "{lines:?}");
    end(&ns, 1, "succeeded");
    ns.wait_phase("taskrun/task-7", 1, "Succeeded");
    line.mend();
    let lines =
        terminal.wait("what came of it", |lines| has(lines, &["task-7", "svc", "1", "Succeeded"]) && lines.len() == 2);
    assert!(lines[0].starts_with("NAME"), "{lines:?}");
}

/// The line to the API server, which can be cut: a server that restarts looks so from here.
struct Line {
    port: u16,
    is_cut: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Line {
    fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (is_cut, connections) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(vec![])));
        let port = listener.local_addr().expect("an address").port();
        let line = Self { port, is_cut: is_cut.clone(), connections: connections.clone() };
        let server = server.to_owned();
        std::thread::spawn(move || {
            for client in listener.incoming().filter_map(Result::ok) {
                if !is_cut.load(Ordering::SeqCst) {
                    let server = TcpStream::connect(&server).expect("the API server");
                    let copies = [&client, &server].map(|end| end.try_clone().expect("a copy"));
                    connections.lock().expect("no panic").extend(copies);
                    join(&client, &server);
                }
            }
        });
        line
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        for connection in self.connections.lock().expect("no panic").drain(..) {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

/// Carries bytes both ways.
fn join(one: &TcpStream, other: &TcpStream) {
    for (from, to) in [(one, other), (other, one)] {
        let (mut from, mut to) = (from.try_clone().expect("a copy"), to.try_clone().expect("a copy"));
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    }
}

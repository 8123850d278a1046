//! `kubectl taskrun watch`: a table that is drawn anew in its place or, in a pipe, a line for each change.

use super::board::{Board, Row};
use super::error::{Error, note};
use super::list::elapsed;
use super::table::{Cell, Paper};
use super::{completion, in_namespace};
use crate::client::Tasks;
use crate::clock::now;
use crate::task::{self, Code};
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use futures::stream::{SelectAll, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use std::io::{IsTerminal, Write, stdout};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

const HEADER: [&str; 7] = ["NAME", "SERVICE", "VERSION", "PHASE", "ATTEMPTS", "ELAPSED", "MESSAGE"];
/// Least widths in a pipe, where the lines to come are not known.
const WIDTHS: [usize; 7] = [12, 14, 7, 9, 8, 7, 7];
/// Shells have 128 + SIGINT for a command that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Seconds.
const FOREVER: u64 = 365 * 24 * 3600;

/// What `watch` takes.
#[derive(Args)]
#[command(after_help = "Ends by Ctrl-C or, with --until-done, when nothing is to come any more.

Examples:
  kubectl taskrun watch
  kubectl taskrun watch 7 8 --until-done --timeout 3600 && echo both succeeded")]
pub struct WatchArgs {
    /// Tasks to watch, otherwise all of the namespace
    #[arg(value_name = "TASK", value_parser = task::parse_name, add = ArgValueCompleter::new(completion::tasks))]
    tasks: Vec<String>,
    /// End when all of them are at rest; the exit code is 1 if one did not succeed
    #[arg(long)]
    until_done: bool,
    /// End after so many seconds all the same, with exit code 1
    #[arg(long, value_name = "SECONDS", requires = "until_done", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
}

/// What a watch of this name saw.
type News = (Option<String>, Result<Event<DynamicObject>, task::Error>);

/// Watches.
pub async fn run(args: WatchArgs, tasks: &Tasks) -> Result<ExitCode, Error> {
    let mut board = Board::new(&args.tasks);
    let mut screen = Screen::new();
    let mut news = streams(tasks, &board);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut resized = signal(SignalKind::window_change())?;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut end = pin!(tokio::time::sleep(Duration::from_secs(args.timeout.unwrap_or(FOREVER))));
    loop {
        let changed = tokio::select! {
            biased;
            _ = interrupt.recv() => return screen.end(INTERRUPTED),
            _ = terminate.recv() => return screen.end(INTERRUPTED),
            () = &mut end, if args.timeout.is_some() => {
                return Err(Error::Input("timed out before all of them were at rest".to_owned()));
            }
            next = news.next() => match next {
                Some((watch, event)) => take(&mut board, &mut screen, watch.as_ref(), event, tasks).await?,
                None => return Err(Error::Input("the watch has ended".to_owned())),
            },
            _ = resized.recv() => vec![],
            _ = tick.tick() => vec![],
        };
        screen.show(&board, &changed, &Time(now()))?;
        if let Some(name) = board.missing() {
            let missing = task::Error::new(Code::NotFound, format!("taskruns.orchestrator.io {name:?} not found"));
            return Err(in_namespace(tasks, missing).await);
        }
        if let Some(all_succeeded) = board.result().filter(|_| args.until_done) {
            return Ok(ExitCode::from(u8::from(!all_succeeded)));
        }
    }
}

fn streams(tasks: &Tasks, board: &Board) -> SelectAll<futures::stream::BoxStream<'static, News>> {
    let one = |watch: Option<String>| tasks.watch(watch.as_deref()).map(move |event| (watch.clone(), event)).boxed();
    board.watches().into_iter().map(one).collect()
}

/// Notes what was seen. An error ends it where it would only come again, or before anything was seen.
async fn take(
    board: &mut Board,
    screen: &mut Screen,
    watch: Option<&String>,
    event: Result<Event<DynamicObject>, task::Error>,
    tasks: &Tasks,
) -> Result<Vec<Row>, Error> {
    match event {
        Ok(event) => {
            // a relist begins before the API server has answered
            if !matches!(event, Event::Init) {
                screen.found();
            }
            let is_first = matches!(event, Event::InitDone) && watch.is_none() && !board.is_ready();
            let changed = board.note(watch, event);
            if is_first && board.rows().next().is_none() {
                if tasks.lacks_namespace().await {
                    return Err(Error::NoNamespace(tasks.namespace.clone()));
                }
                screen.tell(&format!("No tasks in namespace {:?} yet.", tasks.namespace));
            }
            Ok(changed)
        }
        Err(error) if error.is_passing() && board.is_ready() => {
            screen.lost(&error);
            Ok(vec![])
        }
        Err(error) => Err(in_namespace(tasks, error).await),
    }
}

/// Where it is shown.
struct Screen {
    is_terminal: bool,
    /// Widths of the lines that were drawn last, which the next ones replace.
    drawn: Vec<usize>,
    has_header: bool,
    /// Why there is no news at present.
    lost: Option<String>,
}

impl Screen {
    fn new() -> Self {
        Self { is_terminal: stdout().is_terminal(), drawn: vec![], has_header: false, lost: None }
    }

    fn show(&mut self, board: &Board, changed: &[Row], now: &Time) -> Result<(), Error> {
        match self.is_terminal {
            true if board.is_ready() => self.draw(board, now),
            true => Ok(()),
            false => self.append(changed, now),
        }
    }

    /// A line for each change.
    fn append(&mut self, changed: &[Row], now: &Time) -> Result<(), Error> {
        let paper = Paper::stdout();
        if !changed.is_empty() && !self.has_header {
            self.has_header = true;
            writeln!(stdout(), "{}", paper.line(&HEADER.map(Cell::from), &WIDTHS))?;
        }
        for row in changed {
            writeln!(stdout(), "{}", paper.line(&cells(row, now), &WIDTHS))?;
        }
        Ok(())
    }

    /// The whole table, in the place of the last one.
    fn draw(&mut self, board: &Board, now: &Time) -> Result<(), Error> {
        let (paper, height) = (Paper::stdout(), height());
        let lines = lines(board, &paper, height, self.lost.as_deref(), now);
        let mut drawing = erase(&self.drawn, paper.columns);
        for (line, _) in &lines {
            drawing.push_str(line);
            drawing.push('\n');
        }
        self.drawn = lines.into_iter().map(|(_, width)| width).collect();
        let mut out = stdout().lock();
        out.write_all(drawing.as_bytes())?;
        Ok(out.flush()?)
    }

    fn lost(&mut self, error: &task::Error) {
        let message = format!("connection lost, trying again: {}", super::text::harmless(&error.message));
        if self.lost.is_none() {
            self.tell(&message);
        }
        self.lost = Some(message);
    }

    fn found(&mut self) {
        if self.lost.take().is_some() {
            self.tell("connected again");
        }
    }

    /// Says what a table would show, where there is none.
    fn tell(&self, message: &str) {
        if !self.is_terminal {
            note(message);
        }
    }

    /// The terminal is left with the last table and the cursor below it.
    fn end(&self, code: u8) -> Result<ExitCode, Error> {
        if self.is_terminal {
            writeln!(stdout())?;
        }
        Ok(ExitCode::from(code))
    }
}

fn cells(row: &Row, now: &Time) -> [Cell; 7] {
    let task = &row.summary;
    [
        Cell::from(&task.name),
        Cell::from(&task.service),
        Cell::from(task.version.to_string()),
        Cell::state(&task.phase),
        Cell::from(task.attempts.to_string()),
        Cell::from(elapsed(task, now)),
        Cell::from(&task.message),
    ]
}

/// The lines of the table and how wide each is. If there is no place for all, those at rest give way.
fn lines(board: &Board, paper: &Paper, height: usize, lost: Option<&str>, now: &Time) -> Vec<(String, usize)> {
    let mut rows: Vec<&Row> = board.rows().collect();
    // the header, what is left out, what is lost, and the line of the cursor
    let place = height.saturating_sub(4).max(1);
    let left_out = rows.len().saturating_sub(place);
    if left_out > 0 {
        rows.sort_by_key(|row| row.is_at_rest || row.is_gone);
        rows.truncate(place);
    }
    let cells: Vec<Vec<Cell>> = rows.iter().map(|row| cells(row, now).to_vec()).collect();
    let plain = Paper { has_colour: false, ..*paper };
    let widths = plain.table(&HEADER, &cells).into_iter().map(|line| super::text::width(&line));
    let mut lines: Vec<(String, usize)> = paper.table(&HEADER, &cells).into_iter().zip(widths).collect();
    let mut add = |text: String| {
        let text = super::text::cut(&text, paper.columns.unwrap_or(usize::MAX));
        let width = super::text::width(&text);
        lines.push((text, width));
    };
    if rows.is_empty() {
        add("no tasks yet".to_owned());
    }
    if left_out > 0 {
        add(format!("… and {left_out} more"));
    }
    if let Some(lost) = lost {
        add(lost.to_owned());
    }
    lines
}

/// What moves the cursor to the first of these lines, as they stand at this width, and clears from there.
fn erase(drawn: &[usize], columns: Option<usize>) -> String {
    let columns = columns.unwrap_or(usize::MAX).max(1);
    let height: usize = drawn.iter().map(|width| width.div_ceil(columns).max(1)).sum();
    match height {
        0 => String::new(),
        height => format!("\r\u{1b}[{height}A\u{1b}[J"),
    }
}

fn height() -> usize {
    terminal_size::terminal_size().map_or(24, |(_, height)| usize::from(height.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn board(tasks: u32) -> Board {
        let mut board = Board::new(&[]);
        board.note(None, Event::Init);
        for id in 1..=tasks {
            let phase = if id == tasks { "Running" } else { "Succeeded" };
            let object = json!({"apiVersion": "orchestrator.io/v1", "kind": "TaskRun",
                "metadata": {"name": format!("task-{id}")}, "spec": {"serviceName": "auth", "contextVersion": 1},
                "status": {"phase": phase, "contextVersion": 1, "message": "a\u{202e}b"}});
            board.note(None, Event::InitApply(serde_json::from_value(object).expect("an object")));
        }
        board.note(None, Event::InitDone);
        board
    }

    fn text(board: &Board, height: usize, lost: Option<&str>) -> Vec<String> {
        let paper = Paper { has_colour: false, columns: Some(80) };
        let now = Time("2026-01-01T00:00:00Z".parse().expect("a time"));
        lines(board, &paper, height, lost, &now).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn the_table_fits_the_terminal_and_those_at_rest_give_way() {
        assert_eq!(text(&board(2), 24, None).len(), 3);
        let lines = text(&board(50), 10, Some("connection lost"));
        assert_eq!(lines.len(), 9);
        assert!(lines[1].starts_with("task-50") && lines[1].ends_with("a\\u{202e}b"), "{lines:?}");
        assert_eq!(lines[7..], ["… and 44 more", "connection lost"]);
        assert_eq!(text(&board(0), 24, None), ["no tasks yet"]);
    }

    #[test]
    fn the_cursor_goes_back_over_lines_that_a_narrower_terminal_has_wrapped() {
        assert_eq!(erase(&[], Some(80)), "");
        assert_eq!(erase(&[80, 10, 0], Some(80)), "\r\u{1b}[3A\u{1b}[J");
        assert_eq!(erase(&[80, 10, 0], Some(30)), "\r\u{1b}[5A\u{1b}[J");
    }
}

//! Tables as kubectl prints them: capitals above, three blanks between, cut at the terminal's edge. Crates for
//! tables draw frames and wrap lines; this is all that is needed.

use super::text::{cut, harmless, width};
use anstyle::{AnsiColor, Style};
use std::io::{IsTerminal, stdout};

const GAP: &str = "   ";

/// What a cell says, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    text: String,
    style: Style,
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: harmless(text.as_ref()), style: Style::new() }
    }
}

impl Cell {
    /// A phase or an outcome, in its colour.
    pub fn state(state: &str) -> Self {
        let colour = match state {
            "Succeeded" => Some(AnsiColor::Green),
            "Failed" | "Gone" => Some(AnsiColor::Red),
            "Running" => Some(AnsiColor::Cyan),
            "Pending" | "Ending" | "Unknown" => Some(AnsiColor::Yellow),
            _ => None,
        };
        let style = colour.map(|colour| Style::new().fg_color(Some(colour.into()))).unwrap_or_default();
        Self { text: harmless(state), style }
    }
}

/// Where it is printed to.
#[derive(Clone, Copy, Debug)]
pub struct Paper {
    /// Whether it takes colours.
    pub has_colour: bool,
    /// Columns; `None` where nothing is to be cut.
    pub columns: Option<usize>,
}

impl Paper {
    /// Standard output, as it is now: colour only on a terminal and without `NO_COLOR`, no edge in a pipe.
    pub fn stdout() -> Self {
        let has_colour = anstream::AutoStream::choice(&stdout()) != anstream::ColorChoice::Never;
        let size = terminal_size::terminal_size().filter(|_| stdout().is_terminal());
        Self { has_colour, columns: size.map(|(columns, _)| usize::from(columns.0)) }
    }

    /// A text in this style, if there is colour.
    pub fn paint(&self, style: Style, text: &str) -> String {
        match self.has_colour && style != Style::new() {
            true => format!("{style}{text}{style:#}"),
            false => text.to_owned(),
        }
    }

    /// The lines of a table. Without rows there are none.
    pub fn table(&self, header: &[&str], rows: &[Vec<Cell>]) -> Vec<String> {
        if rows.is_empty() {
            return vec![];
        }
        let header: Vec<Cell> = header.iter().map(Cell::from).collect();
        let all = || std::iter::once(&header).chain(rows);
        let widest = |i: usize| all().filter_map(|row| row.get(i)).map(|cell| width(&cell.text)).max();
        let widths: Vec<usize> = (0..header.len()).map(|i| widest(i).unwrap_or(0)).collect();
        all().map(|row| self.line(row, &widths)).collect()
    }

    /// One line of a table whose columns are at least so wide.
    pub fn line(&self, row: &[Cell], widths: &[usize]) -> String {
        let mut left = self.columns.unwrap_or(usize::MAX);
        let (mut line, mut owed) = (String::new(), 0);
        for (cell, column) in row.iter().zip(widths) {
            // blanks only before what comes after them
            let text = if cell.text.is_empty() { String::new() } else { cut(&cell.text, left.saturating_sub(owed)) };
            if !text.is_empty() {
                line.push_str(&" ".repeat(owed));
                line.push_str(&self.paint(cell.style, &text));
                left = left.saturating_sub(owed + width(&text));
                owed = 0;
            }
            owed += column.saturating_sub(width(&text)) + GAP.len();
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Paper = Paper { has_colour: false, columns: None };

    fn rows() -> Vec<Vec<Cell>> {
        vec![
            vec!["task-1".into(), Cell::state("Running"), "going on".into()],
            vec!["auth-task-2".into(), Cell::state("Failed"), "".into()],
        ]
    }

    #[test]
    fn columns_are_as_wide_as_they_must_be_and_lines_end_where_their_text_does() {
        let lines = PLAIN.table(&["NAME", "PHASE", "MESSAGE"], &rows());
        assert_eq!(
            lines,
            ["NAME          PHASE     MESSAGE", "task-1        Running   going on", "auth-task-2   Failed"]
        );
        assert_eq!(PLAIN.table(&["NAME"], &[]), Vec::<String>::new());
    }

    #[test]
    fn a_line_is_never_wider_than_the_terminal() {
        for columns in 0..40 {
            let paper = Paper { columns: Some(columns), ..PLAIN };
            for line in paper.table(&["NAME", "PHASE", "MESSAGE"], &rows()) {
                assert!(width(&line) <= columns, "{columns}: {line}");
            }
        }
        let paper = Paper { columns: Some(29), ..PLAIN };
        assert_eq!(paper.table(&["NAME", "PHASE", "MESSAGE"], &rows())[1], "task-1        Running   goin…");
    }

    #[test]
    fn colours_are_added_and_those_of_others_are_not() {
        let paper = Paper { has_colour: true, columns: None };
        let lines = paper.table(&["A", "B"], &[vec!["\u{1b}[31mred".into(), Cell::state("Failed")]]);
        assert_eq!(lines[1], "\\u{1b}[31mred   \u{1b}[31mFailed\u{1b}[0m");
    }
}

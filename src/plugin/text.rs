//! Text for terminals: without what would command them, as wide as they are.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Text of others made harmless: what moves the cursor, colours, reorders or hides is shown as `\u{…}`. Line ends
/// and other white space become blanks.
pub fn harmless(text: &str) -> String {
    escaped(text, |c| matches!(c, '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}').then_some(' '))
}

/// The same for a line of a file, whose tabs are its own.
pub fn harmless_line(text: &str) -> String {
    escaped(text, |c| (c == '\t').then_some(c))
}

fn escaped(text: &str, instead: impl Fn(char) -> Option<char>) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match instead(c) {
            Some(other) => safe.push(other),
            None if is_dangerous(c) => safe.extend(c.escape_unicode()),
            None => safe.push(c),
        }
    }
    safe
}

/// Controls, the marks of bidirectional text (Unicode's UAX #9), separators of lines, and what cannot be seen.
fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e0000}'..='\u{e007f}')
}

/// Columns that a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// The beginning of a text that fits into so many columns, with `…` where something is left out.
pub fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let fits = |c: &char| {
        let fits = c.width().unwrap_or(0) <= left;
        left = left.saturating_sub(c.width().unwrap_or(0));
        fits
    };
    let beginning: String = text.chars().take_while(fits).collect();
    if columns == 0 { String::new() } else { beginning + "…" }
}

/// Seconds in two units: `8s`, `3m12s`, `2h5m`, `3d4h`.
pub fn elapsed(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_commands_a_terminal_is_left() {
        assert_eq!(harmless("a\u{1b}[2Jb\nc\td\r\n"), "a\\u{1b}[2Jb c d  ");
        assert_eq!(harmless_line("a\tb\r"), "a\tb\\u{d}");
        for bad in
            ['\u{7}', '\u{7f}', '\u{9b}', '\u{202e}', '\u{2066}', '\u{200f}', '\u{2028}', '\u{e0041}', '\u{feff}']
        {
            assert!(!harmless_line(&bad.to_string()).contains(bad), "{bad:?}");
        }
        // scripts, emoji and their joiners stay
        for good in ["Zażółć", "任务", "👩‍💻", "שלום", "e\u{301}"] {
            assert_eq!(harmless(good), good);
        }
    }

    #[test]
    fn texts_are_cut_to_columns_not_to_bytes() {
        for (columns, expected) in
            [(9, "任务 done"), (8, "任务 do…"), (4, "任…"), (3, "任…"), (2, "…"), (1, "…"), (0, "")]
        {
            assert_eq!(cut("任务 done", columns), expected, "{columns}");
            assert!(width(expected) <= columns);
        }
    }

    #[test]
    fn times_have_two_units_at_most() {
        let texts = [0, 59, 60, 192, 3_600, 7_500, 86_400, 277_200].map(elapsed);
        assert_eq!(texts, ["0s", "59s", "1m0s", "3m12s", "1h0m", "2h5m", "1d0h", "3d5h"]);
    }
}

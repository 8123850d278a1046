//! What counts as empty markdown.
//!
//! A file is blank when a reader would see nothing: once front matter, HTML comments and link
//! definitions are gone, only white space and invisible characters are left.

use pulldown_cmark::{Event, Parser};

/// Whether the markdown has no content. Parsed as CommonMark up to the first thing that a reader
/// would see; time and memory are linear in the length.
#[must_use]
pub fn is_blank(markdown: &str) -> bool {
    if shows_at_once(markdown) {
        return false;
    }
    let mut html = String::new();
    for event in Parser::new(without_front_matter(markdown)) {
        match event {
            Event::Text(text) | Event::Code(text) if !is_invisible(&text) => return false,
            Event::Html(text) | Event::InlineHtml(text) => html.push_str(&text),
            Event::Start(pulldown_cmark::Tag::Image { .. }) => return false,
            _ => {}
        }
    }
    is_invisible(&without_comments(&html))
}

/// Whether the very beginning is something that a reader sees: a paragraph or a heading with a letter. Most files begin
/// so, and need not be parsed, of which the first part reads all.
pub(super) fn shows_at_once(markdown: &str) -> bool {
    let text = markdown.trim_start_matches('#');
    let text = match markdown.len() - text.len() {
        0 => Some(text),
        1..=6 => text.strip_prefix(' '),
        _ => None,
    };
    text.is_some_and(|text| text.starts_with(|first: char| first.is_ascii_alphabetic()))
}

/// Text after YAML (`---`) or TOML (`+++`) front matter, which only a file's very beginning can be.
fn without_front_matter(markdown: &str) -> &str {
    let text = markdown.trim_start_matches('\u{feff}');
    for fence in ["---", "+++"] {
        let Some((first, rest)) = text.split_once('\n') else { return text };
        if first.trim_end() != fence {
            continue;
        }
        let mut end = 0;
        for line in rest.split_inclusive('\n') {
            end += line.len();
            if line.trim_end() == fence || (fence == "---" && line.trim_end() == "...") {
                return rest.get(end..).unwrap_or_default();
            }
        }
    }
    text
}

/// HTML without its comments; one that is never closed reaches to the end.
fn without_comments(html: &str) -> String {
    let mut rest = html;
    let mut kept = String::new();
    while let Some((before, comment)) = rest.split_once("<!--") {
        kept.push_str(before);
        // `<!-->` and `<!--->` are whole comments (HTML standard, 13.2.5.44)
        let short = comment.strip_prefix('>').or_else(|| comment.strip_prefix("->"));
        rest = short.unwrap_or_else(|| comment.split_once("-->").map_or("", |(_, after)| after));
    }
    kept + rest
}

fn is_invisible(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || c.is_control() || is_ignorable(c))
}

/// Unicode's `Default_Ignorable_Code_Point` (`DerivedCoreProperties.txt`, Unicode 17) and the blank
/// Braille pattern.
fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::is_blank;

    #[test]
    fn blank_is_what_shows_nothing() {
        for blank in [
            "",
            "   ",
            "\t\n \r\n",
            "\u{a0}",
            "&nbsp; &#8203;",
            "\u{200b}\u{200d}\u{feff}",
            "<!-- todo -->",
            "<!--\nmany\n\nlines\n-->",
            "<!-- a --> <!-- b -->\n\n<!---->\n",
            "text <!-- not reached".strip_prefix("text ").unwrap(),
            "---\ntitle: x\n---\n",
            "---\ntitle: x\n...\n  \n",
            "\u{feff}+++\ntitle = 1\n+++",
            "[a]: https://example.com",
            "#",
            "---",
            "```\n```",
            "\u{2800}",
            "-\n-\n",
            ">",
        ] {
            assert!(is_blank(blank), "{blank:?}");
        }
    }

    #[test]
    fn content_is_anything_that_shows() {
        for content in [
            "x",
            "# Heading",
            "```\ncode\n```",
            "    code",
            "`x`",
            "![](picture.png)",
            "<!-- a --> b",
            "<b>",
            "---\ntitle: x\n",
            "---\ntitle: x\n---\nbody",
            "[a]: https://example.com\n\n[a]",
            "- [ ]",
            "🙂",
            "\\",
            "&lt;",
        ] {
            assert!(!is_blank(content), "{content:?}");
        }
    }
}

//! Bars as SVG, legible on light and dark pages.

use crate::report::Table;
use std::fmt::Write;

const WHOLE: (f64, f64) = (740.0, 250.0);
const LEFT: f64 = 60.0;
const RIGHT: f64 = 610.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 210.0;
const STYLE: &str = "text{font:12px sans-serif;fill:#333}.t{font-weight:bold;font-size:13px}.g{stroke:#8884}\
                     @media(prefers-color-scheme:dark){text{fill:#ccc}}";
/// Told apart on white and on black, also by those who see fewer colours.
const COLOURS: [&str; 6] = ["#3b82c4", "#e07b00", "#2a9d6f", "#c2549d", "#8a7f00", "#7a6cc4"];

/// What is drawn of tables whose titles begin so: this column, and nothing else.
pub struct Plot {
    /// Name of the file.
    pub file: &'static str,
    /// Above it.
    pub title: &'static str,
    /// Beginning of the tables' titles.
    pub tables: &'static str,
    /// The column.
    pub column: &'static str,
}

/// One group of bars a table, one bar a row, with a line from the least to the most of all rounds; nothing where there
/// is no such table.
pub fn svg(plot: &Plot, tables: &[Table]) -> Option<String> {
    let tables: Vec<&Table> = tables.iter().filter(|table| table.title.starts_with(plot.tables)).collect();
    let rows = &tables.first()?.rows;
    let most = tables
        .iter()
        .flat_map(|table| table.column(plot.column))
        .map(|(_, figures)| figures.most())
        .fold(0.0, f64::max);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" role=\"img\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n<text class=\"t\" x=\"8\" y=\"18\">{title}</text>\n",
        WHOLE.0,
        WHOLE.1,
        title = plot.title
    );
    let y = |value: f64| BOTTOM - value / most * (BOTTOM - TOP);
    for quarter in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (value, at) = (most * quarter, y(most * quarter));
        let _ = writeln!(svg, "<line class=\"g\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
        let label = crate::report::short(value);
        let (x, at) = (LEFT - 6.0, at + 4.0);
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{at:.1}\" text-anchor=\"end\">{label}</text>");
    }
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let (groups, bars) = (tables.len() as f64, rows.len() as f64);
    let group = (RIGHT - LEFT) / groups;
    let width = group * 0.8 / bars;
    let mut left = LEFT;
    for table in &tables {
        let mut x = left + group * 0.1;
        for ((_, figures), colour) in table.column(plot.column).into_iter().zip(COLOURS) {
            let (at, middle) = (y(figures.median()), x + width / 2.0);
            let height = BOTTOM - at;
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{at:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>",
                width - 2.0
            );
            let (least, most) = (y(figures.least()), y(figures.most()));
            let _ = writeln!(
                svg,
                "<line stroke=\"#888\" x1=\"{middle:.1}\" x2=\"{middle:.1}\" y1=\"{least:.1}\" y2=\"{most:.1}\"/>"
            );
            x += width;
        }
        let (name, middle, below) = (table.title.trim_start_matches(plot.tables), left + group / 2.0, BOTTOM + 18.0);
        let name = name.trim_start_matches([',', ' ']).split(" (").next().unwrap_or_default();
        let _ = writeln!(svg, "<text x=\"{middle:.1}\" y=\"{below}\" text-anchor=\"middle\">{name}</text>");
        left += group;
    }
    let mut at = TOP + 8.0;
    for ((name, _), colour) in rows.iter().zip(COLOURS) {
        let x = RIGHT + 14.0;
        let _ = writeln!(svg, "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"10\" fill=\"{colour}\"/>", at - 9.0);
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{at}\">{name}</text>", x + 18.0);
        at += 18.0;
    }
    Some(svg + "</svg>\n")
}

//! A small plot as SVG, legible on light and dark pages.

use std::fmt::Write;

/// What is drawn, without its margins, and these: the right one is for the legend.
const SIZE: (f64, f64) = (460.0, 170.0);
const MARGIN: (f64, f64) = (60.0, 34.0);
const WHOLE: (f64, f64) = (740.0, 232.0);
const STYLE: &str = "text{font:12px sans-serif;fill:#333}.t{font-weight:bold;font-size:13px}.g{stroke:#8884}\
                     polyline{fill:none;stroke-width:1.8}\
                     @media(prefers-color-scheme:dark){text{fill:#ccc}}";
/// Told apart on white and on black, also by those who see fewer colours.
const COLOURS: [&str; 8] = ["#3b82c4", "#e07b00", "#2a9d6f", "#c2549d", "#b8860b", "#7a6fd0", "#d1495b", "#6b8e9b"];

/// A series: its name, and points of seconds and values.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Draws lines over time, from 0 up; without those that have nothing to show.
pub fn svg(title: &str, unit: &str, lines: &[Line]) -> String {
    let lines: Vec<&Line> = lines.iter().filter(|line| line.points.iter().any(|(_, value)| *value > 0.0)).collect();
    let points = || lines.iter().flat_map(|line| &line.points);
    let most = points().fold(0.0, |most: f64, (_, value)| most.max(*value));
    let (last, step) = (points().fold(1.0, |last: f64, (time, _)| last.max(*time)), round_step(most / 4.0));
    let top = (most / step).ceil().max(1.0) * step;
    let x = |time: f64| MARGIN.0 + time / last * SIZE.0;
    let y = |value: f64| MARGIN.1 + (1.0 - value / top) * SIZE.1;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" role=\"img\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n<text class=\"t\" x=\"8\" y=\"18\">{title}</text>\n",
        WHOLE.0, WHOLE.1
    );
    let mut value = 0.0;
    while value <= top + step / 2.0 {
        let (right, at) = (MARGIN.0 + SIZE.0, y(value));
        let _ = writeln!(svg, "<line class=\"g\" x1=\"{}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>", MARGIN.0);
        let (label, at) = (label(value, step, unit), at + 4.0);
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{at:.1}\" text-anchor=\"end\">{label}</text>", MARGIN.0 - 6.0);
        value += step;
    }
    let (mut time, below) = (0.0, MARGIN.1 + SIZE.1 + 18.0);
    while time <= last {
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{below}\" text-anchor=\"middle\">{time} s</text>", x(time));
        time += 10.0;
    }
    for (number, line) in lines.iter().enumerate() {
        let (colour, right) = (COLOURS[number % COLOURS.len()], MARGIN.0 + SIZE.0 + 14.0);
        let line_of = |(time, value): &(f64, f64)| format!("{:.1},{:.1}", x(*time), y(*value));
        let drawn: Vec<String> = line.points.iter().map(line_of).collect();
        let _ = writeln!(svg, "<polyline stroke=\"{colour}\" points=\"{}\"/>", drawn.join(" "));
        #[expect(clippy::cast_precision_loss, reason = "a handful of lines")]
        let at = MARGIN.1 + 8.0 + 18.0 * number as f64;
        let _ = writeln!(svg, "<rect x=\"{right}\" y=\"{}\" width=\"12\" height=\"3\" fill=\"{colour}\"/>", at - 5.0);
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{at}\">{}</text>", right + 18.0, line.name);
    }
    svg + "</svg>\n"
}

/// The next of 1, 2 and 5, times a power of ten.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|step| step * power).find(|step| *step >= least).unwrap_or(10.0 * power)
}

fn label(value: f64, step: f64, unit: &str) -> String {
    let (factor, name) = match unit {
        "s" if step < 1e-4 => (1e6, " µs"),
        "s" if step < 0.1 => (1e3, " ms"),
        "s" => (1.0, " s"),
        "reqps" | "ops" => (1.0, "/s"),
        _ => (1.0, ""),
    };
    let digits = usize::from((step * factor) < 1.0) * if (step * factor) < 0.1 { 2 } else { 1 };
    format!("{:.digits$}{name}", value * factor)
}

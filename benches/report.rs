//! What was measured, as tables for people and as JSON: medians of all rounds, with the least and the most.

use serde_json::{Value, json};
use std::fmt::Write;

/// Of one thing, one figure a round.
#[derive(Clone, Debug, Default)]
pub struct Figures(pub Vec<f64>);

impl Figures {
    /// In the middle.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let half = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            length if length % 2 == 0 => f64::midpoint(sorted[half - 1], sorted[half]),
            _ => sorted[half],
        }
    }

    /// Each of these by the one of the same round.
    #[must_use]
    pub fn by(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }

    /// Each of these without the one of the same round.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a - b).collect())
    }

    /// The least of all rounds.
    pub fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The most of all rounds.
    pub fn most(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    fn cell(&self) -> String {
        match self.0.len() {
            0 => String::new(),
            1 => short(self.most()),
            _ => format!("{} ({} to {})", short(self.median()), short(self.least()), short(self.most())),
        }
    }

    fn json(&self) -> Value {
        json!({"median": self.median(), "rounds": self.0})
    }
}

/// Three digits that count.
pub fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    #[expect(clippy::cast_possible_truncation, reason = "a handful of digits")]
    let digits = usize::try_from(2 - value.abs().max(1e-9).log10().floor() as i32).unwrap_or_default();
    format!("{value:.digits$}")
}

/// A table: what each row is of, and a column for each figure.
pub struct Table {
    /// What it is of.
    pub title: String,
    of: String,
    columns: Vec<String>,
    /// Of what, and a figure for each column.
    pub rows: Vec<(String, Vec<Figures>)>,
}

impl Table {
    /// An empty one.
    pub fn new(title: &str, of: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { title: title.to_owned(), of: of.to_owned(), columns, rows: vec![] }
    }

    /// Adds a row, and tells of it.
    pub fn row(&mut self, of: &str, figures: Vec<Figures>) {
        let told: Vec<String> =
            self.columns.iter().zip(&figures).map(|(column, figures)| format!("{column} {}", figures.cell())).collect();
        eprintln!("{of}: {}", told.join(", "));
        self.rows.push((of.to_owned(), figures));
    }

    /// The figures of a column, by what they are of.
    pub fn column(&self, name: &str) -> Vec<(&str, &Figures)> {
        let place = self.columns.iter().position(|column| column == name);
        let rows = self.rows.iter().map(|(of, figures)| Some((of.as_str(), figures.get(place?)?)));
        rows.flatten().collect()
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n| {} |", self.title, self.of);
        let _ = self.columns.iter().try_for_each(|column| write!(text, " {column} |"));
        let _ = write!(text, "\n|---|{}\n", "---:|".repeat(self.columns.len()));
        for (of, figures) in &self.rows {
            let _ = write!(text, "| {of} |");
            let _ = figures.iter().try_for_each(|figures| write!(text, " {} |", figures.cell()));
            text.push('\n');
        }
        text
    }

    /// As JSON, with each round.
    pub fn json(&self) -> Value {
        let row = |(of, figures): &(String, Vec<Figures>)| {
            let columns = self.columns.iter().zip(figures);
            let columns: serde_json::Map<_, _> =
                columns.map(|(name, figures)| (name.clone(), figures.json())).collect();
            json!({"of": of, "figures": columns})
        };
        let rows: Vec<_> = self.rows.iter().map(row).collect();
        json!({"title": self.title, "of": self.of, "columns": self.columns, "rows": rows})
    }

    /// From such JSON.
    pub fn of_json(json: &Value) -> Option<Self> {
        let text = |json: &Value| json.as_str().map(str::to_owned);
        let columns: Vec<String> = json["columns"].as_array()?.iter().map(text).collect::<Option<_>>()?;
        let figures = |row: &Value, column: &String| {
            let rounds = row["figures"][column]["rounds"].as_array()?;
            Some(Figures(rounds.iter().map(Value::as_f64).collect::<Option<_>>()?))
        };
        let row = |row: &Value| {
            Some((text(&row["of"])?, columns.iter().map(|column| figures(row, column)).collect::<Option<_>>()?))
        };
        let rows = json["rows"].as_array()?.iter().map(row).collect::<Option<_>>()?;
        Some(Self { title: text(&json["title"])?, of: text(&json["of"])?, columns, rows })
    }
}

/// The value that this part of ascending ones is not above.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "millions")]
pub fn quantile(ascending: &[f64], part: f64) -> f64 {
    let place = (ascending.len() as f64 * part).ceil() as usize;
    ascending.get(place.max(1) - 1).copied().unwrap_or(f64::NAN)
}

//! Declares metrics, each once: the registry and the table of the documentation are both made of it.

use prometheus::core::Collector;
use prometheus::{
    Error, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use std::fmt::Write;

/// Labels with the words that each may have; none where they are told in the help.
pub type Labels = &'static [(&'static str, &'static [&'static str])];

/// What is declared so far.
#[derive(Default)]
pub struct Declare {
    pub registry: Registry,
    rows: Vec<Row>,
}

struct Row {
    name: &'static str,
    kind: &'static str,
    labels: Labels,
    help: &'static str,
}

impl Declare {
    /// Counters; those of a single label are there from the start, with 0.
    pub fn counters(&mut self, name: &'static str, help: &'static str, labels: Labels) -> Result<IntCounterVec, Error> {
        let names = self.row(name, "counter", help, labels);
        let counters = self.register(IntCounterVec::new(Opts::new(name, help), &names)?)?;
        only_words(labels).for_each(|word| drop(counters.with_label_values(&[word])));
        Ok(counters)
    }

    /// One counter.
    pub fn counter(&mut self, name: &'static str, help: &'static str) -> Result<IntCounter, Error> {
        Ok(self.counters(name, help, &[])?.with_label_values::<&str>(&[]))
    }

    /// Gauges of whole numbers.
    pub fn gauges(&mut self, name: &'static str, help: &'static str, labels: Labels) -> Result<IntGaugeVec, Error> {
        let names = self.row(name, "gauge", help, labels);
        self.register(IntGaugeVec::new(Opts::new(name, help), &names)?)
    }

    /// One gauge of whole numbers.
    pub fn gauge(&mut self, name: &'static str, help: &'static str) -> Result<IntGauge, Error> {
        Ok(self.gauges(name, help, &[])?.with_label_values::<&str>(&[]))
    }

    /// Gauges of seconds.
    pub fn seconds(&mut self, name: &'static str, help: &'static str, labels: Labels) -> Result<GaugeVec, Error> {
        let names = self.row(name, "gauge", help, labels);
        self.register(GaugeVec::new(Opts::new(name, help), &names)?)
    }

    /// One that is made elsewhere: a counter of fractions.
    pub fn other<C: Collector + Clone + 'static>(
        &mut self,
        (name, kind, help): (&'static str, &'static str, &'static str),
        collector: C,
    ) -> Result<C, Error> {
        self.row(name, kind, help, &[]);
        self.register(collector)
    }

    /// Histograms; those of a single label are there from the start.
    pub fn histograms(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels,
        buckets: &[f64],
    ) -> Result<HistogramVec, Error> {
        let names = self.row(name, "histogram", help, labels);
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let histograms = self.register(HistogramVec::new(opts, &names)?)?;
        only_words(labels).for_each(|word| drop(histograms.with_label_values(&[word])));
        Ok(histograms)
    }

    /// One histogram.
    pub fn histogram(&mut self, name: &'static str, help: &'static str, buckets: &[f64]) -> Result<Histogram, Error> {
        Ok(self.histograms(name, help, &[], buckets)?.with_label_values::<&str>(&[]))
    }

    fn row(&mut self, name: &'static str, kind: &'static str, help: &'static str, labels: Labels) -> Vec<&'static str> {
        self.rows.push(Row { name, kind, labels, help });
        labels.iter().map(|(label, _)| *label).collect()
    }

    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C, Error> {
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    /// All as a table in Markdown.
    pub fn table(&self) -> String {
        let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
        for Row { name, kind, labels, help } in &self.rows {
            let labels: Vec<_> = labels.iter().map(|(label, words)| describe(label, words)).collect();
            // writing to memory cannot fail
            let _ = writeln!(table, "| `{name}` | {kind} | {} | {help} |", labels.join("; "));
        }
        table
    }
}

fn describe(label: &str, words: &[&str]) -> String {
    match words {
        [] => format!("`{label}`"),
        words => format!("`{label}`: {}", words.join(", ")),
    }
}

/// The words of the only label.
fn only_words(labels: Labels) -> impl Iterator<Item = &'static str> {
    let words = if let [(_, words)] = labels { *words } else { &[] };
    words.iter().copied()
}

//! Numbers by step, such as the curves of a training, drawn in one line each.

use serde_json::{Map, Value};

use crate::units::bytes;

/// The most characters that a curve has.
const WIDTH: usize = 30;

/// The bars of a curve, from low to high.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The numbers of rows that each name a `step`, by their fields.
#[derive(Debug, Default)]
pub(crate) struct Series {
    /// In the order in which fields first occur; those inside others as `rewards.margin`.
    fields: Vec<(String, Vec<f64>)>,
}

impl Series {
    /// Reads one row after the other; `None` if there is none, or one without a step.
    pub(crate) fn read(rows: impl Iterator<Item = String>) -> Option<Self> {
        let mut series: Option<Self> = None;
        for row in rows {
            let row: Map<String, Value> = serde_json::from_str(&row).ok()?;
            row.get("step")?.as_f64()?;
            series.get_or_insert_default().add("", &row);
        }
        series
    }

    fn add(&mut self, path: &str, row: &Map<String, Value>) {
        for (name, value) in row {
            let name = format!("{path}{name}");
            if let Value::Object(inside) = value {
                self.add(&format!("{name}."), inside);
            }
            let Some(number) = value.as_f64().filter(|_| name != "step") else { continue };
            match self.fields.iter_mut().find(|(known, _)| *known == name) {
                Some((_, numbers)) => numbers.push(number),
                None => self.fields.push((name, vec![number])),
            }
        }
    }

    /// Returns a line for each field: its first, last, least and largest number, and its curve.
    pub(crate) fn lines(&self) -> Vec<String> {
        let widest = self.fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let head =
            format!("{:widest$}  {:>10}  {:>10}  {:>10}  {:>10}", "", "first", "last", "least", "most");
        let line = |(name, numbers): &(String, Vec<f64>)| {
            let [least, most] = bounds(numbers);
            let cells =
                [numbers[0], numbers[numbers.len() - 1], least, most].map(|number| cell(name, number));
            format!(
                "{name:widest$}  {:>10}  {:>10}  {:>10}  {:>10}  {}",
                cells[0],
                cells[1],
                cells[2],
                cells[3],
                curve(numbers)
            )
        };
        std::iter::once(head).chain(self.fields.iter().map(line)).collect()
    }
}

fn bounds(numbers: &[f64]) -> [f64; 2] {
    let least = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    [least, numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max)]
}

fn cell(name: &str, number: f64) -> String {
    match number.abs() {
        _ if name.ends_with("_bytes") => bytes(number as u64),
        _ if number.fract() == 0.0 && number.abs() < 1e9 => format!("{number}"),
        size if (1e-3..1e3).contains(&size) => format!("{number:.4}"),
        size if (1e3..1e9).contains(&size) => format!("{number:.0}"),
        _ => format!("{number:.2e}"),
    }
}

/// Draws numbers as a row of bars. If there are more than fit, each bar is a mean.
fn curve(numbers: &[f64]) -> String {
    let width = numbers.len().min(WIDTH);
    let mean = |at: usize| {
        let part = &numbers[at * numbers.len() / width..(at + 1) * numbers.len() / width];
        part.iter().sum::<f64>() / part.len() as f64
    };
    let means: Vec<f64> = (0..width).map(mean).collect();
    let [least, most] = bounds(&means);
    let height = |mean: &f64| {
        let share = if most > least { (mean - least) / (most - least) } else { 0.0 };
        HEIGHTS[(share * 7.0).round() as usize]
    };
    means.iter().map(height).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_lines() {
        let row = |step: u32| {
            let loss = 80.0 / f64::from(step);
            format!(
                r#"{{"step":{step},"loss":{loss},"rewards":{{"margin":-0.5}},"memory_bytes":1048576,"best":true}}"#
            )
        };
        let series = Series::read((1..=60).map(row)).unwrap();
        let lines = series.lines();
        assert_eq!(lines.len(), 4, "{lines:?}");
        let line = |name: &str| lines.iter().find(|line| line.starts_with(name)).unwrap();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&lines[0]), ["first", "last", "least", "most"]);
        let loss = words(line("loss"));
        assert_eq!(loss[..5], ["loss", "80", "1.3333", "1.3333", "80"]);
        assert!(loss[5].starts_with("█▄") && loss[5].ends_with('▁'), "{}", loss[5]);
        assert_eq!(loss[5].chars().count(), WIDTH);
        assert_eq!(words(line("rewards.margin"))[4..6], ["-0.5000".to_owned(), "▁".repeat(WIDTH)]);
        assert!(line("memory_bytes").contains("1.00 MiB"), "{}", line("memory_bytes"));
    }

    #[test]
    fn rows_without_steps_are_no_series() {
        let read = |text: &str| Series::read(text.lines().map(str::to_owned));
        assert!(read("").is_none());
        assert!(read(r#"{"id":"a","score":1}"#).is_none());
        assert!(read("{\"step\":1}\nno row").is_none());
        // A field of some rows only has the numbers of those.
        let some = read("{\"step\":0,\"validation_loss\":2}\n{\"step\":1,\"loss\":0.25}").unwrap();
        assert_eq!(some.fields, [("validation_loss".to_owned(), vec![2.0]), ("loss".to_owned(), vec![0.25])]);
        assert_eq!(curve(&[f64::MAX]), "▁");
    }
}

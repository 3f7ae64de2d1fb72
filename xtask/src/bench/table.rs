//! What was measured, beside what was aimed at.

use std::fmt::Write as _;

/// One quantity over all runs.
#[derive(Debug)]
pub struct Row {
    pub name: String,
    pub unit: &'static str,
    /// In ascending order, at least one.
    samples: Vec<f64>,
    /// The median must not be above it.
    target: Option<f64>,
}

impl Row {
    pub fn new(
        name: impl Into<String>,
        unit: &'static str,
        mut samples: Vec<f64>,
        target: Option<f64>,
    ) -> Self {
        samples.sort_by(f64::total_cmp);
        Self { name: name.into(), unit, samples, target }
    }

    fn median(&self) -> f64 {
        self.samples[self.samples.len() / 2]
    }

    pub fn misses(&self) -> bool {
        self.target.is_some_and(|target| self.median() > target)
    }
}

pub fn render(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<40} {:>4} {:>8} {:>8} {:>8} {:>8}\n",
        "quantity", "unit", "median", "min", "max", "target"
    );
    for row in rows {
        let (min, max) = (row.samples[0], row.samples[row.samples.len() - 1]);
        let target = row.target.map_or("-".to_owned(), |target| format!("{target:.1}"));
        let verdict = if row.misses() { "  MISSED" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<40} {:>4} {:>8.1} {min:>8.1} {max:>8.1} {target:>8}{verdict}",
            row.name,
            row.unit,
            row.median()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_held_against_the_target() {
        let row = |target| Row::new("time", "ms", vec![9.0, 1.0, 3.0], target);
        assert_eq!(row(None).median(), 3.0);
        assert!(!row(None).misses());
        assert!(!row(Some(3.0)).misses());
        assert!(row(Some(2.9)).misses());
        assert!(render(&[row(Some(2.0))]).contains("MISSED"));
    }
}

//! Medians, spreads, ratios and tables.

use serde_json::{Value, json};

/// The median, the least and the greatest of some rounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` if there are no figures.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().filter(|figure| figure.is_finite()).collect();
        figures.sort_by(f64::total_cmp);
        let (min, max) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let median =
            if figures.len() % 2 == 1 { figures[middle] } else { f64::midpoint(figures[middle - 1], figures[middle]) };
        Some(Self { median, min, max })
    }

    /// The spread of one figure over another in the same round. A round in which one of them is unknown does not count.
    pub(crate) fn of_ratio(
        above: impl IntoIterator<Item = Option<f64>>,
        below: impl IntoIterator<Item = Option<f64>>,
    ) -> Option<Self> {
        Self::of(above.into_iter().zip(below).filter_map(|(above, below)| Some(above? / below?)))
    }

    pub(crate) fn json(&self, digits: i32) -> Value {
        json!({"median": round(self.median, digits), "min": round(self.min, digits), "max": round(self.max, digits)})
    }
}

/// The median of the figures that are known. `None` if none is.
pub(crate) fn median(figures: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    Some(Spread::of(figures.into_iter().flatten())?.median)
}

/// The processor time of one order in microseconds: all that was used, without what an idle process would have used.
pub(crate) fn cost_us(used_us: f64, idle_us_per_s: f64, seconds: f64, orders: f64) -> f64 {
    (used_us - idle_us_per_s * seconds) / orders
}

/// Rounds a figure to this number of decimal places.
pub(crate) fn round(figure: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (figure * scale).round() / scale
}

/// The value that this share of the figures does not exceed. The figures need not be sorted.
pub(crate) fn percentile(figures: &mut [f64], share: f64) -> f64 {
    figures.sort_by(f64::total_cmp);
    let at = ((figures.len() as f64 * share).ceil() as usize).clamp(1, figures.len());
    figures[at - 1]
}

/// A table of text. The first column is aligned to the left, the others to the right.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| match at {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// A cell of a table with this number of decimal places. An unknown figure is a question mark, never a zero.
pub(crate) fn cell(figure: Option<f64>, digits: usize) -> String {
    figure.map_or("?".to_owned(), |figure| format!("{figure:.digits$}"))
}

/// A ratio as a cell of a table, for example `1.25 ×`.
pub(crate) fn times(ratio: Option<Spread>) -> String {
    ratio.map_or("?".to_owned(), |ratio| format!("{:.2} ×", ratio.median))
}

/// Writes 12345.6 as 12,346.
pub(crate) fn thousands(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && digit != '-' {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

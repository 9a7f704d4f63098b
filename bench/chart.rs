//! A bar chart with spreads, as SVG. It is readable on light and on dark pages.

use super::figures::{Spread, thousands};
use std::fmt::Write;

/// One bar with its label and the spread of its figure.
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) spread: Spread,
    pub(crate) color: &'static str,
}

const WIDTH: f64 = 860.0;
const LABELS: f64 = 290.0;
const FIGURES: f64 = 110.0;
const ROW: f64 = 26.0;
const TOP: f64 = 54.0;

/// The longest reason that fits beside a label, in characters.
const REASON_CHARS_MAX: usize = 95;

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Draws the bars in this order. Below them it names each side that was left out, with the reason.
pub(crate) fn bars(title: &str, subtitle: &str, bars: &[Bar], left_out: &[(&str, &str)]) -> String {
    let greatest = bars.iter().map(|bar| bar.spread.max).fold(1.0, f64::max);
    let x = |figure: f64| LABELS + figure / greatest * (WIDTH - LABELS - FIGURES);
    let height = TOP + ROW * (bars.len() + left_out.len()) as f64 + 14.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <title>{}</title>\n\
         <style>text {{ fill: #1f2328 }} .small {{ font-size: 11px; opacity: .75 }} .spread {{ stroke: #1f2328 }}\n\
         @media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3 }} .spread {{ stroke: #e6edf3 }} }}</style>\n\
         <text x=\"0\" y=\"18\" font-size=\"16\" font-weight=\"600\">{}</text>\n\
         <text class=\"small\" x=\"0\" y=\"37\">{}</text>\n",
        escaped(title),
        escaped(title),
        escaped(subtitle)
    );
    for (at, Bar { label, spread, color }) in bars.iter().enumerate() {
        let top = TOP + ROW * at as f64;
        let (middle, text) = (top + ROW / 2.0 - 2.0, top + ROW / 2.0 + 2.5);
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{text:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LABELS}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"2\" fill=\"{color}\"/>\
             <path class=\"spread\" d=\"M{:.1} {middle:.1}H{:.1}\" stroke-width=\"2\" opacity=\".6\"/>\
             <text x=\"{:.1}\" y=\"{text:.1}\">{}</text>",
            LABELS - 10.0,
            escaped(label),
            x(spread.median) - LABELS,
            ROW - 6.0,
            x(spread.min),
            x(spread.max),
            x(spread.max) + 8.0,
            thousands(spread.median),
        );
    }
    for (at, (label, why)) in left_out.iter().enumerate() {
        let text = TOP + ROW * (bars.len() + at) as f64 + ROW / 2.0 + 2.5;
        let shown: String = why.chars().take(REASON_CHARS_MAX).collect();
        let more = if shown.len() < why.len() { "…" } else { "" };
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{text:.1}\" text-anchor=\"end\" opacity=\".75\">{}</text>\
             <text class=\"small\" x=\"{LABELS}\" y=\"{text:.1}\">left out: {}{more}</text>",
            LABELS - 10.0,
            escaped(label),
            escaped(&shown),
        );
    }
    svg + "</svg>\n"
}

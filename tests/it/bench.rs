//! The arithmetic, the plot and the texts of `./dev bench`. The benchmark has no tests of its own, so its files are included here.

#[expect(clippy::cast_precision_loss, reason = "a measuring tool")]
#[path = "../../bench/chart.rs"]
mod chart;
#[expect(
    dead_code,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "the benchmark uses more of it than these tests"
)]
#[path = "../../bench/figures.rs"]
mod figures;

use figures::{Spread, cell, cost_us, median, times};

#[test]
fn the_cost_of_an_order_has_no_share_of_the_idle_time() {
    // In 10 s of load 5 s of processor time were used, and an idle process would have used 0.1 s a second.
    assert!((cost_us(5e6, 1e5, 10.0, 1_000.0) - 4_000.0).abs() < 1e-9);
    assert!(cost_us(5e5, 1e5, 10.0, 1_000.0) < 0.0, "less than an idle process shows, instead of a zero");
}

#[test]
fn a_figure_that_is_not_known_is_never_a_zero() {
    assert_eq!((cell(None, 1), cell(Some(0.0), 1)), ("?".to_owned(), "0.0".to_owned()));
    assert_eq!(times(None), "?");
    assert!(median([None, None]).is_none());
}

#[test]
fn a_ratio_compares_only_rounds_that_have_both_figures() {
    let ratio = Spread::of_ratio([Some(10.0), None, Some(30.0)], [Some(5.0), Some(1.0), Some(10.0)]).unwrap();
    assert_eq!((ratio.min, ratio.median, ratio.max), (2.0, 2.5, 3.0));
    assert_eq!(times(Some(ratio)), "2.50 ×");
    assert!(Spread::of_ratio([None], [Some(1.0)]).is_none());
}

#[test]
fn a_plot_names_what_was_left_out_and_why() {
    let bar =
        chart::Bar { label: "ours".to_owned(), spread: Spread { median: 2.0, min: 1.0, max: 3.0 }, color: "#000000" };
    let reason = format!("needs <Go>, {}", "x".repeat(200));
    let svg = chart::bars("title", "subtitle", &[bar], &[("go_batch", &reason)]);
    assert!(svg.contains(">go_batch</text>") && svg.contains("left out: needs &lt;Go&gt;, xxx"), "{svg}");
    assert!(svg.contains("xxx…</text>") && !svg.contains(&"x".repeat(100)), "{svg}");
}

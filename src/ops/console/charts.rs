//! What the workers did in the last hour, minute by minute, as small pictures. Each says in words, too, what it shows.

use super::words::number;
use crate::http::{Html, html};
use crate::store::ActivityMinute;
use time::{Duration, OffsetDateTime};

/// How far back they go.
pub(super) const SPAN: Duration = Duration::hours(1);

/// Minutes that are shown.
const MINUTES: usize = 60;

/// Height of the highest bar.
const HEIGHT: i64 = 100;

/// All of them.
pub(super) fn section(activity: &[ActivityMinute], now: OffsetDateTime) -> Html {
    let chart =
        |name: &str, class: &'static str, of: fn(&ActivityMinute) -> i64| chart(name, class, &bars(activity, now, of));
    html![
        "<section class=\"card\" aria-labelledby=\"flow\"><h2 id=\"flow\">The last hour</h2><div class=\"charts\">"
        [chart("applied", "", |minute| minute.applied)] [chart("duplicates absorbed", "", |minute| minute.duplicates)]
        [chart("grants", "", |minute| minute.grants)] [chart("put off", "", |minute| minute.put_off)]
        [chart("dead letters", " bad", |minute| minute.dead_lettered)] "</div></section>"
    ]
}

/// One number a minute, the oldest first; minutes in which nothing came are zero.
fn bars(activity: &[ActivityMinute], now: OffsetDateTime, of: fn(&ActivityMinute) -> i64) -> [i64; MINUTES] {
    let mut bars = [0; MINUTES];
    for minute in activity {
        let age = usize::try_from((now - minute.minute).whole_minutes());
        let place = age.ok().and_then(|age| (MINUTES - 1).checked_sub(age));
        if let Some(bar) = place.and_then(|place| bars.get_mut(place)) {
            *bar = of(minute);
        }
    }
    bars
}

fn chart(name: &str, class: &'static str, bars: &[i64; MINUTES]) -> Html {
    let (all, most) = (bars.iter().sum::<i64>(), bars.iter().copied().max().unwrap_or(0));
    let drawn = Html::all(bars.iter().enumerate().filter(|(_, value)| **value > 0).map(|(at, value)| {
        // At least a line, so that one of ten thousand is seen.
        let height = (value.saturating_mul(HEIGHT) / most.max(1)).max(3);
        html!["<rect x=\"" (at * 10) "\" y=\"" (HEIGHT - height) "\" width=\"8\" height=\"" (height) "\"/>"]
    }));
    html![
        "<figure class=\"chart" (class) "\"><figcaption><b class=\"many\">" (number(all)) "</b> " (name)
        " <span class=\"dim\">≤ " (number(most))
        "/min</span></figcaption><svg viewBox=\"0 0 600 102\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\""
        (name) ": " (number(all))
        " in the last hour, at most " (number(most))
        " a minute\"><rect class=\"base\" x=\"0\" y=\"100\" width=\"600\" height=\"2\"/>" [drawn] "</svg></figure>"
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn a_minute_stands_in_its_place() {
        let now = datetime!(2026-01-05 12:00:30 UTC);
        let minute = |minute, applied| ActivityMinute {
            minute,
            applied,
            duplicates: 0,
            put_off: 0,
            dead_lettered: 0,
            grants: 0,
        };
        let activity = [
            minute(datetime!(2026-01-05 10:00 UTC), 9),
            minute(datetime!(2026-01-05 11:01 UTC), 1),
            minute(datetime!(2026-01-05 12:00 UTC), 2),
            minute(datetime!(2026-01-05 12:05 UTC), 7),
        ];
        let bars = bars(&activity, now, |minute| minute.applied);
        assert_eq!((bars[0], bars[59], bars.iter().sum::<i64>()), (1, 2, 3));
        let shown = chart("applied", "", &bars);
        assert_eq!(shown.as_str().matches("<rect x=").count(), 2);
        assert!(shown.as_str().contains("applied: 3 in the last hour, at most 2 a minute"));
    }
}

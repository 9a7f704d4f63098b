//! What arrived, what was admitted, what was ignored and why: told from what the provider sent and what the ledger's tables
//! hold, side by side. Pure.

use crate::witness::{Posting, Story};
use grantonce_testkit::provider::Told;
use grantonce_testkit::provider::payment::Said;

/// How a line is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Credits came.
    Good,
    /// Credits went.
    Bad,
    /// Not there yet, or never sent.
    Wait,
    /// Nothing of it.
    Dim,
}

/// What became of a message, or of its copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) tone: Tone,
    pub(crate) text: String,
}

/// One message, and all of its copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// The provider's name for it.
    pub(crate) what: String,
    pub(crate) id: String,
    /// Copies that were sent, and accepted by the receiver; none of what the provider was asked for.
    pub(crate) copies: Option<(u32, u32)>,
    pub(crate) verdicts: Vec<Verdict>,
}

/// All of it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) lines: Vec<Line>,
    /// Webhooks that the receiver took.
    pub(crate) arrived: u32,
    /// Messages that were admitted to the inbox.
    pub(crate) admitted: u32,
    /// Webhooks that changed nothing: copies, and what is none of our business.
    pub(crate) ignored: u32,
    /// Events whose webhooks were never sent.
    pub(crate) dropped: u32,
}

/// Reads what was told of a payment beside what became of it.
pub(crate) fn read(told: &[Told], story: &Story) -> Reading {
    let mut reading =
        Reading { admitted: u32::try_from(story.admitted.len()).unwrap_or(u32::MAX), ..Reading::default() };
    let mut asked: Vec<&String> = story.admitted.iter().collect();
    for told in told {
        // `stripe::evt_…`: the event's id comes last.
        let suffix = format!(":{}", told.id);
        let message_id = story.admitted.iter().find(|id| id.ends_with(&suffix));
        asked.retain(|id| Some(*id) != message_id);
        let mut verdicts = vec![verdict(told, message_id, story)];
        let ignored = if message_id.is_some() { told.accepted.saturating_sub(1) } else { 0 };
        if ignored > 0 {
            let copies = if ignored == 1 { "copy" } else { "copies" };
            let text = format!("{ignored} {copies} ignored: the inbox knows this message");
            verdicts.push(Verdict { tone: Tone::Dim, text });
        }
        reading.arrived += told.accepted;
        reading.ignored += if told.said == Said::Created { told.accepted } else { ignored };
        reading.dropped += u32::from(told.is_dropped);
        let copies = Some((told.sent, told.accepted));
        reading.lines.push(Line { what: told.kind.to_owned(), id: told.id.clone(), copies, verdicts });
    }
    for id in asked {
        let said = posted(id, story).unwrap_or_else(|| dim("admitted, and nothing new: it was known by then"));
        let what = "the provider was asked".to_owned();
        reading.lines.push(Line { what, id: id.clone(), copies: None, verdicts: vec![said] });
    }
    reading
}

fn verdict(told: &Told, message_id: Option<&String>, story: &Story) -> Verdict {
    let wait = |text: &str| Verdict { tone: Tone::Wait, text: text.to_owned() };
    match message_id {
        Some(id) => posted(id, story).unwrap_or_else(|| dim(because(told.said, !story.postings.is_empty()))),
        None if told.is_dropped => wait("never sent"),
        None if told.accepted == 0 => wait("on its way"),
        None if told.said == Said::Created => dim("passed over: it says nothing of money"),
        None => wait("in the queue"),
    }
}

fn dim(text: &str) -> Verdict {
    Verdict { tone: Tone::Dim, text: text.to_owned() }
}

/// What a message changed in the ledger.
fn posted(message_id: &str, story: &Story) -> Option<Verdict> {
    let posting = story.postings.iter().find(|posting| posting.message_id == *message_id)?;
    let Posting { credits, reason, .. } = posting;
    Some(match *credits {
        credits if reason == "grant" => Verdict { tone: Tone::Good, text: format!("granted {credits} credits") },
        credits if credits > 0 => Verdict { tone: Tone::Good, text: format!("gave {credits} credits back") },
        credits => Verdict { tone: Tone::Bad, text: format!("took {} credits back", credits.unsigned_abs()) },
    })
}

/// Why a message was admitted and no credit moved.
fn because(said: Said, is_granted: bool) -> &'static str {
    match said {
        Said::Created | Said::Processing => "admitted: no money yet, no credits",
        Said::AttemptFailed => "admitted: a try that failed brings no credits, and is not the end",
        Said::Succeeded | Said::SessionCompleted if is_granted => {
            "admitted: paid, in other words; it is granted already"
        }
        Said::Succeeded | Said::SessionCompleted => "admitted",
        Said::Canceled => "admitted: given up, no credits",
        Said::RefundedTotal(_) | Said::RefundMade(_) | Said::RefundChanged(_) => {
            "admitted: the refund in other words; it is counted once"
        }
        Said::Disputed(..) => "admitted: the dispute in other words; it is counted once",
    }
}

/// The credits that what is kept of a price is worth: the shop's own sum, made without a look at the ledger.
pub(crate) fn due(credits: i64, price_minor: i64, kept_minor: i64) -> i64 {
    let worth = i128::from(credits) * i128::from(kept_minor.clamp(0, price_minor)) / i128::from(price_minor.max(1));
    i64::try_from(worth).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::OffsetDateTime;

    fn told(id: &str, said: Said, accepted: u32) -> Told {
        let (at, sent) = (OffsetDateTime::UNIX_EPOCH, accepted);
        Told { id: id.to_owned(), kind: "a.kind", said, at, is_dropped: false, sent, accepted }
    }

    fn posting(credits: i64, reason: &str, message_id: &str) -> Posting {
        Posting { credits, reason: reason.to_owned(), message_id: message_id.to_owned() }
    }

    fn texts(reading: &Reading) -> Vec<Vec<&str>> {
        reading.lines.iter().map(|line| line.verdicts.iter().map(|verdict| &*verdict.text).collect()).collect()
    }

    #[test]
    fn every_message_has_its_verdict() {
        let all = [
            told("evt_1", Said::Created, 3),
            told("evt_2", Said::Succeeded, 103),
            told("evt_3", Said::SessionCompleted, 2),
            told("evt_4", Said::RefundedTotal(1), 1),
            told("evt_5", Said::Processing, 1),
            told("evt_6", Said::Processing, 0),
            Told { is_dropped: true, ..told("evt_7", Said::Canceled, 0) },
        ];
        let story = Story {
            admitted: ["stripe::evt_2", "stripe::evt_3", "stripe::evt_4", "stripe:reconciled"]
                .map(str::to_owned)
                .to_vec(),
            postings: vec![posting(500, "grant", "stripe::evt_2"), posting(-250, "refund", "stripe::evt_4")],
        };
        let reading = read(&all, &story);
        let expected: [&[&str]; 8] = [
            &["passed over: it says nothing of money"],
            &["granted 500 credits", "102 copies ignored: the inbox knows this message"],
            &["admitted: paid, in other words; it is granted already", "1 copy ignored: the inbox knows this message"],
            &["took 250 credits back"],
            &["in the queue"],
            &["on its way"],
            &["never sent"],
            &["admitted, and nothing new: it was known by then"],
        ];
        assert_eq!(texts(&reading), expected);
        assert_eq!((reading.arrived, reading.admitted, reading.ignored, reading.dropped), (110, 4, 106, 1));
        assert_eq!(reading.lines[7].copies, None);
    }

    #[test]
    fn what_the_provider_answered_may_be_what_granted() {
        let all = [Told { is_dropped: true, ..told("evt_1", Said::Succeeded, 0) }];
        let story =
            Story { admitted: vec!["stripe:asked".to_owned()], postings: vec![posting(100, "grant", "stripe:asked")] };
        assert_eq!(texts(&read(&all, &story)), [["never sent"], ["granted 100 credits"]]);
    }

    #[test]
    fn credits_are_worth_their_share_rounded_down() {
        for (kept, credits) in [(0, 0), (1999, 500), (1000, 250), (999, 249), (-5, 0), (5000, 500)] {
            assert_eq!(due(500, 1999, kept), credits, "{kept}");
        }
    }
}

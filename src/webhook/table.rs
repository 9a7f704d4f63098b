//! The tables of event types: what grantonce does with each type that a provider publishes, and why.
//!
//! A provider's file decides by its table, with one lookup for each event. The pages `docs/events-….md` are generated from the same
//! tables.

use super::Endpoint;
use crate::domain::IgnoredWhy;
use std::fmt::Write as _;

/// What grantonce does with events of a type. `R` tells the provider's file how to read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does<R> {
    /// They are read, and their facts are published.
    Applied(R),
    /// The provider is asked about the payment that they name.
    Hint(R),
    /// They may report money in a form that cannot be applied. An operator decides.
    DeadLetter,
    /// The same if they name one of our orders. Others are ignored as [`IgnoredWhy::NotOurs`].
    DeadLetterIfOurs,
    /// Events that change nothing.
    Ignored(IgnoredWhy),
}

/// One type of event, or a family of them.
#[derive(Debug)]
pub(super) struct Row<R: 'static> {
    /// The type's name as the provider publishes it. With a `*` at its end it is a family: all types with this beginning that have
    /// no row of their own and no row of a smaller family.
    pub(super) name: &'static str,
    /// What grantonce does with them.
    pub(super) does: Does<R>,
    /// Why, in one sentence.
    pub(super) why: &'static str,
}

impl<R> Row<R> {
    /// They are read, and their facts are published.
    pub(super) const fn applied(name: &'static str, read: R, why: &'static str) -> Self {
        Self { name, does: Does::Applied(read), why }
    }

    /// The provider is asked about the payment that they name.
    pub(super) const fn hint(name: &'static str, read: R, why: &'static str) -> Self {
        Self { name, does: Does::Hint(read), why }
    }

    /// A row of events that change nothing.
    pub(super) const fn ignored(name: &'static str, reason: IgnoredWhy, why: &'static str) -> Self {
        Self { name, does: Does::Ignored(reason), why }
    }

    /// A row of events about which an operator decides.
    pub(super) const fn dead_letter(name: &'static str, why: &'static str) -> Self {
        Self { name, does: Does::DeadLetter, why }
    }

    /// An operator decides if they name one of our orders.
    pub(super) const fn dead_letter_if_ours(name: &'static str, why: &'static str) -> Self {
        Self { name, does: Does::DeadLetterIfOurs, why }
    }

    fn family(&self) -> Option<&'static str> {
        self.name.strip_suffix('*')
    }
}

/// The row of that type: its own, else that of the smallest family.
pub(super) fn row<R>(rows: &'static [Row<R>], kind: &str) -> Option<&'static Row<R>> {
    let family = || {
        let of = |row: &&Row<R>| row.family().is_some_and(|beginning| kind.starts_with(beginning));
        rows.iter().filter(of).max_by_key(|row| row.name.len())
    };
    rows.iter().find(|row| row.name == kind && row.family().is_none()).or_else(family)
}

/// What grantonce does with events of that type. If there is no row, an operator decides.
pub(super) fn does<R: Copy>(rows: &'static [Row<R>], kind: &str) -> Does<R> {
    row(rows, kind).map_or(Does::DeadLetter, |row| row.does)
}

/// A row as its page shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// The type, or a family with a `*` at its end.
    pub name: &'static str,
    /// What grantonce does, in words.
    pub does: &'static str,
    /// The reason for ignoring it, which is counted.
    pub ignored: Option<IgnoredWhy>,
    /// Why, in one sentence.
    pub why: &'static str,
}

/// The parts of a page.
pub(super) struct Page {
    title: &'static str,
    intro: &'static str,
    rows: Vec<Listed>,
}

impl Page {
    pub(super) fn new<R>(title: &'static str, intro: &'static str, rows: &'static [Row<R>]) -> Self {
        let listed = |row: &Row<R>| {
            let (does, ignored) = match row.does {
                Does::Applied(_) => ("applied", None),
                Does::Hint(_) => ("hint", None),
                Does::DeadLetter => ("dead letter", None),
                Does::DeadLetterIfOurs => ("dead letter if it names an order, else ignored", Some(IgnoredWhy::NotOurs)),
                Does::Ignored(why) => ("ignored", Some(why)),
            };
            Listed { name: row.name, does, ignored, why: row.why }
        };
        Self { title, intro, rows: rows.iter().map(listed).collect() }
    }
}

/// The rows of an endpoint's table. `None` if its bodies are our own contract.
pub fn listed(endpoint: Endpoint) -> Option<Vec<Listed>> {
    endpoint.adapter().events.map(|page| page().rows)
}

/// The page about an endpoint's events, as Markdown. `None` if its bodies are our own contract.
pub fn page(endpoint: Endpoint) -> Option<String> {
    let Page { title, intro, rows } = endpoint.adapter().events?();
    let mut page = format!(
        "# {title}\n\n<!-- Made from the table in src/webhook/{0}/table.rs by\n     UPDATE_DOCS=1 cargo test --features \
         failpoints --test it events -->\n\n{intro}\n\n\
         - **applied**: grantonce reads the event and publishes what it says to the workers.\n\
         - **hint**: grantonce asks the provider about the payment that the event names.\n\
         - **dead letter**: the event is kept whole, and an operator decides (reason `untranslatable`).\n\
         - **ignored**: the event changes nothing. It is answered with 200 and counted in\n  \
         `grantonce_webhooks_ignored_total` under the reason in brackets.\n\n\
         A name with a `*` at its end is a family: it stands for every type that begins so and has no row of its own.\n\n\
         | event type | what grantonce does | why |\n|---|---|---|\n",
        endpoint.path()
    );
    for Listed { name, does, ignored, why } in rows {
        let reason = ignored.map(|ignored| format!(" (`{}`)", ignored.name())).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| `{name}` | {does}{reason} | {why} |");
    }
    Some(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_decides_before_its_family_and_the_smaller_family_before_the_greater() {
        static ROWS: &[Row<u8>] = &[
            Row::dead_letter("*", "all"),
            Row::applied("a.*", 1, "family"),
            Row::applied("a.b.*", 2, "smaller family"),
            Row::applied("a.b.c", 3, "type"),
        ];
        for (kind, expected) in [
            ("a.b.c", Does::Applied(3)),
            ("a.b.d", Does::Applied(2)),
            ("a.b", Does::Applied(1)),
            ("a.*", Does::Applied(1)),
            ("b", Does::DeadLetter),
            ("", Does::DeadLetter),
        ] {
            assert_eq!(does(ROWS, kind), expected, "{kind}");
        }
        static NONE: &[Row<u8>] = &[];
        assert_eq!(does(NONE, "a"), Does::DeadLetter, "what no row speaks of is for an operator");
    }

    #[test]
    fn every_row_has_a_name_of_its_own_and_says_why() {
        for endpoint in Endpoint::ALL {
            let Some(rows) = listed(*endpoint) else { continue };
            let mut names: Vec<_> = rows.iter().map(|row| row.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), rows.len(), "{endpoint:?}: a name stands there twice");
            assert!(names.contains(&"*"), "{endpoint:?}: no row says what is done with a type that nobody knows");
            for row in rows {
                let is_sentence = row.why.len() > 15 && row.why.ends_with('.');
                assert!(is_sentence && !row.why.contains('|'), "{endpoint:?} {}: {:?}", row.name, row.why);
            }
        }
    }
}

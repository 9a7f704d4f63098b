//! `forget`: an account's buyers are forgotten.

use super::actor::actor;
use super::{RunError, check, print};
use crate::cli::ForgetArgs;
use crate::clock::Clock;
use crate::code::Exit;
use crate::config::OrdersConfig;
use crate::domain::counted;
use crate::store::{Forgetting, Forgotten, Profile, Store};
use serde_json::{Value, json};
use std::time::Duration;

/// How long one transaction may take before its outcome counts as unknown.
const DEADLINE: Duration = Duration::from_secs(30);

/// What to do about dead letters that were left.
const LETTERS_FIRST: &str = "open dead letters may still bring a grant, and need their bodies for it: `grantonce \
                             explain ACCOUNT --kind account` names them; replay or archive each, then run this again";

const DO_IT: &str = "nothing was changed: run it again with --yes";

/// Tells what would be emptied, or empties it; exit 1 where something is left, or the account has no order.
pub(super) async fn run(args: ForgetArgs, config: OrdersConfig) -> Result<Exit, RunError> {
    let failed = |error| RunError::of_store("cannot forget the account; what is done stays, run it again", error);
    let store = Store::new(&check::settings(config.database.url, Profile::Operations, DEADLINE)).map_err(failed)?;
    let forgetting = Forgetting {
        account: args.account.clone(),
        for_real: args.yes,
        by: actor(args.by),
        reason: args.reason,
        now: Clock::system().now(),
    };
    let forgotten = store.forget_account(forgetting).await.map_err(failed)?;
    let (exit, outcome, next) = judge(forgotten, args.yes);
    let counts = forgotten.unwrap_or_default();
    if args.json {
        let mut object = json!(counts);
        if let Value::Object(fields) = &mut object {
            fields.insert("outcome".to_owned(), json!(outcome));
            fields.insert("account_id".to_owned(), json!(args.account));
            fields.insert("next".to_owned(), json!(next));
        }
        print(&format!("{object}\n"))?;
    } else {
        print(&text(args.account.as_str(), outcome, counts, next))?;
    }
    Ok(exit)
}

fn judge(forgotten: Option<Forgotten>, for_real: bool) -> (Exit, &'static str, Option<&'static str>) {
    match (forgotten, for_real) {
        (None, _) => (Exit::Fault, "account_unknown", None),
        (Some(counts), true) if counts.letters_left > 0 => (Exit::Fault, "partly_forgotten", Some(LETTERS_FIRST)),
        (Some(counts), false) if counts.letters_left > 0 => (Exit::Fault, "would_forget", Some(LETTERS_FIRST)),
        (Some(counts), _) if counts.rows() == 0 => (Exit::Done, "nothing_left", None),
        (Some(_), true) => (Exit::Done, "forgotten", None),
        (Some(_), false) => (Exit::Done, "would_forget", Some(DO_IT)),
    }
}

fn text(account: &str, outcome: &str, counts: Forgotten, next: Option<&str>) -> String {
    let Forgotten { orders_seen, orders, payment_attempts, letters, letters_left } = counts;
    let emptied = format!(
        "metadata of {orders} of its {}, what {} could be paid with, and bodies and headers of {}",
        counted(orders_seen, "order"),
        counted(payment_attempts, "payment attempt"),
        counted(letters, "dead letter")
    );
    let left =
        if letters_left > 0 { format!("; open dead letters that are left: {letters_left}") } else { String::new() };
    let told = match outcome {
        "account_unknown" => "no order is of this account".to_owned(),
        "nothing_left" => format!("nothing is kept of it but {} and the ledger", counted(orders_seen, "order")),
        "would_forget" => format!("would empty {emptied}{left}"),
        _ => format!("emptied {emptied}{left}"),
    };
    let next = next.map(|next| format!("next: {next}\n")).unwrap_or_default();
    format!("account {account}: {told}\n{next}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_exit_and_its_words() {
        let some = Forgotten { orders_seen: 3, orders: 2, payment_attempts: 1, letters: 1, letters_left: 0 };
        let open = Forgotten { letters_left: 4, ..some };
        let none = Forgotten { orders_seen: 3, ..Forgotten::default() };
        for (forgotten, for_real, exit, outcome, part) in [
            (None, true, Exit::Fault, "account_unknown", "no order"),
            (Some(some), false, Exit::Done, "would_forget", "--yes"),
            (Some(open), false, Exit::Fault, "would_forget", "archive"),
            (Some(some), true, Exit::Done, "forgotten", "emptied metadata of 2 of its 3 orders"),
            (Some(open), true, Exit::Fault, "partly_forgotten", "are left: 4"),
            (Some(none), true, Exit::Done, "nothing_left", "but 3 orders"),
            (Some(none), false, Exit::Done, "nothing_left", "but 3 orders"),
        ] {
            let (was, named, next) = judge(forgotten, for_real);
            assert_eq!((was, named), (exit, outcome));
            let told = text("acc", named, forgotten.unwrap_or_default(), next);
            assert!(told.contains(part), "{told}");
        }
    }
}

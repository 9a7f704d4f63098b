//! `orders`: what people do to single orders.

use super::actor::actor;
use super::{RunError, check, print};
use crate::cli::{AmendArgs, OrdersCommand};
use crate::clock::Clock;
use crate::code::{Code, Exit};
use crate::config::OrdersConfig;
use crate::domain::Money;
use crate::store::{Amended, Amendment, Profile, Store};
use serde_json::{Value, json};
use std::time::Duration;

/// How long one transaction may take before its outcome counts as unknown.
const DEADLINE: Duration = Duration::from_secs(10);

/// After an amendment, where a refused message brings the grant.
const REPLAY: &str = "replay the messages that were refused: the worker grants";

/// After an amendment, where no message was refused that could be replayed.
const GRANT_IS_DUE: &str = "what is known of its payment pays this price already, but only a message brings a grant: \
                            replay a dead letter of this payment, or wait for the next new message about it. Copies of \
                            messages that were applied bring nothing. If none is to come, publish one that repeats a \
                            known capture, under a message_id of its own";

/// Runs one of them.
pub(super) async fn run(command: OrdersCommand, config: OrdersConfig) -> Result<Exit, RunError> {
    match command {
        OrdersCommand::Amend(args) => amend(args, config).await,
    }
}

async fn amend(args: AmendArgs, config: OrdersConfig) -> Result<Exit, RunError> {
    let price = Money::new(args.amount_minor, args.currency)
        .map_err(|error| RunError::new(Code::UsageInvalid, "this is no price", error))?;
    let failed = |error| RunError::of_store("cannot amend the order", error);
    let store = Store::new(&check::settings(config.database.url, Profile::Operations, DEADLINE)).map_err(failed)?;
    let amendment = Amendment {
        order_id: args.id,
        price,
        dispute_policy: config.dispute_policy,
        by: actor(args.by),
        reason: args.reason,
        now: Clock::system().now(),
    };
    let amended = store.amend_order(amendment).await.map_err(failed)?;
    let Report { exit, text, mut object } = report(price, &amended);
    if args.json {
        if let Value::Object(fields) = &mut object {
            fields.insert("order_id".to_owned(), json!(args.id));
        }
        print(&format!("{object}\n"))?;
    } else {
        print(&format!("order {}: {text}\n", args.id))?;
    }
    Ok(exit)
}

/// What is printed about an outcome.
struct Report {
    exit: Exit,
    text: String,
    object: Value,
}

fn report(price: Money, amended: &Amended) -> Report {
    match amended {
        Amended::Written { before, version, repriced } => {
            let next = if repriced.is_grant_due { GRANT_IS_DUE } else { REPLAY };
            Report {
                exit: Exit::Done,
                text: format!("costs {price} now, before {before}; version {version}\nnext: {next}"),
                object: json!({
                    "outcome": "amended",
                    "before": amount(*before),
                    "after": amount(price),
                    "status": repriced.status.name(),
                    "version": version,
                    "is_grant_due": repriced.is_grant_due,
                    "next": next,
                }),
            }
        }
        Amended::Unchanged => Report {
            exit: Exit::Done,
            text: format!("costs {price} already; nothing was changed"),
            object: json!({ "outcome": "unchanged", "after": amount(price) }),
        },
        Amended::OrderUnknown => refused("order_unknown", "there is no such order"),
        Amended::Refused(refusal) => refused(refusal.name(), &refusal.to_string()),
    }
}

fn refused(reason: &str, detail: &str) -> Report {
    Report {
        exit: Exit::Fault,
        text: format!("nothing was changed: {detail}"),
        object: json!({ "outcome": "refused", "reason": reason, "detail": detail }),
    }
}

fn amount(money: Money) -> Value {
    json!({ "amount_minor": money.amount_minor(), "currency": money.currency() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AmendmentRefusal, OrderStatus, Repriced};

    #[test]
    fn every_outcome_has_its_exit_and_its_words() {
        let money = |minor| Money::new(minor, "USD".parse().unwrap()).unwrap();
        let written = |is_grant_due| Amended::Written {
            before: money(2999),
            version: 2,
            repriced: Repriced { status: OrderStatus::AwaitingPayment, is_grant_due },
        };
        for (amended, exit, outcome, part) in [
            (written(false), Exit::Done, "amended", "before 2999 USD"),
            (written(false), Exit::Done, "amended", REPLAY),
            (written(true), Exit::Done, "amended", GRANT_IS_DUE),
            (Amended::Unchanged, Exit::Done, "unchanged", "already"),
            (Amended::OrderUnknown, Exit::Fault, "refused", "no such order"),
            (Amended::Refused(AmendmentRefusal::Granted), Exit::Fault, "refused", "granted already"),
        ] {
            let report = report(money(1999), &amended);
            assert_eq!((report.exit, &report.object["outcome"]), (exit, &json!(outcome)));
            assert!(report.text.contains(part), "{}", report.text);
        }
    }
}

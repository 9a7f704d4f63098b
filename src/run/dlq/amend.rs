//! `dlq amend`: what orders would cost if they cost what was paid, and then the new prices.

use super::{failed, selection, tell, usage};
use crate::cli::AmendToPaidArgs;
use crate::clock::Clock;
use crate::code::Exit;
use crate::domain::Reason;
use crate::ops::amending::{self, Line, Proposals, Wish};
use crate::ops::prospects::Terms;
use crate::run::actor::actor;
use crate::run::{RunError, print};
use crate::store::Store;
use serde_json::json;

/// After the new prices: they grant nothing by themselves.
const NEXT: &str = "replay these letters: `grantonce dlq replay` with the same filters and --reason-is amount_mismatch";

/// Looks, and amends where that was said.
pub(super) async fn run(args: AmendToPaidArgs, terms: Terms, store: &Store, clock: &Clock) -> Result<Exit, RunError> {
    let name = Reason::AmountMismatch.name();
    if args.which.reason_is.as_deref().is_some_and(|reason| reason != name) {
        return Err(usage("only letters of reason amount_mismatch tell a price that was paid"));
    }
    let filter = selection(&args.which, args.all, clock)?;
    let now = clock.now();
    let proposals = amending::look(store, &terms, filter, now).await.map_err(failed)?;
    if !args.json {
        print(&tell::proposals(&proposals))?;
    }
    let reason = match args.reason {
        Some(reason) if args.yes => reason,
        Some(_) | None => {
            if args.json {
                print(&format!("{}\n", looked("looked", &proposals)))?;
            } else if proposals.changes() > 0 {
                print("nothing was changed. To amend: the same with --yes and --reason\n")?;
            }
            return Ok(Exit::Done);
        }
    };
    if proposals.changes() == 0 {
        if args.json {
            print(&format!("{}\n", looked("nothing_to_amend", &proposals)))?;
        } else {
            print("nothing was changed: there is no such order whose price could be what was paid\n")?;
        }
        return Ok(if proposals.all.is_empty() { Exit::Done } else { Exit::Fault });
    }
    let wish = Wish { by: actor(args.by), reason, dispute_policy: terms.dispute_policy, now };
    let done = amending::amend(store, &proposals, &wish).await.map_err(failed)?;
    let amended = done.iter().filter(|done| done.is_done()).count();
    let stays = proposals.all.len() - amended;
    if args.json {
        let lines = done.iter().map(Line::from);
        let stayed = proposals.all.iter().filter(|proposal| proposal.outcome.is_err()).map(Line::from);
        let object = json!({
            "outcome": "amended",
            "amended": amended,
            "stays": stays,
            "is_cut": proposals.is_cut,
            "orders": lines.chain(stayed).collect::<Vec<_>>(),
            "next": NEXT,
        });
        print(&format!("{object}\n"))?;
    } else {
        for done in done.iter().filter(|done| !done.is_done()) {
            print(&format!("order {}: {}\n", done.order_id, done.in_words()))?;
        }
        print(&format!("amended: {amended} orders; {stays} stay as they are\nnext: {NEXT}\n"))?;
    }
    Ok(if stays == 0 { Exit::Done } else { Exit::Fault })
}

fn looked(outcome: &str, proposals: &Proposals) -> serde_json::Value {
    let changes = proposals.changes();
    json!({
        "outcome": outcome,
        "would_amend": changes,
        "stays": proposals.all.len() - changes,
        "is_cut": proposals.is_cut,
        "orders": proposals.all.iter().map(Line::from).collect::<Vec<_>>(),
    })
}

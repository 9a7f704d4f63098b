//! The demo for people: addresses, lines to copy, and what is going on. The shop itself is in `storefront`.

use crate::args::Args;
use crate::killer::kill_workers;
use crate::roles::{Addresses, Roles};
use crate::run::Failed;
use crate::witness::Witness;
use fastrand::Rng;
use grantonce_testkit::provider::Provider;
use indicatif::{ProgressBar, ProgressDrawTarget};
use std::fmt::Write;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often the counts are shown.
const SHOWN_EVERY: Duration = Duration::from_secs(1);

/// What is printed at the start, the shop's address first. Below "Try it", every line that begins with neither a blank nor
/// `#` can be pasted into a shell.
pub(crate) fn welcome(addresses: &Addresses, storefront: SocketAddr, provider: SocketAddr, token: &str) -> String {
    let mut text = String::new();
    let mut line = |name: &str, address: &SocketAddr| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:<20} http://{address}");
    };
    line("storefront", &storefront);
    line("simulated provider", &provider);
    line("receiver", &addresses.receiver);
    line("api", &addresses.api);
    if let Some(console) = &addresses.console {
        line("operators' console", console);
    }
    for (role, address) in &addresses.metrics {
        line(&format!("metrics of {role}"), address);
    }
    let api = addresses.api;
    format!(
        r#"grantonce is running; Ctrl-C ends it and removes all it has made.

{text}
Open the storefront in a browser: buy credits, and try to get them otherwise.
The operators' console asks for a token: {token}

# Try it from another shell:
PROVIDER=http://{provider} API=http://{api} TOKEN={token}
first_id() {{ grep -o '"id": *"[^"]*"' | head -n 1 | cut -d '"' -f 4; }}
post() {{ curl -sS -H 'content-type: application/json' -H "authorization: Bearer $TOKEN" "$@"; }}

# a payment at the provider, and an order for it
PAYMENT=$(post $PROVIDER/payments -d '{{"provider":"stripe","amount_minor":1999,"currency":"USD"}}' | first_id)
ORDER=$(post $API/v1/orders -H "idempotency-key: $PAYMENT" -d '{{"account_id":"alice","credits":100,"amount_minor":1999,"currency":"USD","provider":"stripe","payment_id":"'$PAYMENT'"}}' | first_id)

# the buyer pays; the order is fulfilled; the credits are there
post $PROVIDER/payments/$PAYMENT/pay -d '{{"outcome":"succeeded"}}'; echo
curl -sS -H "authorization: Bearer $TOKEN" "$API/v1/orders/$ORDER?wait=20"; echo
curl -sS -H "authorization: Bearer $TOKEN" $API/v1/accounts/alice/balance; echo

# the same webhook fifty times at once: no credit more
curl -sS -X POST "$PROVIDER/payments/$PAYMENT/replay?times=50&parallel=true"; echo
curl -sS -H "authorization: Bearer $TOKEN" $API/v1/accounts/alice/balance; echo

"#
    )
}

/// Shows what is going on, for ever; ends only when a role has ended by itself.
pub(crate) async fn live(args: &Args, roles: &mut Roles, provider: &Provider, witness: &Witness) -> Result<(), Failed> {
    if !args.kill_workers {
        return watch(Some(roles), provider, witness).await;
    }
    let never = CancellationToken::new();
    let killing = kill_workers(roles.workers(), Rng::with_seed(args.seed), &never);
    tokio::select! {
        watched = watch(None, provider, witness) => watched,
        killed = killing => killed.map(|_kills| ()).map_err(Failed::from),
    }
}

/// With `roles` it looks after them too.
async fn watch(mut roles: Option<&mut Roles>, provider: &Provider, witness: &Witness) -> Result<(), Failed> {
    let is_terminal = std::io::stderr().is_terminal();
    let target = if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let line = ProgressBar::with_draw_target(None, target);
    let mut ticks = interval(SHOWN_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let deserters = roles.as_mut().map(|roles| roles.deserters()).unwrap_or_default();
        if !deserters.is_empty() {
            line.finish_and_clear();
            return Err(Failed::Deserted(deserters.join("\n")));
        }
        if !is_terminal {
            continue;
        }
        let (payments, paid) = provider.payments();
        let counts = provider.counts();
        let postings = match witness.postings().await {
            Ok((grants, adjustments)) => format!("{grants} grants, {adjustments} adjustments"),
            Err(error) => error.to_string(),
        };
        line.set_message(format!(
            "{payments} payments, {paid} paid · {} webhooks sent, {} accepted · {postings}",
            counts.sent, counts.accepted
        ));
        line.tick();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_to_paste_is_one_line_of_shell() {
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let addresses = Addresses {
            receiver: address,
            api: address,
            console: Some(address),
            metrics: vec![("worker-1".to_owned(), address)],
        };
        let text = welcome(&addresses, "127.0.0.1:2".parse().unwrap(), address, "t0ken");
        let first = text.lines().find(|line| line.contains("http://")).unwrap();
        assert_eq!(first, "  storefront           http://127.0.0.1:2");
        let (_, script) = text.split_once("# Try it").unwrap();
        let checked = std::process::Command::new("/bin/sh").args(["-n", "-c", &format!("# {script}")]).status();
        assert!(checked.unwrap().success(), "{script}");
        assert!(text.contains("metrics of worker-1  http://127.0.0.1:1\n"), "{text}");
    }
}

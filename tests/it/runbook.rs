//! Runs every command of `docs/runbook.md` on a deployment with a dead letter in it.

use crate::letters::{OPS_TOKEN, the_letter, until};
use crate::support::messages::{captured, event_for};
use crate::support::world::{OrderSpec, World};
use grantonce_testkit::wait::eventually;
use std::collections::HashMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

const START: Duration = Duration::from_secs(30);

/// One command, and the section that contains it.
#[derive(Debug)]
struct Line {
    section: String,
    command: String,
}

/// The lines of the page's `sh` blocks.
fn commands() -> Vec<Line> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbook.md")).unwrap();
    let (mut section, mut is_sh, mut lines) = (String::new(), false, vec![]);
    for line in page.lines() {
        let text = line.trim();
        match text {
            "```sh" => is_sh = true,
            "```" => is_sh = false,
            _ if is_sh && !text.is_empty() => {
                lines.push(Line { section: section.clone(), command: text.to_owned() });
            }
            _ => {}
        }
        if let Some(title) = line.strip_prefix("## ") {
            section = title.to_owned();
        }
    }
    lines
}

#[tokio::test]
async fn every_command_runs_as_it_is_written() {
    let world = World::new().await;
    let order = world.order(OrderSpec { amount_minor: 1999, ..OrderSpec::paid_by("pi_1") }).await;
    let children = world.children().env("GRANTONCE_OPS_ADDR", "127.0.0.1:0");
    let children = children.env("GRANTONCE_OPS_TOKENS", format!("ada:{OPS_TOKEN}"));
    let mut worker = children.start("worker", &["worker"]).await.unwrap();
    let mut ops = children.start("ops", &["ops"]).await.unwrap();
    let metrics = worker.listening("metrics", START).await.unwrap();
    worker.consuming(START).await.unwrap();
    // The page amends the order to the amount that was paid.
    world.publish(&event_for("pi_1", "evt_1", captured(1599))).await;
    let store = world.store();
    let letter = the_letter(&store).await;
    assert_eq!(letter.reason, "amount_mismatch");

    let tools = tempfile::tempdir().unwrap();
    symlink(env!("CARGO_BIN_EXE_grantonce"), tools.path().join("grantonce")).unwrap();
    let path = format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap());
    let token_key = "0".repeat(32);
    let environment: HashMap<&str, String> = [
        ("PATH", path),
        ("DATABASE_URL", world.database_url.clone()),
        ("AMQP_URL", world.amqp_url.clone()),
        ("GRANTONCE_LIVEMODE", "false".to_owned()),
        ("GRANTONCE_RETRY_DELAYS", "200ms,500ms".to_owned()),
        ("GRANTONCE_STRIPE_WEBHOOK_SECRETS", "whsec_0123456789abcdef".to_owned()),
        ("GRANTONCE_STRIPE_API_KEY", "sk_test_1".to_owned()),
        ("GRANTONCE_API_TOKENS", "shop:0123456789abcdef".to_owned()),
        ("GRANTONCE_STATUS_TOKEN_KEY", token_key),
        ("METRICS", format!("http://{metrics}")),
        ("ORDER", order.to_string()),
        ("PAYMENT", "pi_1".to_owned()),
        ("MESSAGE", letter.message_id.clone()),
        ("LETTER", letter.id.to_string()),
        ("ACCOUNT", "acc".to_owned()),
    ]
    .into_iter()
    .collect();

    let lines = commands();
    assert!(lines.len() > 80, "the page's commands are found: {}", lines.len());
    let mut failed = vec![];
    for Line { section, command } in &lines {
        // This command would archive the dead letter before the others replay it. Another test shows that archiving works.
        let command = &command.replace("dlq archive $LETTER", "dlq archive --payment pi_none");
        let mut shell = tokio::process::Command::new("sh");
        shell.args(["-eu", "-c", command]).env_clear().envs(&environment).kill_on_drop(true);
        let output =
            tokio::time::timeout(START * 2, shell.output()).await.unwrap_or_else(|_| panic!("{command} hangs"));
        let output = output.unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        // Exit code 1 is a finding, for instance an order that is not paid yet. Any other failure is a mistake in the page.
        let is_finding =
            output.status.code() == Some(1) && command.starts_with("grantonce ") && !told.contains("error");
        if !output.status.success() && !is_finding {
            failed.push(format!("{section}: {command}\n    {}: {told}", output.status));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));

    // The commands have done what the page promises.
    until(&store, letter.id, "resolved").await;
    eventually("the order is granted", async || world.grants().await == 1).await;
    assert_eq!(world.count("SELECT amount_minor FROM orders").await, 1599);
    worker.terminate(START).await.unwrap();
    ops.terminate(START).await.unwrap();
    world.verify().await;
}

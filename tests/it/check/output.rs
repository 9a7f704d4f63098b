//! Output must arrive: a result that nobody can read is no success.

use super::command;
use crate::support::world::World;
use std::fs::OpenOptions;
use std::process::{Command, Stdio};

/// Commands that print without servers.
const ALONE: &[&[&str]] = &[&["--help"], &["--version"], &["--help-config"], &["worker", "--help"], &["help", "dlq"]];

fn grantonce(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grantonce"));
    command.args(args).env_clear().stderr(Stdio::piped());
    command
}

/// A pipe whose reader is gone.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn full_disk() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn o15_a_help_that_cannot_be_written_is_no_success() {
    for args in ALONE {
        let full = grantonce(args).stdout(full_disk()).output().unwrap();
        let told = String::from_utf8_lossy(&full.stderr).into_owned();
        assert_eq!(full.status.code(), Some(1), "{args:?}: {told}");
        assert!(told.contains("cannot write to standard output"), "{args:?}: {told}");
        let gone = grantonce(args).stdout(closed_pipe()).output().unwrap();
        assert_eq!((gone.status.code(), gone.stderr.as_slice()), (Some(141), &b""[..]), "{args:?}");
    }
}

#[tokio::test]
async fn o15_a_result_that_cannot_be_written_is_no_success() {
    let world = World::new().await;
    crate::letters::unknown_payments(&world, 1).await;
    let id = world.count("SELECT count(*) FROM dead_letters").await;
    assert_eq!(id, 1);
    for args in [
        &["check"][..],
        &["check", "--json"],
        &["verify"],
        &["verify", "--json"],
        &["dlq", "list"],
        &["dlq", "list", "--json"],
        &["dlq", "list", "--groups"],
        &["dlq", "list", "--reason-is", "malformed"],
        &["dlq", "stats"],
        &["dlq", "stats", "--json"],
        &["dlq", "peek"],
        &["dlq", "replay", "--all"],
        &["dlq", "replay", "--all", "--json"],
        &["dlq", "amend", "--to-what-was-paid", "--all"],
        &["dlq", "archive", "--all", "--reason", "x"],
        &["dlq", "restore", "--all", "--reason", "x"],
        &["explain", "pi_0"],
        &["explain", "pi_0", "--json"],
        &["forget", "acc", "--reason", "x"],
    ] {
        // `output()` would replace the pipe.
        let run = async |stdout: Stdio| {
            let child = command(&world, args).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
            child.wait_with_output().await.unwrap()
        };
        let full = run(full_disk()).await;
        let told = String::from_utf8_lossy(&full.stderr).into_owned();
        assert_eq!(full.status.code(), Some(1), "{args:?}: {told}");
        assert!(told.contains("cannot write to standard output"), "{args:?}: {told}");
        let gone = run(closed_pipe()).await;
        assert_eq!(gone.status.code(), Some(141), "{args:?}: {}", String::from_utf8_lossy(&gone.stderr));
    }
}

//! Usage, configuration faults and exit codes.

use clap::{CommandFactory as _, Parser as _};
use grantonce::cli::Cli;
use std::process::{Command, Output};

fn grantonce(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grantonce"));
    command.args(arguments).env_clear().envs(environment.iter().copied());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn bad_usage_and_bad_configuration_end_with_2() {
    for arguments in
        [&[][..], &["nonsense"], &["worker", "--fast"], &["demo"], &["explain"], &["forget", "acc", "--yes"]]
    {
        let output = grantonce(arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    const ORDER: &str = "019b8e2f-5c1a-7d3e-9f00-2b6a7c8d9e0f";
    for (order, amount, currency, reason) in [
        ("not-a-uuid", "1599", "USD", "tax"),
        (ORDER, "-1599", "USD", "tax"),
        (ORDER, "0", "USD", "tax"),
        (ORDER, "15.99", "USD", "tax"),
        (ORDER, "1599", "usd", "tax"),
        (ORDER, "1599", "XYZ", "tax"),
        (ORDER, "1599", "USD", " "),
    ] {
        let amend = ["orders", "amend", order, "--amount-minor", amount, "--currency", currency, "--reason", reason];
        let output = grantonce(&amend, &[("DATABASE_URL", "postgres://u@127.0.0.1:1/x")]);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{amend:?}: {told}");
        assert!(output.stdout.is_empty() && told.contains("invalid value"), "{amend:?}: {told}");
    }
    let environment = [
        ("DATABASE_URL", "postgres//u:hunter2pw@db/x"),
        ("GRANTONCE_LIVEMODE", "maybe"),
        ("GRANTONCE_LIVEMOD", "true"),
    ];
    let output = grantonce(&["worker"], &environment);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    for part in ["4 faults", "DATABASE_URL must be", "AMQP_URL is required", "\"maybe\"", "did you mean"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    for code in ["(code: config.invalid)", "(code: config.missing)", "(code: config.unknown)", "; see docs/errors.md)"]
    {
        assert!(told.contains(code), "{code}: {told}");
    }
    assert!(!told.contains("hunter2pw"), "{told}");
}

#[test]
fn help_goes_to_stdout_and_ends_with_0() {
    for (arguments, part) in [
        (&["--help"][..], "Exit codes:"),
        (&["worker", "--help"], "GRANTONCE_LIVEMODE=true grantonce worker"),
        (&["orders", "amend", "--help"], "--amount-minor 1599 --currency USD"),
        (&["explain", "--help"], "grantonce explain pi_"),
        (&["forget", "--help"], "--as ada --yes"),
        (&["--version"], "grantonce 0."),
        (&["--help-config"], "GRANTONCE_RETRY_DELAYS [default: 5s,1m,10m]"),
    ] {
        let output = grantonce(arguments, &[]);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(text(&output.stdout).contains(part), "{arguments:?}: {}", text(&output.stdout));
    }
}

/// The calls of the program in a script, as a shell reads them.
fn calls(script: &str) -> Vec<Vec<String>> {
    let told = tempfile::NamedTempFile::new().unwrap();
    // Control characters separate words and calls, because no example contains any.
    let program = r#"grantonce() { printf '%s\037' grantonce "$@" >>"$TOLD"; printf '\036' >>"$TOLD"; }; jq() { :; }"#;
    let mut shell = Command::new("sh");
    shell.args(["-euc", &format!("{program}\n{script}")]).env("TOLD", told.path());
    let output = shell.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{script}: {}", text(&output.stderr));
    let told = std::fs::read_to_string(told.path()).unwrap();
    let words = |call: &str| call.split_terminator('\u{1f}').map(str::to_owned).collect();
    told.split_terminator('\u{1e}').map(words).collect()
}

#[test]
fn every_example_of_a_help_is_taken_as_it_stands() {
    let mut waiting = vec![(vec![], Cli::command())];
    let mut count = 0;
    while let Some((path, command)) = waiting.pop() {
        let path = [path, vec![command.get_name().to_owned()]].concat();
        waiting.extend(command.get_subcommands().map(|command| (path.clone(), command.clone())));
        let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        let Some((examples, _)) = help.split_once("\n\n") else { continue };
        let calls = calls(examples.strip_prefix("Examples:\n").unwrap());
        assert_eq!(calls.len(), examples.matches(" grantonce ").count(), "{examples}");
        assert!(calls.iter().any(|call| call.starts_with(&path)), "{path:?} has examples of other commands only");
        for call in &calls {
            let taken = Cli::try_parse_from(call).map(|cli| cli.command.is_some()).map_err(|error| error.to_string());
            assert!(matches!(taken, Ok(true)), "{call:?}: {taken:?}");
        }
        count += calls.len();
    }
    assert!(count > 25, "found {count} examples only");
}

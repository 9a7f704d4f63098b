//! The children are shells here, and one is this test program.

use super::*;
use std::os::unix::process::ExitStatusExt;

const SOON: Duration = Duration::from_secs(20);

fn shells(folder: &tempfile::TempDir) -> Children {
    Children::new("/bin/sh", folder.path()).env("GRANTONCE_GREETING", "hello")
}

#[tokio::test]
async fn it_says_where_it_listens() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"echo '{"fields":{"event":"listening","listener":"metrics","address":"127.0.0.1:1"}}' >&2
        echo plain text >&2
        echo '{"event":"listening","listener":"api","address":"127.0.0.1:2"}' >&2
        echo '{"fields":{"event":"consuming"}}' >&2
        exec sleep 1000"#;
    let mut child = shells(&folder).start("api", &["-c", script]).await.unwrap();
    assert_eq!(child.listening("api", SOON).await.unwrap().port(), 2);
    assert_eq!(child.listening("metrics", SOON).await.unwrap().port(), 1);
    child.consuming(SOON).await.unwrap();
    assert_eq!(child.wait_for_line("", SOON, |line| line.text().contains("plain")).await.unwrap().text(), "plain text");
    let late = child.listening("receiver", Duration::from_millis(10)).await.unwrap_err();
    assert!(matches!(late, ChildError::TooLate { .. }));
    assert!(late.to_string().contains("before its receiver listened\n  | {\"fields\""), "{late}");
    assert_eq!(child.terminate(SOON).await.unwrap().signal(), Some(15));
    assert_eq!(child.pid(), None);
    assert!(std::fs::read_to_string(child.log_path()).unwrap().contains("plain text\n"));
}

#[tokio::test]
async fn one_that_ends_instead_is_an_error_with_its_last_words() {
    let folder = tempfile::tempdir().unwrap();
    let children = shells(&folder);
    let mut child = children.start("worker", &["-c", "echo $GRANTONCE_GREETING >&2; exit 3"]).await.unwrap();
    let error = child.consuming(SOON).await.unwrap_err();
    assert_eq!(error.exit_code(), Some(3));
    assert!(error.to_string().contains("worker ended with exit status: 3 before it took deliveries\n  | hello\n"));
    let error = children.run("migrate", &["-c", "exit 1"], SOON).await.unwrap_err();
    assert_eq!(error.exit_code(), Some(1));
    children.run("migrate", &["-c", "exit 0"], SOON).await.unwrap();
    let error = Children::new("/no/such/program", folder.path()).start("x", &[]).await.unwrap_err();
    assert!(matches!(error, ChildError::Start { .. }));
}

#[tokio::test]
async fn one_that_will_not_end_is_killed_and_may_start_again() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"trap '' TERM; echo '{"event":"consuming"}' >&2; while :; do sleep 0.1; done"#;
    let mut child = shells(&folder).start("worker", &["-c", script]).await.unwrap();
    child.consuming(SOON).await.unwrap();
    assert_eq!(child.terminate(Duration::from_millis(50)).await.unwrap().signal(), Some(9));
    child.restart().await.unwrap();
    let first = child.pid();
    child.consuming(SOON).await.unwrap();
    child.restart().await.unwrap();
    child.consuming(SOON).await.unwrap();
    assert_ne!(child.pid(), first);
    assert_eq!(child.try_ended().unwrap(), None);
    assert_eq!(child.kill().await.unwrap().signal(), Some(9));
    let log = std::fs::read_to_string(child.log_path()).unwrap();
    assert_eq!(log.matches("consuming").count(), 3);
}

/// Returns whether a process runs. A zombie has ended and does not run.
fn runs(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn no_child_outlives_a_parent_that_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let name = "children::tests::a_family";
    let family = Children::new(std::env::current_exe().unwrap(), folder.path())
        .env("FAMILY_FOLDER", folder.path())
        .env("FAMILY_ROLE", "parent");
    let mut parent = family.start("parent", &["--exact", name, "--ignored", "--nocapture"]).await.unwrap();
    let said = parent.wait_for_line("before it had a child", SOON, |line| line.text().starts_with("child ")).await;
    let child = said.unwrap().text().trim_start_matches("child ").to_owned();
    assert!(runs(&child));
    parent.kill().await.unwrap();
    let deadline = tokio::time::Instant::now() + SOON;
    while runs(&child) {
        assert!(tokio::time::Instant::now() < deadline, "the child still runs");
        tokio::task::yield_now().await;
    }
}

/// This is not a test by itself. It runs as both processes of the test above, and an environment variable tells which one.
#[cfg(target_os = "linux")]
#[tokio::test]
#[ignore = "is run by no_child_outlives_a_parent_that_was_killed"]
async fn a_family() {
    let Ok(role) = std::env::var("FAMILY_ROLE") else { return };
    if role == "child" {
        eprintln!("ready");
        std::future::pending::<()>().await;
    }
    let folder = std::env::var("FAMILY_FOLDER").unwrap();
    let own = Children::new(std::env::current_exe().unwrap(), folder).env("FAMILY_ROLE", "child");
    let args = ["--exact", "children::tests::a_family", "--ignored", "--nocapture"];
    let mut child = own.start("child", &args).await.unwrap();
    child.wait_for_line("before it was ready", SOON, |line| line.text().ends_with("ready")).await.unwrap();
    eprintln!("child {}", child.pid().unwrap());
    std::future::pending::<()>().await;
}

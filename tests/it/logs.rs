//! A log that nobody reads, or that cannot be written, delays nothing.

use crate::support::{Answer, Poster, World, eventually, paid};
use grantonce::http::plain_client;
use reqwest::Client;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{PipeWriter, Write as _};
use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

const START: Duration = Duration::from_secs(30);

/// Longest response time of a process that is not blocked, on a busy machine.
const ANSWER: Duration = Duration::from_secs(3);

/// The real program with a stderr of the test's choice.
fn grantonce(world: &World, stderr: impl Into<Stdio>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grantonce"));
    command.arg("receiver").env_clear().envs(world.environment()).stderr(stderr).kill_on_drop(true);
    command
}

async fn line(lines: &mut Lines<BufReader<ChildStderr>>, part: &str) -> String {
    let found = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("the log continues");
            if line.contains(part) {
                return line;
            }
        }
    };
    timeout(START, found).await.unwrap_or_else(|_| panic!("no line with {part}"))
}

async fn listening(lines: &mut Lines<BufReader<ChildStderr>>, listener: &str) -> SocketAddr {
    let line = line(lines, &format!("\"listener\":\"{listener}\"")).await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    line["address"].as_str().unwrap().parse().unwrap()
}

async fn ended(child: &mut Child) -> ExitStatus {
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    timeout(START, child.wait()).await.expect("it ends although its log is not read").unwrap()
}

async fn dropped(http: &Client, metrics: SocketAddr) -> u64 {
    let page = http.get(format!("http://{metrics}/metrics")).send().await.unwrap().text().await.unwrap();
    let value = page.lines().find_map(|line| line.strip_prefix("grantonce_log_lines_dropped_total "));
    value.unwrap_or_else(|| panic!("{page}")).parse().unwrap()
}

#[tokio::test]
async fn o12_a_log_pipe_that_nobody_reads_holds_up_nothing() {
    let world = World::new().await;
    let mut child = grantonce(&world, Stdio::piped()).env("RUST_LOG", "debug").spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (metrics, receiver) = (listening(&mut lines, "metrics").await, listening(&mut lines, "receiver").await);
    let http = plain_client().timeout(ANSWER).build().unwrap();
    let is_ok = async |path: &str| {
        let answer = http.get(format!("http://{receiver}{path}")).send().await;
        answer.expect("an answer in time").status() == 200
    };
    eventually("it is ready", async || is_ok("/readyz").await).await;

    // Nobody reads from now on, and every refused webhook logs a line.
    let refused = async || {
        let answer = http.post(format!("http://{receiver}/webhooks/stripe")).body("{}").send().await;
        assert_eq!(answer.expect("an answer in time").status(), 401);
    };
    let poster = Poster::new(receiver);
    for n in 0.. {
        futures_util::future::join_all((0..200).map(|_| refused())).await;
        let answered = timeout(ANSWER, poster.post(&paid(n))).await.expect("a webhook is answered in time");
        assert_eq!(answered, Answer::Taken);
        if dropped(&http, metrics).await > 0 {
            break;
        }
    }
    for path in ["/healthz", "/readyz"] {
        assert!(is_ok(path).await, "{path}");
    }

    // A new reader learns that lines are missing, and sees the lines that are logged then.
    line(&mut lines, "log_lines_dropped").await;
    refused().await;
    line(&mut lines, "webhook_rejected").await;

    // The process also ends while nobody reads its log.
    futures_util::future::join_all((0..1_000).map(|_| refused())).await;
    assert_eq!(ended(&mut child).await.code(), Some(0));
}

#[tokio::test]
async fn o12_a_log_that_cannot_be_written_ends_nothing() {
    let world = World::new().await;
    let http = plain_client().timeout(ANSWER).build().unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (read, closed) = std::io::pipe().unwrap();
    drop(read);
    for (name, stderr) in [("full", Stdio::from(full)), ("closed", Stdio::from(closed))] {
        let mut command = grantonce(&world, stderr);
        let mut child = command.env("GRANTONCE_METRICS_ADDR", address.to_string()).spawn().unwrap();
        eventually("it is ready", async || {
            let answer = http.get(format!("http://{address}/readyz")).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        assert!(dropped(&http, address).await > 0, "{name}");
        assert_eq!(ended(&mut child).await.code(), Some(0), "{name}");
    }
}

/// Fills a pipe, so it accepts no more until it is read.
fn fill(pipe: &mut PipeWriter) {
    // Linux pipes have this size by default.
    pipe.write_all(&[b'\n'; 64 * 1024]).unwrap();
}

#[tokio::test]
async fn o12_a_start_that_fails_says_so_when_it_is_read_and_ends_when_it_is_not() {
    let world = World::new().await;
    for (variable, value, said) in [
        ("GRANTONCE_RECEIVER_ADDR", "nowhere", "GRANTONCE_RECEIVER_ADDR"),
        // The address is not ours, so only the attempt to bind it fails.
        ("GRANTONCE_RECEIVER_ADDR", "192.0.2.1:1", "cannot listen at 192.0.2.1:1"),
    ] {
        let output = grantonce(&world, Stdio::piped()).env(variable, value).output().await.unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && told.contains(said), "{told}");

        let (_nobody_reads, mut pipe) = std::io::pipe().unwrap();
        fill(&mut pipe);
        let mut child = grantonce(&world, pipe).env(variable, value).spawn().unwrap();
        let status = timeout(START, child.wait()).await.expect("it ends although its log is not read").unwrap();
        assert_eq!(status.code(), Some(2), "{value}");
    }
}

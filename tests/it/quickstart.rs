//! The commands of README and `docs/quickstart.md`, run as a new user types them, in one shell. Where a page shows the
//! output of a command, it is compared.

use crate::support::world::World;
use regex::Regex;
use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// How long a page's commands may take together.
const PAGE_TIME_MAX: Duration = Duration::from_secs(120);

/// Stands in the comment above a block that needs what a test does not have.
const NOT_RUN: &str = "not run by the tests";

/// Stands between the outputs of two blocks.
const MARK: &str = "@@ block";

/// The addresses that the pages name. Each test runs on free ports instead.
const ADDRESSES: [(&str, &str); 4] = [
    ("GRANTONCE_RECEIVER_ADDR", "127.0.0.1:8080"),
    ("GRANTONCE_API_ADDR", "127.0.0.1:8081"),
    ("GRANTONCE_OPS_ADDR", "127.0.0.1:8082"),
    ("GRANTONCE_METRICS_ADDR", "127.0.0.1:9090"),
];

/// What a page tells the reader to type, and what it says they see then.
#[derive(Debug)]
struct Block {
    commands: String,
    output: Option<String>,
}

/// The blocks of a page in their order. A `console` block right after a `sh` block is its output.
fn blocks(page: &str) -> Vec<Block> {
    let fence = Regex::new(r"(?s)([^\n]*)\n```(sh|console)\n(.*?)\n```\n").unwrap();
    let mut blocks: Vec<Block> = vec![];
    let mut end = 0;
    for found in fence.captures_iter(page) {
        let (whole, text) = (found.get(0).unwrap(), found[3].to_owned());
        let is_next = page[end..whole.start()].trim().is_empty() && found[1].trim().is_empty();
        end = whole.end();
        if &found[2] == "console" {
            assert!(is_next, "this output belongs to no command:\n{text}");
            blocks.last_mut().unwrap().output = Some(text);
        } else if !found[1].contains(NOT_RUN) {
            blocks.push(Block { commands: text, output: None });
        }
    }
    blocks
}

/// Whether the output is what the page shows: `…` stands for anything.
fn is_as_shown(shown: &str, output: &str) -> bool {
    let parts: Vec<_> = shown.trim().split('…').map(regex::escape).collect();
    Regex::new(&format!("(?s)^{}$", parts.join(".*"))).unwrap().is_match(output.trim())
}

/// An executable file in the folder.
fn script(path: &Path, text: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// Ends the page's processes, also those that a failed page leaves behind.
struct Group(rustix::process::Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // The group is gone already if the page has stopped everything that it started.
        let _gone = rustix::process::kill_process_group(self.0, rustix::process::Signal::KILL);
    }
}

/// Where the reader of a page begins.
enum Start {
    /// In a folder that holds the checkout `grantonce`.
    BesideTheCheckout,
    InTheCheckout,
}

/// Runs the commands of a page. What takes minutes or needs more than a test has (`git`, `cargo`,
/// `docker`, `./dev`) is there and does nothing; only `./dev env` prints the addresses of this test's own servers.
async fn run(name: &str, page: &str, start: &Start) {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let (tools, checkout) = (folder.path().join("tools"), folder.path().join("grantonce"));
    std::fs::create_dir_all(&tools).unwrap();
    std::fs::create_dir_all(&checkout).unwrap();
    symlink(env!("CARGO_BIN_EXE_grantonce"), tools.join("grantonce")).unwrap();
    for tool in ["git", "cargo", "docker"] {
        script(&tools.join(tool), "exit 0");
    }
    let addresses = format!("export DATABASE_URL='{}' AMQP_URL='{}'", world.database_url, world.amqp_url);
    script(&checkout.join("dev"), &format!("if [ \"$1\" = env ]; then echo \"{addresses}\"; fi"));

    let listeners = ADDRESSES.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let mut text = page.to_owned();
    let mut shell = tokio::process::Command::new("bash");
    for ((variable, written), listener) in ADDRESSES.iter().zip(&listeners) {
        let free = listener.local_addr().unwrap().to_string();
        text = text.replace(written, &free);
        shell.env(variable, free);
    }
    drop(listeners);

    let blocks = blocks(&text);
    let shown = blocks.iter().filter(|block| block.output.is_some()).count();
    assert!(shown > 0, "{name} shows no output");
    let script: String = blocks.iter().map(|block| format!("{}\necho '{MARK}'\n", block.commands)).collect();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let output = folder.path().join("output");
    shell.args(["-eu", "-c", &format!("exec >'{}' 2>&1\n{script}", output.display())]).env("PATH", path);
    shell.current_dir(match start {
        Start::BesideTheCheckout => folder.path(),
        Start::InTheCheckout => &checkout,
    });
    shell.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    let mut child = shell.spawn().unwrap();
    let id = i32::try_from(child.id().unwrap()).unwrap();
    let group = Group(rustix::process::Pid::from_raw(id).unwrap());
    let ended = tokio::time::timeout(PAGE_TIME_MAX, child.wait()).await;
    let log = std::fs::read_to_string(checkout.join("grantonce.log")).unwrap_or_default();
    let output = std::fs::read_to_string(output).unwrap();
    let ended = ended.unwrap_or_else(|_| panic!("{name} hangs:\n{output}\n{log}")).unwrap();
    drop(group);
    assert!(ended.success(), "{name}: {ended}\n{output}\n{log}");
    let outputs: Vec<_> = output.split(&format!("{MARK}\n")).collect();
    assert_eq!(outputs.len(), blocks.len() + 1, "{name}: {output}");
    for (block, output) in blocks.iter().zip(outputs) {
        let Some(shown) = &block.output else { continue };
        assert!(is_as_shown(shown, output), "{name} shows for\n{}\n\n{shown}\n\nbut it is\n\n{output}", block.commands);
    }
    assert_eq!(world.grants().await, 1, "{name} ends with one grant");
    world.verify().await;
}

#[tokio::test]
async fn the_quickstart_runs_as_it_is_written() {
    run("docs/quickstart.md", include_str!("../../docs/quickstart.md"), &Start::BesideTheCheckout).await;
}

#[tokio::test]
async fn the_readme_runs_as_it_is_written() {
    run("README.md", include_str!("../../README.md"), &Start::InTheCheckout).await;
}

#[test]
fn an_output_that_differs_is_found() {
    assert!(is_as_shown("{\"id\":\"…\",\"n\":1}\n200", "{\"id\":\"x\",\"n\":1}\n200\n"));
    assert!(!is_as_shown("{\"id\":\"…\",\"n\":1}", "{\"id\":\"x\",\"n\":2}"));
    assert!(!is_as_shown("200", "200\n200"));
    let page =
        "a\n\n```sh\none\n```\n\n```console\nits output\n```\n\n<!-- not run by the tests: why -->\n```sh\ntwo\n```\n";
    let [block] = blocks(page).try_into().unwrap();
    assert_eq!((block.commands.as_str(), block.output.as_deref()), ("one", Some("its output")));
}

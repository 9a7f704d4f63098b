//! `grantonce check` on real servers: it names each fault and the remedy.

mod output;
mod postgres;
mod rabbitmq;

use crate::support::world::World;
use reqwest::{Method, Url};
use serde_json::Value;

/// One run of `check --json` or of another command.
#[derive(Debug)]
struct Checked {
    exit: Option<i32>,
    said: Value,
    stderr: String,
}

impl Checked {
    fn faults(&self) -> Vec<String> {
        let faults = self.said["faults"].as_array().unwrap();
        faults.iter().map(|fault| format!("{}; {}", fault["what"], fault["remedy"])).collect()
    }

    fn notes(&self) -> Vec<String> {
        self.said["notes"].as_array().unwrap().iter().map(|note| note["note"].to_string()).collect()
    }

    /// Exit code 1 with exactly one fault for each of these. A fault is recognised by all its parts.
    fn has_faults(&self, expected: &[&[&str]]) {
        let faults = self.faults();
        assert_eq!(self.exit, Some(1), "{self:?}");
        for parts in expected {
            let count = faults.iter().filter(|fault| parts.iter().all(|part| fault.contains(part))).count();
            assert_eq!(count, 1, "{parts:?} in {faults:#?}");
        }
        assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    }

    fn is_good(&self) {
        assert_eq!((self.exit, self.faults()), (Some(0), vec![]), "{self:?}");
        assert!(self.stderr.is_empty(), "{}", self.stderr);
    }

    fn notes_have(&self, part: &str) {
        assert!(self.notes().iter().any(|note| note.contains(part)), "{part}: {:#?}", self.notes());
    }
}

fn management_url() -> String {
    std::env::var("GRANTONCE_MANAGEMENT_URL").unwrap()
}

fn command(world: &World, args: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_grantonce"));
    command.args(args).env_clear();
    command
        .env("DATABASE_URL", &world.database_url)
        .env("AMQP_URL", &world.amqp_url)
        .env("GRANTONCE_MANAGEMENT_URL", management_url())
        .env("GRANTONCE_RETRY_DELAYS", "200ms,500ms")
        .env("GRANTONCE_LIVEMODE", "false");
    command
}

/// `grantonce check --json`, with more arguments and variables.
async fn check(world: &World, args: &[&str], variables: &[(&str, &str)]) -> Checked {
    let mut command = command(world, &["check", "--json"]);
    let output = command.args(args).envs(variables.iter().copied()).output().await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let said = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    Checked { exit: output.status.code(), said, stderr }
}

async fn migrate(world: &World) -> Option<i32> {
    command(world, &["migrate"]).output().await.unwrap().status.code()
}

/// The world's virtual host, over the management API.
struct Host {
    http: reqwest::Client,
    base: Url,
    name: String,
}

impl Host {
    fn of(world: &World) -> Self {
        let name = Url::parse(&world.amqp_url).unwrap().path().trim_start_matches('/').to_owned();
        let http = grantonce::http::plain_client().build().unwrap();
        Self { http, base: Url::parse(&management_url()).unwrap(), name }
    }

    /// `{}` stands for the virtual host.
    async fn call(&self, method: Method, path: &str, body: Option<Value>) {
        let path = path.replace("{}", &self.name);
        let mut call = self.http.request(method.clone(), self.base.join(&format!("api/{path}")).unwrap());
        if let Some(body) = body {
            call = call.json(&body);
        }
        let answer = call.send().await.unwrap();
        let status = answer.status();
        assert!(status.is_success(), "{method} {path}: {status} {}", answer.text().await.unwrap());
    }

    async fn put(&self, path: &str, body: Value) {
        self.call(Method::PUT, path, Some(body)).await;
    }

    async fn delete(&self, path: &str) {
        self.call(Method::DELETE, path, None).await;
    }
}

#[tokio::test]
async fn o07_all_is_as_it_must_be_after_migrate_and_nothing_is_logged() {
    let world = World::new().await;
    let checked = check(&world, &[], &[]).await;
    checked.is_good();
    assert_eq!(checked.said["ok"], true);
    for part in [
        "schema and rights compared",
        "connections of the server are in use",
        "exchanges, queues, arguments, bindings and policies compared",
        "bytes of disk are free",
        "users that may publish",
        "this user has the rights of: migrate, receiver, worker, reconciler, ops",
    ] {
        checked.notes_have(part);
    }
    let output = command(&world, &["check"]).output().await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    assert!(printed.ends_with("all is as it must be\n"), "{printed}");
}

#[tokio::test]
async fn o07_a_fault_of_one_server_hides_nothing_of_the_other() {
    let world = World::new().await;
    world.execute("ALTER TABLE provider_looks RENAME TO theirs").await;
    Host::of(&world).delete("queues/{}/payments.hints").await;
    let variables = [("GRANTONCE_MANAGEMENT_URL", "http://guest:guest@127.0.0.1:1")];
    let checked = check(&world, &[], &variables).await;
    // The exit code says first that a server cannot be reached.
    assert_eq!(checked.exit, Some(3), "{checked:?}");
    assert!(checked.stderr.contains("GRANTONCE_MANAGEMENT_URL"), "{checked:?}");
    assert_eq!(checked.said["unreached"].as_array().unwrap().len(), 1, "{checked:?}");
    let faults = checked.faults();
    for part in ["payments.hints is missing", "table provider_looks is missing"] {
        assert!(faults.iter().any(|fault| fault.contains(part)), "{part}: {faults:#?}");
    }
    assert_eq!(checked.said["ok"], false);

    let variables = [("AMQP_URL", "amqp://guest:guest@127.0.0.1:1")];
    let checked = check(
        &world,
        &["--role", "reconciler"],
        &[&variables[..], &[("GRANTONCE_STRIPE_API_KEY", "sk_test_1")]].concat(),
    )
    .await;
    assert_eq!(checked.exit, Some(3), "{checked:?}");
    assert!(checked.faults().iter().any(|fault| fault.contains("table provider_looks is missing")), "{checked:?}");
}

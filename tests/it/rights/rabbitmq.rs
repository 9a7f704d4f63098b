//! `deploy/rabbitmq-permissions.sh` on the test's own virtual host. The script runs with `echo` in place of `rabbitmqctl`, and the
//! test sends the printed commands to the management API. So the test works with any broker.

use super::{server, unique, with_cleanup};
use grantonce::broker::{
    self, DEAD_EXCHANGE, DEAD_QUEUE, HINTS_EXCHANGE, HINTS_QUEUE, PAYMENTS_EXCHANGE, RETRY_EXCHANGE, User, WORK_QUEUE,
    retry_queue,
};
use grantonce::config::RetryDelay;
use grantonce::domain::Provider;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ErrorKind, ExchangeKind};
use reqwest::{Method, Url};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

/// An action that a user tries.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Publish(&'static str, &'static str),
    Get(&'static str),
    Declare(&'static str),
    Delete(&'static str),
    DeclareExchange(&'static str),
    /// Binds a queue to an exchange, with a routing key.
    Bind(&'static str, &'static str, &'static str),
}
use Deed::{Bind, Declare, DeclareExchange, Delete, Get, Publish};

struct Host {
    management: Url,
    http: reqwest::Client,
    amqp: Url,
    name: String,
    password: String,
    users: BTreeSet<String>,
    said: Vec<Vec<String>>,
}

impl Host {
    fn new() -> Self {
        let name = format!("grantonce-rights-{}", unique());
        let script = Command::new("sh")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rabbitmq-permissions.sh"))
            .arg("acme-pay")
            .env("VHOST", &name)
            .env("RABBITMQCTL", "echo")
            .output()
            .unwrap();
        assert!(script.status.success(), "{}", String::from_utf8_lossy(&script.stderr));
        let said: Vec<Vec<String>> = String::from_utf8(script.stdout)
            .unwrap()
            .lines()
            .map(|line| line.split(' ').map(str::to_owned).collect())
            .collect();
        Self {
            management: Url::parse(&server("GRANTONCE_MANAGEMENT_URL")).unwrap(),
            http: grantonce::http::plain_client().build().unwrap(),
            amqp: Url::parse(&server("AMQP_URL")).unwrap(),
            users: said.iter().map(|words| words[3].clone()).collect(),
            password: unique(),
            name,
            said,
        }
    }

    /// Users belong to the whole broker, so the user names of each run have their own suffix.
    fn user(&self, role: &str) -> String {
        format!("{role}-{}", self.name)
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) {
        let mut call = self.http.request(method.clone(), self.management.join(path).unwrap());
        if let Some(body) = body {
            call = call.json(&body);
        }
        let status = call.send().await.unwrap().status();
        assert!(status.is_success() || (method == Method::DELETE && status == 404), "{method} {path}: {status}");
    }

    async fn set_up(&self) {
        self.call(Method::PUT, &format!("api/vhosts/{}", self.name), None).await;
        for user in &self.users {
            let body = json!({"password": self.password, "tags": ""});
            self.call(Method::PUT, &format!("api/users/{}", self.user(user)), Some(body)).await;
        }
        for words in &self.said {
            let (command, user) = (words[0].as_str(), self.user(&words[3]));
            assert_eq!(words[1..3], ["-p", &self.name]);
            let (what, body) = match (command, &words[4..]) {
                ("set_permissions", [configure, write, read]) => {
                    ("permissions", json!({"configure": configure, "write": write, "read": read}))
                }
                ("set_topic_permissions", [exchange, write, read]) => {
                    ("topic-permissions", json!({"exchange": exchange, "write": write, "read": read}))
                }
                _ => panic!("unknown command: {words:?}"),
            };
            self.call(Method::PUT, &format!("api/{what}/{}/{user}", self.name), Some(body)).await;
        }
    }

    async fn remove(&self) {
        self.call(Method::DELETE, &format!("api/vhosts/{}", self.name), None).await;
        for user in &self.users {
            self.call(Method::DELETE, &format!("api/users/{}", self.user(user)), None).await;
        }
    }

    fn url(&self, role: &str) -> String {
        let mut url = self.amqp.clone();
        url.set_username(&self.user(role)).unwrap();
        url.set_password(Some(&self.password)).unwrap();
        url.set_path(&format!("/{}", self.name));
        url.to_string()
    }
}

/// Returns whether the broker allows the action. Any error except a refused right fails the test.
async fn is_allowed(connection: &Connection, deed: Deed) -> bool {
    let channel = connection.create_channel().await.unwrap();
    match tokio::time::timeout(Duration::from_secs(20), attempt(&channel, deed)).await.unwrap() {
        Ok(()) => true,
        Err(error) => {
            let is_refused = matches!(error.kind(), ErrorKind::ProtocolError(refusal) if refusal.get_id() == 403);
            assert!(is_refused, "{deed:?}: {error}");
            false
        }
    }
}

async fn attempt(channel: &Channel, deed: Deed) -> Result<(), lapin::Error> {
    let nothing = FieldTable::default;
    match deed {
        Publish(exchange, key) => {
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            let options = BasicPublishOptions { mandatory: true, ..Default::default() };
            let properties = BasicProperties::default();
            let confirm = channel.basic_publish(exchange.into(), key.into(), options, b"{}", properties).await?;
            let confirmation = confirm.await?;
            assert!(matches!(confirmation, Confirmation::Ack(_)), "{deed:?}: {confirmation:?}");
            Ok(())
        }
        Get(queue) => channel.basic_get(queue.into(), BasicGetOptions { no_ack: false }).await.map(drop),
        Declare(queue) => {
            let options = QueueDeclareOptions { durable: true, ..Default::default() };
            channel.queue_declare(queue.into(), options, nothing()).await.map(drop)
        }
        Delete(queue) => channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.map(drop),
        DeclareExchange(name) => {
            let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
            channel.exchange_declare(name.into(), ExchangeKind::Topic, options, nothing()).await
        }
        Bind(queue, exchange, key) => {
            channel.queue_bind(queue.into(), exchange.into(), key.into(), QueueBindOptions::default(), nothing()).await
        }
    }
}

#[tokio::test]
async fn each_user_has_what_it_needs_and_no_more() {
    let host = Host::new();
    let steps = async {
        host.set_up().await;
        let delays =
            ["5s", "10m"].map(|label| RetryDelay { label: label.to_owned(), delay: Duration::from_secs(5) }).to_vec();
        let migrate = host.url("grantonce-migrate").parse().unwrap();
        broker::declare(&migrate, &delays).await.unwrap();
        broker::declare(&migrate, &delays).await.unwrap();
        let providers = |names: &[&str]| names.iter().map(|name| Provider::new(*name).unwrap()).collect::<Vec<_>>();
        for user in [
            User::Migrate(delays.clone()),
            User::Receiver(providers(&["stripe", "paypal", "adyen", "standard"])),
            User::Worker(delays.clone()),
            User::Reconciler(providers(&["stripe", "paypal"])),
            User::Ops,
        ] {
            let own = format!("grantonce-{}", user.role());
            for role in &host.users {
                let tried = broker::try_rights(&host.url(role).parse().unwrap(), &user).await.unwrap();
                assert_eq!(tried.lacking.is_empty(), *role == own, "{role} as {own}: {:?}", tried.lacking);
                assert!(tried.different.is_empty() && tried.blocked.is_none(), "{tried:?}");
            }
        }
        for role in &host.users {
            assert_eq!(
                broker::inspect(&host.url(role).parse().unwrap(), &delays).await.unwrap(),
                [],
                "{role} may look"
            );
        }

        let waiting: &'static str = Box::leak(retry_queue("5s").into_boxed_str());
        let rows: &[(&str, &[Deed], &[Deed])] = &[
            (
                "grantonce-migrate",
                &[Bind(WORK_QUEUE, PAYMENTS_EXCHANGE, "payment.*")],
                &[
                    Publish(PAYMENTS_EXCHANGE, "payment.stripe"),
                    Publish(RETRY_EXCHANGE, "5s"),
                    Declare("other"),
                    DeclareExchange("other"),
                ],
            ),
            (
                "grantonce-receiver",
                &[
                    Publish(PAYMENTS_EXCHANGE, "payment.stripe"),
                    Publish(HINTS_EXCHANGE, "payment.paypal"),
                    Publish(DEAD_EXCHANGE, "payment.standard"),
                ],
                &[
                    Publish(HINTS_EXCHANGE, "payment.acme-pay"),
                    Get(HINTS_QUEUE),
                    Publish(PAYMENTS_EXCHANGE, "payment.acme-pay"),
                    Publish(DEAD_EXCHANGE, "payment.acme-pay"),
                    Publish(RETRY_EXCHANGE, "5s"),
                    Publish("", WORK_QUEUE),
                    Get(WORK_QUEUE),
                    Get(DEAD_QUEUE),
                    Declare("other"),
                    Delete(WORK_QUEUE),
                ],
            ),
            (
                "grantonce-reconciler",
                &[
                    Get(HINTS_QUEUE),
                    Publish(PAYMENTS_EXCHANGE, "payment.stripe"),
                    Publish(DEAD_EXCHANGE, "payment.paypal"),
                ],
                &[
                    Publish(PAYMENTS_EXCHANGE, "payment.adyen"),
                    Publish(PAYMENTS_EXCHANGE, "payment.acme-pay"),
                    Publish(HINTS_EXCHANGE, "payment.stripe"),
                    Publish("", WORK_QUEUE),
                    Get(WORK_QUEUE),
                    Get(DEAD_QUEUE),
                    Declare("other"),
                    Delete(HINTS_QUEUE),
                ],
            ),
            (
                "grantonce-ops",
                &[
                    Get(DEAD_QUEUE),
                    Publish(PAYMENTS_EXCHANGE, "payment.acme-pay"),
                    Publish(HINTS_EXCHANGE, "payment.stripe"),
                ],
                &[
                    Publish(DEAD_EXCHANGE, "payment.stripe"),
                    Publish(RETRY_EXCHANGE, "5s"),
                    Publish("", WORK_QUEUE),
                    Get(WORK_QUEUE),
                    Get(HINTS_QUEUE),
                    Declare("other"),
                    Delete(DEAD_QUEUE),
                ],
            ),
            (
                "grantonce-worker",
                &[Get(WORK_QUEUE), Publish(RETRY_EXCHANGE, "5s"), Publish(DEAD_EXCHANGE, "payment.acme-pay")],
                &[
                    Publish(PAYMENTS_EXCHANGE, "payment.stripe"),
                    Publish("", WORK_QUEUE),
                    Get(DEAD_QUEUE),
                    Get(waiting),
                    Bind(WORK_QUEUE, PAYMENTS_EXCHANGE, "#"),
                    Declare("other"),
                    Delete(WORK_QUEUE),
                    Delete(DEAD_QUEUE),
                ],
            ),
            (
                "grantonce-relay-acme-pay",
                &[Publish(PAYMENTS_EXCHANGE, "payment.acme-pay")],
                &[
                    Publish(PAYMENTS_EXCHANGE, "payment.stripe"),
                    Publish(PAYMENTS_EXCHANGE, "payment.acme-pay2"),
                    Publish(PAYMENTS_EXCHANGE, "xpayment.acme-pay"),
                    Publish(DEAD_EXCHANGE, "payment.acme-pay"),
                    Publish(HINTS_EXCHANGE, "payment.acme-pay"),
                    Publish(RETRY_EXCHANGE, "5s"),
                    // Workers recognise their own retries by the default exchange.
                    Publish("", WORK_QUEUE),
                    Publish("", waiting),
                    Get(WORK_QUEUE),
                    Get(DEAD_QUEUE),
                    Declare("other"),
                    DeclareExchange("other"),
                    Delete(WORK_QUEUE),
                ],
            ),
        ];
        for (role, allowed, refused) in rows {
            let connection = Connection::connect(&host.url(role), ConnectionProperties::default()).await.unwrap();
            for deed in *allowed {
                assert!(is_allowed(&connection, *deed).await, "{role} needs {deed:?}");
            }
            for deed in *refused {
                assert!(!is_allowed(&connection, *deed).await, "{role} must not {deed:?}");
            }
            connection.close(200, "done".into()).await.unwrap();
        }
    };
    with_cleanup(steps, host.remove()).await;
}

#[test]
fn the_script_refuses_what_would_become_a_pattern() {
    for provider in ["", "a.b", "*", "Acme", "-a", "a b", "a|b"] {
        let script = Command::new("sh")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rabbitmq-permissions.sh"))
            .arg(provider)
            .env("RABBITMQCTL", "true")
            .output()
            .unwrap();
        assert_eq!(script.status.code(), Some(2), "{provider:?}");
    }
}

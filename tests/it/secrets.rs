//! Secrets that change while the program runs. As in Kubernetes, a symbolic link above the files is replaced.

use crate::support::db::at_the_end;
use crate::support::world::STRIPE_SECRET;
use crate::support::{Answer, Poster, Traffic, World, eventually, stripe_webhook};
use grantonce_testkit::children::{Child, Children};
use grantonce_testkit::scratch::unique_name;
use reqwest::{Client, Method, StatusCode, Url, redirect};
use serde_json::json;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const START: Duration = Duration::from_secs(30);

const NEW_SECRET: &str = "whsec_another_secret_for_the_tests";

/// A folder of secrets as the kubelet mounts it: `name` → `..data/name`, `..data` → `..<version>`.
struct Mount {
    folder: tempfile::TempDir,
    versions: AtomicUsize,
}

impl Mount {
    fn new(name: &str, text: &str) -> Self {
        let mount = Self { folder: tempfile::tempdir().unwrap(), versions: AtomicUsize::new(0) };
        mount.swap(name, text);
        symlink(format!("..data/{name}"), mount.path(name)).unwrap();
        mount
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces the folder by another version, in one step.
    fn swap(&self, name: &str, text: &str) {
        let version = format!("..{}", self.versions.fetch_add(1, Ordering::Relaxed));
        std::fs::create_dir(self.path(&version)).unwrap();
        std::fs::write(self.path(&version).join(name), text).unwrap();
        symlink(&version, self.path("..data_tmp")).unwrap();
        std::fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
    }

    fn unmount(&self) {
        std::fs::remove_file(self.path("..data")).unwrap();
    }

    /// Children that read their secret from this folder.
    fn given_to(&self, children: Children, name: &str) -> Children {
        children.env(name, "").env(format!("{name}_FILE"), self.path(name))
    }
}

fn http() -> Client {
    let client = grantonce::http::plain_client().timeout(Duration::from_secs(10)).no_proxy();
    client.redirect(redirect::Policy::none()).build().unwrap()
}

/// The value of a child's metric. 0 if the metric is missing.
async fn metric(child: &mut Child, name: &str) -> f64 {
    let address = child.listening("metrics", START).await.unwrap();
    let page = http().get(format!("http://{address}/metrics")).send().await.unwrap().text().await.unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

fn webhook(secret: &str, n: usize) -> (Vec<u8>, String) {
    stripe_webhook(secret, &format!("evt_{n}"), &format!("pi_{n}"), 1999, None)
}

#[tokio::test]
async fn o14_no_webhook_is_refused_while_a_secret_is_rotated() {
    const NAME: &str = "GRANTONCE_STRIPE_WEBHOOK_SECRETS";
    const REFUSED: &str = "grantonce_secret_files_refused_total{variable=\"GRANTONCE_STRIPE_WEBHOOK_SECRETS\"}";
    let world = World::new().await;
    let mount = Mount::new(NAME, STRIPE_SECRET);
    let mut receiver = mount.given_to(world.children(), NAME).start("receiver", &["receiver"]).await.unwrap();
    let poster = Poster::new(receiver.listening("receiver", START).await.unwrap());
    eventually("the receiver has its broker", async || poster.post(&webhook(STRIPE_SECRET, 0)).await == Answer::Taken)
        .await;

    let is_new = Arc::new(AtomicBool::new(false));
    let (signs_new, posting) = (Arc::clone(&is_new), poster.clone());
    // The poster panics if a webhook is refused.
    let traffic = Traffic::start(
        4,
        Duration::from_millis(5),
        |n| n + 1,
        move |n| {
            let (poster, secret) =
                (posting.clone(), if signs_new.load(Ordering::SeqCst) { NEW_SECRET } else { STRIPE_SECRET });
            async move { poster.post(&webhook(secret, *n)).await == Answer::Taken }
        },
    );
    let more = async |count: usize| {
        let before = traffic.taken();
        eventually("webhooks are accepted", async || traffic.taken() >= before + count).await;
    };
    more(40).await;
    // At this moment the provider begins to sign with the new secret.
    mount.swap(NAME, &format!("{STRIPE_SECRET},{NEW_SECRET}\n"));
    is_new.store(true, Ordering::SeqCst);
    more(40).await;
    is_new.store(false, Ordering::SeqCst);
    more(40).await;
    is_new.store(true, Ordering::SeqCst);
    more(40).await;

    // The file is missing, then its content is invalid. The last good secrets stay in use.
    assert_eq!(metric(&mut receiver, REFUSED).await, 0.0);
    mount.unmount();
    eventually("the missing file is counted", async || metric(&mut receiver, REFUSED).await > 1.0).await;
    more(40).await;
    mount.swap(NAME, "hunter2");
    let log = receiver.log_path().to_owned();
    let said = || std::fs::read_to_string(&log).unwrap();
    eventually("the invalid secret is reported", async || said().contains("must be 16 characters or longer")).await;
    more(40).await;
    let failed_at = metric(&mut receiver, "grantonce_secret_files_read_timestamp_seconds").await;
    mount.swap(NAME, NEW_SECRET);
    eventually("the old secret is over", async || {
        let (body, signature) = webhook(STRIPE_SECRET, 0);
        let url = format!("http://{}/webhooks/stripe", receiver.listening("receiver", START).await.unwrap());
        let answer = http().post(url).header("stripe-signature", signature).body(body).send().await.unwrap();
        answer.status() == StatusCode::UNAUTHORIZED
    })
    .await;
    more(40).await;
    traffic.stop().await;
    eventually("all files are read", async || {
        metric(&mut receiver, "grantonce_secret_files_read_timestamp_seconds").await > failed_at
    })
    .await;
    let said = said();
    assert!(
        said.contains("secret_file_refused") && said.contains("secret_file_taken") && said.contains(NAME),
        "{said}"
    );
    for secret in ["hunter2", NEW_SECRET, STRIPE_SECRET] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[tokio::test]
async fn o14_tokens_of_the_api_and_the_console_are_followed() {
    let world = World::new().await;
    let (api_tokens, ops_tokens) = (
        Mount::new("GRANTONCE_API_TOKENS", "shop:0123456789abcdef"),
        Mount::new("GRANTONCE_OPS_TOKENS", "ada:0123456789abcdef"),
    );
    let key = Mount::new("GRANTONCE_STATUS_TOKEN_KEY", &"k".repeat(32));
    let children = world.children().env("GRANTONCE_OPS_ADDR", "127.0.0.1:0");
    let children = api_tokens.given_to(children, "GRANTONCE_API_TOKENS");
    let children = ops_tokens.given_to(key.given_to(children, "GRANTONCE_STATUS_TOKEN_KEY"), "GRANTONCE_OPS_TOKENS");
    let mut api = children.start("api", &["api"]).await.unwrap();
    let mut ops = children.start("ops", &["ops"]).await.unwrap();
    let api = format!("http://{}", api.listening("api", START).await.unwrap());
    let ops = format!("http://{}", ops.listening("ops", START).await.unwrap());
    let http = http();
    let with_token = async |url: String, token: &str| http.get(url).bearer_auth(token).send().await.unwrap().status();
    let balance = || format!("{api}/v1/accounts/acc/balance");
    let letters = || format!("{ops}/v1/dead-letters");
    assert_ne!(with_token(balance(), "0123456789abcdef").await, StatusCode::UNAUTHORIZED);
    assert_ne!(with_token(letters(), "0123456789abcdef").await, StatusCode::UNAUTHORIZED);
    assert_eq!(with_token(balance(), "fedcba9876543210").await, StatusCode::UNAUTHORIZED);
    // An operator logs in.
    let login = http.post(format!("{ops}/login")).header("origin", &ops).header("sec-fetch-site", "same-origin");
    let login =
        login.header("content-type", "application/x-www-form-urlencoded").body("token=0123456789abcdef&next=%2F");
    let login = login.send().await.unwrap();
    let cookie = login.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let page = async || http.get(format!("{ops}/audit")).header("cookie", &cookie).send().await.unwrap().status();
    assert_eq!(page().await, StatusCode::OK);

    api_tokens.swap("GRANTONCE_API_TOKENS", "shop:fedcba9876543210");
    ops_tokens.swap("GRANTONCE_OPS_TOKENS", "ada:fedcba9876543210");
    eventually("the API's new token counts", async || {
        with_token(balance(), "fedcba9876543210").await != StatusCode::UNAUTHORIZED
    })
    .await;
    assert_eq!(with_token(balance(), "0123456789abcdef").await, StatusCode::UNAUTHORIZED);
    eventually("the console's new token counts", async || {
        with_token(letters(), "fedcba9876543210").await != StatusCode::UNAUTHORIZED
    })
    .await;
    assert_eq!(with_token(letters(), "0123456789abcdef").await, StatusCode::UNAUTHORIZED);
    // The session was signed with the token that is no longer valid.
    assert_eq!(page().await, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn o14_a_new_password_of_the_database_is_used_by_new_connections() {
    let world = World::new().await;
    let (role, database) = (unique_name("grantonce_rotated"), Url::parse(&world.database_url).unwrap());
    world
        .execute(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'first'; GRANT USAGE ON SCHEMA public TO {role};
             GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"
        ))
        .await;
    let _role = Cleaning(Some({
        let (url, statement) = (world.database_url.clone(), format!("DROP OWNED BY {role}; DROP ROLE {role}"));
        Box::new(move || {
            at_the_end(async move {
                let pool = sqlx::PgPool::connect(&url).await.map_err(|error| error.to_string())?;
                let dropped = sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&pool).await;
                dropped.map(drop).map_err(|error| error.to_string())
            });
        })
    }));
    let url = |password: &str| {
        let mut url = database.clone();
        url.set_username(&role).unwrap();
        url.set_password(Some(password)).unwrap();
        url.to_string()
    };
    let mount = Mount::new("DATABASE_URL", &url("first"));
    let children = world
        .children()
        .env("GRANTONCE_API_TOKENS", "shop:0123456789abcdef")
        .env("GRANTONCE_STATUS_TOKEN_KEY", "k".repeat(32));
    let mut api = mount.given_to(children, "DATABASE_URL").start("api", &["api"]).await.unwrap();
    let api = format!("http://{}", api.listening("api", START).await.unwrap());
    let http = http();
    let order = uuid::Uuid::now_v7();
    let status = async || {
        http.get(format!("{api}/v1/orders/{order}")).bearer_auth("0123456789abcdef").send().await.unwrap().status()
    };
    eventually("the API has its database", async || status().await == StatusCode::NOT_FOUND).await;

    let end_sessions =
        format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{role}'");
    world.execute(&format!("ALTER ROLE {role} PASSWORD 'second'")).await;
    world.count(&end_sessions).await;
    eventually("the old password is refused", async || status().await.is_server_error()).await;
    mount.swap("DATABASE_URL", &url("second"));
    eventually("the new password is used", async || status().await == StatusCode::NOT_FOUND).await;
}

#[tokio::test]
async fn o14_a_new_password_of_the_broker_is_used_by_new_connections() {
    let world = World::new().await;
    let management = Url::parse(&std::env::var("GRANTONCE_MANAGEMENT_URL").unwrap()).unwrap();
    let (user, broker) = (unique_name("grantonce_rotated"), Url::parse(&world.amqp_url).unwrap());
    let call = {
        let management = management.clone();
        async move |method: Method, path: String, body: serde_json::Value| {
            let call = http().request(method, management.join(&path).unwrap()).json(&body);
            call.send().await.unwrap()
        }
    };
    let _user = Cleaning(Some({
        let (call, path) = (call.clone(), format!("api/users/{user}"));
        Box::new(move || {
            at_the_end(async move {
                call(Method::DELETE, path, json!({})).await;
                Ok(())
            });
        })
    }));
    let set_password = async |password: &str| {
        let answer = call(Method::PUT, format!("api/users/{user}"), json!({"password": password, "tags": ""})).await;
        assert!(answer.status().is_success());
    };
    set_password("first").await;
    let vhost = broker.path().trim_start_matches('/');
    let rights = json!({"configure": "", "write": ".*", "read": ""});
    assert!(call(Method::PUT, format!("api/permissions/{vhost}/{user}"), rights).await.status().is_success());
    let url = |password: &str| {
        let mut url = broker.clone();
        url.set_username(&user).unwrap();
        url.set_password(Some(password)).unwrap();
        url.to_string()
    };
    let mount = Mount::new("AMQP_URL", &url("first"));
    let mut receiver = mount.given_to(world.children(), "AMQP_URL").start("receiver", &["receiver"]).await.unwrap();
    let poster = Poster::new(receiver.listening("receiver", START).await.unwrap());
    let take = async |n| poster.post(&webhook(STRIPE_SECRET, n)).await;
    eventually("the receiver has its broker", async || take(0).await == Answer::Taken).await;

    set_password("second").await;
    // The management API shows a connection some time after it was opened.
    eventually("the old password is refused", async || {
        let all = call(Method::GET, format!("api/vhosts/{vhost}/connections"), json!({})).await;
        for connection in all.json::<Vec<serde_json::Value>>().await.unwrap() {
            if connection["user"] == *user {
                let mut path = management.clone();
                path.path_segments_mut().unwrap().pop_if_empty().extend([
                    "api",
                    "connections",
                    connection["name"].as_str().unwrap(),
                ]);
                http().delete(path).send().await.unwrap();
            }
        }
        take(1).await == Answer::ComeAgain
    })
    .await;
    mount.swap("AMQP_URL", &url("second"));
    eventually("the new password is used", async || take(2).await == Answer::Taken).await;
}

/// Runs its function when the test ends.
struct Cleaning(Option<Box<dyn FnOnce()>>);

impl Drop for Cleaning {
    fn drop(&mut self) {
        if let Some(clean) = self.0.take() {
            clean();
        }
    }
}

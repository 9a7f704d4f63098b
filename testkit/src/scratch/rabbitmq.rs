//! Virtual hosts of RabbitMQ.

use super::with_path;
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use std::time::Duration;

/// The longest time of one request to the management API.
const DEADLINE: Duration = Duration::from_secs(20);

/// An error of RabbitMQ's management API. No variant shows the URL's password.
#[derive(Debug, thiserror::Error)]
pub enum ManagementError {
    /// The URL is neither `http://…` nor, for the broker, `amqp://…`.
    #[error("{what} is not a URL of the form {form}")]
    BadUrl {
        /// The name of the setting.
        what: &'static str,
        /// The format that it must have.
        form: &'static str,
    },
    /// The name would need escaping.
    #[error("{0:?} is no name for a virtual host: 1 to 100 of a-z, 0-9, _ and -")]
    BadName(String),
    /// The management API does not answer.
    #[error("RabbitMQ's management API is out of reach: {0}")]
    Unreachable(#[source] reqwest::Error),
    /// The management API answered with an unexpected status.
    #[error("RabbitMQ's management API answered {status} to {request}")]
    Refused {
        /// The status of the answer.
        status: StatusCode,
        /// The request that was refused.
        request: String,
    },
}

impl ManagementError {
    /// True if the broker is not reachable, so nothing is wrong with the request itself.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::BadUrl { .. } | Self::BadName(_) | Self::Refused { .. } => false,
        }
    }
}

/// RabbitMQ's management HTTP API. It has no `Debug`, because it holds a password.
#[derive(Clone)]
pub struct Management {
    base: Url,
    user: String,
    password: Option<String>,
    http: reqwest::Client,
}

#[derive(Deserialize)]
struct QueueAnswer {
    messages: Option<u64>,
}

impl Management {
    /// Creates a client for `http://user:password@host:port`. It sends nothing yet.
    pub fn new(url: &str) -> Result<Self, ManagementError> {
        let bad_url = || ManagementError::BadUrl {
            what: "GRANTONCE_MANAGEMENT_URL",
            form: "http://user:password@127.0.0.1:15672",
        };
        let mut base = Url::parse(url).map_err(|_| bad_url())?;
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            return Err(bad_url());
        }
        // User and password are removed from the URL, so no error message can show them.
        let user = if base.username().is_empty() { "guest".to_owned() } else { decoded(base.username()) };
        let password = base.password().map(decoded).or_else(|| base.username().is_empty().then(|| "guest".to_owned()));
        base.set_username("").map_err(|()| bad_url())?;
        base.set_password(None).map_err(|()| bad_url())?;
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let http = crate::http::client_of_system().timeout(DEADLINE).build().map_err(ManagementError::Unreachable)?;
        Ok(Self { base, user, password, http })
    }

    /// Creates the virtual host `name`, and gives the user of `amqp_url` all rights in it. Returns its URL.
    pub async fn create_vhost(&self, amqp_url: &str, name: &str) -> Result<String, ManagementError> {
        check(name)?;
        let bad_url = ManagementError::BadUrl { what: "AMQP_URL", form: "amqp://user:password@127.0.0.1:5672/vhost" };
        let own_url = with_path(amqp_url, &["amqp", "amqps"], name).ok_or(bad_url)?;
        // The name stays encoded, because it goes into a URL again.
        let user = if own_url.username().is_empty() { "guest" } else { own_url.username() };
        self.send(Method::PUT, &format!("api/vhosts/{name}"), None).await?;
        let all = serde_json::json!({"configure": ".*", "write": ".*", "read": ".*"});
        self.send(Method::PUT, &format!("api/permissions/{name}/{user}"), Some(all)).await?;
        Ok(own_url.into())
    }

    /// Deletes the virtual host `name` with everything in it. Succeeds if there is none.
    pub async fn delete_vhost(&self, name: &str) -> Result<(), ManagementError> {
        check(name)?;
        match self.send(Method::DELETE, &format!("api/vhosts/{name}"), None).await {
            Ok(_) | Err(ManagementError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The number of messages in a queue. RabbitMQ counts every few seconds, so the number may be a few seconds old. `None` if the
    /// queue was never counted.
    pub async fn message_count(&self, vhost: &str, queue: &str) -> Result<Option<u64>, ManagementError> {
        check(vhost)?;
        let answer = match self.send(Method::GET, &format!("api/queues/{vhost}/{queue}"), None).await {
            Err(ManagementError::Refused { status: StatusCode::NOT_FOUND, .. }) => return Ok(None),
            answer => answer?,
        };
        Ok(answer.json::<QueueAnswer>().await.map_err(unreachable)?.messages)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> Result<reqwest::Response, ManagementError> {
        let request = format!("{method} /{path}");
        let url = self.base.join(path).map_err(|_| ManagementError::BadName(path.to_owned()))?;
        let mut call = self.http.request(method, url).basic_auth(&self.user, self.password.as_ref());
        if let Some(body) = body {
            call = call.json(&body);
        }
        let answer = call.send().await.map_err(unreachable)?;
        let status = answer.status();
        if status.is_success() { Ok(answer) } else { Err(ManagementError::Refused { status, request }) }
    }
}

fn unreachable(error: reqwest::Error) -> ManagementError {
    ManagementError::Unreachable(error.without_url())
}

fn check(name: &str) -> Result<(), ManagementError> {
    let ok =
        (1..=100).contains(&name.len()) && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
    if ok { Ok(()) } else { Err(ManagementError::BadName(name.to_owned())) }
}

/// Decodes percent-encoding in the user part of a URL.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|code| hex::decode(code).ok());
        match (first, code.as_deref()) {
            (b'%', Some(&[byte])) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::{Path, State};
    use axum::http::HeaderMap;
    use axum::routing::{get, put};
    use std::sync::{Arc, Mutex};

    type Seen = Arc<Mutex<Vec<String>>>;

    async fn management() -> (Management, Seen) {
        let seen = Seen::default();
        let note = |seen: &Seen, what: String, headers: &HeaderMap| {
            let auth = headers["authorization"].to_str().unwrap().to_owned();
            seen.lock().unwrap().push(format!("{what} {auth}"));
        };
        let router = axum::Router::new()
            .route(
                "/api/vhosts/{name}",
                put(move |State(seen): State<Seen>, Path(name): Path<String>, headers: HeaderMap| async move {
                    note(&seen, format!("put {name}"), &headers);
                })
                .delete(|| async { StatusCode::NOT_FOUND }),
            )
            .route(
                "/api/permissions/{name}/{user}",
                put(
                    move |State(seen): State<Seen>, Path(path): Path<(String, String)>, headers: HeaderMap| async move {
                        note(&seen, format!("permit {} {}", path.0, path.1), &headers);
                    },
                ),
            )
            .route("/api/queues/{vhost}/known", get(|| async { r#"{"messages": 7}"# }))
            .route("/api/queues/{vhost}/new", get(|| async { r#"{"name": "new"}"# }))
            .with_state(Arc::clone(&seen));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (Management::new(&format!("http://us%40er:p%2Fw@{address}")).unwrap(), seen)
    }

    #[tokio::test]
    async fn a_virtual_host_is_made_and_its_user_let_in() {
        let (management, seen) = management().await;
        let url = management.create_vhost("amqp://a%40b:pw@h:5672/old?heartbeat=5", "demo_1").await.unwrap();
        assert_eq!(url, "amqp://a%40b:pw@h:5672/demo_1?heartbeat=5");
        let basic = "Basic dXNAZXI6cC93"; // us@er:p/w
        assert_eq!(*seen.lock().unwrap(), [format!("put demo_1 {basic}"), format!("permit demo_1 a@b {basic}")]);
        management.delete_vhost("gone").await.unwrap();
        assert_eq!(management.message_count("demo_1", "known").await.unwrap(), Some(7));
        assert_eq!(management.message_count("demo_1", "new").await.unwrap(), None);
        assert_eq!(management.message_count("demo_1", "absent").await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_cannot_be_is_refused_and_no_password_is_shown() {
        let (management, _) = management().await;
        assert!(matches!(management.create_vhost("amqp://h", "a/b").await, Err(ManagementError::BadName(_))));
        assert!(matches!(management.create_vhost("http://h", "a").await, Err(ManagementError::BadUrl { .. })));
        assert!(Management::new("ftp://x").is_err());
        let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = nobody.local_addr().unwrap();
        drop(nobody);
        let gone = Management::new(&format!("http://u:sesame@{address}")).unwrap();
        let error = gone.create_vhost("amqp://h", "a").await.unwrap_err();
        assert!(error.is_unreachable());
        assert!(!format!("{error} {error:?}").contains("sesame"));
    }

    #[test]
    fn names_are_unique_and_fit_both_servers() {
        let (one, two) = (crate::scratch::unique_name("grantonce_demo"), crate::scratch::unique_name("grantonce_demo"));
        assert_ne!(one, two);
        assert_eq!(one.len(), "grantonce_demo_".len() + 12);
        check(&one).unwrap();
    }
}

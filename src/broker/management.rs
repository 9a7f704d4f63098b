//! What AMQP cannot show, over RabbitMQ's HTTP API: queue arguments, depths. Optional (`GRANTONCE_MANAGEMENT_URL`).

use super::topology::{TopologyFault, wanted_arguments};
use crate::config::RetryDelay;
use crate::http::{client, system_roots};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::time::Duration;

const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// RabbitMQ's HTTP API, for one vhost.
#[derive(Debug, Clone)]
pub struct Management {
    client: reqwest::Client,
    base: SecretString,
    vhost: String,
}

/// What the API tells of a queue.
#[derive(Debug, Clone, Deserialize)]
pub struct QueueFacts {
    /// Its name.
    pub name: String,
    /// Messages ready and unacknowledged. Absent while the broker has not measured yet.
    #[serde(default)]
    pub messages: Option<u64>,
    /// As declared.
    pub arguments: serde_json::Map<String, serde_json::Value>,
}

impl Management {
    /// `base` is `http://user:password@host:15672`.
    pub fn new(base: SecretString, vhost: &str) -> Result<Self, reqwest::Error> {
        let client = client(system_roots()).timeout(ANSWER_DEADLINE).build()?;
        Ok(Self { client, base, vhost: vhost.to_owned() })
    }

    /// Lists the vhost's queues.
    pub async fn queues(&self) -> Result<Vec<QueueFacts>, reqwest::Error> {
        let mut url: reqwest::Url = match self.base.expose_secret().parse() {
            Ok(url) => url,
            // Ask the client for its own error about the address.
            Err(_) => return self.client.get(self.base.expose_secret()).send().await?.json().await,
        };
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "queues", self.vhost.as_str()]);
        }
        // An error's text would show the address, and with it the password.
        let answer = self.client.get(url).send().await.map_err(reqwest::Error::without_url)?;
        answer
            .error_for_status()
            .map_err(reqwest::Error::without_url)?
            .json()
            .await
            .map_err(reqwest::Error::without_url)
    }

    /// Compares the queues' arguments with what this version declares.
    pub async fn inspect(&self, delays: &[RetryDelay]) -> Result<Vec<TopologyFault>, reqwest::Error> {
        let found = self.queues().await?;
        let mut faults = vec![];
        for (name, wanted) in wanted_arguments(delays) {
            let Some(queue) = found.iter().find(|queue| queue.name == name) else { continue };
            for (argument, value) in &wanted {
                if queue.arguments.get(argument) != Some(value) {
                    let found = queue.arguments.get(argument).map_or("nothing".to_owned(), ToString::to_string);
                    faults.push(TopologyFault {
                        fault: format!("queue {name} has {argument} {found} instead of {value}"),
                        remedy: "drain it, delete it, and run `grantonce migrate` again".to_owned(),
                    });
                }
            }
        }
        Ok(faults)
    }
}

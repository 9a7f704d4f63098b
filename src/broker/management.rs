//! What AMQP cannot show, over RabbitMQ's HTTP API: arguments, bindings, policies, rights, alarms. Optional
//! (`GRANTONCE_MANAGEMENT_URL`).

use super::survey::{BindingFacts, ExchangeFacts, LimitFacts, NodeFacts, PermissionFacts, PolicyFacts, Survey};
use super::topology::DEAD_QUEUE;
use crate::clock::Clock;
use crate::config::RetryDelay;
use crate::findings::{Fault, Findings};
use crate::http::{client, system_roots};
use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// RabbitMQ tells the operator policy of a queue from statistics that are a few seconds old. As long as one that could do harm
/// is not told of, they are read again, so often at most, once a second.
const SURVEYS_MAX: usize = 20;

/// RabbitMQ's HTTP API, for one vhost.
#[derive(Debug, Clone)]
pub struct Management {
    client: reqwest::Client,
    base: SecretString,
    vhost: String,
}

/// What the API tells of a queue.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct QueueFacts {
    /// Its name.
    pub name: String,
    /// Messages ready and unacknowledged. Absent while the broker has not measured yet.
    #[serde(default)]
    pub messages: Option<u64>,
    /// As declared.
    pub arguments: serde_json::Map<String, serde_json::Value>,
    /// The policy that is in force.
    #[serde(default)]
    pub(super) policy: Option<String>,
    /// The operator policy that is in force, from statistics.
    #[serde(default)]
    pub(super) operator_policy: Option<String>,
    /// Both of them joined, from statistics. An object; RabbitMQ writes an empty one as a list, too.
    #[serde(default)]
    pub(super) effective_policy_definition: serde_json::Value,
    /// The nodes that have a copy.
    #[serde(default)]
    pub(super) members: Vec<String>,
    /// Those of them that are there.
    #[serde(default)]
    pub(super) online: Vec<String>,
}

/// What a comparison came to.
#[derive(Debug)]
pub struct Compared {
    /// What was found.
    pub findings: Findings,
    /// How far the broker's clock is ahead of ours, to about a second.
    pub clock_ahead: Option<time::Duration>,
}

#[derive(Deserialize)]
struct Overview {
    rabbitmq_version: String,
}

impl Management {
    /// `base` is `http://user:password@host:15672`.
    pub fn new(base: SecretString, vhost: &str) -> Result<Self, reqwest::Error> {
        let client = client(system_roots()).timeout(ANSWER_DEADLINE).build()?;
        Ok(Self { client, base, vhost: vhost.to_owned() })
    }

    async fn ask(&self, path: &[&str]) -> Result<reqwest::Response, reqwest::Error> {
        self.ask_with(path, "").await
    }

    async fn ask_with(&self, path: &[&str], query: &str) -> Result<reqwest::Response, reqwest::Error> {
        let mut url: reqwest::Url = match self.base.expose_secret().parse() {
            Ok(url) => url,
            // Ask the client for its own error about the address.
            Err(_) => return self.client.get(self.base.expose_secret()).send().await,
        };
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("api").extend(path);
        }
        url.set_query((!query.is_empty()).then_some(query));
        // An error's text would show the address, and with it the password.
        self.client.get(url).send().await.map_err(reqwest::Error::without_url)
    }

    async fn read<T: DeserializeOwned>(answer: reqwest::Response) -> Result<T, reqwest::Error> {
        let answer = answer.error_for_status().map_err(reqwest::Error::without_url)?;
        answer.json().await.map_err(reqwest::Error::without_url)
    }

    /// `None`: this user may not see it.
    async fn allowed<T: DeserializeOwned>(&self, path: &[&str]) -> Result<Option<T>, reqwest::Error> {
        let answer = self.ask(path).await?;
        if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&answer.status()) {
            return Ok(None);
        }
        Self::read(answer).await.map(Some)
    }

    /// Lists the vhost's queues.
    pub async fn queues(&self) -> Result<Vec<QueueFacts>, reqwest::Error> {
        Self::read(self.ask(&["queues", &self.vhost]).await?).await
    }

    /// Compares all that this version needs with what is there.
    pub async fn compare(&self, delays: &[RetryDelay], clock: &Clock) -> Result<Compared, reqwest::Error> {
        let before = clock.now();
        let answer = self.ask(&["overview"]).await?;
        let middle = before + (clock.now() - before) / 2;
        let date = answer.headers().get(reqwest::header::DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok());
        // It is cut to whole seconds.
        let clock_ahead = date.map(|date| date + time::Duration::milliseconds(500) - middle);
        let Overview { rabbitmq_version } = Self::read(answer).await?;
        let survey = self.settled_survey(rabbitmq_version).await?;
        Ok(Compared { findings: survey.findings(&self.vhost, delays), clock_ahead })
    }

    /// What would make looking at the dead letters' buffer dangerous.
    pub(super) async fn danger_in_dead_queue(&self) -> Result<Option<Fault>, reqwest::Error> {
        Ok(self.settled_survey(String::new()).await?.fault_of_queue(&self.vhost, DEAD_QUEUE))
    }

    async fn settled_survey(&self, version: String) -> Result<Survey, reqwest::Error> {
        let mut survey = self.survey(version).await?;
        for _ in 1..SURVEYS_MAX {
            if survey.is_settled() {
                break;
            }
            // Nothing tells when the statistics are written: RabbitMQ does it every few seconds.
            tokio::time::sleep(Duration::from_secs(1)).await;
            survey = self.survey(survey.version).await?;
        }
        Ok(survey)
    }

    async fn survey(&self, version: String) -> Result<Survey, reqwest::Error> {
        let vhost = self.vhost.as_str();
        // Answers 503 while there is an alarm, to anybody who may use the API.
        let alarms = self.ask(&["health", "checks", "alarms"]).await?.status();
        let mut queues = self.queues().await?;
        // Without statistics RabbitMQ tells of a queue as it is now.
        let now: Vec<QueueFacts> = Self::read(self.ask_with(&["queues", vhost], "disable_stats=true").await?).await?;
        for queue in &mut queues {
            queue.policy = now.iter().find(|other| other.name == queue.name).and_then(|other| other.policy.clone());
        }
        Ok(Survey {
            version,
            has_alarm: alarms == StatusCode::SERVICE_UNAVAILABLE,
            queues,
            exchanges: Self::read::<Vec<ExchangeFacts>>(self.ask(&["exchanges", vhost]).await?).await?,
            bindings: Self::read::<Vec<BindingFacts>>(self.ask(&["bindings", vhost]).await?).await?,
            policies: self.allowed::<Vec<PolicyFacts>>(&["policies", vhost]).await?,
            operator_policies: self.allowed::<Vec<PolicyFacts>>(&["operator-policies", vhost]).await?,
            limits: self.allowed::<Vec<LimitFacts>>(&["vhost-limits", vhost]).await?,
            permissions: self.allowed::<Vec<PermissionFacts>>(&["vhosts", vhost, "permissions"]).await?,
            nodes: self.allowed::<Vec<NodeFacts>>(&["nodes"]).await?,
        })
    }
}

//! RabbitMQ's HTTP API, for what AMQP cannot show: arguments, bindings, policies, rights, alarms. It is optional
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

/// RabbitMQ reports the operator policy of a queue from statistics that are a few seconds old. If a harmful policy
/// exists and the statistics do not show it, they are read again, at most so often, once a second.
const SURVEYS_MAX: usize = 20;

/// RabbitMQ's HTTP API, for one virtual host.
#[derive(Debug, Clone)]
pub struct Management {
    client: reqwest::Client,
    base: SecretString,
    vhost: String,
}

/// What the API reports about a queue.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct QueueFacts {
    /// The name of the queue.
    pub name: String,
    /// Messages that are ready or not acknowledged. Absent until the broker has measured.
    #[serde(default)]
    pub messages: Option<u64>,
    /// The arguments as they were declared.
    pub arguments: serde_json::Map<String, serde_json::Value>,
    /// The policy that is in force.
    #[serde(default)]
    pub(super) policy: Option<String>,
    /// The operator policy in force, from the statistics.
    #[serde(default)]
    pub(super) operator_policy: Option<String>,
    /// Both policies joined, from the statistics. It is an object, and RabbitMQ writes an empty one as a list.
    #[serde(default)]
    pub(super) effective_policy_definition: serde_json::Value,
    /// The nodes that have a copy.
    #[serde(default)]
    pub(super) members: Vec<String>,
    /// The nodes with a copy that are online.
    #[serde(default)]
    pub(super) online: Vec<String>,
}

/// The result of a comparison.
#[derive(Debug)]
pub struct Compared {
    /// The faults and notes.
    pub findings: Findings,
    /// How far the broker's clock is ahead of ours, to about a second.
    pub clock_ahead: Option<time::Duration>,
}

#[derive(Deserialize)]
struct Overview {
    rabbitmq_version: String,
}

impl Management {
    /// A client. `base` has the form `http://user:password@host:15672`.
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
            // The client makes its own error about the address.
            Err(_) => return self.client.get(self.base.expose_secret()).send().await,
        };
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("api").extend(path);
        }
        url.set_query((!query.is_empty()).then_some(query));
        // The text of the error would show the address with its password.
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

    /// Lists the queues of the virtual host.
    pub async fn queues(&self) -> Result<Vec<QueueFacts>, reqwest::Error> {
        Self::read(self.ask(&["queues", &self.vhost]).await?).await
    }

    /// Compares everything that this version needs with what is there.
    pub async fn compare(&self, delays: &[RetryDelay], clock: &Clock) -> Result<Compared, reqwest::Error> {
        let before = clock.now();
        let answer = self.ask(&["overview"]).await?;
        let middle = before + (clock.now() - before) / 2;
        let date = answer.headers().get(reqwest::header::DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok());
        // The broker cuts its time to whole seconds.
        let clock_ahead = date.map(|date| date + time::Duration::milliseconds(500) - middle);
        let Overview { rabbitmq_version } = Self::read(answer).await?;
        let survey = self.settled_survey(rabbitmq_version).await?;
        Ok(Compared { findings: survey.findings(&self.vhost, delays), clock_ahead })
    }

    /// Faults that would make it dangerous to look at the dead letters.
    pub(super) async fn danger_in_dead_queue(&self) -> Result<Option<Fault>, reqwest::Error> {
        Ok(self.settled_survey(String::new()).await?.fault_of_queue(&self.vhost, DEAD_QUEUE))
    }

    async fn settled_survey(&self, version: String) -> Result<Survey, reqwest::Error> {
        let mut survey = self.survey(version).await?;
        for _ in 1..SURVEYS_MAX {
            if survey.is_settled() {
                break;
            }
            // No event tells when RabbitMQ writes its statistics. It does so every few seconds.
            tokio::time::sleep(Duration::from_secs(1)).await;
            survey = self.survey(survey.version).await?;
        }
        Ok(survey)
    }

    async fn survey(&self, version: String) -> Result<Survey, reqwest::Error> {
        let vhost = self.vhost.as_str();
        // Answers 503 during an alarm, for every user of the API.
        let alarms = self.ask(&["health", "checks", "alarms"]).await?.status();
        let mut queues = self.queues().await?;
        // Without statistics RabbitMQ reports the current state of a queue.
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

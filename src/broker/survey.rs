//! Compares what the management API reports with what this version needs. Pure.

mod policies;

use super::management::QueueFacts;
use super::topology::{Arguments, DEAD_EXCHANGE, EXCHANGES, QueuePlan, RETRY_EXCHANGE, missing, plan, retry_queue};
use crate::code::Code;
use crate::config::RetryDelay;
use crate::findings::{Fault, Findings};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;

/// The oldest version of RabbitMQ that this version works with.
const VERSION_MIN: (u32, u32) = (3, 10);

/// How many users a note names.
const USERS_SHOWN_MAX: usize = 20;

/// Everything that was asked. `None`: this user may not see it.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) version: String,
    pub(super) has_alarm: bool,
    pub(super) queues: Vec<QueueFacts>,
    pub(super) exchanges: Vec<ExchangeFacts>,
    pub(super) bindings: Vec<BindingFacts>,
    pub(super) policies: Option<Vec<PolicyFacts>>,
    pub(super) operator_policies: Option<Vec<PolicyFacts>>,
    pub(super) limits: Option<Vec<LimitFacts>>,
    pub(super) permissions: Option<Vec<PermissionFacts>>,
    pub(super) nodes: Option<Vec<NodeFacts>>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct ExchangeFacts {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    durable: bool,
    auto_delete: bool,
    #[serde(default)]
    internal: bool,
    arguments: Arguments,
    #[serde(default)]
    policy: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct BindingFacts {
    source: String,
    destination: String,
    destination_type: String,
    routing_key: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct PolicyFacts {
    name: String,
    #[serde(rename = "apply-to")]
    apply_to: String,
    definition: Arguments,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct LimitFacts {
    value: Arguments,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct PermissionFacts {
    user: String,
    write: String,
}

/// Memory and disk are numbers, or a text if the node has not measured them.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct NodeFacts {
    name: String,
    running: bool,
    #[serde(default)]
    mem_alarm: bool,
    #[serde(default)]
    disk_free_alarm: bool,
    #[serde(default)]
    disk_free: Value,
    #[serde(default)]
    disk_free_limit: Value,
    #[serde(default)]
    mem_used: Value,
    #[serde(default)]
    mem_limit: Value,
    #[serde(default)]
    partitions: Vec<String>,
}

fn found<'a>(list: Option<&'a Vec<PolicyFacts>>, name: Option<&str>) -> Option<&'a PolicyFacts> {
    list?.iter().find(|policy| Some(policy.name.as_str()) == name)
}

fn is_ours(queue: &str) -> bool {
    plan(&[]).iter().any(|wanted| wanted.name == queue) || queue.starts_with(&retry_queue(""))
}

fn joined<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

impl Survey {
    /// The first fault in the arguments and policies of one queue.
    pub(super) fn fault_of_queue(&self, vhost: &str, name: &str) -> Option<Fault> {
        let of_it = Self {
            queues: self.queues.iter().filter(|queue| queue.name == name).cloned().collect(),
            policies: self.policies.clone(),
            operator_policies: self.operator_policies.clone(),
            ..Self::default()
        };
        let mut findings = Findings::default();
        for wanted in plan(&[]).iter().filter(|wanted| wanted.name == name) {
            of_it.compare_queue(wanted, vhost, &mut findings);
        }
        of_it.compare_policies(vhost, &mut findings);
        findings.faults.into_iter().next()
    }

    /// All faults and notes.
    pub(super) fn findings(&self, vhost: &str, delays: &[RetryDelay]) -> Findings {
        let mut findings = Findings::default();
        self.compare_server(&mut findings);
        let wanted = plan(delays);
        self.compare_exchanges(vhost, &mut findings);
        for queue in &wanted {
            self.compare_queue(queue, vhost, &mut findings);
        }
        self.compare_bindings(&wanted, &mut findings);
        self.compare_policies(vhost, &mut findings);
        self.tell_limits_and_users(&mut findings);
        findings.note("exchanges, queues, arguments, bindings and policies compared");
        findings
    }

    fn compare_server(&self, findings: &mut Findings) {
        let mut numbers = self.version.split('.').map(|part| part.parse::<u32>().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(major), Some(minor)) if (major, minor) >= VERSION_MIN => {
                findings.note(format!("version {}", self.version));
            }
            (Some(_), Some(_)) => findings.fault(
                Code::RabbitmqVersion,
                format!("RabbitMQ is of version {}", self.version),
                format!("upgrade to {}.{} or newer", VERSION_MIN.0, VERSION_MIN.1),
            ),
            _ => findings.note(format!("version {:?} cannot be compared", self.version)),
        }
        const MAKE_ROOM: &str = "give the server memory or disk space; nothing can be published until then";
        let nodes = self.nodes.as_deref().unwrap_or_default();
        let mut has_told_alarm = false;
        for node in nodes {
            let name = &node.name;
            for (is_on, what) in [(node.mem_alarm, "memory"), (node.disk_free_alarm, "disk space")] {
                if is_on {
                    has_told_alarm = true;
                    findings.fault(
                        Code::RabbitmqAlarm,
                        format!("node {name} has an alarm: {what} runs out"),
                        MAKE_ROOM,
                    );
                }
            }
            if !node.partitions.is_empty() {
                findings.fault(
                    Code::RabbitmqCluster,
                    format!("node {name} has lost sight of {}: the cluster is partitioned", joined(&node.partitions)),
                    "heal the network, and restart the nodes of the smaller part",
                );
            }
            if !node.running {
                findings.note(format!("node {name} is down"));
                continue;
            }
            findings.note(format!(
                "node {name}: {} bytes of disk are free (alarm below {}), {} bytes of memory used (alarm above {})",
                node.disk_free, node.disk_free_limit, node.mem_used, node.mem_limit
            ));
        }
        if self.has_alarm && !has_told_alarm {
            findings.fault(Code::RabbitmqAlarm, "RabbitMQ has an alarm: memory or disk space runs out", MAKE_ROOM);
        }
        if self.nodes.is_none() {
            findings
                .note("not seen, because the HTTP API's user lacks the tag `monitoring`: free disk space and memory");
        }
    }

    fn compare_exchanges(&self, vhost: &str, findings: &mut Findings) {
        for (name, kind) in EXCHANGES {
            let Some(exchange) = self.exchanges.iter().find(|exchange| exchange.name == name) else {
                findings.faults.push(missing(name));
                continue;
            };
            let as_made = format!("{kind:?}").to_ascii_lowercase();
            if exchange.kind != as_made
                || !exchange.durable
                || exchange.auto_delete
                || exchange.internal
                || !exchange.arguments.is_empty()
            {
                findings.fault(
                    Code::RabbitmqDifferent,
                    format!(
                        "exchange {name} is not durable, of type {as_made} and without arguments: it has type {}, \
                         durable {}, auto_delete {}, internal {}, arguments {}",
                        exchange.kind,
                        exchange.durable,
                        exchange.auto_delete,
                        exchange.internal,
                        Value::Object(exchange.arguments.clone())
                    ),
                    "stop what publishes to it, delete it, and run `grantonce migrate` again",
                );
            }
            let Some(policy) = &exchange.policy else { continue };
            match found(self.policies.as_ref(), Some(policy)).map(|policy| &policy.definition) {
                Some(set) if set.contains_key("alternate-exchange") => findings.fault(
                    Code::RabbitmqPolicy,
                    format!("policy {policy:?} sets alternate-exchange on {name}: what no queue takes is lost unseen"),
                    clear("policy", vhost, policy),
                ),
                Some(set) if set.keys().any(|key| key.starts_with("federation-")) => findings.note(format!(
                    "policy {policy:?} federates {name}: who may publish to its upstream may publish to {name}"
                )),
                Some(_) => {}
                None => findings.note(format!("not seen: what policy {policy:?} sets on exchange {name}")),
            }
        }
    }

    fn compare_queue(&self, wanted: &QueuePlan, vhost: &str, findings: &mut Findings) {
        let name = &wanted.name;
        let Some(queue) = self.queues.iter().find(|queue| queue.name == *name) else {
            findings.faults.push(missing(name));
            return;
        };
        if !queue.online.is_empty() && queue.online.len() * 2 <= queue.members.len() {
            findings.fault(
                Code::RabbitmqCluster,
                format!(
                    "queue {name} has lost its quorum: of {} only {} are there",
                    joined(&queue.members),
                    joined(&queue.online)
                ),
                "start the missing nodes",
            );
        }
        let arguments = wanted.wanted();
        if wanted.accepted().as_ref() == Some(&queue.arguments) {
            findings.note(format!(
                "queue {name} is as an earlier release made it, without x-overflow: reject-publish. It works; to make it \
                 anew without losing a letter, see docs/deployment.md"
            ));
            return;
        }
        let names: BTreeSet<&String> = arguments.keys().chain(queue.arguments.keys()).collect();
        for argument in names {
            let (has, must_have) = (queue.arguments.get(argument), arguments.get(argument));
            if has != must_have {
                let shown = |value: Option<&Value>| value.map_or("nothing".to_owned(), ToString::to_string);
                findings.fault(
                    Code::RabbitmqDifferent,
                    format!("queue {name} has {argument} {} instead of {}", shown(has), shown(must_have)),
                    format!(
                        "drain it, `rabbitmqctl -p '{vhost}' delete_queue {name}`, and run `grantonce migrate` again"
                    ),
                );
            }
        }
    }

    fn compare_bindings(&self, wanted: &[QueuePlan], findings: &mut Findings) {
        let needs = |binding: &BindingFacts| {
            binding.destination_type == "queue"
                && wanted.iter().any(|queue| {
                    (queue.exchange, queue.name.as_str(), queue.binding.as_str())
                        == (binding.source.as_str(), binding.destination.as_str(), binding.routing_key.as_str())
                })
        };
        let there: BTreeSet<&str> =
            self.bindings.iter().filter(|binding| needs(binding)).map(|binding| binding.destination.as_str()).collect();
        for queue in wanted.iter().filter(|queue| !there.contains(queue.name.as_str())) {
            findings.fault(
                Code::RabbitmqMissing,
                format!("queue {} is not bound to exchange {} by {:?}", queue.name, queue.exchange, queue.binding),
                "run `grantonce migrate`",
            );
        }
        let ours = |exchange: &str| EXCHANGES.iter().any(|(name, _)| *name == exchange);
        for binding in self.bindings.iter().filter(|binding| !needs(binding)) {
            let BindingFacts { source, destination, destination_type, routing_key } = binding;
            // Every queue is bound to the default exchange. Retry queues of old delays remain.
            if source.is_empty() || (source == RETRY_EXCHANGE && *destination == retry_queue(routing_key)) {
                continue;
            }
            let into = if destination_type == "queue" { is_ours(destination) } else { ours(destination) };
            if into {
                findings.note(format!(
                    "{destination} is also bound to {source} by {routing_key:?}: who may publish there may grant"
                ));
            } else if ours(source) {
                findings.note(format!("{destination} gets a copy of what {source} is sent under {routing_key:?}"));
            }
        }
    }

    fn tell_limits_and_users(&self, findings: &mut Findings) {
        for limit in self.limits.iter().flatten().flat_map(|limits| &limits.value) {
            findings.note(format!("the virtual host has a limit: {} {}", limit.0, limit.1));
        }
        let Some(permissions) = &self.permissions else {
            findings.note(format!(
                "not seen, because the HTTP API's user lacks the tag `administrator`: who may publish to {DEAD_EXCHANGE} and \
                 the other exchanges"
            ));
            return;
        };
        let may_write = permissions.iter().filter(|permission| !["", "^$"].contains(&permission.write.as_str()));
        let users: Vec<String> =
            may_write.map(|permission| format!("{} ({})", permission.user, permission.write)).collect();
        let more = users.len().saturating_sub(USERS_SHOWN_MAX);
        findings.note(format!(
            "users that may publish, with their pattern; who may publish to payments, {DEAD_EXCHANGE} or amq.default may \
             grant: {}{}",
            joined(users.iter().take(USERS_SHOWN_MAX)),
            if more > 0 { format!(", and {more} more") } else { String::new() }
        ));
    }
}

fn clear(kind: &str, vhost: &str, name: &str) -> String {
    format!("`rabbitmqctl clear_{kind} -p '{vhost}' '{name}'`, or give it a pattern that leaves it out")
}

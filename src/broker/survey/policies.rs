//! Policies and operator policies. They apply over the arguments of the queues, and nothing warns of them.

use super::super::management::QueueFacts;
use super::super::topology::Arguments;
use super::{PolicyFacts, Survey, clear, found, is_ours, joined};
use crate::code::Code;
use crate::findings::Findings;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Policy keys that limit, delete or divert messages, with a number. The smaller of policy and argument is in force.
const LIMITS: [&str; 5] = ["delivery-limit", "expires", "max-length", "max-length-bytes", "message-ttl"];

/// Such policy keys with a text. An argument of the same name is stronger.
const DIVERSIONS: [&str; 4] = ["dead-letter-exchange", "dead-letter-routing-key", "dead-letter-strategy", "overflow"];

/// Policy keys that neither lose nor delay anything.
const HARMLESS: [&str; 14] = [
    "ha-mode",
    "ha-params",
    "ha-promote-on-failure",
    "ha-promote-on-shutdown",
    "ha-sync-batch-size",
    "ha-sync-mode",
    "max-in-memory-bytes",
    "max-in-memory-length",
    "queue-leader-locator",
    "queue-master-locator",
    "queue-mode",
    "queue-version",
    "target-group-size",
    // A policy key of exchanges. It is reported if it applies to one of ours.
    "alternate-exchange",
];

/// The effect of a policy key on a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    None,
    /// It limits, deletes or diverts messages.
    Harm,
    /// It brings in messages of another broker.
    Federation,
    /// This version does not know the key.
    Unknown,
}

fn effect(key: &str, value: &Value, arguments: &Arguments) -> Effect {
    let own = arguments.get(&format!("x-{key}"));
    if LIMITS.contains(&key) {
        let is_stronger = own.and_then(Value::as_i64).zip(value.as_i64()).is_some_and(|(own, value)| own <= value);
        if is_stronger { Effect::None } else { Effect::Harm }
    } else if DIVERSIONS.contains(&key) {
        let refuses = key == "overflow" && value == "reject-publish";
        if own.is_some() || refuses { Effect::None } else { Effect::Harm }
    } else if key.starts_with("federation-") {
        Effect::Federation
    } else if HARMLESS.contains(&key) {
        Effect::None
    } else {
        Effect::Unknown
    }
}

/// A policy on one of our queues: whether it is an operator policy, and its name.
type Source = (bool, String);

/// The effects of the policies in force on our queues.
#[derive(Debug, Default)]
struct Effects {
    harm: BTreeMap<Source, (BTreeSet<String>, BTreeSet<String>)>,
    federated: BTreeSet<String>,
    unknown: BTreeSet<String>,
    /// Queues whose policies are unknown.
    unseen: BTreeSet<String>,
}

/// A policy that sets something on a queue: whether it is an operator policy, its name, and what it sets.
type InForce<'a> = (bool, String, &'a Arguments);

impl Survey {
    /// The policies in force on a queue. `None`: they are unknown.
    ///
    /// RabbitMQ reports the present policy, but the operator policy only from statistics, which a new queue does not
    /// have.
    fn in_force<'a>(&'a self, queue: &'a QueueFacts) -> Option<Vec<InForce<'a>>> {
        let (Some(policies), Some(operator_policies)) = (&self.policies, &self.operator_policies) else {
            // Their definitions cannot be seen, but their joined effect can.
            let is_empty_list = queue.effective_policy_definition.as_array().is_some_and(Vec::is_empty);
            let name = queue.policy.clone().or_else(|| queue.operator_policy.clone()).unwrap_or_default();
            let both =
                queue.effective_policy_definition.as_object().map(|set| vec![(queue.policy.is_none(), name, set)]);
            return both.or_else(|| is_empty_list.then(Vec::new));
        };
        if queue.effective_policy_definition.is_null() && operator_policies.iter().any(PolicyFacts::could_harm) {
            return None;
        }
        let lists = [(false, policies, &queue.policy), (true, operator_policies, &queue.operator_policy)];
        let shown = lists.into_iter().filter_map(|(is_operators, list, name)| {
            let policy = found(Some(list), name.as_deref())?;
            Some((is_operators, policy.name.clone(), &policy.definition))
        });
        Some(shown.collect())
    }

    /// Whether the statistics show every operator policy that could do harm. They are a few seconds old.
    pub(in crate::broker) fn is_settled(&self) -> bool {
        let ours: Vec<&QueueFacts> = self.queues.iter().filter(|queue| is_ours(&queue.name)).collect();
        let is_shown =
            |policy: &PolicyFacts| ours.iter().any(|queue| queue.operator_policy.as_ref() == Some(&policy.name));
        let harmful = self.operator_policies.iter().flatten().filter(|policy| policy.could_harm());
        ours.iter().all(|queue| self.in_force(queue).is_some())
            && (ours.is_empty() || harmful.into_iter().all(is_shown))
    }

    fn effects(&self) -> Effects {
        let mut effects = Effects::default();
        for queue in self.queues.iter().filter(|queue| is_ours(&queue.name)) {
            let Some(in_force) = self.in_force(queue) else {
                effects.unseen.insert(queue.name.clone());
                continue;
            };
            for (is_operators, name, set) in in_force {
                for (key, value) in set {
                    match effect(key, value, &queue.arguments) {
                        Effect::None => {}
                        Effect::Federation => drop(effects.federated.insert(queue.name.clone())),
                        Effect::Unknown => drop(effects.unknown.insert(format!("{key} {value} on {}", queue.name))),
                        Effect::Harm => {
                            let (keys, queues) = effects.harm.entry((is_operators, name.clone())).or_default();
                            keys.insert(format!("{key} {value}"));
                            queues.insert(queue.name.clone());
                        }
                    }
                }
            }
        }
        effects
    }

    pub(super) fn compare_policies(&self, vhost: &str, findings: &mut Findings) {
        let Effects { harm, federated, unknown, unseen } = self.effects();
        for ((is_operators, name), (keys, queues)) in harm {
            let kind = if is_operators { "operator_policy" } else { "policy" };
            findings.fault(
                Code::RabbitmqPolicy,
                format!(
                    "{} {name:?} sets {} on {}: messages about money can be dropped, diverted or refused",
                    kind.replace('_', " "),
                    joined(&keys),
                    joined(&queues)
                ),
                clear(kind, vhost, &name),
            );
        }
        let dangerous = self.operator_policies.iter().flatten().filter(|policy| policy.could_harm());
        let dangerous: BTreeSet<String> = dangerous.map(|policy| policy.name.clone()).collect();
        if !unseen.is_empty() && !dangerous.is_empty() {
            findings.fault(
                Code::RabbitmqPolicy,
                format!(
                    "whether the operator policies {} are in force on {} cannot be seen",
                    joined(&dangerous),
                    joined(&unseen)
                ),
                "turn on RabbitMQ's statistics, or give these policies patterns that leave our queues out",
            );
        } else if !unseen.is_empty() {
            findings.note(format!("not seen: which policies are in force on {}", joined(&unseen)));
        }
        if !federated.is_empty() {
            findings.note(format!("federated, so messages of another broker come in: {}", joined(&federated)));
        }
        if !unknown.is_empty() {
            findings.note(format!("policies set what this version does not know: {}", joined(&unknown)));
        }
    }
}

impl PolicyFacts {
    fn could_harm(&self) -> bool {
        !["exchanges", "streams"].contains(&self.apply_to.as_str())
            && self.definition.iter().any(|(key, value)| effect(key, value, &Arguments::new()) == Effect::Harm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_key_does_depends_on_the_queues_own_argument() {
        let rows = [
            ("max-length", json!(5), json!({}), Effect::Harm),
            ("max-length", json!(5), json!({"x-max-length": 10}), Effect::Harm),
            ("max-length", json!(10), json!({"x-max-length": 10}), Effect::None),
            ("max-length-bytes", json!(5), json!({"x-max-length": 10}), Effect::Harm),
            ("message-ttl", json!(60_000), json!({"x-message-ttl": 5_000}), Effect::None),
            ("message-ttl", json!(1_000), json!({"x-message-ttl": 5_000}), Effect::Harm),
            ("expires", json!(1_000), json!({}), Effect::Harm),
            ("delivery-limit", json!(20), json!({"x-delivery-limit": 100}), Effect::Harm),
            ("delivery-limit", json!("20"), json!({"x-delivery-limit": 100}), Effect::Harm),
            ("delivery-limit", json!(-1), json!({"x-delivery-limit": 100}), Effect::Harm),
            ("overflow", json!("drop-head"), json!({}), Effect::Harm),
            ("overflow", json!("reject-publish"), json!({}), Effect::None),
            ("overflow", json!("drop-head"), json!({"x-overflow": "reject-publish"}), Effect::None),
            ("dead-letter-exchange", json!("x"), json!({}), Effect::Harm),
            ("dead-letter-exchange", json!("x"), json!({"x-dead-letter-exchange": "y"}), Effect::None),
            ("ha-mode", json!("all"), json!({}), Effect::None),
            ("queue-leader-locator", json!("balanced"), json!({}), Effect::None),
            ("federation-upstream-set", json!("all"), json!({}), Effect::Federation),
            ("shred", json!(true), json!({}), Effect::Unknown),
        ];
        for (key, value, arguments, expected) in rows {
            let arguments = arguments.as_object().unwrap();
            assert_eq!(effect(key, &value, arguments), expected, "{key} {value} {arguments:?}");
        }
    }
}

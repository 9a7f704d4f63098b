//! Names of ours that are no settings: slips of the pen, which are faults, and what Kubernetes makes up, which is none.

use super::variables::{PREFIX, VARIABLES};

/// Furthest name that is still taken for a slip of the pen, in edits.
const TYPO_EDITS_MAX: usize = 3;

/// What is wrong with a name of ours that is not in the table.
pub(super) fn unknown(name: &str, value: Option<&str>) -> Option<String> {
    let own = name.strip_prefix(PREFIX)?;
    let secret = name.strip_suffix("_FILE");
    for variable in VARIABLES {
        if variable.name == name {
            return None;
        }
        if secret == Some(variable.name) {
            if variable.is_secret {
                return None;
            }
            return Some(format!("is unknown: only secrets come as files; set {}", variable.name));
        }
    }
    if is_service_link(own, value) {
        return None;
    }
    let nearest = VARIABLES
        .iter()
        .flat_map(|variable| {
            let file = variable.is_secret.then(|| format!("{}_FILE", variable.name));
            std::iter::once(variable.name.to_owned()).chain(file)
        })
        .map(|known| (edits(known.strip_prefix(PREFIX).unwrap_or(&known), own), known))
        .min()
        .filter(|(edits, _)| *edits <= TYPO_EDITS_MAX && *edits < own.len().div_ceil(2));
    Some(match nearest {
        Some((_, known)) => format!("is unknown; did you mean {known}?"),
        None => "is unknown; grantonce --help-config lists what there is".to_owned(),
    })
}

/// Whether Kubernetes made this up for a Service whose name is ours or begins with ours (`grantonce`, `grantonce-api`).
/// For every Service it sets `<SERVICE>_SERVICE_HOST`, `…_SERVICE_PORT`, `…_SERVICE_PORT_<NAME>`, `…_PORT=tcp://…`, and for
/// every port `…_PORT_8081_TCP`, alone or with `_PROTO`, `_PORT` or `_ADDR` behind it. A `…_PORT` that holds a number is no
/// such thing but someone's mistake.
fn is_service_link(own: &str, value: Option<&str>) -> bool {
    // A Service that is called as our prefix has nothing before it.
    let own = format!("_{own}");
    if own.ends_with("_SERVICE_HOST") || own.ends_with("_SERVICE_PORT") {
        return true;
    }
    if own.split_once("_SERVICE_PORT_").is_some_and(|(_, port_name)| !port_name.is_empty()) {
        return true;
    }
    if own.rsplit_once("_PORT_").is_some_and(|(_, rest)| is_port_of_a_service(rest)) {
        return true;
    }
    own.ends_with("_PORT") && value.is_none_or(|value| value.contains("://"))
}

/// `8081_TCP`, `8081_TCP_ADDR`.
fn is_port_of_a_service(rest: &str) -> bool {
    let mut words = rest.split('_');
    let number = words.next().is_some_and(|word| word.parse::<u16>().is_ok());
    let protocol = words.next().is_some_and(|word| matches!(word, "TCP" | "UDP" | "SCTP"));
    let part = words.next().is_none_or(|word| matches!(word, "PROTO" | "PORT" | "ADDR"));
    number && protocol && part && words.next().is_none()
}

/// Levenshtein's distance: how many letters must be put in, left out or changed.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (to, above) in b.iter().zip(row.iter().skip(1)) {
            let change = diagonal + usize::from(from != *to);
            diagonal = *above;
            left = change.min(left + 1).min(*above + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Kubernetes sets for a Service: see `envvars.FromServices` in its source.
    fn of_service(service: &str, port_names: &[&str]) -> Vec<(String, &'static str)> {
        let service = service.to_ascii_uppercase().replace('-', "_");
        let mut variables = vec![
            (format!("{service}_SERVICE_HOST"), "10.0.0.1"),
            (format!("{service}_SERVICE_PORT"), "8080"),
            (format!("{service}_PORT"), "tcp://10.0.0.1:8080"),
        ];
        for name in port_names {
            variables.push((format!("{service}_SERVICE_PORT_{}", name.to_ascii_uppercase().replace('-', "_")), "8080"));
        }
        for (protocol, url) in [("TCP", "tcp://10.0.0.1:1"), ("UDP", "udp://10.0.0.1:1"), ("SCTP", "sctp://[::1]:1")] {
            for port in [1, 8080, 65535] {
                let prefix = format!("{service}_PORT_{port}_{protocol}");
                variables.extend([
                    (prefix.clone(), url),
                    (format!("{prefix}_PROTO"), "tcp"),
                    (format!("{prefix}_PORT"), "8080"),
                    (format!("{prefix}_ADDR"), "10.0.0.1"),
                ]);
            }
        }
        variables
    }

    #[test]
    fn o01_what_kubernetes_sets_for_a_service_is_passed_over() {
        let services = [
            "grantonce",
            "grantonce-api",
            "grantonce-receiver",
            "grantonce-anything",
            "grantonce-port",
            "grantonce-service",
            "grantonce-service-port",
            "grantonce-retry-delays",
            "grantonce-workers",
            "grantonce-1",
        ];
        // A Service of another name never begins with our prefix, and the names without it that are ours are no such names.
        let others = [
            "database",
            "database-url",
            "amqp",
            "worker",
            "retry",
            "rust",
            "otel-exporter-otlp",
            "grant",
            "grantonce2",
        ];
        for service in services.into_iter().chain(others) {
            for (name, value) in of_service(service, &["http", "http-port", "metrics", "port-1-tcp"]) {
                assert_eq!(unknown(&name, Some(value)), None, "{name}");
                assert!(
                    VARIABLES.iter().all(|variable| variable.name != name),
                    "{name} is set for a Service {service}"
                );
            }
        }
    }

    #[test]
    fn o01_a_mistyped_setting_is_none_of_them() {
        for (name, value) in [
            ("GRANTONCE_RECEIVER_PORT", "8080"),
            ("GRANTONCE_PORT", "8080"),
            ("GRANTONCE_API_PORT_8080", "x"),
            ("GRANTONCE_PORT_8080_HTTP", "x"),
            ("GRANTONCE_PORT_HTTP_TCP", "x"),
            ("GRANTONCE_PORT_99999_TCP", "x"),
            ("GRANTONCE_PORT_8080_TCP_HOST", "x"),
            ("GRANTONCE_PORT_8080_TCP_ADDR_X", "x"),
            ("GRANTONCE_SERVICE_HOSTS", "x"),
            ("GRANTONCE_SERVICE_PORT_", "x"),
            ("GRANTONCE_SERVICE", "x"),
            ("GRANTONCE_HOST", "x"),
        ] {
            assert!(unknown(name, Some(value)).is_some(), "{name}");
        }
    }

    #[test]
    fn o01_a_setting_counts_whatever_its_name_looks_like() {
        for variable in VARIABLES {
            let own = variable.name.strip_prefix(PREFIX).unwrap_or(variable.name);
            assert!(!is_service_link(own, Some("tcp://10.0.0.1:1")), "{} could be set by Kubernetes", variable.name);
        }
    }
}

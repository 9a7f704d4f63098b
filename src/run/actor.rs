//! Who does something by hand, for the audit log.

use crate::cli::ACTOR_BYTES_MAX;
use crate::domain::tidy;
use crate::store::Actor;

/// Who runs this: the name that was given, or the system's.
pub(super) fn actor(declared: Option<String>) -> Actor {
    match declared {
        Some(name) => Actor { name, is_self_declared: true },
        None => Actor { name: system_user().unwrap_or_else(|| "unknown".to_owned()), is_self_declared: false },
    }
}

/// The name of this process's user. Not from the environment, where anybody can set it.
fn system_user() -> Option<String> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    name_of(rustix::process::getuid().as_raw(), &users)
}

/// The name of a user, from lines of the form `name:password:uid:…`.
fn name_of(uid: u32, users: &str) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let is_it = fields.nth(1)?.parse() == Ok(uid);
        is_it.then(|| tidy(name, ACTOR_BYTES_MAX)).filter(|name| !name.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_name_is_found_by_its_number() {
        let users = "root:x:0:0:root:/:/bin/sh\nbroken\n:x:7:\nada:x:1000:1000:,,,:/:/bin/sh\n";
        assert_eq!(name_of(1000, users).as_deref(), Some("ada"));
        assert_eq!(name_of(0, users).as_deref(), Some("root"));
        for unknown in [7, 1001] {
            assert_eq!(name_of(unknown, users), None);
        }
    }
}

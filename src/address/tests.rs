//! Both kinds of address, in tables of texts.

use super::*;
use secrecy::ExposeSecret as _;
use std::time::Duration;

fn amqp(text: &str) -> AmqpAddress {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn database(text: &str) -> DatabaseAddress {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn o08_an_amqp_address_leads_to_the_hosts_that_it_names() {
    for (text, url) in [
        ("amqp://u:p@h", "amqp://u:p@h:5672/%2F"),
        ("amqp://u:p@h/", "amqp://u:p@h:5672/%2F"),
        ("amqp://u:p@h/%2f", "amqp://u:p@h:5672/%2F"),
        ("amqp://u:p@h//", "amqp://u:p@h:5672/%2F"),
        ("AMQPS://u:p@h/v", "amqps://u:p@h:5671/v"),
        ("amqp://h", "amqp://guest:guest@h:5672/%2F"),
        ("amqp://u:p@[2001:db8::1]:5673/v", "amqp://u:p@[2001:db8::1]:5673/v"),
        ("amqp://u:p@[::1]/v", "amqp://u:p@[::1]:5672/v"),
        ("amqp://u:p@h1,h2:5673,[::1]:5674/v", "amqp://u:p@h1:5672,h2:5673,[::1]:5674/v"),
        (
            "amqp://u%40x:p%3a%2F:%F0%9F%94%91@mq-1.example:1/a%20b/c",
            "amqp://u%40x:p%3A%2F%3A%F0%9F%94%91@mq-1.example:1/a%20b%2Fc",
        ),
        ("amqp://u:pä@h/v", "amqp://u:p%C3%A4@h:5672/v"),
        (
            "amqp://u:p@h/v?heartbeat=5&connection_timeout=3000&channel_max=100&frame_max=131072&auth_mechanism=AMQPLAIN",
            "amqp://u:p@h:5672/v?heartbeat=5&connection_timeout=3000&channel_max=100&frame_max=131072&auth_mechanism=amqplain",
        ),
        ("amqp://u:p@h/v?heartbeat=0&frame_max=0&auth_mechanism=plain", "amqp://u:p@h:5672/v?heartbeat=0&frame_max=0"),
    ] {
        let address = amqp(text);
        assert_eq!(address.url().expose_secret(), url, "{text}");
        assert_eq!(amqp(url).url().expose_secret(), url, "reads back");
    }
    let address = amqp("amqps://u%40x:p%2F@a:1,[::1]:2/v?heartbeat=7&connection_timeout=1500");
    assert!(address.is_tls);
    assert_eq!(address.hosts[1], HostPort { host: "::1".to_owned(), port: 2 });
    assert_eq!((address.user.as_str(), address.password.expose_secret()), ("u@x", "p/"));
    assert_eq!((address.heartbeat_s, address.connection_timeout), (Some(7), Some(Duration::from_millis(1500))));
    assert_eq!(
        address.with_vhost("w").url().expose_secret(),
        "amqps://u%40x:p%2F@a:1,[::1]:2/w?heartbeat=7&connection_timeout=1500"
    );
}

/// Both kinds read hosts and credentials in the same way. Each row has a text without its scheme, and a part of the fault.
const BAD_PLACES: [(&str, &str); 31] = [
    ("", "must name a host"),
    ("/hunter2", "must name a host"),
    ("u:hunter2@", "must name a host"),
    ("u:hunter2@/v", "must name a host"),
    (":hunter2@h/v", "a password and no user"),
    ("u:hunter2@h1,/v", "host, number 2, that is empty"),
    ("u:hunter2@,h2/v", "host, number 1, that is empty"),
    ("u:hunter2@:5672/v", "host, number 1, that is empty"),
    ("u:hunter2@h:0/v", "port, of host number 1,"),
    ("u:hunter2@a,h:65536/v", "port, of host number 2,"),
    ("u:hunter2@h:/v", "port, of host number 1,"),
    ("u:hunter2@h:+1/v", "port, of host number 1,"),
    ("u:hunter2@h:x/v", "port, of host number 1,"),
    ("u:hunter2@2001:db8::1/v", "several colons"),
    ("u:hunter2@[2001:db8::1/v", "closing bracket"),
    ("u:hunter2@[2001:db8::g]/v", "no IPv6 address"),
    ("u:hunter2@[fe80::1%25eth0]/v", "no IPv6 address"),
    ("u:hunter2@[127.0.0.1]/v", "no IPv6 address"),
    ("u:hunter2@[::1]5672/v", "between ] and the port"),
    ("u:hunter2@127.1/v", "looks like an IP address"),
    ("u:hunter2@2130706433/v", "looks like an IP address"),
    ("u:hunter2@0x7f000001/v", "looks like an IP address"),
    ("u:hunter2@ho st/v", "neither a name nor an IP address"),
    ("u:hunter2@h%61st/v", "neither a name nor an IP address"),
    ("u:hun@ter2@h/v", "an @ where none may be"),
    ("u:12/hunter2@h/v", "an @ where none may be"),
    ("u:12?hunter2@h/v", "an @ where none may be"),
    ("u:hunter2#@h/v", "a # where none may be"),
    ("u:hunter2\n@h/v", "control character"),
    ("u:%ff@h/v", "a password that is not UTF-8"),
    ("u:hunter2%@h/v", "a % in the password that is not followed by two"),
];

fn fault<T: std::str::FromStr<Err = AddressError>>(text: &str, part: &str) {
    let Err(error) = text.parse::<T>() else { panic!("{text} is taken") };
    let told = error.to_string();
    assert!(told.contains(part), "{text}: {told}");
    assert!(!format!("{told} {error:?}").contains("hunter2"), "{text}: {told}");
}

#[test]
fn o15_what_is_no_address_is_refused_without_being_shown() {
    for (rest, part) in BAD_PLACES {
        fault::<AmqpAddress>(&format!("amqp://{rest}"), part);
        fault::<AmqpAddress>(&format!("amqps://{rest}"), part);
        fault::<DatabaseAddress>(&format!("postgres://{rest}"), part);
        fault::<DatabaseAddress>(&format!("postgresql://{rest}"), part);
    }
    for text in ["hunter2", "http://u:hunter2@h/v", "amqp:u:hunter2@h", "", "://hunter2"] {
        fault::<AmqpAddress>(text, "must be a URL that begins with amqp:// or amqps://");
        fault::<DatabaseAddress>(text, "must be a URL that begins with postgres:// or postgresql://");
    }
    for (text, part) in [
        (
            "amqp://u:p@1.example,2.a,3.a,4.a,5.a,6.a,7.a,8.a,9.a,10.a,11.a,12.a,13.a,14.a,15.a,16.a,17.a",
            "number 17, that is one too many",
        ),
        ("amqp://u@hunter2/v", "a user and no password"),
        ("amqp://u:@hunter2/v", "a user and no password"),
        ("amqp://u%00:hunter2@h/v", "a user that is not UTF-8"),
        ("amqp://u:hunter2@h/%fe", "a virtual host that is not UTF-8"),
        (
            "amqp://u:p@h/v?heartbeat=hunter2",
            "parameter heartbeat that must be a whole number from 0 to 65535, in seconds",
        ),
        ("amqp://u:p@h/v?heartbeat=", "parameter heartbeat"),
        ("amqp://u:p@h/v?heartbeat", "parameter heartbeat"),
        ("amqp://u:p@h/v?heartbeat=-1", "parameter heartbeat"),
        ("amqp://u:p@h/v?heartbeat=65536", "parameter heartbeat"),
        ("amqp://u:p@h/v?heartbeat=1&heartbeat=2", "heartbeat twice"),
        ("amqp://u:p@h/v?heartbeat=+1", "a + in the parameter heartbeat"),
        ("amqp://u:p@h/v?heartbeat=%ff", "a parameter heartbeat that is not UTF-8"),
        ("amqp://u:p@h/v?connection_timeout=0", "parameter connection_timeout"),
        ("amqp://u:p@h/v?channel_max=65536", "parameter channel_max"),
        ("amqp://u:p@h/v?channel_max=31", "parameter channel_max that must be a whole number from 32"),
        ("amqp://u:p@h/v?frame_max=8191", "parameter frame_max that must be a whole number from 8192"),
        ("amqp://u:p@h/v?auth_mechanism=hunter2", "must be plain or amqplain"),
        ("amqp://u:p@h/v?auth_mechanism=external", "must be plain or amqplain"),
        ("amqp://u:p@h/v?heartbeat=1&hunter2=1", "number 2 after the ?, that is unknown; known are heartbeat,"),
        ("amqp://u:12?hunter2", "number 1 after the ?, that is unknown"),
        ("amqps://u:p@h/v?cacertfile=hunter2", "cacertfile, which is not supported"),
        ("amqps://u:p@h/v?password=hunter2", "password, which is not supported"),
    ] {
        fault::<AmqpAddress>(text, part);
    }
    // The limit counts bytes, after decoding.
    for (name, fits) in [("%C3%A4".repeat(127), true), ("%C3%A4".repeat(128), false), ("v".repeat(256), false)] {
        let address = format!("amqp://u:hunter2@h/{name}");
        if fits {
            drop(amqp(&address))
        } else {
            fault::<AmqpAddress>(&address, "a virtual host of more than 255 bytes")
        }
    }
}

#[test]
fn o08_a_database_address_leads_to_the_hosts_that_it_names() {
    for (text, url) in [
        ("postgres://h", "postgres://h:5432/?sslmode=prefer"),
        ("postgresql://u:p@h/db", "postgres://u:p@h:5432/db?sslmode=prefer"),
        ("postgres://u@h/db", "postgres://u@h:5432/db?sslmode=prefer"),
        ("postgres://u:@h/db", "postgres://u@h:5432/db?sslmode=prefer"),
        ("postgres://u:p@[::1]:5433/db", "postgres://u:p@[::1]:5433/db?sslmode=prefer"),
        (
            "postgres://u:p%40@h1:5432,h2,[2001:db8::1]:5433/a%2Fb?sslmode=disable&target_session_attrs=read-write",
            "postgres://u:p%40@h1:5432,h2:5432,[2001:db8::1]:5433/a%2Fb?sslmode=disable&target_session_attrs=read-write",
        ),
        ("postgres://u:p@h1,h2/db?port=1,2", "postgres://u:p@h1:1,h2:2/db?sslmode=prefer"),
        (
            "postgres:///?host=h1,::1&port=7&user=u&password=p%2B&dbname=d",
            "postgres://u:p%2B@h1:7,[::1]:7/d?sslmode=prefer",
        ),
        ("postgres:///db?hostaddr=10.0.0.1", "postgres://10.0.0.1:5432/db?sslmode=prefer"),
        ("postgres:///db?host=/run/postgresql", "postgres://%2Frun%2Fpostgresql:5432/db?sslmode=prefer"),
        ("postgres://u@%2Frun%2Fpostgresql/db", "postgres://u@%2Frun%2Fpostgresql:5432/db?sslmode=prefer"),
        (
            "postgres://h/db?sslmode=Verify-Full&sslrootcert=/ca.pem",
            "postgres://h:5432/db?sslmode=verify-full&sslrootcert=%2Fca.pem",
        ),
        // A URL that names the issuers also wants them checked.
        ("postgres://h/db?sslmode=require&sslrootcert=/ca", "postgres://h:5432/db?sslmode=verify-ca&sslrootcert=%2Fca"),
        ("postgres://h/db?sslrootcert=system", "postgres://h:5432/db?sslmode=verify-full"),
        ("postgres://h/db?sslmode=allow", "postgres://h:5432/db?sslmode=prefer"),
        ("postgres://h/db?sslcert=/c&sslkey=/k", "postgres://h:5432/db?sslmode=prefer&sslcert=%2Fc&sslkey=%2Fk"),
        (
            "postgres://h/db?connect_timeout=3&application_name=a%20b&statement-cache-capacity=0",
            "postgres://h:5432/db?sslmode=prefer&connect_timeout=3&application_name=a%20b&statement-cache-capacity=0",
        ),
        ("postgres://h/db?connect_timeout=0", "postgres://h:5432/db?sslmode=prefer"),
        (
            "postgres://h/db?channel_binding=prefer&gssencmode=disable&client_encoding=UTF8",
            "postgres://h:5432/db?sslmode=prefer",
        ),
        (
            "postgres://h/db?options=-c%20search_path%3Da%5C%20b%20--work-mem%3D1MB&options[jit]=off",
            "postgres://h:5432/db?sslmode=prefer&options=-c%20jit%3Doff%20-c%20search_path%3Da%5C%20b%20-c%20work_mem%3D1MB",
        ),
    ] {
        assert_eq!(database(text).url().expose_secret(), url, "{text}");
        assert_eq!(database(url).url().expose_secret(), url, "reads back");
    }
    let address = database("postgres://u:p@/db?host=/run/postgresql&options=-csearch_path%3Da%5C%20b");
    assert_eq!(address.hosts, [DatabaseHost::Socket { folder: "/run/postgresql".into(), port: 5432 }]);
    assert_eq!(address.options, [("search_path".to_owned(), "a b".to_owned())]);
    assert!(address.with_database("new").url().expose_secret().contains("/new?"));
}

#[test]
fn o09_parameters_that_a_client_would_skip_and_log_are_refused() {
    for (text, part) in [
        ("postgres://h/db?sslpassword=hunter2", "sslpassword, which is not supported; use a key file without"),
        ("postgres://h/db?sslmode=hunter2", "sslmode that must be disable, prefer, require, verify-ca, verify-full"),
        ("postgres://h/db?sslmode=require&sslmode=disable", "sslmode twice"),
        ("postgres://h/db?sslmode=require&ssl-mode=disable", "sslmode twice"),
        ("postgres://h/db?sslmode=require&sslrootcert=system", "needs sslmode=verify-full"),
        ("postgres://h/db?sslcert=/hunter2", "a sslcert and no sslkey"),
        ("postgres://h/db?sslkey=/hunter2", "a sslkey and no sslcert"),
        ("postgres://h/db?passfile=/hunter2", "passfile, which is not supported"),
        ("postgres://h/db?service=hunter2", "service, which is not supported"),
        ("postgres://h/db?channel_binding=require", "channel_binding that is not disable or prefer"),
        ("postgres://h/db?gssencmode=require", "gssencmode that is not"),
        ("postgres://h/db?load_balance_hosts=random", "load_balance_hosts that is not disable"),
        ("postgres://h/db?keepalives_idle=5", "keepalives_idle, which is not supported"),
        ("postgres://h/db?target_session_attrs=standby", "target_session_attrs that must be any, read-write"),
        ("postgres://h/db?connect_timeout=soon", "connect_timeout that must be"),
        ("postgres://h/db?statement-cache-capacity=-1", "statement-cache-capacity that must be"),
        ("postgres://h/db?pgbouncer=hunter2", "number 1 after the ?, that is unknown; known are host,"),
        ("postgres://h/db?hunter2", "number 1 after the ?, that is unknown"),
        ("postgres://h/db?options=hunter2", "options that must be -c name=value"),
        ("postgres://h/db?options=-c%20hunter2", "options that must be -c name=value"),
        ("postgres://h/db?options=-c", "options that must be -c name=value"),
        ("postgres://h/db?options[a%20b]=hunter2", "options that must name a setting"),
        ("postgres://h/db?application_name=a+b", "a + in the parameter application_name"),
        ("postgres://u:p@h/db?password=hunter2", "password twice"),
        ("postgres://u:p@h/db?user=hunter2", "user twice"),
        ("postgres://u:p@h/db?dbname=hunter2", "dbname twice"),
        ("postgres://h/db?host=hunter2", "host twice"),
        ("postgres://h/db?hostaddr=10.0.0.1", "hostaddr twice"),
        ("postgres://h:1/db?port=2", "port twice"),
        ("postgres:///db?host=h&hostaddr=10.0.0.1", "hostaddr, which is not supported"),
        ("postgres:///db?hostaddr=hunter2", "given as hostaddr"),
        ("postgres:///db?host=h&port=0", "port, of host number 1"),
        ("postgres:///db?host=a,b,c&port=1,2", "another number of ports"),
        ("postgres:///hunter2", "must name a host"),
        ("postgres://h/%ff", "a database that is not UTF-8"),
        ("postgres://h/db?password=%ff", "a parameter password that is not UTF-8"),
        ("postgres://h/db?password=hunter2", "a password and no user"),
    ] {
        fault::<DatabaseAddress>(text, part);
    }
}

#[test]
fn what_a_database_address_leaves_out_comes_from_libpqs_variables() {
    let variable = |name: &str| {
        let known =
            [("PGHOST", "a,b"), ("PGPORT", "7"), ("PGUSER", "u"), ("PGPASSWORD", "p"), ("PGSSLMODE", "require")];
        known.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    for (text, url) in [
        ("postgres:///db", "postgres://u:p@a:7,b:7/db?sslmode=require"),
        ("postgres://v:w@h:1/db?sslmode=disable", "postgres://v:w@h:1/db?sslmode=disable"),
        ("postgres:///db?hostaddr=10.0.0.1", "postgres://u:p@10.0.0.1:7/db?sslmode=require"),
    ] {
        assert_eq!(DatabaseAddress::parse(text, variable).unwrap().url().expose_secret(), url, "{text}");
    }
    let wrong = |name: &str| Some("verify-ful".to_owned()).filter(|_| name == "PGSSLMODE");
    let told = DatabaseAddress::parse("postgres://h/db", wrong).unwrap_err().to_string();
    assert!(told.contains("PGSSLMODE that must be disable"), "{told}");
}

#[test]
fn debug_shows_hosts_alone() {
    let shown = format!(
        "{:?} {:?}",
        amqp("amqp://hunter2:hunter2@h1/hunter2"),
        database("postgres://hunter2:hunter2@h2/hunter2")
    );
    assert!(!shown.contains("hunter2") && shown.contains("h1") && shown.contains("h2"), "{shown}");
}

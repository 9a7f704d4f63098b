//! How a process ends: its exit code, and the code of an error, which leads to `docs/errors.md`.

named! {
    /// How a process ends. The first paragraph of each stands in the help.
    pub enum Exit {
        /// Done
        Done = "done",
        /// The command ran and found a fault
        Fault = "fault",
        /// Bad usage or configuration
        Usage = "usage",
        /// A dependency is out of reach
        Unreachable = "unreachable",
        /// The process was told twice to stop (SIGTERM or SIGINT), and did not finish what was under way
        StoppedAtOnce = "stopped_at_once",
        /// The reader of standard output went away before everything was written, as `head` does.
        ///
        /// Any other output that cannot be written (a full disk) is 1
        ReaderGone = "reader_gone",
    }
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Fault => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::StoppedAtOnce => 130,
            Self::ReaderGone => 141,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

named! {
    /// The code of an error that an operator sees. The names are public. The first paragraph says what the code means, the second
    /// one what to do; `docs/errors.md` has the same words.
    pub enum Code {
        /// The command line asks for something that cannot be.
        ///
        /// Read the message, and `grantonce COMMAND --help`.
        UsageInvalid = "usage.invalid",
        /// A variable that the role requires is not set.
        ///
        /// Set it, or its `_FILE` form if it is a secret.
        ConfigMissing = "config.missing",
        /// A variable has a value that cannot work, or two variables contradict each other.
        ///
        /// Correct the value. The message says what it must be, and `grantonce --help-config` has an example.
        ConfigInvalid = "config.invalid",
        /// A variable's name begins with `GRANTONCE_`, and there is no such variable.
        ///
        /// Correct the name, or remove the variable.
        ConfigUnknown = "config.unknown",
        /// The file that a `_FILE` variable names cannot be read, is empty or is too large.
        ///
        /// Check the path, the mount, and the rights of the file.
        ConfigSecretFile = "config.secret_file",
        /// The process cannot listen at an address.
        ///
        /// Find the process that uses the port, or change the `_ADDR` variable.
        ConfigAddress = "config.address",
        /// A key, a certificate or an address of a provider cannot be used.
        ///
        /// Read the message, and correct the variables of that provider.
        ConfigProvider = "config.provider",
        /// A connection pooler in front of Postgres shares sessions between clients.
        ///
        /// Use session pooling, or connect to Postgres itself. See [deployment](deployment.md).
        PostgresPooler = "postgres.pooler",
        /// Postgres does not answer, refuses the connection, or is too busy.
        ///
        /// Check that it runs, and check `DATABASE_URL`. Then run the command again: it is safe.
        PostgresUnreachable = "postgres.unreachable",
        /// Postgres refuses a statement, or a row cannot be read.
        ///
        /// Run `grantonce check` for the role: it finds missing rights and an old schema. If it finds nothing, the log has the
        /// cause.
        PostgresRefused = "postgres.refused",
        /// Postgres is older than grantonce needs.
        ///
        /// Upgrade Postgres to 15 or newer.
        PostgresVersion = "postgres.version",
        /// The schema and the program are not of the same release, or a table is missing.
        ///
        /// If a migration is missing, run `grantonce migrate`. If the schema is newer, deploy the newer program. If a table was
        /// dropped, restore it from a backup.
        PostgresSchema = "postgres.schema",
        /// The database user lacks a right.
        ///
        /// Apply `deploy/postgres-roles.sql`, or grant the right that the message names.
        PostgresRights = "postgres.rights",
        /// Postgres takes no writes here: it is a standby, or transactions are read-only.
        ///
        /// Name the primary in `DATABASE_URL`, or reset `default_transaction_read_only`.
        PostgresReadOnly = "postgres.read_only",
        /// A commit waits, for example for a synchronous standby.
        ///
        /// Look at `pg_stat_replication` and `SHOW synchronous_standby_names`.
        PostgresCommit = "postgres.commit",
        /// A setting of Postgres can lose what was committed, or overrules a deadline.
        ///
        /// Set it as the message says.
        PostgresSetting = "postgres.setting",
        /// Nearly all connections to Postgres are in use.
        ///
        /// Raise `max_connections` or the `CONNECTION LIMIT`, or end the sessions that hold connections.
        PostgresConnections = "postgres.connections",
        /// RabbitMQ does not answer, or refuses the connection.
        ///
        /// Check that it runs, and check `AMQP_URL`. Then run the command again: it is safe.
        RabbitmqUnreachable = "rabbitmq.unreachable",
        /// RabbitMQ is older than grantonce needs.
        ///
        /// Upgrade RabbitMQ to the version that the message names.
        RabbitmqVersion = "rabbitmq.version",
        /// RabbitMQ has an alarm: memory or disk space runs out, and it takes no messages.
        ///
        /// Look at `rabbitmq-diagnostics alarms`, and give the server memory or disk space.
        RabbitmqAlarm = "rabbitmq.alarm",
        /// The cluster is partitioned, or a queue has lost its quorum.
        ///
        /// Heal the network, and start the nodes that are down.
        RabbitmqCluster = "rabbitmq.cluster",
        /// An exchange, a queue or a binding is missing.
        ///
        /// Run `grantonce migrate`.
        RabbitmqMissing = "rabbitmq.missing",
        /// An exchange or a queue has another type or other arguments than `migrate` gives it.
        ///
        /// Drain the queue, delete it, and run `grantonce migrate`.
        RabbitmqDifferent = "rabbitmq.different",
        /// A policy can drop, divert or refuse messages about money.
        ///
        /// Clear the policy, or give it a pattern that leaves grantonce's queues out.
        RabbitmqPolicy = "rabbitmq.policy",
        /// The RabbitMQ user lacks a right.
        ///
        /// Set its permissions with `deploy/rabbitmq-permissions.sh`.
        RabbitmqRights = "rabbitmq.rights",
        /// RabbitMQ's HTTP API does not answer, or refuses the user.
        ///
        /// Check `GRANTONCE_MANAGEMENT_URL`, and that the management plugin is on.
        ManagementUnreachable = "management.unreachable",
        /// The clock of this machine and that of a server differ.
        ///
        /// Set both with NTP.
        ClockDiffers = "clock.differs",
        /// `dlq peek` did not look, because RabbitMQ could delete a letter that is looked at.
        ///
        /// Run `grantonce migrate`, and remove policies on `fulfilment.dead`. `dlq list` shows the letters that `ops` has collected.
        PeekUnsafe = "peek.unsafe",
        /// The ledger breaks an invariant.
        ///
        /// Do not change rows by hand. Run `grantonce explain` for each order in the output, and report it.
        LedgerBroken = "ledger.broken",
        /// A listener of a role ended by itself.
        ///
        /// Restart the process. The log before this line has the cause.
        RoleStopped = "role.stopped",
        /// Standard output did not take the result.
        ///
        /// Free disk space, or check where the output goes. Then run the command again.
        OutputFailed = "output.failed",
        /// The process could not set up signals, threads or its log.
        ///
        /// Check the limits of the process, such as `ulimit -a`.
        ProcessFailed = "process.failed",
    }
}

impl Code {
    /// How a command ends that cannot go on because of it.
    pub fn exit(self) -> Exit {
        match self {
            Self::UsageInvalid
            | Self::ConfigMissing
            | Self::ConfigInvalid
            | Self::ConfigUnknown
            | Self::ConfigSecretFile
            | Self::ConfigAddress
            | Self::ConfigProvider
            | Self::PostgresPooler => Exit::Usage,
            Self::PostgresUnreachable | Self::RabbitmqUnreachable | Self::ManagementUnreachable => Exit::Unreachable,
            Self::PostgresRefused
            | Self::PostgresVersion
            | Self::PostgresSchema
            | Self::PostgresRights
            | Self::PostgresReadOnly
            | Self::PostgresCommit
            | Self::PostgresSetting
            | Self::PostgresConnections
            | Self::RabbitmqVersion
            | Self::RabbitmqAlarm
            | Self::RabbitmqCluster
            | Self::RabbitmqMissing
            | Self::RabbitmqDifferent
            | Self::RabbitmqPolicy
            | Self::RabbitmqRights
            | Self::ClockDiffers
            | Self::PeekUnsafe
            | Self::LedgerBroken
            | Self::RoleStopped
            | Self::OutputFailed
            | Self::ProcessFailed => Exit::Fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_codes_are_public() {
        assert_eq!(Exit::ALL.map(Exit::code), [0, 1, 2, 3, 130, 141]);
    }

    #[test]
    fn every_code_says_what_it_means_and_what_to_do() {
        for code in Code::ALL {
            let paragraphs = code.doc();
            assert!(
                paragraphs.len() == 2 && paragraphs.iter().all(|text| text.ends_with('.')),
                "{code}: {paragraphs:?}"
            );
            assert!(code.name().split_once('.').is_some_and(|(group, rest)| !group.is_empty() && !rest.is_empty()));
        }
    }
}

//! The roles: what a process is started as, whose configuration it reads, and whose rights it has.

named! {
    /// What a process is started as. A role decides which variables are read and required, what a process needs of Postgres and
    /// RabbitMQ, and which rights its users have there.
    #[derive(PartialOrd, Ord)]
    pub enum Role {
        /// Sets up the schema in Postgres and the topology in RabbitMQ.
        Migrate = "migrate",
        /// Takes webhooks and publishes them.
        Receiver = "receiver",
        /// Applies messages, and is the only one that grants.
        Worker = "worker",
        /// Serves orders, their status, and balances.
        Api = "api",
        /// Asks providers about payments.
        Reconciler = "reconciler",
        /// Collects dead letters, replays them, and serves the console.
        Ops = "ops",
        /// Runs the five roles above, from receiver to ops, in one process.
        All = "all",
        /// Works on dead letters by hand.
        Dlq = "dlq",
        /// Works on single orders by hand.
        Orders = "orders",
        /// Compares the servers with what a role needs.
        Check = "check",
        /// Checks the ledger, and tells the story of an order.
        Verify = "verify",
    }
}

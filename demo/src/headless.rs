//! Many orders at once, from the payment to the credits, as sites and buyers would: some orders come after their
//! webhooks, some buyers never pay, and of some payments no webhook ever comes.

use crate::api::{Api, ApiError, NewOrder, OrderView};
use crate::plan::OrderPlan;
use futures_util::StreamExt;
use grantonce_testkit::OrderId;
use grantonce_testkit::lock;
use grantonce_testkit::provider::payment::{Outcome, Status, money};
use grantonce_testkit::provider::{Provider, ProviderError};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How many orders are under way at the same time.
const IN_FLIGHT_MAX: usize = 64;

/// The same for a shop with a pace: so many that only a system that stands still holds it up.
const IN_FLIGHT_AT_A_PACE_MAX: usize = 1024;

/// How long each step may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    /// Placing an order, the retries included.
    pub(crate) place: Duration,
    /// From the buyer's payment until the credits are there.
    pub(crate) fulfil: Duration,
    /// After so many orders that did not come to their end, the rest is not tried: the run could not end in time.
    pub(crate) unfinished_max: u32,
}

impl Deadlines {
    /// Far above what a healthy system needs, worker restarts included.
    pub(crate) const DEMO: Self =
        Self { place: Duration::from_secs(60), fulfil: Duration::from_secs(120), unfinished_max: 100 };

    /// Where some payments are found only because somebody asks for them, one by one.
    pub(crate) const DEMO_WITH_SILENCE: Self = Self { fulfil: Duration::from_secs(600), ..Self::DEMO };
}

/// Why an order did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfinished {
    #[error("the simulated provider: {0}")]
    Provider(#[from] ProviderError),
    #[error("the order's terms: {0}")]
    Terms(#[from] grantonce_testkit::money::MoneyError),
    #[error("no webhook was accepted within {} s{}", deadline.as_secs(), last.as_ref().map(|last| format!("; last: {last}")).unwrap_or_default())]
    NotHeard { deadline: Duration, last: Option<String> },
    #[error("placing it: {0}")]
    Place(#[source] ApiError),
    #[error("the order was made without a payment")]
    NoPayment,
    #[error("the same idempotency key gave two orders, {first} and {second}")]
    TwoOrders { first: OrderId, second: OrderId },
    #[error("waiting for its credits: {0}")]
    Wait(#[source] ApiError),
    #[error("not tried: too many orders before it did not come to their end")]
    NotTried,
}

/// What became of one order.
#[derive(Debug)]
pub(crate) struct Sold {
    pub(crate) plan: OrderPlan,
    pub(crate) payment_id: Option<String>,
    pub(crate) order_id: Option<OrderId>,
    /// The buyer has paid: from here on the credits are owed.
    pub(crate) is_paid: bool,
    /// Its credits were seen.
    pub(crate) is_fulfilled: bool,
    /// First webhook that says "paid" sent → fulfilled seen; only of those of which one was sent.
    pub(crate) latency: Option<Duration>,
    pub(crate) unfinished: Option<Unfinished>,
}

impl Sold {
    /// An order of which nothing has happened yet.
    pub(crate) fn new(plan: OrderPlan) -> Self {
        Self {
            plan,
            payment_id: None,
            order_id: None,
            is_paid: false,
            is_fulfilled: false,
            latency: None,
            unfinished: None,
        }
    }

    /// What the ledger has to hold for it.
    pub(crate) fn credits_due(&self) -> i64 {
        if self.is_paid { self.plan.credits } else { 0 }
    }
}

/// A run's orders, and how long they took altogether.
#[derive(Debug)]
pub(crate) struct Sales {
    pub(crate) sold: Vec<Sold>,
    pub(crate) elapsed: Duration,
    /// When the last order was placed whose webhooks had come before it.
    pub(crate) last_overtaken_at: Option<Instant>,
}

/// Sells orders to simulated buyers.
pub(crate) struct Shop<'a> {
    pub(crate) provider: &'a Provider,
    pub(crate) api: &'a Api,
    pub(crate) deadlines: Deadlines,
    pub(crate) seed: u64,
    pub(crate) orders: u32,
    /// Share of the payments whose webhooks are never sent, 0 to 1.
    pub(crate) silence: f64,
    /// Whether the API can create payments at the provider.
    pub(crate) can_create: bool,
    /// When the next order is sold. None: as soon as fewer than [`IN_FLIGHT_MAX`] are under way.
    pub(crate) pace: Option<Duration>,
}

impl Shop<'_> {
    /// Sells all orders, each to its end.
    pub(crate) async fn sell(&self, progress: &ProgressBar) -> Sales {
        let started = Instant::now();
        let unfinished = AtomicU32::new(0);
        let last_overtaken_at = Mutex::new(None);
        let sold = futures_util::stream::iter(0..self.orders)
            .then(|index| async move {
                // An order that is late does not hold up the ones after it.
                sleep_until(started + self.pace.unwrap_or_default() * index).await;
                index
            })
            .map(|index| {
                let (unfinished, last_overtaken_at) = (&unfinished, &last_overtaken_at);
                async move {
                    let plan = OrderPlan::new(self.seed, index, self.orders).with_silence(self.silence);
                    let plan = if self.can_create { plan.with_creation() } else { plan };
                    let plan = if self.pace.is_some() { plan.in_order() } else { plan };
                    let mut sold = Sold::new(plan);
                    let ended = if unfinished.load(Ordering::Relaxed) >= self.deadlines.unfinished_max {
                        Err(Unfinished::NotTried)
                    } else {
                        self.sell_one(index, &mut sold, last_overtaken_at).await
                    };
                    if let Err(why) = ended {
                        unfinished.fetch_add(1, Ordering::Relaxed);
                        sold.unfinished = Some(why);
                    }
                    progress.inc(1);
                    sold
                }
            })
            .buffer_unordered(if self.pace.is_some() { IN_FLIGHT_AT_A_PACE_MAX } else { IN_FLIGHT_MAX })
            .collect()
            .await;
        Sales { sold, elapsed: started.elapsed(), last_overtaken_at: *lock(&last_overtaken_at) }
    }

    async fn sell_one(
        &self,
        index: u32,
        sold: &mut Sold,
        last_overtaken_at: &Mutex<Option<Instant>>,
    ) -> Result<(), Unfinished> {
        let plan = sold.plan.clone();
        if plan.is_created {
            return self.sell_created(index, sold).await;
        }
        let money = money(plan.amount_minor, plan.currency)?;
        let payment_id = self.provider.create(plan.seller, money, None, Some(plan.payment_seed))?.id;
        sold.payment_id = Some(payment_id.clone());
        if plan.is_silent {
            self.provider.silence(&payment_id)?;
        }

        // The webhooks come before the order: the worker has to keep them until it knows what they are about.
        if let (true, Some(outcome)) = (plan.is_overtaken, plan.outcome) {
            self.pay(sold, &payment_id, outcome)?;
            let deadline = self.deadlines.place;
            if !self.provider.is_heard(&payment_id, deadline).await? {
                return Err(Unfinished::NotHeard { deadline, last: self.provider.last_trouble() });
            }
        }

        let order = self.place(index, &plan, Some(&payment_id)).await?;
        sold.order_id = Some(order.id);
        if plan.is_overtaken {
            *lock(last_overtaken_at) = Some(Instant::now());
        }

        if let (false, Some(outcome)) = (plan.is_overtaken, plan.outcome) {
            if plan.tells_order_id {
                self.provider
                    .attach(&payment_id, grantonce_testkit::provider::Metadata { order_id: Some(order.id) })?;
            }
            self.pay(sold, &payment_id, outcome)?;
        }
        self.wait(sold, &payment_id, order).await
    }

    /// One whose payment is created with it. Whatever goes wrong with that call, the site repeats its own.
    async fn sell_created(&self, index: u32, sold: &mut Sold) -> Result<(), Unfinished> {
        let plan = sold.plan.clone();
        let order = self.place(index, &plan, None).await?;
        sold.order_id = Some(order.id);
        let payment_id = order.payment.as_ref().and_then(|payment| payment.payment_id.clone());
        let payment_id = payment_id.ok_or(Unfinished::NoPayment)?;
        sold.payment_id = Some(payment_id.clone());
        self.provider.reseed(&payment_id, plan.payment_seed)?;
        // The buyer may have been faster than the answer to the call that created it.
        sold.is_paid = self.provider.known(&payment_id)?.state.status == Status::Succeeded;
        if let (false, Some(outcome)) = (sold.is_paid, plan.outcome) {
            self.pay(sold, &payment_id, outcome)?;
        }
        self.wait(sold, &payment_id, order).await
    }

    /// Waits for the credits of an order that is paid.
    async fn wait(&self, sold: &mut Sold, payment_id: &str, order: OrderView) -> Result<(), Unfinished> {
        if sold.is_paid {
            self.api.fulfilled(order, self.deadlines.fulfil).await.map_err(Unfinished::Wait)?;
            sold.is_fulfilled = true;
            let sent_at = self.provider.payment(payment_id)?.webhooks.paid_sent_at;
            sold.latency = sent_at.map(|sent_at| sent_at.elapsed());
        }
        Ok(())
    }

    fn pay(&self, sold: &mut Sold, payment_id: &str, outcome: Outcome) -> Result<(), Unfinished> {
        self.provider.pay(payment_id, outcome)?;
        sold.is_paid = outcome == Outcome::Succeeded;
        Ok(())
    }

    async fn place(&self, index: u32, plan: &OrderPlan, payment_id: Option<&str>) -> Result<OrderView, Unfinished> {
        let new = NewOrder {
            account_id: &plan.account_id,
            credits: plan.credits,
            amount_minor: plan.amount_minor,
            currency: plan.currency,
            provider: plan.seller.name(),
            payment_id,
            metadata: serde_json::json!({"demo": index}),
        };
        let key = format!("demo-{}-{index}", self.seed);
        let order = self.api.place(&key, &new, self.deadlines.place).await.map_err(Unfinished::Place)?;
        if plan.is_placed_twice {
            let again = self.api.place(&key, &new, self.deadlines.place).await.map_err(Unfinished::Place)?;
            if again.id != order.id {
                return Err(Unfinished::TwoOrders { first: order.id, second: again.id });
            }
        }
        Ok(order)
    }
}

/// A progress bar on stderr where that is a terminal, else one that nobody sees.
pub(crate) fn progress_bar(orders: u32, is_terminal: bool) -> ProgressBar {
    let target = if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(u64::from(orders)), target);
    // The fallback is indicatif's own style: a bar all the same.
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} orders, {per_sec}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style)
}

#[cfg(test)]
mod tests;

//! Reads the rows of a story, table by table.

use super::find::Keys;
use crate::domain::Order;
use crate::domain::story::{
    AdjustmentRecord, AdmittedRecord, AttemptRecord, AuditRecord, GrantRecord, LetterRecord, LookRecord, NoteRecord,
    OrderRecord, PaymentRecord, Records, ReplayRecord, SubjectKind,
};
use crate::store::error::StoreError;
use crate::store::order_row::order_row;
use crate::store::tx::Tx;

use std::collections::BTreeSet;
use uuid::Uuid;

/// The largest number of rows that are read from each table. The newest ones are read. An order has about 3,000 facts.
const ROWS_MAX: i64 = 5_000;

/// The keys of a story's rows, once its orders are known.
struct Found {
    orders: Vec<Uuid>,
    letters: Vec<Uuid>,
    messages: Vec<String>,
    payments: Vec<String>,
    /// The providers of the payments. If no order is known, all providers count.
    providers: Option<Vec<String>>,
}

impl Tx {
    /// Reads all rows about the things that were found. For an account it reads no messages of its orders, and nothing else
    /// that only the story of one order tells.
    pub(super) async fn read_records(&mut self, kind: SubjectKind, keys: Keys) -> Result<Records, StoreError> {
        let mut records = Records {
            orders: self.read_orders(&keys.orders).await?,
            payments: self.read_payments(&keys.orders).await?,
            attempts: self.read_attempts(&keys.orders).await?,
            grants: self.read_grants(&keys.orders).await?,
            adjustments: self.read_adjustments(&keys.orders).await?,
            ..Records::default()
        };
        if kind != SubjectKind::Account {
            records.admitted = self.read_inbox(&keys.orders).await?;
            records.inbox_since = self.inbox_since().await?;
        }
        let providers: BTreeSet<_> =
            records.orders.iter().map(|record| record.order.provider.as_str().to_owned()).collect();
        let payments: Vec<String> =
            records.payments.iter().map(|payment| payment.payment_id.clone()).chain(keys.payments).collect();
        let found = Found {
            orders: keys.orders,
            letters: keys.letters,
            messages: keys.messages,
            payments,
            providers: (!providers.is_empty()).then(|| providers.into_iter().collect()),
        };
        records.notes = self.read_notes(&found).await?;
        records.letters = self.read_letters(&found).await?;
        let letters: Vec<Uuid> = records.letters.iter().map(|letter| letter.id).collect();
        records.replays = self.read_replays(&letters).await?;
        records.looks = self.read_looks(&found).await?;
        let mut subjects: BTreeSet<String> =
            records.orders.iter().map(|record| record.order.account_id.as_str().to_owned()).collect();
        subjects.extend(keys.account);
        if kind != SubjectKind::Account {
            subjects.extend(found.orders.iter().map(Uuid::to_string));
            subjects.extend(letters.iter().map(|id| format!("letter {id}")));
        }
        records.audit = self.read_audit(subjects.into_iter().collect()).await?;
        records.cut = cut(&records);
        Ok(records)
    }

    async fn read_orders(&mut self, ids: &[Uuid]) -> Result<Vec<OrderRecord>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT id, account_id, credits, amount_minor, currency, price_terms, discount_max_minor, provider,
                      provider_account, status, is_granted, credits_granted, revision, facts::text AS "facts!", created_at, updated_at
               FROM orders WHERE id = ANY($1)"#,
            ids
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("reading orders"))?;
        rows.into_iter()
            .map(|row| {
                let order = Order::try_from(order_row!(row))?;
                Ok(OrderRecord { order, created_at: row.created_at, updated_at: row.updated_at })
            })
            .collect()
    }

    async fn read_payments(&mut self, orders: &[Uuid]) -> Result<Vec<PaymentRecord>, StoreError> {
        sqlx::query_as!(
            PaymentRecord,
            r#"SELECT order_id, provider, provider_account, payment_id, registered_at FROM payments
               WHERE order_id = ANY($1) ORDER BY registered_at DESC LIMIT $2"#,
            orders,
            ROWS_MAX
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("reading payments"))
    }

    async fn read_attempts(&mut self, orders: &[Uuid]) -> Result<Vec<AttemptRecord>, StoreError> {
        sqlx::query_as!(
            AttemptRecord,
            r#"SELECT order_id, number, first_sent_at, last_sent_at, is_burnt, payment_id
               FROM payment_attempts WHERE order_id = ANY($1) ORDER BY first_sent_at DESC LIMIT $2"#,
            orders,
            ROWS_MAX
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("reading payment attempts"))
    }

    async fn read_grants(&mut self, orders: &[Uuid]) -> Result<Vec<GrantRecord>, StoreError> {
        sqlx::query_as!(
            GrantRecord,
            r#"SELECT order_id, account_id, credits, message_id, granted_at AS at
               FROM credit_grants WHERE order_id = ANY($1)"#,
            orders
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("reading grants"))
    }

    async fn read_adjustments(&mut self, orders: &[Uuid]) -> Result<Vec<AdjustmentRecord>, StoreError> {
        sqlx::query_as!(
            AdjustmentRecord,
            r#"SELECT order_id, revision, credits, reason, message_id, created_at AS at
               FROM credit_adjustments WHERE order_id = ANY($1) ORDER BY created_at DESC, revision DESC LIMIT $2"#,
            orders,
            ROWS_MAX
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("reading adjustments"))
    }

    /// The rows are read order by order, because a block range index searches for one order at a time.
    async fn read_inbox(&mut self, orders: &[Uuid]) -> Result<Vec<AdmittedRecord>, StoreError> {
        let mut all = vec![];
        for order in orders {
            let rows = sqlx::query_as!(
                AdmittedRecord,
                r#"SELECT message_id, order_id, said, admitted_at FROM inbox
                   WHERE order_id = $1 ORDER BY admitted_at DESC, message_id DESC LIMIT $2"#,
                order,
                ROWS_MAX
            )
            .fetch_all(self.connection())
            .await
            .map_err(StoreError::sql("reading the inbox"))?;
            all.extend(rows);
        }
        Ok(all)
    }

    async fn inbox_since(&mut self) -> Result<Option<time::Date>, StoreError> {
        sqlx::query_scalar!(
            "SELECT min(to_date(right(c.relname, 8), 'YYYYMMDD'))
             FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent = 'inbox'::regclass AND c.relname ~ '^inbox_[0-9]{8}$'"
        )
        .fetch_one(self.connection())
        .await
        .map_err(StoreError::sql("reading the inbox's partitions"))
    }

    async fn read_notes(&mut self, found: &Found) -> Result<Vec<NoteRecord>, StoreError> {
        const WHAT: &str = "reading notes of messages";
        let mut notes = sqlx::query_as!(
            NoteRecord,
            r#"SELECT message_id, provider, payment_id, order_id, said, copies, put_offs, waits_for, first_noted_at,
                      last_noted_at, false AS "is_admitted!"
               FROM message_notes
               WHERE message_id = ANY($1) OR order_id = ANY($2)
                  OR (payment_id = ANY($3) AND ($4::text[] IS NULL OR provider = ANY($4)))
               ORDER BY first_noted_at DESC LIMIT $5"#,
            &found.messages,
            &found.orders,
            &found.payments,
            found.providers.as_deref(),
            ROWS_MAX
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        let waited: Vec<String> =
            notes.iter().filter(|note| note.put_offs > 0).map(|note| note.message_id.clone()).collect();
        if !waited.is_empty() {
            let admitted = sqlx::query_scalar!("SELECT message_id FROM inbox WHERE message_id = ANY($1)", &waited)
                .fetch_all(self.connection())
                .await
                .map_err(StoreError::sql(WHAT))?;
            let admitted: BTreeSet<String> = admitted.into_iter().collect();
            for note in &mut notes {
                note.is_admitted = admitted.contains(&note.message_id);
            }
        }
        Ok(notes)
    }

    async fn read_letters(&mut self, found: &Found) -> Result<Vec<LetterRecord>, StoreError> {
        sqlx::query_as!(
            LetterRecord,
            r#"SELECT id, message_id, reason, detail, origin, attempts, provider, provider_account, payment_id, payment_ids,
                      order_id, order_ids, said, is_read, said_type, said_state, amount_minor, currency, state, state_at,
                      state_by, state_reason, first_seen_at, last_seen_at, seen, replays, verdict, verdict_detail
               FROM dead_letters
               WHERE id IN (
                   SELECT unnest($1::uuid[])
                   UNION SELECT d.id FROM dead_letters d WHERE d.message_id = ANY($2)
                   UNION SELECT about.id FROM letters_about($3) AS about (id)
                   UNION SELECT d.id FROM dead_letters d WHERE (d.payment_id = ANY($4) OR d.payment_ids && $4)
                         AND ($5::text[] IS NULL OR d.provider = ANY($5)))
               ORDER BY first_seen_at DESC, id LIMIT $6"#,
            &found.letters,
            &found.messages,
            &found.orders,
            &found.payments,
            found.providers.as_deref(),
            ROWS_MAX
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("reading dead letters"))
    }

    async fn read_replays(&mut self, letters: &[Uuid]) -> Result<Vec<ReplayRecord>, StoreError> {
        sqlx::query_as!(
            ReplayRecord,
            "SELECT r.id AS replay_id, l.letter_id, l.number, l.state, r.actor, r.is_self_declared, r.reason,
                    r.created_at, l.sent_at, l.ended_at
             FROM replay_letters l JOIN replays r ON r.id = l.replay_id
             WHERE l.letter_id = ANY($1) ORDER BY r.created_at DESC, l.position LIMIT $2",
            letters,
            ROWS_MAX
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("reading replays"))
    }

    async fn read_looks(&mut self, found: &Found) -> Result<Vec<LookRecord>, StoreError> {
        sqlx::query_as!(
            LookRecord,
            r#"SELECT provider, payment_id, order_id, created_at, due_at, wanted, asked_at, said, failures
               FROM provider_looks
               WHERE order_id = ANY($1) OR (payment_id = ANY($2) AND ($3::text[] IS NULL OR provider = ANY($3)))
               ORDER BY created_at DESC LIMIT $4"#,
            &found.orders,
            &found.payments,
            found.providers.as_deref(),
            ROWS_MAX
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("reading looks"))
    }

    async fn read_audit(&mut self, subjects: Vec<String>) -> Result<Vec<AuditRecord>, StoreError> {
        sqlx::query_as!(
            AuditRecord,
            r#"SELECT at, actor, is_self_declared, action, regexp_replace(subject, '^letter ', '') AS "subject!", reason,
                      count, before, after
               FROM audit_log WHERE subject = ANY($1) ORDER BY id DESC LIMIT $2"#,
            &subjects,
            ROWS_MAX
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("reading the audit log"))
    }
}

/// The tables that had as many rows as are read, and may have more.
fn cut(records: &Records) -> Vec<&'static str> {
    let most = usize::try_from(ROWS_MAX).unwrap_or(usize::MAX);
    [
        ("payments", records.payments.len()),
        ("payment_attempts", records.attempts.len()),
        ("inbox", records.admitted.len()),
        ("credit_adjustments", records.adjustments.len()),
        ("message_notes", records.notes.len()),
        ("dead_letters", records.letters.len()),
        ("replays", records.replays.len()),
        ("provider_looks", records.looks.len()),
        ("audit_log", records.audit.len()),
    ]
    .into_iter()
    .filter(|(_, rows)| *rows >= most)
    .map(|(table, _)| table)
    .collect()
}

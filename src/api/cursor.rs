//! The opaque cursor of `GET /v1/accounts/{id}/entries`: the place of the last entry that was read. It is not secret
//! and grants nothing, because the path names the account.

use crate::domain::OrderId;
use crate::store::Entry;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use time::OffsetDateTime;
use uuid::Uuid;

/// The first byte, so that another form can follow later.
const FORM: u8 = 1;

/// A place in the ledger of an account: time, order and revision of an entry.
pub(super) type Place = (OffsetDateTime, OrderId, i32);

/// The cursor behind an entry.
pub(super) fn behind(entry: &Entry) -> String {
    let unix_us = i64::try_from(entry.at.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX);
    let mut bytes = Vec::with_capacity(29);
    bytes.push(FORM);
    bytes.extend_from_slice(&unix_us.to_be_bytes());
    bytes.extend_from_slice(entry.order_id.0.as_bytes());
    bytes.extend_from_slice(&entry.revision.to_be_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The place of a cursor. `None` if the cursor is not one of ours.
pub(super) fn read(cursor: &str) -> Option<Place> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (form, rest) = bytes.split_first()?;
    let (unix_us, rest) = rest.split_first_chunk()?;
    let (order_id, rest) = rest.split_first_chunk()?;
    let revision = i32::from_be_bytes(rest.try_into().ok()?);
    // We never write times before 1970, and Postgres does not know all times that fit in here.
    let unix_us = i64::from_be_bytes(*unix_us);
    if *form != FORM || unix_us < 0 || revision < 0 {
        return None;
    }
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_us) * 1_000).ok()?;
    Some((at, OrderId(Uuid::from_bytes(*order_id)), revision))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::EntryKind;
    use time::macros::datetime;

    fn entry(at: OffsetDateTime, revision: i32) -> Entry {
        Entry {
            kind: EntryKind::Grant,
            order_id: OrderId(Uuid::from_u128(7)),
            revision,
            credits: 1,
            reason: "grant".to_owned(),
            message_id: "stripe::evt_1".to_owned(),
            at,
        }
    }

    #[test]
    fn a_cursor_leads_to_its_entry() {
        for at in [datetime!(2026-01-05 12:00:00.123456 UTC), datetime!(9999-12-31 23:59:59.999999 UTC)] {
            for revision in [0, 1, i32::MAX] {
                let entry = entry(at, revision);
                assert_eq!(read(&behind(&entry)), Some((at, entry.order_id, revision)));
            }
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let good = behind(&entry(datetime!(2026-01-05 12:00 UTC), 1));
        let long = format!("{good}AAAA");
        let other_form = format!("Ag{}", &good[2..]);
        let before_1970 = behind(&entry(datetime!(1969-12-31 23:59 UTC), 1));
        let too_late = BASE64_URL_SAFE_NO_PAD.encode([[1].as_slice(), &i64::MAX.to_be_bytes(), &[0; 20]].concat());
        let negative = behind(&entry(datetime!(2026-01-05 12:00 UTC), -1));
        for bad in
            ["", "A", "no cursor", &good[..good.len() - 2], &long, &other_form, &before_1970, &too_late, &negative]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}

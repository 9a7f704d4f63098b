//! What the client library can read of a message, and what replaces the rest. Pure.
//!
//! RabbitMQ accepts texts that are not UTF-8, tables of any depth, and headers larger than a frame. The library ends
//! the whole connection for each of these. [`check`] finds them without a copy, and [`mend`] replaces them with
//! something readable. Both agree with the library's own parser; the tests compare them.

use std::ops::Range;

/// Deepest nesting of tables and lists that is read. The library's parser is recursive, and so is the destructor.
pub(super) const DEPTH_MAX: usize = 32;

/// Largest header that remains if headers must be dropped, in bytes.
const KEPT_HEADER_BYTES_MAX: usize = 4 * 1024;

/// Longest description of the unreadable parts, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 900;

/// How much of one text that is not UTF-8 is shown, in bytes before they are escaped.
const SHOWN_BYTES_MAX: usize = 64;

/// Class, weight and body size come before the properties of a content header.
const PROPERTIES_AT: usize = 12;

/// The bit of the headers among the properties of a content header.
const HEADERS_BIT: u16 = 1 << 13;

/// The unreadable parts of a message, in sentences for an operator, with their bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Faults(String);

impl Faults {
    pub(super) fn into_text(self) -> String {
        self.0
    }

    pub(super) fn add(&mut self, fault: &str) {
        let room = DESCRIPTION_BYTES_MAX.saturating_sub(self.0.len());
        if fault.len() <= room {
            if !self.0.is_empty() {
                self.0.push_str("; ");
            }
            self.0.push_str(fault);
        } else if !self.0.ends_with('…') {
            self.0.push_str("; …");
        }
    }

    fn add_text(&mut self, what: &str, bytes: &[u8]) {
        let shown = bytes.get(..SHOWN_BYTES_MAX).unwrap_or(bytes);
        let more = if shown.len() < bytes.len() { "…" } else { "" };
        self.add(&format!("{what} is not UTF-8: \"{}{more}\"", shown.escape_ascii()));
    }
}

/// The short texts of a method that must be checked: how many bytes come before each.
pub(super) struct MethodPlan {
    id: (u16, u16),
    texts: &'static [(usize, &'static str)],
}

/// Methods of the broker with a text that another party chose.
const METHODS: [MethodPlan; 7] = [
    MethodPlan { id: (60, 60), texts: &[(0, "the consumer tag"), (9, "the exchange's name"), (0, "the routing key")] },
    MethodPlan { id: (60, 71), texts: &[(9, "the exchange's name"), (0, "the routing key")] },
    MethodPlan { id: (60, 50), texts: &[(2, "the reply"), (0, "the exchange's name"), (0, "the routing key")] },
    MethodPlan { id: (60, 30), texts: &[(0, "the consumer tag")] },
    // RabbitMQ cuts these at 255 bytes, which may be inside a character.
    MethodPlan { id: (20, 40), texts: &[(2, "the reply")] },
    MethodPlan { id: (10, 50), texts: &[(2, "the reply")] },
    MethodPlan { id: (10, 60), texts: &[(0, "the reason")] },
];

/// Makes the texts of a method readable: every byte that is not UTF-8 becomes a question mark.
pub(super) fn mend_method(id: (u16, u16), arguments: &mut [u8], faults: &mut Faults) {
    let Some(plan) = METHODS.iter().find(|plan| plan.id == id) else { return };
    let mut walk = Walk::new(arguments);
    for (before, what) in plan.texts {
        if walk.skip(*before).and_then(|()| walk.short(what)).is_err() {
            // This is not the protocol. The library reports it.
            return;
        }
    }
    let bad = walk.bad;
    blot(arguments, &bad, faults);
}

/// A short text that is not UTF-8, with its place.
type Bad = (Range<usize>, &'static str);

/// Why bytes cannot be read at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Cut,
    UnknownType,
    TooDeep,
}

/// Walks over the properties of a content header. An empty list means that the library can read them as they are.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    bad: Vec<Bad>,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, bad: vec![] }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Broken> {
        let end = self.at.checked_add(count).ok_or(Broken::Cut)?;
        let taken = self.bytes.get(self.at..end).ok_or(Broken::Cut)?;
        self.at = end;
        Ok(taken)
    }

    fn skip(&mut self, count: usize) -> Result<(), Broken> {
        self.take(count).map(drop)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        self.take(N)?.try_into().map_err(|_| Broken::Cut)
    }

    fn length(&mut self) -> Result<usize, Broken> {
        usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| Broken::Cut)
    }

    fn short(&mut self, what: &'static str) -> Result<&'a [u8], Broken> {
        let [length] = self.array()?;
        let text = self.take(usize::from(length))?;
        if std::str::from_utf8(text).is_err() {
            self.bad.push((self.at - text.len()..self.at, what));
        }
        Ok(text)
    }

    /// The content of a table, a list or a long text.
    fn inside(&mut self) -> Result<Walk<'a>, Broken> {
        let length = self.length()?;
        let at = self.at;
        self.skip(length)?;
        let bytes = self.bytes.get(..self.at).ok_or(Broken::Cut)?;
        Ok(Walk { bytes, at, bad: vec![] })
    }

    fn table(&mut self, depth: usize) -> Result<(), Broken> {
        let mut inside = self.inside()?;
        while inside.at < inside.bytes.len() {
            inside.short("a header's name")?;
            inside.value(depth)?;
        }
        self.bad.append(&mut inside.bad);
        Ok(())
    }

    fn list(&mut self, depth: usize) -> Result<(), Broken> {
        let mut inside = self.inside()?;
        while inside.at < inside.bytes.len() {
            inside.value(depth)?;
        }
        self.bad.append(&mut inside.bad);
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<(), Broken> {
        let [kind] = self.array()?;
        match kind {
            b'F' | b'A' if depth >= DEPTH_MAX => Err(Broken::TooDeep),
            b'F' => self.table(depth + 1),
            b'A' => self.list(depth + 1),
            _ => self.flat(kind),
        }
    }

    /// A value whose content needs no check.
    fn flat(&mut self, kind: u8) -> Result<(), Broken> {
        match kind {
            b'V' => Ok(()),
            b't' | b'b' | b'B' => self.skip(1),
            b's' | b'U' | b'u' => self.skip(2),
            b'I' | b'i' | b'f' => self.skip(4),
            b'D' => self.skip(5),
            b'l' | b'L' | b'd' | b'T' => self.skip(8),
            b'S' | b'x' | b'F' | b'A' => self.inside().map(drop),
            _ => Err(Broken::UnknownType),
        }
    }

    /// All properties, from their flags on.
    fn properties(&mut self) -> Result<(), Broken> {
        let flags = u16::from_be_bytes(self.array()?);
        for (bit, property) in (2..16).rev().zip(PROPERTIES) {
            if flags & (1 << bit) == 0 {
                continue;
            }
            match property {
                Property::Text(what) => self.short(what).map(drop)?,
                Property::Table => self.table(0)?,
                Property::Bytes(count) => self.skip(count)?,
            }
        }
        if self.at == self.bytes.len() { Ok(()) } else { Err(Broken::Cut) }
    }
}

#[derive(Debug, Clone, Copy)]
enum Property {
    Text(&'static str),
    Table,
    Bytes(usize),
}

/// In the order of their bits, the highest one first.
const PROPERTIES: [Property; 14] = [
    Property::Text("content_type"),
    Property::Text("content_encoding"),
    Property::Table,
    Property::Bytes(1),
    Property::Bytes(1),
    Property::Text("correlation_id"),
    Property::Text("reply_to"),
    Property::Text("expiration"),
    Property::Text("message_id"),
    Property::Bytes(8),
    Property::Text("type"),
    Property::Text("user_id"),
    Property::Text("app_id"),
    Property::Text("cluster_id"),
];

fn blot(bytes: &mut [u8], bad: &[Bad], faults: &mut Faults) {
    for (range, what) in bad {
        let Some(text) = bytes.get_mut(range.clone()) else { continue };
        faults.add_text(what, text);
        let mut at = 0;
        while let Err(error) = std::str::from_utf8(text.get(at..).unwrap_or_default()) {
            at += error.valid_up_to();
            if let Some(byte) = text.get_mut(at) {
                *byte = b'?';
            }
        }
    }
}

/// Makes the payload of a content header readable, with at most `bytes_max` bytes. A readable payload stays as it is,
/// without a copy.
///
/// Bytes that are not UTF-8 become question marks. Headers that cannot be read or are too large are dropped one by one.
pub(super) fn mend(payload: &mut Vec<u8>, bytes_max: usize, faults: &mut Faults) {
    if payload.len() > bytes_max {
        faults.add(&format!("its properties are {} bytes long, more than a frame's {bytes_max}", payload.len()));
        drop_headers(payload, bytes_max, faults);
    }
    let mut walk = Walk { at: PROPERTIES_AT, ..Walk::new(payload) };
    let walked = walk.properties();
    let bad = walk.bad;
    match walked {
        Ok(()) => blot(payload, &bad, faults),
        Err(_broken) => {
            drop_headers(payload, bytes_max, faults);
            let mut walk = Walk { at: PROPERTIES_AT, ..Walk::new(payload) };
            let walked = walk.properties();
            let bad = walk.bad;
            match walked {
                Ok(()) => blot(payload, &bad, faults),
                Err(_broken) => drop_properties(payload, faults),
            }
        }
    }
}

/// Whether the payload of a content header can be read as it is.
pub(super) fn check(payload: &[u8]) -> bool {
    let mut walk = Walk { at: PROPERTIES_AT, ..Walk::new(payload) };
    walk.properties().is_ok() && walk.bad.is_empty()
}

/// Leaves only class and size.
pub(super) fn drop_properties(payload: &mut Vec<u8>, faults: &mut Faults) {
    faults.add("its properties cannot be read and were dropped");
    payload.resize(PROPERTIES_AT, 0);
    payload.extend([0, 0]);
}

/// Drops the headers that cannot be read, and the largest ones, until all fit.
fn drop_headers(payload: &mut Vec<u8>, bytes_max: usize, faults: &mut Faults) {
    if let Ok((table, kept)) = kept_headers(payload, bytes_max, faults) {
        let length = u32::try_from(kept.len()).unwrap_or(0);
        drop(payload.splice(table, length.to_be_bytes().into_iter().chain(kept)));
    }
    if payload.len() > bytes_max {
        drop_properties(payload, faults);
    }
}

/// The place of the table of headers, with its length, and the entries that remain.
fn kept_headers(payload: &[u8], bytes_max: usize, faults: &mut Faults) -> Result<(Range<usize>, Vec<u8>), Broken> {
    let mut walk = Walk { at: PROPERTIES_AT, ..Walk::new(payload) };
    let flags = u16::from_be_bytes(walk.array()?);
    for (bit, what) in [(15, "content_type"), (14, "content_encoding")] {
        if flags & (1 << bit) != 0 {
            walk.short(what)?;
        }
    }
    if flags & HEADERS_BIT == 0 {
        return Err(Broken::Cut);
    }
    let begin = walk.at;
    let mut inside = walk.inside()?;
    let table = begin..walk.at;
    // The rest of the payload without the table, and room for a few texts after it.
    let room = bytes_max.saturating_sub(payload.len() - table.len() + 4);
    let mut kept = Vec::new();
    while inside.at < inside.bytes.len() {
        let from = inside.at;
        let name = inside.short("a header's name")?;
        let [kind] = inside.array()?;
        if inside.flat(kind).is_err() {
            faults.add("a header of an unknown type, and all behind it, were dropped");
            break;
        }
        let entry = inside.bytes.get(from..inside.at).ok_or(Broken::Cut)?;
        let read = Walk { at: 1 + name.len(), ..Walk::new(entry) }.value(0);
        // The broker's account of the way of the message is useful, however long it is.
        let is_small = entry.len() <= KEPT_HEADER_BYTES_MAX || name == b"x-death";
        let why = match read {
            Ok(()) if is_small && kept.len() + entry.len() <= room => {
                kept.extend_from_slice(entry);
                continue;
            }
            Ok(()) => String::new(),
            Err(Broken::TooDeep) => format!(": it nests more than {DEPTH_MAX} tables or lists"),
            Err(Broken::Cut | Broken::UnknownType) => ": it cannot be read".to_owned(),
        };
        let (shown, bytes) = (name.get(..SHOWN_BYTES_MAX).unwrap_or(name).escape_ascii(), entry.len());
        faults.add(&format!("the header \"{shown}\" of {bytes} bytes was dropped{why}"));
    }
    Ok((table, kept))
}

#[cfg(test)]
mod tests;

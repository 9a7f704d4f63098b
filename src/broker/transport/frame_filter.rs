//! Turns the broker's bytes into bytes that the client library can read. Pure, except for the meter.
//!
//! Most frames pass unchanged. Frames of messages (deliveries, answers to a get, returns) are checked. What the library
//! cannot parse is replaced, bodies that are too large are cut, and the meter records what the library does not see.

use super::content::{Faults, check, drop_properties, mend, mend_method};
use super::inbound_meter::{InboundMeter, Ticket};
use std::sync::Arc;

/// The largest frame that we agree to, which is RabbitMQ's own default.
pub(in crate::broker) const FRAME_BYTES_MAX: u32 = 131_072;

/// A content header up to this size is read as a whole. A larger one is replaced unread.
const HEADER_BYTES_MAX: usize = 1024 * 1024;

/// Type, channel and size come before the payload of a frame, and one byte after it.
const FRAME_BEGIN: usize = 7;
const FRAME_END: u8 = 0xCE;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// A heartbeat, as the broker sends it.
pub(super) const HEARTBEAT_FRAME: [u8; 8] = [HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END];

const DELIVER: (u16, u16) = (60, 60);
const GET_OK: (u16, u16) = (60, 71);
const RETURN: (u16, u16) = (60, 50);
const TUNE: (u16, u16) = (10, 30);
const OPEN_OK: (u16, u16) = (10, 41);

/// Why no more input was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The next step needs so many bytes of input at once.
    Needs(usize),
    /// The meter has no room for the next message.
    NoRoom,
}

/// A message that is not complete yet.
struct Open {
    channel: u16,
    /// `None` for a returned message.
    tag: Option<u64>,
    faults: Faults,
    /// Bytes of the body that are still to come, and how many of these are passed on. `None` before the content header.
    body: Option<(u64, u64)>,
}

/// What to do with the bytes that come next.
enum Rest {
    Pass(usize),
    Drop(usize),
}

/// The filter of one connection, from the broker's first byte on.
pub(super) struct FrameFilter {
    meter: Arc<InboundMeter>,
    frame_bytes_max: usize,
    rest: Rest,
    open: Vec<Open>,
    is_open: bool,
}

impl FrameFilter {
    /// The library refuses frames of more than `frame_bytes_max`, but RabbitMQ sends long headers in one frame.
    pub(super) fn new(meter: Arc<InboundMeter>, frame_bytes_max: u32) -> Self {
        let frame_bytes_max = usize::try_from(frame_bytes_max).unwrap_or(usize::MAX);
        Self { meter, frame_bytes_max, rest: Rest::Pass(0), open: vec![], is_open: false }
    }

    pub(super) fn meter(&self) -> &InboundMeter {
        &self.meter
    }

    /// Whether the broker has opened the connection: it has greeted and accepted the user.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Takes what it can of `input`, returns how much that was, and adds to `output` what the library is to read. It
    /// ends with `Needs(0)` when `output` is longer than `output_max`.
    pub(super) fn pass(&mut self, input: &[u8], output: &mut Vec<u8>, output_max: usize) -> (usize, Stop) {
        let mut at = 0;
        while output.len() <= output_max {
            let bytes = input.get(at..).unwrap_or_default();
            match self.step(bytes, output) {
                Ok(taken) => at += taken,
                Err(stop) => return (at, stop),
            }
        }
        (at, Stop::Needs(0))
    }

    fn step(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<usize, Stop> {
        match &mut self.rest {
            Rest::Pass(0) | Rest::Drop(0) => {}
            _ if input.is_empty() => return Err(Stop::Needs(1)),
            Rest::Pass(left) => {
                let taken = input.get(..*left).unwrap_or(input);
                output.extend_from_slice(taken);
                *left -= taken.len();
                return Ok(taken.len());
            }
            Rest::Drop(left) => {
                let taken = input.len().min(*left);
                *left -= taken;
                return Ok(taken);
            }
        }
        let Some(&[kind, c1, c0, s3, s2, s1, s0]) = input.first_chunk::<FRAME_BEGIN>() else {
            return Err(Stop::Needs(FRAME_BEGIN));
        };
        let channel = u16::from_be_bytes([c1, c0]);
        let size = usize::try_from(u32::from_be_bytes([s3, s2, s1, s0])).unwrap_or(usize::MAX);
        let whole = size.saturating_add(FRAME_BEGIN + 1);
        match kind {
            METHOD if whole <= self.frame_bytes_max => {
                self.method(channel, input.get(..whole).ok_or(Stop::Needs(whole))?, output);
                Ok(whole)
            }
            HEADER => self.header(channel, whole, input, output),
            BODY => self.body(channel, size, input, output),
            HEARTBEAT if size == 0 => {
                self.rest = Rest::Pass(whole);
                Ok(0)
            }
            // This is not the protocol, or a broker of another version. The library refuses it.
            _ => {
                self.rest = Rest::Pass(usize::MAX);
                Ok(0)
            }
        }
    }

    fn method(&mut self, channel: u16, frame: &[u8], output: &mut Vec<u8>) {
        let from = output.len();
        output.extend_from_slice(frame);
        let Some((&[c1, c0, m1, m0], rest)) = frame.get(FRAME_BEGIN..).and_then(<[u8]>::split_first_chunk) else {
            return;
        };
        let id = (u16::from_be_bytes([c1, c0]), u16::from_be_bytes([m1, m0]));
        let mut faults = Faults::default();
        let to = output.len() - 1;
        if let Some(arguments) = output.get_mut(from + FRAME_BEGIN + 4..to) {
            mend_method(id, arguments, &mut faults);
        }
        let number = |at: usize| rest.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
        let tag = match id {
            DELIVER => rest.first().and_then(|length| number(1 + usize::from(*length))),
            GET_OK => number(0),
            RETURN => None,
            TUNE => {
                if let Some(&[_, _, f3, f2, f1, f0]) = rest.first_chunk::<6>() {
                    let theirs = usize::try_from(u32::from_be_bytes([f3, f2, f1, f0])).unwrap_or(usize::MAX);
                    // 0 means that there is no limit.
                    self.frame_bytes_max = self.frame_bytes_max.min(if theirs == 0 { usize::MAX } else { theirs });
                }
                return;
            }
            OPEN_OK => {
                self.is_open = true;
                return;
            }
            _ => return,
        };
        self.open.retain(|open| open.channel != channel);
        self.open.push(Open { channel, tag, faults, body: None });
    }

    fn header(&mut self, channel: u16, whole: usize, input: &[u8], output: &mut Vec<u8>) -> Result<usize, Stop> {
        let Some(at) = self.open.iter().position(|open| open.channel == channel && open.body.is_none()) else {
            self.rest = Rest::Pass(whole);
            return Ok(0);
        };
        let needed = if whole > HEADER_BYTES_MAX { FRAME_BEGIN + 12 } else { whole };
        let frame = input.get(..needed).ok_or(Stop::Needs(needed))?;
        let Some(size) = frame.get(FRAME_BEGIN + 4..).and_then(<[u8]>::first_chunk) else {
            self.rest = Rest::Pass(whole);
            return Ok(0);
        };
        let body_bytes = u64::from_be_bytes(*size);
        let bounds = self.meter.bounds();
        let is_delivery = self.open.get(at).is_some_and(|open| open.tag.is_some());
        let kept = match usize::try_from(body_bytes) {
            Ok(bytes) if bytes <= bounds.body_bytes_max => bytes,
            Ok(_) | Err(_) => bounds.body_kept_bytes,
        };
        let bytes = needed.saturating_add(kept);
        if is_delivery && !self.meter.admit(bytes) {
            return Err(Stop::NoRoom);
        }
        let mut open = self.open.swap_remove(at);
        let kept = u64::try_from(kept).unwrap_or(u64::MAX);
        let payload = frame.get(FRAME_BEGIN..needed.min(whole - 1)).unwrap_or_default();
        if whole <= self.frame_bytes_max && kept == body_bytes && check(payload) {
            output.extend_from_slice(frame);
        } else {
            let mut payload = payload.to_vec();
            if let Some(size) = payload.get_mut(4..12) {
                size.copy_from_slice(&kept.to_be_bytes());
            }
            if needed < whole {
                open.faults.add(&format!("its properties are {} bytes long", whole - FRAME_BEGIN - 1));
                drop_properties(&mut payload, &mut open.faults);
                self.rest = Rest::Drop(whole - needed);
            } else {
                mend(&mut payload, self.frame_bytes_max - FRAME_BEGIN - 1, &mut open.faults);
            }
            let [c1, c0] = channel.to_be_bytes();
            let [s3, s2, s1, s0] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
            output.extend([HEADER, c1, c0, s3, s2, s1, s0]);
            output.append(&mut payload);
            output.push(FRAME_END);
        }
        if let Some(tag) = open.tag {
            let unreadable = std::mem::take(&mut open.faults).into_text();
            self.meter.note(Ticket { channel, tag, bytes, body_bytes, unreadable });
        }
        if body_bytes > 0 {
            self.open.push(Open { body: Some((body_bytes, kept)), ..open });
        }
        Ok(needed)
    }

    fn body(&mut self, channel: u16, size: usize, input: &[u8], output: &mut Vec<u8>) -> Result<usize, Stop> {
        let whole = size.saturating_add(FRAME_BEGIN + 1);
        let open = self.open.iter_mut().find(|open| open.channel == channel);
        let Some(Open { body: Some((left, kept)), .. }) = open else {
            self.rest = Rest::Pass(whole);
            return Ok(0);
        };
        let bytes = u64::try_from(size).unwrap_or(u64::MAX);
        let mut taken = 0;
        if *kept >= bytes {
            self.rest = Rest::Pass(whole);
        } else if *kept == 0 {
            self.rest = Rest::Drop(whole);
        } else {
            // The last frame of a body that is cut.
            let cut = usize::try_from(*kept).unwrap_or(0);
            taken = FRAME_BEGIN + cut;
            let part = input.get(FRAME_BEGIN..taken).ok_or(Stop::Needs(taken))?;
            let [c1, c0] = channel.to_be_bytes();
            let [s3, s2, s1, s0] = u32::try_from(cut).unwrap_or(u32::MAX).to_be_bytes();
            output.extend([BODY, c1, c0, s3, s2, s1, s0]);
            output.extend_from_slice(part);
            output.push(FRAME_END);
            self.rest = Rest::Drop(whole - taken);
        }
        *kept = kept.saturating_sub(bytes);
        *left = left.saturating_sub(bytes);
        if *left == 0 {
            self.open.retain(|open| open.channel != channel);
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;

use super::super::inbound_meter::Bounds;
use super::*;
use std::time::Instant;

const BOUNDS: Bounds = Bounds { body_bytes_max: 1_000, body_kept_bytes: 300, bytes_max: 5_000 };
const OUTPUT_MAX: usize = 1 << 20;

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend(channel.to_be_bytes());
    frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend(payload);
    frame.push(FRAME_END);
    frame
}

fn deliver(channel: u16, tag: u64, routing_key: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 60, 4, b'c', b't', b'a', b'g'];
    payload.extend(tag.to_be_bytes());
    payload.extend([0, 8]);
    payload.extend(b"payments");
    payload.push(u8::try_from(routing_key.len()).unwrap());
    payload.extend(routing_key);
    frame(METHOD, channel, &payload)
}

/// A content header with an `app_id`.
fn header(channel: u16, body_bytes: usize, app_id: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0];
    payload.extend(u64::try_from(body_bytes).unwrap().to_be_bytes());
    payload.extend([0, 8, u8::try_from(app_id.len()).unwrap()]);
    payload.extend(app_id);
    frame(HEADER, channel, &payload)
}

fn message(tag: u64, app_id: &[u8], body: &[u8]) -> Vec<u8> {
    let frames = body.chunks(400).flat_map(|part| frame(BODY, 1, part));
    [deliver(1, tag, b"payment.stripe"), header(1, body.len(), app_id)].concat().into_iter().chain(frames).collect()
}

/// Passes the bytes in parts of this length, as a socket may deliver them.
fn sifted(frame_filter: &mut FrameFilter, bytes: &[u8], part: usize) -> (Vec<u8>, Stop) {
    let (mut output, mut input, mut last) = (vec![], vec![], Stop::Needs(0));
    for part in bytes.chunks(part) {
        input.extend_from_slice(part);
        let taken;
        (taken, last) = frame_filter.pass(&input, &mut output, OUTPUT_MAX);
        input.drain(..taken);
    }
    (output, last)
}

fn claimed(meter: &InboundMeter, tag: u64) -> (u64, String) {
    let ticket = meter.claim(1, tag).unwrap();
    (ticket.body_bytes, ticket.unreadable)
}

#[test]
fn what_can_be_read_goes_through_byte_for_byte_however_it_comes() {
    let bytes = [
        frame(METHOD, 0, &[0, 10, 0, 30, 0, 0, 0, 2, 0, 0, 0, 10]),
        message(1, b"relay", &[7; 900]),
        HEARTBEAT_FRAME.to_vec(),
        message(2, "ä".as_bytes(), b""),
        frame(METHOD, 1, &[0, 60, 0, 31, 0]),
    ]
    .concat();
    for part in [1, 3, 8, 100, 1 << 20] {
        let meter = InboundMeter::new(BOUNDS);
        let mut frame_filter = FrameFilter::new(Arc::clone(&meter), FRAME_BYTES_MAX);
        let (output, _) = sifted(&mut frame_filter, &bytes, part);
        assert_eq!(output, bytes, "in parts of {part}");
        assert!(frame_filter.open.is_empty());
        assert_eq!(claimed(&meter, 1), (900, String::new()));
        assert_eq!(claimed(&meter, 2), (0, String::new()));
    }
}

#[test]
fn what_cannot_be_read_is_mended_and_noted_beside_its_neighbours() {
    let bytes = [message(1, b"ok", b"one"), message(2, b"\xff", b"two"), message(3, b"ok", b"three")].concat();
    let mended = [message(1, b"ok", b"one"), message(2, b"?", b"two"), message(3, b"ok", b"three")].concat();
    for part in [1, 7, 1 << 20] {
        let meter = InboundMeter::new(BOUNDS);
        let (output, _) = sifted(&mut FrameFilter::new(Arc::clone(&meter), FRAME_BYTES_MAX), &bytes, part);
        assert_eq!(output, mended);
        assert_eq!(claimed(&meter, 1).1, "");
        assert_eq!(claimed(&meter, 2), (3, r#"app_id is not UTF-8: "\xff""#.to_owned()));
        assert_eq!(claimed(&meter, 3).1, "");
    }
}

#[test]
fn a_body_that_is_too_large_is_cut_and_its_length_noted() {
    let body: Vec<u8> = (0..2_000).map(|n| u8::try_from(n % 251).unwrap()).collect();
    for (kept, frames) in [(300, vec![300]), (500, vec![400, 100]), (0, vec![])] {
        for part in [1, 7, 1 << 20] {
            let meter = InboundMeter::new(Bounds { body_kept_bytes: kept, ..BOUNDS });
            let bytes = [message(1, b"a", &body), message(2, b"b", b"next")].concat();
            let (output, _) = sifted(&mut FrameFilter::new(Arc::clone(&meter), FRAME_BYTES_MAX), &bytes, part);
            let mut wanted = [deliver(1, 1, b"payment.stripe"), header(1, kept, b"a")].concat();
            let mut at = 0;
            for length in &frames {
                wanted.extend(frame(BODY, 1, &body[at..at + length]));
                at += length;
            }
            wanted.extend(message(2, b"b", b"next"));
            assert_eq!(output, wanted, "{kept} kept, in parts of {part}");
            assert_eq!(claimed(&meter, 1), (2_000, String::new()));
            assert_eq!(claimed(&meter, 2), (4, String::new()));
        }
    }
}

#[test]
fn a_header_of_any_size_is_replaced_without_being_held() {
    let huge = vec![b'x'; 5 * HEADER_BYTES_MAX];
    let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0x20, 0];
    payload.extend(u32::try_from(huge.len()).unwrap().to_be_bytes());
    payload.extend(huge);
    let told = format!("its properties are {} bytes long", payload.len());
    let bytes = [deliver(1, 1, b"k"), frame(HEADER, 1, &payload), frame(BODY, 1, b"body"), message(2, b"b", b"next")];
    let meter = InboundMeter::new(BOUNDS);
    let mut frame_filter = FrameFilter::new(Arc::clone(&meter), FRAME_BYTES_MAX);
    let (output, _) = sifted(&mut frame_filter, &bytes.concat(), 60_000);
    let empty = frame(HEADER, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0]);
    assert_eq!(output, [deliver(1, 1, b"k"), empty, frame(BODY, 1, b"body"), message(2, b"b", b"next")].concat());
    assert!(claimed(&meter, 1).1.contains(&told), "the dropped properties are reported");
}

#[test]
fn nothing_more_is_taken_while_the_ledger_is_full_but_one_message_always_is() {
    let meter = InboundMeter::new(Bounds { body_bytes_max: 10_000, ..BOUNDS });
    let mut frame_filter = FrameFilter::new(Arc::clone(&meter), FRAME_BYTES_MAX);
    let bytes = [message(1, b"a", &[1; 9_000]), message(2, b"b", &[2; 400])].concat();
    let mut output = vec![];
    let (taken, stop) = frame_filter.pass(&bytes, &mut output, OUTPUT_MAX);
    assert_eq!(stop, Stop::NoRoom);
    let body = meter.hold(vec![1; 9_000], meter.claim(1, 1).unwrap().bytes);
    let copy = body.clone();
    drop(body);
    assert_eq!(frame_filter.pass(&bytes[taken..], &mut output, OUTPUT_MAX), (0, Stop::NoRoom), "a copy is still there");
    drop(copy);
    let (rest, stop) = frame_filter.pass(&bytes[taken..], &mut output, OUTPUT_MAX);
    assert_eq!((taken + rest, stop), (bytes.len(), Stop::Needs(FRAME_BEGIN)));
    assert_eq!(output, bytes);
}

#[test]
fn returned_messages_come_without_their_bodies_and_need_no_ticket() {
    let mut payload = vec![0, 60, 0, 50, 1, 0x38, 2, b'N', 0xff, 1, b'e', 1, b'k'];
    let returned = frame(METHOD, 3, &payload);
    payload[8] = b'?';
    let meter = InboundMeter::new(Bounds::NONE);
    let bytes = [returned, header(3, 10, b"a"), frame(BODY, 3, &[0; 10])].concat();
    let (output, _) = sifted(&mut FrameFilter::new(Arc::clone(&meter), FRAME_BYTES_MAX), &bytes, 5);
    assert_eq!(output, [frame(METHOD, 3, &payload), header(3, 0, b"a")].concat());
}

/// Run it with `cargo test --release --lib the_filter_is_quick -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn the_filter_is_quick() {
    let one = message(1, b"a relay of somebody's", &[b'x'; 390]);
    let (count, meter) = (200_000_u32, InboundMeter::new(Bounds { bytes_max: usize::MAX, ..BOUNDS }));
    let (mut frame_filter, mut output) = (FrameFilter::new(Arc::clone(&meter), FRAME_BYTES_MAX), vec![]);
    let began = Instant::now();
    for _ in 0..count {
        output.clear();
        frame_filter.pass(&one, &mut output, OUTPUT_MAX);
        drop(meter.claim(1, 1));
    }
    println!("a delivery of three frames, {} bytes: {:?}", one.len(), began.elapsed() / count);
}

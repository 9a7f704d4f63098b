//! Another body of the same CRC-32. The tests of the whole receiver take it from here, too.

const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// The noughts that are turned into ones where the CRC needs it. More than the 32 bits of the CRC.
const NOUGHTS: usize = 64;

/// A body of a given CRC-32, which changes by the same bits whenever the same nought becomes a one: 32 bits, each a sum of
/// some of these changes, solved as any system of linear equations is.
pub(crate) fn forged(before: &str, after: &str, crc: u32) -> Vec<u8> {
    let with = |ones: u64| {
        let digits = (0..NOUGHTS).map(|n| if ones >> n & 1 == 1 { '1' } else { '0' });
        format!("{before}{}{after}", digits.collect::<String>()).into_bytes()
    };
    let none = CRC.checksum(&with(0));
    // By its highest bit: a change that has it, and the noughts that make it.
    let mut changes = [(0_u32, 0_u64); 32];
    let reduced = |changes: &[(u32, u64); 32], mut change: u32, mut ones: u64| {
        for bit in (0..32).rev() {
            if change >> bit & 1 == 1 && changes[bit].0 != 0 {
                change ^= changes[bit].0;
                ones ^= changes[bit].1;
            }
        }
        (change, ones)
    };
    for n in 0..NOUGHTS {
        let (change, ones) = reduced(&changes, CRC.checksum(&with(1 << n)) ^ none, 1 << n);
        if change != 0 {
            changes[change.ilog2() as usize] = (change, ones);
        }
    }
    let (rest, ones) = reduced(&changes, none ^ crc, 0);
    assert_eq!(rest, 0, "more noughts are needed");
    with(ones)
}

//! Forges another body with the same CRC-32. The tests of the whole receiver use it, too.

const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// The number of zeros that can become ones to reach the CRC. It is more than the 32 bits of the CRC.
const NOUGHTS: usize = 64;

/// Returns a body with the given CRC-32. If a certain zero becomes a one, the same bits of the CRC always change. So each of the 32
/// bits is a sum of such changes, which is a system of linear equations.
pub(crate) fn forged(before: &str, after: &str, crc: u32) -> Vec<u8> {
    let with = |ones: u64| {
        let digits = (0..NOUGHTS).map(|n| if ones >> n & 1 == 1 { '1' } else { '0' });
        format!("{before}{}{after}", digits.collect::<String>()).into_bytes()
    };
    let none = CRC.checksum(&with(0));
    // By its highest bit: a change that has this bit, and the zeros that cause it.
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
    assert_eq!(rest, 0, "more zeros are needed");
    with(ones)
}

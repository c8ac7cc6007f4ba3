//! LEB128 integers: seven bits a byte, the least significant first, the top bit says "more".

/// The longest encoding of a `u64`.
pub const MAX_BYTES: usize = 10;
/// The longest encoding of a `u32`.
pub const MAX_BYTES_32: usize = 5;

/// Appends `value` to `out`.
#[inline]
pub fn encode(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes [`encode`] writes.
#[inline]
pub fn len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    // `bits` / 7, rounded up, without a division: exact for all values up to 64.
    (9 * bits + 64) / 64
}

/// Reads one integer: its value and how many bytes it took. `None` when cut short or wider than 64 bits.
#[inline]
pub fn decode(bytes: &[u8]) -> Option<(u64, usize)> {
    // The common case.
    match bytes.first() {
        Some(&byte) if byte < 0x80 => Some((byte.into(), 1)),
        _ => decode_longer(bytes),
    }
}

fn decode_longer(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (i, &byte) in bytes.iter().take(MAX_BYTES).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if i == MAX_BYTES - 1 && bits > 1 {
            return None;
        }
        value |= bits << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, i + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_at_every_width() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1_u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                encode(value, &mut out);
                assert_eq!(out.len(), len(value));
                assert_eq!(decode(&out), Some((value, out.len())));
                assert_eq!(decode(&out[..out.len() - 1]), None);
            }
        }
    }

    #[test]
    fn refuses_more_than_64_bits() {
        assert_eq!(decode(&[0xff; 10]), None);
        assert_eq!(decode(&[0x80; 11]), None);
    }
}

//! CRC-32C (Castagnoli): the one checksum of the format.
//!
//! Two libraries compute the same sum. `crc-fast` folds long slices with carry-less multiplications, as wide as the processor has them,
//! and has the shorter set-up for a slice that stands alone. `crc32c` is faster where a few bytes are added to an existing sum: for that
//! `crc-fast` needs a digest.

use crc_fast::{CrcAlgorithm, Digest};

/// Slices of at least this length are folded when they are added to a sum; for shorter ones the digest does not pay.
const FOLDED: usize = 256;

/// The checksum of `bytes`.
#[inline]
pub fn of(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The checksum of the bytes that `crc` covers, followed by `bytes`.
pub fn append(crc: u32, bytes: &[u8]) -> u32 {
    if bytes.len() < FOLDED {
        return crc32c::crc32c_append(crc, bytes);
    }
    // A digest's state is the sum before its final inversion.
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!crc));
    digest.update(bytes);
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lengths around which either library switches its method, cut in two at every such length.
    #[test]
    fn both_libraries_agree_wherever_a_slice_is_cut() {
        let bytes: Vec<u8> = (0..9000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 21) as u8).collect();
        let lengths = [0, 1, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 257, 511, 512, 513, 1024, 4096, 9000];
        for len in lengths {
            let all = &bytes[..len];
            let sum = of(all);
            assert_eq!(sum, crc32c::crc32c(all), "{len} bytes");
            for cut in lengths.into_iter().filter(|&cut| cut <= len) {
                assert_eq!(append(of(&all[..cut]), &all[cut..]), sum, "{len} bytes, cut at {cut}");
            }
        }
    }

    /// The check value of the standard (RFC 3720, B.4).
    #[test]
    fn the_sum_is_castagnolis() {
        assert_eq!(of(b"123456789"), 0xe306_9283);
        assert_eq!(of(&[0; 32]), 0x8a91_36aa);
        assert_eq!(append(of(b"1234"), b"56789"), 0xe306_9283);
    }
}

//! Unsigned LEB128.

use super::DecodeError;

/// Appends `value`: 7 bits a byte, lowest first, the top bit says that more follow.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number off the front of `bytes`.
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(DecodeError::Truncated)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if shift == 63 && bits > 1 {
            return Err(DecodeError::Number);
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(DecodeError::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_around_every_boundary() {
        for shift in 0..64 {
            for value in [(1u64 << shift) - 1, 1 << shift, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                let mut bytes = &out[..];
                assert_eq!(take_varint(&mut bytes), Ok(value));
                assert!(bytes.is_empty());
                let mut short = &out[..out.len() - 1];
                assert_eq!(take_varint(&mut short), Err(DecodeError::Truncated));
            }
        }
    }

    #[test]
    fn refuses_more_than_64_bits() {
        assert_eq!(take_varint(&mut &[0xff; 11][..]), Err(DecodeError::Number));
        let mut too_big = vec![0xff; 9];
        too_big.push(2);
        assert_eq!(take_varint(&mut &too_big[..]), Err(DecodeError::Number));
    }
}

//! How openraft's types are encoded in the log.
//!
//! A version byte, then [postcard](https://docs.rs/postcard): compact, and not self-describing. The log's checksums vouch for the bytes,
//! but they may still come from a newer version of this crate, or from another program.
//!
//! Votes and log ids are padded with zeros to a length that does not change: rewriting one needs no more room in the log, so a full log
//! does not refuse it.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// An entry; or a vote or log id in its old form, without zeros.
const VERSION: u8 = 1;
/// A vote or a log id, padded with zeros.
const PADDED: u8 = 2;
/// Reserves room for a vote or a log id; there is none yet.
const NOTHING: u8 = 3;
/// Bytes of a vote or a log id, even with a node id of some forty letters; a longer one takes a multiple of it.
const STATE_BYTES: usize = 64;

/// Why a value could not be encoded or decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// There are no bytes, not even a version.
    #[error("the bytes end before they begin")]
    Empty,
    /// The format has a version which this crate does not know.
    #[error("format version {0} is unknown")]
    Version(u8),
    /// Bytes are left over after the value.
    #[error("{0} bytes are left over")]
    Trailing(usize),
    /// An error of serde or postcard.
    #[error("{0}")]
    Value(String),
}

impl From<postcard::Error> for CodecError {
    fn from(error: postcard::Error) -> Self {
        CodecError::Value(error.to_string())
    }
}

/// Appends the encoded form of `value` to `out`, which it returns.
pub(crate) fn encode_behind<T: Serialize + ?Sized>(value: &T, mut out: Vec<u8>) -> Result<Vec<u8>, CodecError> {
    out.push(VERSION);
    Ok(postcard::to_extend(value, out)?)
}

#[cfg(test)]
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    encode_behind(value, Vec::new())
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (&version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if version != VERSION {
        return Err(CodecError::Version(version));
    }
    let (value, rest) = postcard::take_from_bytes(body)?;
    if rest.is_empty() { Ok(value) } else { Err(CodecError::Trailing(rest.len())) }
}

/// A vote or a log id, padded to its length.
pub(crate) fn encode_state<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut out = postcard::to_extend(value, vec![PADDED])?;
    out.resize(out.len().next_multiple_of(STATE_BYTES), 0);
    Ok(out)
}

/// The value that reserves room for a vote or a log id.
pub(crate) fn nothing() -> [u8; STATE_BYTES] {
    let mut out = [0; STATE_BYTES];
    out[0] = NOTHING;
    out
}

/// Whether the value only reserves room.
pub(crate) fn is_nothing(bytes: &[u8]) -> bool {
    bytes.first() == Some(&NOTHING)
}

pub(crate) fn decode_state<T: DeserializeOwned>(bytes: &[u8]) -> Result<Option<T>, CodecError> {
    let zeros = |rest: &[u8]| match rest.iter().all(|&byte| byte == 0) {
        true => Ok(()),
        false => Err(CodecError::Trailing(rest.len())),
    };
    match bytes.split_first() {
        Some((&PADDED, body)) => {
            let (value, rest) = postcard::take_from_bytes(body)?;
            zeros(rest)?;
            Ok(Some(value))
        }
        Some((&NOTHING, rest)) => zeros(rest).map(|()| None),
        _ => decode(bytes).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_one_length_and_come_back_with_and_without_zeros() {
        for value in [(0, 0, 0), (1, 2, 3), (u64::MAX, u64::MAX, u64::MAX)] {
            let bytes = encode_state(&value).unwrap();
            assert_eq!((bytes.len(), is_nothing(&bytes)), (STATE_BYTES, false));
            assert_eq!(decode_state(&bytes), Ok(Some(value)));
            assert_eq!(decode_state(&encode(&value).unwrap()), Ok(Some(value)), "as it once was");
        }
        let long = "x".repeat(STATE_BYTES);
        assert_eq!(encode_state(&long).map(|bytes| bytes.len()), Ok(2 * STATE_BYTES));
        assert_eq!(decode_state(&encode_state(&long).unwrap()), Ok(Some(long)));
        assert!(is_nothing(&nothing()));
        assert_eq!(decode_state::<u64>(&nothing()), Ok(None));
        assert_eq!(decode_state::<u64>(&[PADDED, 1, 0, 2, 0]), Err(CodecError::Trailing(3)));
        assert_eq!(decode_state::<u64>(&[NOTHING, 0, 7]), Err(CodecError::Trailing(2)));
        assert_eq!(decode_state::<u64>(&[9, 0]), Err(CodecError::Version(9)));
        assert_eq!(decode_state::<u64>(&[]), Err(CodecError::Empty));
    }

    #[test]
    fn values_lie_one_behind_the_other_and_come_back() {
        let one = encode(&(7u64, "seven")).unwrap();
        let both = encode_behind(&Some(8u8), one.clone()).unwrap();
        assert_eq!(decode::<(u64, String)>(&both[..one.len()]), Ok((7, "seven".into())));
        assert_eq!(decode::<Option<u8>>(&both[one.len()..]), Ok(Some(8)));
    }

    #[test]
    fn foreign_bytes_are_refused_not_believed() {
        assert_eq!(decode::<u64>(&[]), Err(CodecError::Empty));
        assert_eq!(decode::<u64>(&[9, 1]), Err(CodecError::Version(9)));
        assert_eq!(decode::<u64>(&[VERSION, 1, 2, 3]), Err(CodecError::Trailing(2)));
        assert!(matches!(decode::<u64>(&[VERSION, 0xff]), Err(CodecError::Value(_))));
        // A length that no buffer has.
        assert!(decode::<Vec<u64>>(&[VERSION, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
    }

    #[test]
    fn any_short_bytes_decode_or_err_and_never_panic() {
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                let _ = decode::<(Option<u64>, Vec<String>)>(&[VERSION, first, second, 0x80, 7]);
            }
        }
    }
}

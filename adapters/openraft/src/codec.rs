//! How openraft's types are spelled in the log.
//!
//! A version byte, then [postcard](https://docs.rs/postcard): compact, and not self-describing. The log's checksums vouch for the bytes,
//! but they may still come from a newer version of this crate, or from another program.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The one version there is.
const VERSION: u8 = 1;

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
    /// Bytes are left over behind the value.
    #[error("{0} bytes are left over")]
    Trailing(usize),
    /// What serde or postcard say.
    #[error("{0}")]
    Value(String),
}

impl From<postcard::Error> for CodecError {
    fn from(error: postcard::Error) -> Self {
        CodecError::Value(error.to_string())
    }
}

/// Appends the encoded form of `value` to `out`, and gives it back.
pub(crate) fn encode_behind<T: Serialize + ?Sized>(value: &T, mut out: Vec<u8>) -> Result<Vec<u8>, CodecError> {
    out.push(VERSION);
    Ok(postcard::to_extend(value, out)?)
}

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

#[cfg(test)]
mod tests {
    use super::*;

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

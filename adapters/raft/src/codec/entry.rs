//! A raft entry as the bytes of a log entry.
//!
//! Index and term are the log's own; what remains is
//!
//! ```text
//! | shape, 1 byte | context length, varint | context | data ... |
//!                  `-- only if shape says so ------'
//!
//! shape: bits 0-1  entry type (normal, conf change, conf change v2)
//!        bit  2    a context follows
//!        bit  3    sync_log (deprecated by raft-rs, kept as it came)
//!        bits 4-7  zero
//! ```
//!
//! One byte more than the data in the common case, and always less than raft's protobuf form: so a size
//! limit given by raft never cuts off more here than raft means.

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType};

use super::{DecodeError, put_varint, take_varint};

const TYPE: u8 = 0b0011;
const HAS_CONTEXT: u8 = 0b0100;
const SYNC_LOG: u8 = 0b1000;

/// The most bytes that an encoded entry has beside its context and data.
pub(crate) const OVERHEAD: usize = 1 + 10;

/// Appends the encoded form of `entry` to `out`.
pub fn encode(entry: &Entry, out: &mut Vec<u8>) {
    let mut shape = match entry.get_entry_type() {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => 2,
    };
    if !entry.context.is_empty() {
        shape |= HAS_CONTEXT;
    }
    if entry.sync_log {
        shape |= SYNC_LOG;
    }
    out.push(shape);
    if !entry.context.is_empty() {
        put_varint(out, entry.context.len() as u64);
        out.extend_from_slice(&entry.context);
    }
    out.extend_from_slice(&entry.data);
}

/// The entry whose encoded form is `bytes`; context and data are slices of it, not copies.
pub fn decode(index: u64, term: u64, bytes: &Bytes) -> Result<Entry, DecodeError> {
    let mut rest = &bytes[..];
    let (&shape, tail) = rest.split_first().ok_or(DecodeError::Truncated)?;
    rest = tail;
    let mut entry = Entry { index, term, ..Entry::default() };
    entry.set_entry_type(match shape & TYPE {
        0 => EntryType::EntryNormal,
        1 => EntryType::EntryConfChange,
        2 => EntryType::EntryConfChangeV2,
        _ => return Err(DecodeError::Shape(shape)),
    });
    if shape & !(TYPE | HAS_CONTEXT | SYNC_LOG) != 0 {
        return Err(DecodeError::Shape(shape));
    }
    entry.sync_log = shape & SYNC_LOG != 0;
    let mut at = 1;
    if shape & HAS_CONTEXT != 0 {
        let length = take_varint(&mut rest)?;
        let length = usize::try_from(length).map_err(|_| DecodeError::Truncated)?;
        if length > rest.len() {
            return Err(DecodeError::Truncated);
        }
        at = bytes.len() - rest.len();
        entry.context = bytes.slice(at..at + length);
        at += length;
    }
    entry.data = bytes.slice(at..);
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(entry: &Entry) -> Vec<u8> {
        let mut out = Vec::new();
        encode(entry, &mut out);
        let bytes = Bytes::from(out.clone());
        assert_eq!(decode(entry.index, entry.term, &bytes).as_ref(), Ok(entry));
        out
    }

    #[test]
    fn every_shape_round_trips_and_is_smaller_than_protobuf() {
        use protobuf::Message as _;
        for kind in [EntryType::EntryNormal, EntryType::EntryConfChange, EntryType::EntryConfChangeV2] {
            for (context, data, sync_log) in [(0, 0, false), (0, 5, true), (3, 0, false), (200, 999, true)] {
                let mut entry = Entry {
                    index: 7,
                    term: 3,
                    sync_log,
                    context: vec![1; context].into(),
                    data: vec![2; data].into(),
                    ..Entry::default()
                };
                entry.set_entry_type(kind);
                let encoded = round_trip(&entry);
                assert!(encoded.len() < entry.compute_size() as usize);
            }
        }
    }

    #[test]
    fn foreign_bytes_are_refused_not_believed() {
        let decode = |bytes: &[u8]| decode(1, 1, &Bytes::copy_from_slice(bytes));
        assert_eq!(decode(&[]), Err(DecodeError::Truncated));
        assert_eq!(decode(&[3]), Err(DecodeError::Shape(3)));
        assert_eq!(decode(&[0x10]), Err(DecodeError::Shape(0x10)));
        assert_eq!(decode(&[HAS_CONTEXT]), Err(DecodeError::Truncated));
        assert_eq!(decode(&[HAS_CONTEXT, 2, 0]), Err(DecodeError::Truncated));
        let huge = [HAS_CONTEXT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(decode(&huge), Err(DecodeError::Truncated));
    }

    #[test]
    fn any_short_bytes_decode_or_err_and_never_panic() {
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                for length in 0..=4 {
                    let bytes = Bytes::copy_from_slice(&[first, second, 0x80, 7][..length]);
                    let _ = decode(1, 1, &bytes);
                }
            }
        }
    }
}

//! Hard state, configuration and applied position as keyed state.
//!
//! Each value starts with a version byte; numbers are varints.
//!
//! ```text
//! hard state      | 1 | term | vote | commit |
//! configuration   | 1 | auto_leave | 4 x (count, ids): voters, learners, outgoing, learners next |
//! applied         | 1 | index | term | state machine's bytes ... |
//!                 | 2 | index |: the state machine is elsewhere
//! ```

use bytes::Bytes;
use raft::eraftpb::{ConfState, HardState};

use super::{DecodeError, put_varint, take_varint};

const VERSION: u8 = 1;
/// Of an applied position: without a state machine.
const ELSEWHERE: u8 = 2;

/// An applied position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Index of the last entry applied.
    pub index: u64,
    /// Term of that entry and the state machine's bytes as of there, unless it lives elsewhere.
    pub machine: Option<(u64, Bytes)>,
}

/// Encodes a hard state.
pub fn encode_hard_state(state: &HardState) -> Vec<u8> {
    let mut out = vec![VERSION];
    for number in [state.term, state.vote, state.commit] {
        put_varint(&mut out, number);
    }
    out
}

/// Decodes a hard state.
pub fn decode_hard_state(mut bytes: &[u8]) -> Result<HardState, DecodeError> {
    take_version(&mut bytes)?;
    let state = HardState {
        term: take_varint(&mut bytes)?,
        vote: take_varint(&mut bytes)?,
        commit: take_varint(&mut bytes)?,
        ..HardState::default()
    };
    at_end(bytes)?;
    Ok(state)
}

/// Encodes a configuration.
pub fn encode_conf_state(state: &ConfState) -> Vec<u8> {
    let mut out = vec![VERSION, u8::from(state.auto_leave)];
    for ids in [&state.voters, &state.learners, &state.voters_outgoing, &state.learners_next] {
        put_varint(&mut out, ids.len() as u64);
        for &id in ids {
            put_varint(&mut out, id);
        }
    }
    out
}

/// Decodes a configuration.
pub fn decode_conf_state(mut bytes: &[u8]) -> Result<ConfState, DecodeError> {
    take_version(&mut bytes)?;
    let auto_leave = match take_varint(&mut bytes)? {
        0 => false,
        1 => true,
        _ => return Err(DecodeError::Number),
    };
    let state = ConfState {
        auto_leave,
        voters: take_ids(&mut bytes)?,
        learners: take_ids(&mut bytes)?,
        voters_outgoing: take_ids(&mut bytes)?,
        learners_next: take_ids(&mut bytes)?,
        ..ConfState::default()
    };
    at_end(bytes)?;
    Ok(state)
}

/// Encodes an applied position with the state machine's bytes.
pub fn encode_applied(index: u64, term: u64, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 16);
    out.push(VERSION);
    put_varint(&mut out, index);
    put_varint(&mut out, term);
    out.extend_from_slice(data);
    out
}

/// Encodes the applied position of a state machine outside the log.
pub fn encode_applied_elsewhere(index: u64) -> Vec<u8> {
    let mut out = vec![ELSEWHERE];
    put_varint(&mut out, index);
    out
}

/// Decodes an applied position; the state machine's bytes are a slice, not a copy.
pub fn decode_applied(bytes: &Bytes) -> Result<Applied, DecodeError> {
    if let Some((&ELSEWHERE, mut rest)) = bytes.split_first() {
        let index = take_varint(&mut rest)?;
        at_end(rest)?;
        return Ok(Applied { index, machine: None });
    }
    let mut rest = &bytes[..];
    take_version(&mut rest)?;
    let index = take_varint(&mut rest)?;
    let term = take_varint(&mut rest)?;
    let machine = Some((term, bytes.slice(bytes.len() - rest.len()..)));
    Ok(Applied { index, machine })
}

/// The index of an encoded applied position.
pub(crate) fn applied_index(mut bytes: &[u8]) -> Result<u64, DecodeError> {
    match bytes.split_first() {
        Some((&ELSEWHERE, rest)) => bytes = rest,
        _ => take_version(&mut bytes)?,
    }
    take_varint(&mut bytes)
}

fn take_version(bytes: &mut &[u8]) -> Result<(), DecodeError> {
    let (&version, rest) = bytes.split_first().ok_or(DecodeError::Truncated)?;
    *bytes = rest;
    match version {
        VERSION => Ok(()),
        other => Err(DecodeError::Version(other)),
    }
}

fn take_ids(bytes: &mut &[u8]) -> Result<Vec<u64>, DecodeError> {
    let count = take_varint(bytes)?;
    // An id is a byte at least: allocate for what can be there, not for what a number claims.
    if count > bytes.len() as u64 {
        return Err(DecodeError::Truncated);
    }
    (0..count).map(|_| take_varint(bytes)).collect()
}

fn at_end(bytes: &[u8]) -> Result<(), DecodeError> {
    match bytes.len() {
        0 => Ok(()),
        more => Err(DecodeError::Trailing(more)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf_state() -> ConfState {
        ConfState {
            auto_leave: true,
            voters: vec![1, 2, u64::MAX],
            learners: vec![300],
            voters_outgoing: vec![],
            learners_next: vec![4, 5],
            ..ConfState::default()
        }
    }

    #[test]
    fn values_round_trip() {
        for (term, vote, commit) in [(0, 0, 0), (1, 2, 3), (u64::MAX, 127, 128)] {
            let state = HardState { term, vote, commit, ..HardState::default() };
            assert_eq!(decode_hard_state(&encode_hard_state(&state)), Ok(state));
        }
        for state in [ConfState::default(), conf_state()] {
            assert_eq!(decode_conf_state(&encode_conf_state(&state)), Ok(state));
        }
        let applied = Bytes::from(encode_applied(9, 4, b"state"));
        let data = Bytes::from_static(b"state");
        assert_eq!(decode_applied(&applied), Ok(Applied { index: 9, machine: Some((4, data)) }));
        let elsewhere = Bytes::from(encode_applied_elsewhere(300));
        assert_eq!(decode_applied(&elsewhere), Ok(Applied { index: 300, machine: None }));
        assert_eq!((applied_index(&applied), applied_index(&elsewhere)), (Ok(9), Ok(300)));
        assert_eq!(
            (applied_index(&[]), applied_index(&[3, 0])),
            (Err(DecodeError::Truncated), Err(DecodeError::Version(3)))
        );
    }

    #[test]
    fn every_cut_and_every_addition_is_noticed() {
        let hard = encode_hard_state(&HardState { term: 500, vote: 1, commit: 70_000, ..HardState::default() });
        let conf = encode_conf_state(&conf_state());
        for cut in 0..hard.len() {
            assert_eq!(decode_hard_state(&hard[..cut]), Err(DecodeError::Truncated));
        }
        for cut in 0..conf.len() {
            assert_eq!(decode_conf_state(&conf[..cut]), Err(DecodeError::Truncated));
        }
        let longer = |bytes: &[u8]| [bytes, &[0]].concat();
        assert_eq!(decode_hard_state(&longer(&hard)), Err(DecodeError::Trailing(1)));
        assert_eq!(decode_conf_state(&longer(&conf)), Err(DecodeError::Trailing(1)));
        assert_eq!(decode_applied(&Bytes::new()), Err(DecodeError::Truncated));
        let elsewhere = encode_applied_elsewhere(300);
        assert_eq!(decode_applied(&longer(&elsewhere).into()), Err(DecodeError::Trailing(1)));
        for cut in 0..elsewhere.len() {
            assert_eq!(decode_applied(&elsewhere[..cut].to_vec().into()), Err(DecodeError::Truncated));
        }
    }

    #[test]
    fn a_newer_version_is_named_and_a_claimed_count_is_not_allocated() {
        assert_eq!(decode_hard_state(&[2, 0, 0, 0]), Err(DecodeError::Version(2)));
        let claims = [VERSION, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 1];
        assert_eq!(decode_conf_state(&claims), Err(DecodeError::Truncated));
    }
}

//! Hard state, configuration and applied position as keyed state.
//!
//! Each value starts with a version byte. The values that raft keeps rewriting have numbers of eight bytes, little-endian, so their length
//! does not change, and a full log does not refuse them. The numbers of a configuration are varints.
//!
//! ```text
//! hard state      | 2 | term | vote | commit |
//! configuration   | 1 | auto_leave | 4 x (count, ids): voters, learners, outgoing, learners next |
//! applied         | 3 | index | term | state machine's bytes ... |
//!                 | 4 | index |: the state machine is elsewhere
//! ```
//!
//! Hard states of version 1 and applied positions of versions 1 and 2 hold the same in varints. They are still read, but no longer written.

use bytes::Bytes;
use raft::eraftpb::{ConfState, HardState};

use super::{DecodeError, put_varint, take_varint};

/// A configuration; also older hard states and applied positions. All in varints.
const VERSION: u8 = 1;
/// An applied position without a state machine, in varints.
const ELSEWHERE: u8 = 2;
/// A hard state with eight bytes for each number.
const FIXED_STATE: u8 = 2;
/// An applied position with eight bytes for each number.
const FIXED: u8 = 3;
/// The same without a state machine.
const FIXED_ELSEWHERE: u8 = 4;
/// Bytes of a number whose length does not change.
const NUMBER: usize = size_of::<u64>();

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
    fixed(FIXED_STATE, &[state.term, state.vote, state.commit], &[])
}

fn fixed(version: u8, numbers: &[u64], behind: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + numbers.len() * NUMBER + behind.len());
    out.push(version);
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    out.extend_from_slice(behind);
    out
}

/// Decodes a hard state.
pub fn decode_hard_state(mut bytes: &[u8]) -> Result<HardState, DecodeError> {
    let take = match take_version(&mut bytes)? {
        VERSION => take_varint,
        FIXED_STATE => take_fixed,
        other => return Err(DecodeError::Version(other)),
    };
    let state = HardState {
        term: take(&mut bytes)?,
        vote: take(&mut bytes)?,
        commit: take(&mut bytes)?,
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
    match take_version(&mut bytes)? {
        VERSION => {}
        other => return Err(DecodeError::Version(other)),
    }
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
    fixed(FIXED, &[index, term], data)
}

/// Encodes the applied position of a state machine outside the log.
pub fn encode_applied_elsewhere(index: u64) -> Vec<u8> {
    fixed(FIXED_ELSEWHERE, &[index], &[])
}

/// Decodes an applied position; the state machine's bytes are a slice, not a copy.
pub fn decode_applied(bytes: &Bytes) -> Result<Applied, DecodeError> {
    let mut rest = &bytes[..];
    let (index, take) = take_applied(&mut rest)?;
    let Some(take) = take else {
        at_end(rest)?;
        return Ok(Applied { index, machine: None });
    };
    let term = take(&mut rest)?;
    let machine = Some((term, bytes.slice(bytes.len() - rest.len()..)));
    Ok(Applied { index, machine })
}

/// The index of an encoded applied position.
pub(crate) fn applied_index(mut bytes: &[u8]) -> Result<u64, DecodeError> {
    take_applied(&mut bytes).map(|(index, _)| index)
}

type Take = fn(&mut &[u8]) -> Result<u64, DecodeError>;

/// The index, and the function that decodes the term after it, if there is one.
fn take_applied(bytes: &mut &[u8]) -> Result<(u64, Option<Take>), DecodeError> {
    let (take, has_machine): (Take, bool) = match take_version(bytes)? {
        VERSION => (take_varint, true),
        ELSEWHERE => (take_varint, false),
        FIXED => (take_fixed, true),
        FIXED_ELSEWHERE => (take_fixed, false),
        other => return Err(DecodeError::Version(other)),
    };
    Ok((take(bytes)?, has_machine.then_some(take)))
}

fn take_version(bytes: &mut &[u8]) -> Result<u8, DecodeError> {
    let (&version, rest) = bytes.split_first().ok_or(DecodeError::Truncated)?;
    *bytes = rest;
    Ok(version)
}

fn take_fixed(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let (number, rest) = bytes.split_first_chunk::<NUMBER>().ok_or(DecodeError::Truncated)?;
    *bytes = rest;
    Ok(u64::from_le_bytes(*number))
}

fn take_ids(bytes: &mut &[u8]) -> Result<Vec<u64>, DecodeError> {
    let count = take_varint(bytes)?;
    // An id takes at least one byte: allocate for what can be there, not for what a number claims.
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
            (applied_index(&[]), applied_index(&[5, 0])),
            (Err(DecodeError::Truncated), Err(DecodeError::Version(5)))
        );
    }

    #[test]
    fn values_keep_their_length_and_those_of_older_versions_are_read() {
        let state = |n| HardState { term: n, vote: n, commit: n, ..HardState::default() };
        assert_eq!([0, 300, u64::MAX].map(|n| encode_hard_state(&state(n)).len()), [25; 3]);
        assert_eq!([0, 300, u64::MAX].map(|n| encode_applied(n, n, b"data").len()), [21; 3]);
        assert_eq!([0, 300, u64::MAX].map(|n| encode_applied_elsewhere(n).len()), [9; 3]);
        assert_eq!(decode_hard_state(&[1, 0xac, 2, 7, 9]).map(|s| (s.term, s.vote, s.commit)), Ok((300, 7, 9)));
        let machine = Some((7, Bytes::from_static(b"data")));
        let applied = Bytes::from_static(b"\x01\xac\x02\x07data");
        assert_eq!((decode_applied(&applied), applied_index(&applied)), (Ok(Applied { index: 300, machine }), Ok(300)));
        let elsewhere = Bytes::from_static(b"\x02\xac\x02");
        assert_eq!(decode_applied(&elsewhere), Ok(Applied { index: 300, machine: None }));
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
        assert_eq!(decode_hard_state(&[3, 0, 0, 0]), Err(DecodeError::Version(3)));
        let claims = [VERSION, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 1];
        assert_eq!(decode_conf_state(&claims), Err(DecodeError::Truncated));
    }
}

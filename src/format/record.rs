//! Records: what one replica did, or what was done to it, as written in the frame's table.
//!
//! ```text
//! | kind u8 | codec u8 (if kind & 0x80) | replica varint | seq u16 | body |
//! ```
//! Replay begins in the middle of history, so each kind of record means the same with or without what came before.

use smallvec::SmallVec;

use super::piece::{MAX_TERM_RUNS, PieceDesc};
use super::{Reader, varint};

/// Set in the kind byte when a codec id follows: reserved for compression and encryption of payloads.
const HAS_CODEC: u8 = 0x80;
/// The most damage ranges that a CORE record carries; more are merged.
pub const MAX_DAMAGE_RANGES: usize = 16;
/// Kind and sequence number: what every record begins with, besides its replica.
pub const KIND_AND_SEQ: u64 = 3;
/// The shortest record: a REMOVE.
pub const LEAST_RECORD_BYTES: u64 = KIND_AND_SEQ + 1;
/// The longest CORE without damage: its head, incarnation, flags, number of ranges (one byte), and the integers.
pub const CORE_BYTES: u64 = KIND_AND_SEQ + 8 + 2 + 4 * varint::MAX_BYTES as u64;
/// The longest damage range in a CORE.
pub const DAMAGE_RANGE_BYTES: u64 = 2 * varint::MAX_BYTES as u64;
/// The longest CORE.
pub const MOST_CORE_BYTES: u64 = CORE_BYTES + MAX_DAMAGE_RANGES as u64 * DAMAGE_RANGE_BYTES;
/// The longest record head: kind, sequence number, replica, first, term, count.
pub const RECORD_HEAD: u64 = KIND_AND_SEQ + 4 * varint::MAX_BYTES as u64;
/// The most that an operation of a batch takes in a frame, besides its key, value or payloads: its record, and the CORE of the life that it
/// may begin. An entry takes less; what is placed directly takes less than its length.
pub const OP_BYTES: u64 = RECORD_HEAD + CORE_BYTES;

/// Where a replica stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Core {
    /// This life of the replica; a re-created replica gets another.
    pub incarnation: u64,
    /// First index it holds.
    pub first: u64,
    /// Term of `first - 1`.
    pub prev_term: u64,
    /// Last index it holds; `first - 1` when empty.
    pub last: u64,
    /// The first record of a life: everything before it is gone.
    pub fresh: bool,
    /// Keyed state may miss an update and is not to be trusted until the replica is reset.
    pub state_suspect: bool,
    /// Ranges of indexes known to be lost or stale.
    pub damaged: Vec<(u64, u64)>,
}

/// Lengths of a record's entries: varints, validated once when decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lens<'a> {
    bytes: &'a [u8],
    count: u32,
}

impl<'a> Lens<'a> {
    fn decode(r: &mut Reader<'a>) -> Option<Self> {
        let count = r.varint32()?;
        let start = r.rest();
        // Each length takes at least one byte: a count beyond the remaining bytes is refused before the loop.
        if count as usize > start.len() {
            return None;
        }
        for _ in 0..count {
            r.varint32()?;
        }
        let used = start.len() - r.rest().len();
        Some(Self { bytes: start.get(..used)?, count })
    }
    /// How many entries.
    pub fn count(&self) -> u32 {
        self.count
    }
    /// Each entry's length.
    pub fn iter(&self) -> impl Iterator<Item = u32> + 'a {
        let mut r = Reader::new(self.bytes);
        std::iter::from_fn(move || r.varint32())
    }
}

/// The pieces of one record: nearly always one.
pub type Pieces = SmallVec<[PieceDesc; 1]>;

/// The body of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// The replica's state at this point of the log. The first record of every life; carried.
    Core(Core),
    /// Entries from `first` on, of one term; every index above the last of them is cut.
    Append {
        /// Index of the first.
        first: u64,
        /// Their term.
        term: u64,
        /// Their lengths.
        lens: Lens<'a>,
    },
    /// Copies of live entries: moves them, never cuts.
    Carried {
        /// Index of the first.
        first: u64,
        /// Their term.
        term: u64,
        /// Their lengths.
        lens: Lens<'a>,
    },
    /// As `Append`, with the payload in pieces; every index above the last of them is cut.
    Placed(Pieces),
    /// As `Carried`, with the payload in pieces.
    Settled(Pieces),
    /// A keyed value.
    Put {
        /// Its key.
        key: &'a [u8],
        /// The value itself.
        value: &'a [u8],
    },
    /// A keyed value that lies in a piece of its own, written beside this frame.
    PutOut {
        /// Its key.
        key: &'a [u8],
        /// Where the value lies.
        piece: PieceDesc,
    },
    /// As `PutOut`, but carried: the piece is older than the frame.
    KeptOut {
        /// Its key.
        key: &'a [u8],
        /// Where the value lies.
        piece: PieceDesc,
    },
    /// A key is gone.
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// Entries below `first` are gone.
    Truncate {
        /// The first index kept.
        first: u64,
        /// Term of `first - 1`. `None`: unknown, as what would have told it was damaged.
        prev_term: Option<u64>,
    },
    /// Entries from `first` on are gone.
    Cut {
        /// The next index.
        first: u64,
    },
    /// A snapshot was installed: every entry is gone, the next index is `first`.
    Reset {
        /// The next index.
        first: u64,
        /// Term of `first - 1`.
        prev_term: u64,
    },
    /// The replica is gone, its keyed state too.
    Remove,
}

const CORE: u8 = 1;
const APPEND: u8 = 2;
const CARRIED: u8 = 3;
const PLACED: u8 = 4;
const SETTLED: u8 = 5;
const PUT: u8 = 6;
const PUT_OUT: u8 = 7;
const DELETE: u8 = 8;
const TRUNCATE: u8 = 9;
const RESET: u8 = 10;
const REMOVE: u8 = 11;
const CUT: u8 = 12;
const KEPT_OUT: u8 = 13;
const TRUNCATE_BLIND: u8 = 14;

/// A decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The replica it belongs to.
    pub replica: u64,
    /// Its number among the replica's records, modulo 2^16.
    pub seq: u16,
    /// Its content.
    pub body: Body<'a>,
}

/// What [`Records::next_of`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A record of a replica that was asked for.
    Record(Record<'a>),
    /// A record of another replica. Of a run of entries, their lengths: the payloads that follow in the frame lie behind them.
    Passed(Option<Lens<'a>>),
}

/// Why a table could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// The checksum held, yet the bytes make no sense.
    Malformed,
    /// A payload codec that this library does not know.
    Codec(u8),
}

/// Writes the parts that every record begins with.
#[inline]
fn head(out: &mut Vec<u8>, kind: u8, replica: u64, seq: u16) {
    out.push(kind);
    varint::encode(replica, out);
    out.extend_from_slice(&seq.to_le_bytes());
}

/// Whether a run of entries is new or moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunKind {
    /// New entries: they cut the entries above them.
    Append,
    /// Moved entries.
    Carried,
}

/// Appends a run of entries of one term.
pub fn encode_run(
    out: &mut Vec<u8>,
    kind: RunKind,
    replica: u64,
    seq: u16,
    (first, term): (u64, u64),
    lens: impl ExactSizeIterator<Item = u32>,
) {
    head(out, if kind == RunKind::Append { APPEND } else { CARRIED }, replica, seq);
    varint::encode(first, out);
    varint::encode(term, out);
    varint::encode(lens.len() as u64, out);
    for len in lens {
        varint::encode(len.into(), out);
    }
}

/// Appends pieces: placed (new) or settled (moved).
pub fn encode_pieces(out: &mut Vec<u8>, kind: RunKind, replica: u64, seq: u16, pieces: &[PieceDesc]) {
    head(out, if kind == RunKind::Append { PLACED } else { SETTLED }, replica, seq);
    varint::encode(pieces.len() as u64, out);
    for piece in pieces {
        piece.encode(out);
    }
}

/// Appends a CORE.
pub fn encode_core(out: &mut Vec<u8>, replica: u64, seq: u16, core: &Core) {
    head(out, CORE, replica, seq);
    out.extend_from_slice(&core.incarnation.to_le_bytes());
    for value in [core.first, core.prev_term, core.last] {
        varint::encode(value, out);
    }
    out.push(u8::from(core.state_suspect) | u8::from(core.fresh) << 1);
    varint::encode(core.damaged.len() as u64, out);
    for &(lo, hi) in &core.damaged {
        varint::encode(lo, out);
        varint::encode(hi, out);
    }
}

/// Appends a keyed value.
pub fn encode_put(out: &mut Vec<u8>, replica: u64, seq: u16, key: &[u8], value: &[u8]) {
    head(out, PUT, replica, seq);
    bytes(out, key);
    bytes(out, value);
}

/// Appends a keyed value that lies in a piece, written together with this record.
pub fn encode_put_out(out: &mut Vec<u8>, replica: u64, seq: u16, key: &[u8], piece: &PieceDesc) {
    head(out, PUT_OUT, replica, seq);
    bytes(out, key);
    piece.encode(out);
}

/// Appends a carried keyed value: its piece stays where it is.
pub fn encode_kept_out(out: &mut Vec<u8>, replica: u64, seq: u16, key: &[u8], piece: &PieceDesc) {
    head(out, KEPT_OUT, replica, seq);
    bytes(out, key);
    piece.encode(out);
}

/// Appends a deletion of a key.
pub fn encode_delete(out: &mut Vec<u8>, replica: u64, seq: u16, key: &[u8]) {
    head(out, DELETE, replica, seq);
    bytes(out, key);
}

/// Appends a prefix truncation. Without a term, the term of `first - 1` is unknown from then on: that needs a record kind of its own, as
/// every term is one that an entry may have.
pub fn encode_truncate(out: &mut Vec<u8>, replica: u64, seq: u16, first: u64, prev_term: Option<u64>) {
    head(out, if prev_term.is_some() { TRUNCATE } else { TRUNCATE_BLIND }, replica, seq);
    varint::encode(first, out);
    if let Some(term) = prev_term {
        varint::encode(term, out);
    }
}

/// Appends a suffix truncation.
pub fn encode_cut(out: &mut Vec<u8>, replica: u64, seq: u16, first: u64) {
    head(out, CUT, replica, seq);
    varint::encode(first, out);
}

/// Appends a snapshot reset.
pub fn encode_reset(out: &mut Vec<u8>, replica: u64, seq: u16, first: u64, prev_term: u64) {
    head(out, RESET, replica, seq);
    varint::encode(first, out);
    varint::encode(prev_term, out);
}

/// Appends a removal.
pub fn encode_remove(out: &mut Vec<u8>, replica: u64, seq: u16) {
    head(out, REMOVE, replica, seq);
}

fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    varint::encode(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn take_bytes<'a>(r: &mut Reader<'a>) -> Option<&'a [u8]> {
    let n = r.varint32()?;
    r.take(n as usize)
}

/// Decodes the records of a table, one by one; `pool_blocks` bounds every extent.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: Reader<'a>,
    pool_blocks: u32,
}

impl<'a> Records<'a> {
    /// Starts behind the list of participants.
    pub fn new(rest: Reader<'a>, pool_blocks: u32) -> Self {
        Self { rest, pool_blocks }
    }

    /// The next record, or what was passed over if `mine` does not accept its replica. Pieces of other replicas are not even looked at:
    /// nonsense there may go unreported.
    #[inline]
    pub fn next_of(&mut self, mine: impl Fn(u64) -> bool) -> Option<Result<Step<'a>, RecordError>> {
        if self.rest.rest().is_empty() {
            return None;
        }
        let step = self.step(mine);
        if step.is_err() {
            self.rest = Reader::new(&[]);
        }
        Some(step)
    }

    #[inline]
    fn step(&mut self, mine: impl Fn(u64) -> bool) -> Result<Step<'a>, RecordError> {
        let r = &mut self.rest;
        let bad = RecordError::Malformed;
        let kind = r.u8().ok_or(bad)?;
        if kind & HAS_CODEC != 0 {
            return Err(RecordError::Codec(r.u8().ok_or(bad)?));
        }
        let replica = r.varint().ok_or(bad)?;
        let seq = r.u16().ok_or(bad)?;
        let mine = mine(replica);
        if !mine && matches!(kind, PLACED | SETTLED) {
            let pieces = r.varint32().ok_or(bad)?;
            (0..pieces).try_for_each(|_| PieceDesc::pass(r)).ok_or(bad)?;
            return Ok(Step::Passed(None));
        }
        let body = Self::body(r, kind, self.pool_blocks).ok_or(bad)?;
        Ok(match body {
            _ if mine => Step::Record(Record { replica, seq, body }),
            Body::Append { lens, .. } | Body::Carried { lens, .. } => Step::Passed(Some(lens)),
            _ => Step::Passed(None),
        })
    }

    fn body(r: &mut Reader<'a>, kind: u8, pool_blocks: u32) -> Option<Body<'a>> {
        Some(match kind {
            CORE => Body::Core(decode_core(r)?),
            APPEND | CARRIED => {
                let (first, term, lens) = (r.varint()?, r.varint()?, Lens::decode(r)?);
                if first == 0 || lens.count == 0 || first.checked_add(u64::from(lens.count) - 1).is_none() {
                    return None;
                }
                if kind == APPEND { Body::Append { first, term, lens } } else { Body::Carried { first, term, lens } }
            }
            PLACED | SETTLED => {
                let n = r.varint()? as usize;
                let mut pieces = Pieces::with_capacity(n.min(r.rest().len() / 16));
                for _ in 0..n {
                    let piece = PieceDesc::decode(r, pool_blocks)?;
                    (piece.first > 0 && piece.count > 0).then_some(())?;
                    pieces.push(piece);
                }
                if kind == PLACED { Body::Placed(pieces) } else { Body::Settled(pieces) }
            }
            PUT => Body::Put { key: take_bytes(r)?, value: take_bytes(r)? },
            PUT_OUT | KEPT_OUT => {
                let (key, piece) = (take_bytes(r)?, PieceDesc::decode(r, pool_blocks)?);
                if kind == PUT_OUT { Body::PutOut { key, piece } } else { Body::KeptOut { key, piece } }
            }
            DELETE => Body::Delete { key: take_bytes(r)? },
            TRUNCATE | TRUNCATE_BLIND => {
                let first = r.varint()?;
                (first > 0).then_some(())?;
                Body::Truncate { first, prev_term: if kind == TRUNCATE { Some(r.varint()?) } else { None } }
            }
            RESET => {
                let (first, prev_term) = (r.varint()?, r.varint()?);
                (first > 0).then_some(())?;
                Body::Reset { first, prev_term }
            }
            REMOVE => Body::Remove,
            CUT => {
                let first = r.varint()?;
                (first > 0).then_some(())?;
                Body::Cut { first }
            }
            _ => return None,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.next_of(|_| true)?;
        match step {
            Ok(Step::Record(record)) => Some(Ok(record)),
            // `|_| true` skips nothing.
            Ok(Step::Passed(_)) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

fn decode_core(r: &mut Reader<'_>) -> Option<Core> {
    let incarnation = r.u64()?;
    let (first, prev_term, last) = (r.varint()?, r.varint()?, r.varint()?);
    let flags = r.u8()?;
    let n = r.varint()? as usize;
    if first == 0 || last < first - 1 || n > MAX_DAMAGE_RANGES || flags > 3 {
        return None;
    }
    let mut damaged = Vec::with_capacity(n);
    for _ in 0..n {
        damaged.push((r.varint()?, r.varint()?));
    }
    let (state_suspect, fresh) = (flags & 1 != 0, flags & 2 != 0);
    Some(Core { incarnation, first, prev_term, last, fresh, state_suspect, damaged })
}

const _: () = assert!(MAX_TERM_RUNS <= 255);

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;

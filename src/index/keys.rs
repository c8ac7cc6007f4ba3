//! Keyed state beside the entries: a handful of keys, overwritten often.

use super::places::ChainPiece;
use crate::disk::BLOCK;
use crate::format::piece::{Extent, PIECE_HEADER_BYTES, PIECE_SLOT_BYTES, PieceDesc};

/// Where a value is.
#[derive(Debug)]
pub(crate) enum Value {
    /// In memory, and in the journal.
    Inline(Vec<u8>),
    /// In a piece of its own.
    Out(Box<ChainPiece>),
}

#[derive(Debug)]
pub(crate) struct KeyEntry {
    pub key: Box<[u8]>,
    pub value: Value,
    /// Segment that holds the newest record of it.
    pub seq: u64,
}

/// Keyed values beyond this lie in pieces of their own: a large value must not be carried again and again.
pub(crate) const INLINE_VALUE_BYTES: usize = 4096;
/// A record's overhead in the journal, generously.
const RECORD_OVERHEAD: u64 = 24;
/// Header and table of a piece that holds one value.
const PIECE_OVERHEAD: u64 = (PIECE_HEADER_BYTES + PIECE_SLOT_BYTES) as u64;
/// The longest extent in a descriptor.
const EXTENT_BYTES: u64 = 10;

/// The keys of one replica. A list, not a map: raft keeps two or three.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    list: Box<[KeyEntry]>,
}

impl Keys {
    pub fn get(&self, key: &[u8]) -> Option<&Value> {
        self.list.iter().find(|e| *e.key == *key).map(|e| &e.value)
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn at(&self, i: usize) -> Option<&KeyEntry> {
        self.list.get(i)
    }

    pub fn at_mut(&mut self, i: usize) -> Option<&mut KeyEntry> {
        self.list.get_mut(i)
    }

    /// Keeps the keys that `keep` says yes to; `false` if one went.
    pub fn retain(&mut self, keep: impl FnMut(&KeyEntry) -> bool) -> bool {
        let before = self.list.len();
        self.change(|list| list.retain(keep));
        self.list.len() == before
    }

    pub fn iter(&self) -> impl Iterator<Item = &KeyEntry> {
        self.list.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut KeyEntry> {
        self.list.iter_mut()
    }

    /// Sets an inline value; one of the same or a smaller size reuses its buffer.
    pub fn put(&mut self, key: &[u8], value: &[u8], seq: u64, freed: &mut Vec<Extent>) {
        match self.entry(key, seq) {
            Some(entry) => match &mut entry.value {
                Value::Inline(old) => {
                    old.clear();
                    old.extend_from_slice(value);
                }
                Value::Out(piece) => {
                    freed.extend_from_slice(&piece.desc.extents);
                    entry.value = Value::Inline(value.to_vec());
                }
            },
            None => self.push(KeyEntry { key: key.into(), value: Value::Inline(value.to_vec()), seq }),
        }
    }

    /// Sets a value that lies in a piece.
    pub fn put_out(&mut self, key: &[u8], piece: ChainPiece, seq: u64, freed: &mut Vec<Extent>) {
        let piece = Box::new(piece);
        match self.entry(key, seq) {
            Some(entry) => {
                // Carried: the same piece named again keeps its space.
                if let Value::Out(old) = &entry.value
                    && old.desc.id != piece.desc.id
                {
                    freed.extend_from_slice(&old.desc.extents);
                }
                entry.value = Value::Out(piece);
            }
            None => self.push(KeyEntry { key: key.into(), value: Value::Out(piece), seq }),
        }
    }

    pub fn delete(&mut self, key: &[u8], freed: &mut Vec<Extent>) {
        if let Some(i) = self.list.iter().position(|e| *e.key == *key)
            && let Value::Out(piece) = self.change(|list| list.swap_remove(i)).value
        {
            freed.extend_from_slice(&piece.desc.extents);
        }
    }

    pub fn clear(&mut self, freed: &mut Vec<Extent>) {
        for entry in std::mem::take(&mut self.list) {
            if let Value::Out(piece) = entry.value {
                freed.extend_from_slice(&piece.desc.extents);
            }
        }
    }

    /// What the keys take in the journal when they are carried.
    pub fn bytes(&self) -> u64 {
        self.list.iter().map(|e| e.key.len() as u64 + e.value.bytes()).sum()
    }

    /// What a key costs in the journal now; 0 when it is not there.
    pub fn cost(&self, key: &[u8]) -> u64 {
        self.get(key).map_or(0, |v| key.len() as u64 + v.bytes())
    }

    fn push(&mut self, entry: KeyEntry) {
        self.change(|list| {
            list.reserve_exact(1);
            list.push(entry);
        });
    }

    /// Keys come and go rarely: the list has no room to spare.
    fn change<T>(&mut self, how: impl FnOnce(&mut Vec<KeyEntry>) -> T) -> T {
        let mut list = std::mem::take(&mut self.list).into_vec();
        let out = how(&mut list);
        self.list = list.into();
        out
    }

    fn entry(&mut self, key: &[u8], seq: u64) -> Option<&mut KeyEntry> {
        let entry = self.list.iter_mut().find(|e| *e.key == *key)?;
        entry.seq = seq;
        Some(entry)
    }
}

impl Value {
    /// The piece that holds it.
    pub fn piece(&self) -> Option<&ChainPiece> {
        match self {
            Self::Inline(_) => None,
            Self::Out(piece) => Some(piece),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Inline(value) => value.len() as u64 + RECORD_OVERHEAD,
            Self::Out(piece) => out_of_line_cost(u64::from(piece.desc.bytes)),
        }
    }
}

/// What a value of so many bytes costs in the journal at most.
pub(crate) fn value_cost(key: &[u8], bytes: usize) -> u64 {
    let value = if bytes > INLINE_VALUE_BYTES {
        out_of_line_cost(bytes as u64 + PIECE_OVERHEAD)
    } else {
        bytes as u64 + RECORD_OVERHEAD
    };
    key.len() as u64 + value
}

/// What the record of an out-of-line value costs, its key apart: its piece may be in as many extents as it has blocks.
fn out_of_line_cost(piece_bytes: u64) -> u64 {
    RECORD_OVERHEAD + PieceDesc::TYPICAL_BYTES + piece_bytes.div_ceil(BLOCK as u64) * EXTENT_BYTES
}

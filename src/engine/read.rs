//! Reading: ask the index under the replica's lock, then touch bytes under none.

use bytes::Bytes;

use super::Engine;
use crate::batch::Entry;
use crate::chain::PieceRef;
use crate::error::{Damage, Error, Lost, Result};
use crate::format::EntryId;
use crate::index::{Cell, ChainPiece, Loc, Place, ReplicaState, Value};
use crate::sync::Ordering;

/// Where a read begins, taken out of the index.
pub(super) enum Source {
    Journal(Loc),
    Chain(PieceRef),
}

/// How often a read is tried anew, as what is read moves under it or comes back stale, before a mismatch is called damage.
pub(super) const ATTEMPTS: usize = 8;

fn damaged(replica: u64, first: u64, last: u64) -> Error {
    Error::Damaged(Damage { replica, lost: Lost::Entries { first, last } })
}

impl Engine {
    pub(crate) fn piece(&self, replica: u64, piece: &ChainPiece) -> PieceRef {
        PieceRef::new(replica, &piece.desc, piece.mem.as_ref(), &self.pins, self.geo.blocks_per_chunk)
    }

    /// Checks that `index` is held and undamaged; returns its term and place.
    fn find(id: u64, state: &ReplicaState, index: u64) -> Result<(u64, Place<'_>)> {
        if !state.exists {
            return Err(Error::UnknownReplica { replica: id });
        }
        if index < state.first {
            return Err(Error::Compacted { replica: id, index, first_index: state.first });
        }
        if index > state.last || state.is_empty() {
            return Err(Error::OutOfRange { replica: id, index, last_index: state.last });
        }
        if let Some((first, last)) = state.damage_at(index) {
            return Err(damaged(id, first, last));
        }
        let place = state.places.get(index).ok_or_else(|| damaged(id, index, index))?;
        Ok((state.terms.get(index).unwrap_or(0), place))
    }

    /// As [`Engine::find`]; if the source is a piece, that stays where it is until the source is dropped.
    pub(super) fn look(&self, id: u64, state: &ReplicaState, index: u64) -> Result<(u64, Source)> {
        let (term, place) = Self::find(id, state, index)?;
        let source = match place {
            Place::Journal(loc) => Source::Journal(loc),
            Place::Chain(piece) => Source::Chain(self.piece(id, piece)),
        };
        Ok((term, source))
    }

    pub(crate) fn read_term(&self, cell: &Cell, index: u64) -> Result<u64> {
        let state = cell.lock();
        if index == state.first - 1 && (state.exists || index == 0) {
            // Before the first entry of a log that was never truncated there is no term.
            return match state.damage_at(index).filter(|_| index > 0) {
                Some((first, last)) => Err(damaged(cell.id, first, last)),
                None => Ok(if index == 0 { 0 } else { state.prev_term }),
            };
        }
        Self::find(cell.id, &state, index).map(|(term, _)| term)
    }

    pub(crate) fn read_entry(&self, cell: &Cell, index: u64) -> Result<Entry> {
        for _ in 0..ATTEMPTS {
            let (term, source) = self.look(cell.id, &cell.lock(), index)?;
            if let Some(data) = self.read_source(cell.id, index, term, source)? {
                return Ok(Entry { index, term, data });
            }
        }
        Err(damaged(cell.id, index, index))
    }

    /// `None`: the bytes do not match, because they moved or because they rotted; look again.
    fn read_source(&self, replica: u64, index: u64, term: u64, source: Source) -> Result<Option<Bytes>> {
        let read = match source {
            Source::Journal(loc) => {
                let id = EntryId { replica, index, term, len: loc.len() };
                self.read_journal(id, loc, self.view().as_deref())
            }
            Source::Chain(piece) => piece.load_one(&*self.disk, self.map.as_ref(), self.geo.seed, index, term),
        };
        read.map_err(|e| Error::io(format!("reading replica {replica} entry {index}"), e))
    }

    /// An LSN at or above every location in the index.
    pub(crate) fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    pub(crate) fn read_key(&self, cell: &Cell, key: &[u8]) -> Result<Option<Bytes>> {
        let replica = cell.id;
        let lost = || Error::Damaged(Damage { replica, lost: Lost::State });
        for _ in 0..ATTEMPTS {
            let piece = {
                let state = cell.lock();
                if state.state_suspect {
                    return Err(lost());
                }
                match state.keys.get(key) {
                    None => return Ok(None),
                    Some(Value::Inline(value)) => return Ok(Some(Bytes::copy_from_slice(value))),
                    Some(Value::Out(piece)) => self.piece(replica, piece),
                }
            };
            let read = piece.load_one(&*self.disk, self.map.as_ref(), self.geo.seed, 0, 0);
            if let Some(value) = read.map_err(|e| Error::io(format!("reading replica {replica} keyed state"), e))? {
                return Ok(Some(value));
            }
        }
        Err(lost())
    }
}

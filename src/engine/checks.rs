//! Checking: what the disk itself has of an entry or a value, whatever is in memory.

use super::Engine;
use super::read::{ATTEMPTS, Source};
use crate::error::{Error, Result};
use crate::format::EntryId;
use crate::index::{Cell, Value};

/// What the disk has of a value.
pub(crate) enum Checked {
    Whole {
        bytes: u64,
    },
    /// It lies in no piece any more, or is not checked, as the replica's state is suspect.
    Gone,
    Rotten {
        /// Its piece: a value that is put again lies in another.
        id: u64,
        bytes: u64,
    },
}

impl Engine {
    /// Reads the entry from the disk, whatever is in memory, and returns its length. `None`: gone, or damaged.
    pub(crate) fn check_entry(&self, cell: &Cell, index: u64) -> Result<Option<u64>> {
        for _ in 0..ATTEMPTS {
            let Ok((term, source)) = self.look(cell.id, &cell.lock(), index) else { return Ok(None) };
            let io = |e| Error::io(format!("reading replica {} entry {index}", cell.id), e);
            let data = match source {
                Source::Journal(loc) => {
                    let id = EntryId { replica: cell.id, index, term, len: loc.len() };
                    let lsn = loc.lsn(self.head());
                    let (on_disk, view) = (lsn < self.durable(), self.view());
                    let view = view.as_deref();
                    if on_disk { self.read_segment(id, lsn, view) } else { self.read_journal(id, loc, view) }
                        .map_err(io)?
                }
                Source::Chain(piece) => piece
                    .without_memory()
                    .load_one(&*self.disk, self.map.as_ref(), self.geo.seed, index, term)
                    .map_err(io)?,
            };
            if let Some(data) = data {
                return Ok(Some(data.len() as u64));
            }
            // It may have been written a moment ago, or moved: what is not durable yet is made so before it is called damaged.
            if !self.read_only && self.seq.lock().stopped.is_none() {
                self.sync()?;
            }
        }
        if self.seq.lock().stopped.is_some()
            && let Ok((term, Source::Chain(piece))) = self.look(cell.id, &cell.lock(), index)
            && piece.in_memory()
        {
            // Perhaps it was never written, and never acknowledged.
            let io = |e| Error::io(format!("replica {} entry {index}", cell.id), e);
            let data = piece.load_one(&*self.disk, self.map.as_ref(), self.geo.seed, index, term).map_err(io)?;
            return Ok(data.map(|data| data.len() as u64));
        }
        Ok(None)
    }

    /// Reads the value from the disk, whatever is in memory, if it lies in a piece.
    ///
    /// It may be put again and again meanwhile: only a piece that still reads wrong once all is durable is rotten.
    pub(crate) fn check_value(&self, cell: &Cell, key: &[u8]) -> Result<Checked> {
        let mut wrong = None;
        for _ in 0..ATTEMPTS {
            let piece = {
                let state = cell.lock();
                match state.keys.get(key) {
                    Some(Value::Out(piece)) if !state.state_suspect => self.piece(cell.id, piece),
                    _ => return Ok(Checked::Gone),
                }
            };
            let (id, bytes, in_memory) = (piece.id, u64::from(piece.bytes), piece.in_memory());
            let read = piece.without_memory().load_one(&*self.disk, self.map.as_ref(), self.geo.seed, 0, 0);
            let io = |e| Error::io(format!("reading replica {} keyed state", cell.id), e);
            if read.map_err(io)?.is_some() {
                return Ok(Checked::Whole { bytes });
            }
            if wrong == Some(id) {
                return Ok(Checked::Rotten { id, bytes });
            }
            wrong = Some(id);
            if !self.read_only {
                if self.seq.lock().stopped.is_none() {
                    // It may have been submitted a moment ago, and be on its way to the disk.
                    self.sync()?;
                } else if in_memory {
                    // Perhaps it was never written, and never acknowledged.
                    return Ok(Checked::Gone);
                }
            }
        }
        Ok(Checked::Gone)
    }
}

//! Writing a snapshot, when the log is closed.

use super::codec::Head;
use super::encode::Encoder;
use super::longest;
use crate::disk::{AlignedBuf, BLOCK};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::format::Reader;
use crate::format::frame::{Participants, participant_bytes};
use crate::format::superblock::{MAX_SNAPSHOT_EXTENTS, Snapshot, Superblock};

impl Engine {
    /// Writes the index into free chunks, durable, for a superblock of this epoch to name. `None`: it is not worth it, or there is no room.
    ///
    /// The log was stopped when its last frame was durable and nobody had submitted more: the index is what a replay of the journal would
    /// make of it. Nobody allocates any more, either: the chunks stay free, but for what is written there.
    pub(crate) fn write_snapshot(&self, superblock: &Superblock, epoch: u64) -> Result<Option<Snapshot>> {
        let mut bytes = Vec::new();
        let Some(lsn) = self.encode_snapshot(superblock, &mut bytes) else { return Ok(None) };
        let blocks = bytes.len().div_ceil(BLOCK) as u64;
        let Some(extents) = self.pool.lock().free_runs(blocks, MAX_SNAPSHOT_EXTENTS) else { return Ok(None) };
        let crc = Snapshot::checksum(self.geo.seed, epoch, &bytes);
        let len = bytes.len() as u64;
        let mut image = AlignedBuf::from(bytes.as_slice());
        drop(bytes);
        image.pad_to_block();
        let mut rest = image.as_slice();
        for extent in &extents {
            let (part, tail) = rest.split_at(rest.len().min(extent.bytes() as usize));
            // **Before any superblock says that it is there.**
            self.write_durable(None, extent.offset(), part).map_err(|e| self.failed("writing the snapshot", &e))?;
            rest = tail;
        }
        Ok(Some(Snapshot { lsn, bytes: len, crc, extents }))
    }

    /// Appends the index to `out`; returns where the last frame begins.
    pub(super) fn encode_snapshot(&self, superblock: &Superblock, out: &mut Vec<u8>) -> Option<u64> {
        // A log that lost frames is read anew each time: what is still there may tell more than we know.
        if self.counters.lost_frames.get() > 0 {
            return None;
        }
        let mut cells = self.registry.all();
        cells.sort_unstable_by_key(|c| c.id);
        let s = self.seq.lock();
        // What died in the last frame must stay as it is until recovery need not verify that frame any more, and a snapshot does not name
        // it.
        if self.pool.lock().has_dying() {
            return None;
        }
        let stopped = matches!(s.stopped, Some(Error::Closed));
        let last = s.prev?;
        let newest = last.lsn / self.geo.segment_bytes;
        let live = s.segments.live.iter().filter(|l| l.seq <= newest);
        let segments: Vec<(u64, u32)> = live.map(|l| (l.seq, l.slab)).collect();
        // A segment that is leaving is live until a frame says otherwise: a log so full is read anew.
        let settled = s.segments.leaving.is_empty() && segments.first().is_some_and(|&(seq, _)| seq == last.tail_seq);
        if !stopped || !settled || s.open.batches > 0 {
            return None;
        }
        // The open frame lists the last one's participants, and holds nothing else yet.
        let listed = Participants::decode(&mut Reader::new(&s.open.table), participant_bytes(self.geo.segment_bytes))?;
        let Participants::These(participants) = listed else { return None };
        let replicas = cells.iter().filter(|c| c.lock().exists).count();
        let (session, next_seq) = (s.session, s.segments.next_seq);
        let mut head = Head { last, participants, session, next_seq, segments };
        head.encode(self.geo.seed, replicas, out);
        let mut encoder = Encoder::new(out, self.head(), self.geo.segment_bytes, (last.tail_seq, newest));
        for cell in &cells {
            let state = cell.lock();
            if state.exists {
                encoder.replica(cell.id, &state)?;
            }
            if encoder.bytes() > longest(&self.geo, superblock) {
                return None;
            }
        }
        Some(last.lsn)
    }
}

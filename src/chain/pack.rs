//! Packing: consecutive entries into pieces of at most one chunk, next-fit. An entry larger than a chunk is alone in its piece.

use crate::disk::AlignedBuf;
use crate::format::piece::{
    Extent, MAX_TERM_RUNS, PIECE_HEADER_BYTES, PIECE_SLOT_BYTES, PieceDesc, PieceHeader, is_bare,
};
use crate::format::{BLOCK_BYTES, EntryId, Seed};
use crate::sync::Arc;

/// An entry to be packed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackEntry<'a> {
    pub term: u64,
    pub payload: &'a [u8],
    /// Plain CRC-32C of the payload.
    pub payload_crc: u32,
    /// The payload in a buffer of its own, padded to whole blocks: a bare piece takes it as it is.
    pub bulk: Option<&'a Arc<AlignedBuf>>,
}

/// A piece in memory that has no place yet.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    /// Its descriptor, without extents.
    pub desc: PieceDesc,
    pub buf: Arc<AlignedBuf>,
}

impl Packed {
    pub fn blocks(&self) -> u32 {
        (self.buf.len() as u64 / BLOCK_BYTES) as u32
    }

    pub fn at(&self, extents: Vec<Extent>) -> PieceDesc {
        PieceDesc { extents, ..self.desc.clone() }
    }
}

/// Packs the entries of `replica` from `first` on.
pub(crate) fn pack(
    seed: Seed,
    replica: u64,
    first: u64,
    entries: &[PackEntry<'_>],
    chunk_bytes: u32,
    mut next_id: impl FnMut() -> u64,
) -> Vec<Packed> {
    let mut pieces = Vec::new();
    let mut from = 0;
    while from < entries.len() {
        let n = fill(&entries[from..], chunk_bytes);
        let index = first + from as u64;
        let header = PieceHeader { id: next_id(), replica, first: index, slots: n as u32, bytes: 0 };
        pieces.push(match &entries[from..from + n] {
            [entry] if is_bare(entry.payload.len(), chunk_bytes) => bare(seed, header, entry),
            some => build(seed, header, some),
        });
        from += n;
    }
    pieces
}

/// How many of the entries the next piece takes: at least one.
fn fill(entries: &[PackEntry<'_>], chunk_bytes: u32) -> usize {
    let mut bytes = PIECE_HEADER_BYTES;
    let (mut runs, mut last_term) = (0, None);
    for (i, entry) in entries.iter().enumerate() {
        bytes += PIECE_SLOT_BYTES + entry.payload.len();
        runs += usize::from(last_term != Some(entry.term));
        last_term = Some(entry.term);
        if i > 0 && (bytes > chunk_bytes as usize || runs > MAX_TERM_RUNS) {
            return i;
        }
    }
    entries.len()
}

/// A piece of one entry and nothing else.
fn bare(seed: Seed, header: PieceHeader, entry: &PackEntry<'_>) -> Packed {
    let buf = entry.bulk.map_or_else(
        || {
            let mut buf = AlignedBuf::with_capacity(entry.payload.len().next_multiple_of(BLOCK_BYTES as usize));
            buf.extend_from_slice(entry.payload);
            buf.pad_to_block();
            Arc::new(buf)
        },
        Arc::clone,
    );
    let bytes = entry.payload.len() as u32;
    let id = EntryId { replica: header.replica, index: header.first, term: 0, len: bytes };
    let crc = seed.entry_crc(entry.payload_crc, header.id, id);
    let terms = vec![(1, entry.term)];
    let (id, first) = (header.id, header.first);
    Packed {
        desc: PieceDesc { id, first, count: 1, slots: 1, bare: true, bytes, crc, terms, extents: Vec::new() },
        buf,
    }
}

fn build(seed: Seed, mut header: PieceHeader, entries: &[PackEntry<'_>]) -> Packed {
    let payload: usize = entries.iter().map(|e| e.payload.len()).sum();
    let bytes = PIECE_HEADER_BYTES + entries.len() * PIECE_SLOT_BYTES + payload;
    let mut buf = AlignedBuf::with_capacity(bytes.next_multiple_of(BLOCK_BYTES as usize));
    buf.resize(PIECE_HEADER_BYTES);
    let mut terms: Vec<(u32, u64)> = Vec::new();
    let mut end = 0_u32;
    for (i, entry) in entries.iter().enumerate() {
        let len = entry.payload.len() as u32;
        let id = EntryId { replica: header.replica, index: header.first + i as u64, term: entry.term, len };
        end += len;
        buf.extend_from_slice(&end.to_le_bytes());
        buf.extend_from_slice(&seed.entry_crc(entry.payload_crc, header.id, id).to_le_bytes());
        match terms.last_mut() {
            Some((n, term)) if *term == entry.term => *n += 1,
            _ => terms.push((1, entry.term)),
        }
    }
    for entry in entries {
        buf.extend_from_slice(entry.payload);
    }
    // At most 64 MiB of entry, its header and slot, or one chunk: it fits.
    header.bytes = bytes as u32;
    let crc = header.seal(seed, buf.as_mut_slice());
    buf.pad_to_block();
    let desc = PieceDesc {
        id: header.id,
        first: header.first,
        count: header.slots,
        slots: header.slots,
        bare: false,
        bytes: header.bytes,
        crc,
        terms,
        extents: Vec::new(),
    };
    Packed { desc, buf: Arc::new(buf) }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::index::weight;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    /// The reservation never falls short of what next-fit needs, even where no two free chunks are neighbours.
    #[test]
    fn the_reserved_weight_covers_what_packing_takes() {
        let bytes = vec![0_u8; 300_000];
        for seed in 0..400 {
            let mut rng = StdRng::seed_from_u64(seed);
            let chunk = [4096_u32, 16384, 65536][seed as usize % 3];
            let sizes: Vec<usize> = match seed % 5 {
                0 => (0..300).map(|_| rng.random_range(0..chunk as usize / 8)).collect(),
                1 => (0..60).map(|_| chunk as usize / 2 + rng.random_range(0..100)).collect(),
                2 => (0..60).map(|i| [chunk as usize / 8, chunk as usize * 15 / 16][i % 2]).collect(),
                3 => (0..60).map(|_| rng.random_range(0..2 * chunk as usize)).collect(),
                _ => (0..400)
                    .map(|_| if rng.random_bool(0.1) { chunk as usize } else { rng.random_range(0..64) })
                    .collect(),
            };
            let entries: Vec<_> = sizes
                .iter()
                .map(|&n| PackEntry { term: 1, payload: &bytes[..n], payload_crc: 0, bulk: None })
                .collect();
            let pieces = pack(Seed::new(&[0; 16]), 1, 1, &entries, chunk, || 1);
            let reserved = sizes.iter().map(|&n| weight(n as u32, chunk)).sum::<u64>().div_ceil(chunk.into()) + 1;
            // Worst case: a piece goes into its predecessor's chunk only where it fits whole.
            let per_chunk = chunk / 4096;
            let (mut chunks, mut left) = (0_u64, 0);
            for piece in &pieces {
                if piece.blocks() <= left {
                    left -= piece.blocks();
                } else {
                    let n = piece.blocks().div_ceil(per_chunk);
                    chunks += u64::from(n);
                    left = n * per_chunk - piece.blocks();
                }
            }
            assert!(chunks <= reserved, "seed {seed}, chunk {chunk}: {chunks} needed, {reserved} reserved");
        }
    }

    #[test]
    fn many_terms_end_a_piece_before_its_descriptor_grows() {
        let entries: Vec<_> =
            (0..100).map(|t| PackEntry { term: t, payload: &[], payload_crc: 0, bulk: None }).collect();
        let pieces = pack(Seed::new(&[0; 16]), 1, 1, &entries, 65536, || 1);
        assert_eq!(pieces.iter().map(|p| p.desc.terms.len()).collect::<Vec<_>>(), [32, 32, 32, 4]);
        assert_eq!(pieces[3].desc.first, 97);
    }
}

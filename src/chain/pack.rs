//! Packing: consecutive entries into pieces of at most one chunk, next-fit. An entry larger than a chunk is alone in its piece.

use crate::disk::AlignedBuf;
use crate::format::piece::{
    Extents, MAX_TERM_RUNS, PIECE_HEADER_BYTES, PIECE_SLOT_BYTES, PieceDesc, PieceHeader, TermRuns, is_bare,
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

    pub fn at(&self, extents: Extents) -> PieceDesc {
        PieceDesc { extents, ..self.desc.clone() }
    }
}

/// Packs the entries of `replica` from `first` on, into chunks that hold nothing else.
pub(crate) fn pack(
    seed: Seed,
    replica: u64,
    first: u64,
    entries: &[PackEntry<'_>],
    chunk_bytes: u32,
    mut next_id: impl FnMut() -> u64,
) -> Vec<Packed> {
    let mut pieces = Vec::new();
    let (mut from, mut room) = (0, 0);
    while from < entries.len() {
        let piece = pack_next(seed, replica, first + from as u64, &entries[from..], (chunk_bytes, room), &mut next_id);
        room = room_behind(&piece, chunk_bytes, room);
        from += piece.desc.count as usize;
        pieces.push(piece);
    }
    pieces
}

/// Packs the next piece of the entries, of which there is at least one: as many as fit the `room` that is left of a chunk, or else a chunk
/// of their own. **Never more than the rest of a chunk that is begun**: else a piece that ended early, for its changes of term or where a
/// run ends, would waste what is behind it, and nothing bounds that.
pub(crate) fn pack_next(
    seed: Seed,
    replica: u64,
    first: u64,
    entries: &[PackEntry<'_>],
    (chunk_bytes, room): (u32, u64),
    next_id: &mut impl FnMut() -> u64,
) -> Packed {
    let fits = entries.first().is_some_and(|e| alone(e) as u64 <= room && !is_bare(e.payload.len(), chunk_bytes));
    // At most a chunk, so the cast is lossless.
    let n = fill(entries, if fits { room as usize } else { chunk_bytes as usize });
    let some = entries.get(..n).unwrap_or(entries);
    let header = PieceHeader { id: next_id(), replica, first, slots: n as u32, bytes: 0 };
    match some {
        [entry] if is_bare(entry.payload.len(), chunk_bytes) => bare(seed, header, entry),
        some => build(seed, header, some),
    }
}

/// What is left of the last chunk behind a piece that found `room` left.
fn room_behind(piece: &Packed, chunk_bytes: u32, room: u64) -> u64 {
    let bytes = piece.buf.len() as u64;
    room.checked_sub(bytes).unwrap_or_else(|| bytes.next_multiple_of(chunk_bytes.into()) - bytes)
}

/// What an entry takes if it is alone in its piece.
fn alone(entry: &PackEntry<'_>) -> usize {
    PIECE_HEADER_BYTES + PIECE_SLOT_BYTES + entry.payload.len()
}

/// How many of the entries a piece of `most` bytes takes: at least one.
fn fill(entries: &[PackEntry<'_>], most: usize) -> usize {
    let mut bytes = PIECE_HEADER_BYTES;
    let (mut runs, mut last_term) = (0, None);
    for (i, entry) in entries.iter().enumerate() {
        bytes += PIECE_SLOT_BYTES + entry.payload.len();
        runs += usize::from(last_term != Some(entry.term));
        last_term = Some(entry.term);
        if i > 0 && (bytes > most || runs > MAX_TERM_RUNS) {
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
    let terms = TermRuns::from_elem((1, entry.term), 1);
    let (id, first) = (header.id, header.first);
    Packed {
        desc: PieceDesc { id, first, count: 1, slots: 1, bare: true, bytes, crc, terms, extents: Extents::new() },
        buf,
    }
}

fn build(seed: Seed, mut header: PieceHeader, entries: &[PackEntry<'_>]) -> Packed {
    let payload: usize = entries.iter().map(|e| e.payload.len()).sum();
    let bytes = PIECE_HEADER_BYTES + entries.len() * PIECE_SLOT_BYTES + payload;
    let mut buf = AlignedBuf::with_capacity(bytes.next_multiple_of(BLOCK_BYTES as usize));
    buf.resize(PIECE_HEADER_BYTES);
    let mut terms = TermRuns::new();
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
        extents: Extents::new(),
    };
    Packed { desc, buf: Arc::new(buf) }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::index::weight;
    use crate::space::Demand;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    /// Chunks that the pieces take, where a piece goes into its predecessor's chunk only if it fits whole; and what is left of the last.
    fn taken(pieces: &[Packed], chunk: u32) -> u64 {
        let per_chunk = chunk / 4096;
        let (mut chunks, mut left) = (0_u64, 0);
        for piece in pieces {
            if piece.blocks() <= left {
                left -= piece.blocks();
            } else {
                let n = piece.blocks().div_ceil(per_chunk);
                chunks += u64::from(n);
                left = n * per_chunk - piece.blocks();
            }
        }
        chunks
    }

    /// All runs settled at once.
    fn settled(runs: &[Vec<(u64, usize)>], bytes: &[u8], chunk: u32) -> Vec<Packed> {
        let (mut pieces, mut room) = (Vec::new(), 0);
        for run in runs {
            let entries: Vec<_> = run
                .iter()
                .map(|&(term, n)| PackEntry { term, payload: &bytes[..n], payload_crc: 0, bulk: None })
                .collect();
            let mut from = 0;
            while from < entries.len() {
                let piece = pack_next(Seed::new(&[0; 16]), 1, 1, &entries[from..], (chunk, room), &mut || 1);
                room = room_behind(&piece, chunk, room);
                from += piece.desc.count as usize;
                pieces.push(piece);
            }
        }
        pieces
    }

    /// The reservation never falls short of what next-fit needs, even where no two free chunks are neighbours.
    #[test]
    fn the_reserved_weight_covers_what_packing_takes() {
        let bytes = vec![0_u8; 300_000];
        for seed in 0..2000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let chunk = [4096_u32, 16384, 65536][seed as usize % 3];
            let c = chunk as usize;
            let mut size = |i: usize| match seed / 3 % 8 {
                0 => rng.random_range(0..c / 8),
                1 => c / 2 + rng.random_range(0..100),
                2 => [c / 8, c * 15 / 16][i % 2],
                3 => rng.random_range(0..2 * c),
                4 => {
                    if rng.random_bool(0.1) {
                        c
                    } else {
                        rng.random_range(0..64)
                    }
                }
                // Neither fits behind the other.
                5 => [c * 7 / 8 - 56, c / 8 - 10][i % 2],
                6 => [0, c / 8 - 9, c - 73][rng.random_range(0..3)],
                _ => {
                    if (i / 40).is_multiple_of(2) {
                        rng.random_range(0..10)
                    } else {
                        c / 60
                    }
                }
            };
            let sizes: Vec<usize> = (0..300).map(&mut size).collect();
            let changes = [0.0, 0.02, 0.5, 1.0][rng.random_range(0..4)];
            let breaks = [0.0, 0.01, 0.2][rng.random_range(0..3)];
            let (mut term, mut runs) = (1, vec![Vec::new()]);
            for (i, &n) in sizes.iter().enumerate() {
                // In one shape the term changes with the tiny ones alone: a piece of them is a block, and what follows is a whole chunk.
                term +=
                    u64::from(if seed / 3 % 8 == 7 { (i / 40).is_multiple_of(2) } else { rng.random_bool(changes) });
                if i > 0 && rng.random_bool(breaks) {
                    runs.push(Vec::new());
                }
                runs.last_mut().expect("one").push((term, n));
            }
            let demand = Demand {
                weight: sizes.iter().map(|&n| weight(n as u32, chunk)).sum(),
                term_runs: term,
                spans: runs.len() as u64,
                ..Demand::default()
            };
            let reserved = demand.chunks(chunk.into());
            let chunks = taken(&settled(&runs, &bytes, chunk), chunk);
            assert!(chunks <= reserved, "seed {seed}, chunk {chunk}: {chunks} needed, {reserved} reserved");
            // And hardly more is held than is needed.
            assert!(reserved <= 3 * chunks + 1, "seed {seed}, chunk {chunk}: {chunks} needed, {reserved} reserved");
        }
    }

    /// What ends early fills the chunk, and then a small entry finds no room in what is left: that wastes up to an eighth, as where
    /// entries fill it.
    #[test]
    fn the_reserved_weight_covers_an_eighth_wasted_behind_pieces_that_end_early() {
        let bytes = vec![0_u8; 1 << 17];
        for chunk in [16_384_u32, 65_536, 1 << 18] {
            let (blocks, small) = (chunk as usize / 4096, chunk as usize / 8 - 9);
            // The small entry takes `own` blocks, and one fewer is left in front of it, where it does not fit.
            let own = (small + 72).div_ceil(4096);
            let tiny = blocks - own - (own - 1);
            for ends_by_term in [false, true] {
                let (mut runs, mut term) = (vec![Vec::new()], 1);
                for _ in 0..40 {
                    for len in std::iter::once(small).chain(std::iter::repeat_n(0, tiny)) {
                        if ends_by_term {
                            let one = runs.last_mut().expect("one");
                            one.push((term, len));
                            one.extend((1..32).map(|i| (term + i, 0)));
                            term += 32;
                        } else {
                            runs.push(vec![(term, len)]);
                        }
                    }
                }
                runs.retain(|run| !run.is_empty());
                let demand = Demand {
                    weight: runs.iter().flatten().map(|&(_, n)| weight(n as u32, chunk)).sum(),
                    term_runs: term,
                    spans: runs.len() as u64,
                    ..Demand::default()
                };
                let reserved = demand.chunks(chunk.into());
                let chunks = taken(&settled(&runs, &bytes, chunk), chunk);
                assert!(chunks >= 40, "chunk {chunk}: it is no example: {chunks}");
                assert!(chunks <= reserved, "chunk {chunk}, by term {ends_by_term}: {chunks}, {reserved} reserved");
            }
        }
    }

    /// 32 changes of term in tiny entries, and then what fills a chunk: again and again.
    #[test]
    fn a_piece_that_ends_early_wastes_nothing_behind_it() {
        let (tiny, large) = (vec![0; 10], vec![0; 600]);
        let mut entries = Vec::new();
        for round in 0..20_u64 {
            let part = (0..32).map(|i| (round * 100 + i, &tiny)).chain((0..100).map(|_| (round * 100 + 99, &large)));
            entries.extend(part.map(|(term, payload)| PackEntry { term, payload, payload_crc: 0, bulk: None }));
        }
        let pieces = pack(Seed::new(&[0; 16]), 1, 1, &entries, 65536, || 1);
        let bytes: usize = entries.iter().map(|e| e.payload.len() + PIECE_SLOT_BYTES).sum();
        assert_eq!(pieces.iter().map(|p| p.desc.count).sum::<u32>(), entries.len() as u32);
        assert!(
            taken(&pieces, 65536) <= (bytes as u64 + 20 * 2 * 4096) / 65536 + 2,
            "{} chunks",
            taken(&pieces, 65536)
        );
    }

    #[test]
    fn the_rest_of_a_chunk_is_filled_before_another_is_begun() {
        let payload = [0; 1000];
        let entries = [PackEntry { term: 1, payload: &payload, payload_crc: 0, bulk: None }; 10];
        let next = |room| pack_next(Seed::new(&[0; 16]), 1, 1, &entries, (16384, room), &mut || 1);
        let counts = [0, 4096, 8192, 12288].map(|room| next(room).desc.count);
        assert_eq!(counts, [10, 4, 8, 10]);
        assert_eq!(next(1071).desc.count, 10, "not even one");
        assert_eq!(next(1072).desc.count, 1);
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

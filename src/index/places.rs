//! Which index lies where: spans of journal locations, and the pieces of the chain.

use std::collections::VecDeque;

use super::loc::Loc;
use super::pieces::{Added, NO_PIECES, Pieces};
use super::room::Spare as _;
use super::span::Span;
use super::spans::Spans;
use crate::disk::AlignedBuf;
use crate::format::piece::{Extent, PIECE_HEADER_BYTES, PIECE_SLOT_BYTES, PieceDesc, is_bare};
use crate::space::Tail;
use crate::sync::Arc;

/// A piece of the chain as the index knows it. Its terms are kept with the replica's, not here.
#[derive(Clone, Debug)]
pub(crate) struct ChainPiece {
    /// Its descriptor, without terms. `count` is what has not been overwritten.
    pub desc: PieceDesc,
    /// Segment that holds the newest record naming it: carried when that segment is freed.
    pub meta_seq: u64,
    /// Its bytes, while they are recent or not yet written.
    pub mem: Option<Arc<AlignedBuf>>,
}

/// Where an entry lies.
#[derive(Debug)]
pub(crate) enum Place<'a> {
    Journal(Loc),
    Chain(&'a ChainPiece),
}

/// All entries of one replica. Spans and pieces are sorted, and no index is in two of them.
///
/// Most replicas of a store are idle: one entry or none takes no memory of its own.
#[derive(Debug, Default)]
pub(crate) struct Places {
    spans: Spans,
    chain: Option<Box<Chain>>,
    resident: Resident,
}

/// What the journal-resident entries come to.
#[derive(Debug, Default)]
struct Resident {
    /// Upper bound on what they take when they are packed into chunks.
    weight: u64,
    /// What they take in the journal.
    bytes: u64,
}

impl Resident {
    fn add(&mut self, loc: Loc, chunk: u32) {
        self.weight += weight(loc.len(), chunk);
        self.bytes += journal_bytes(loc.len());
    }

    /// These are no longer held.
    fn let_go(&mut self, locs: &[Loc], chunk: u32) {
        for loc in locs {
            self.weight -= weight(loc.len(), chunk);
            self.bytes -= journal_bytes(loc.len());
        }
    }
}

/// What a replica has in chunks.
#[derive(Debug, Default)]
struct Chain {
    pieces: Pieces,
    tail: Option<Tail>,
}

/// What an entry takes in the journal besides its payload: checksum, length, its share of a record.
const JOURNAL_OVERHEAD: u64 = 24;

/// What an entry takes in the journal.
pub(crate) fn journal_bytes(len: u32) -> u64 {
    u64::from(len) + JOURNAL_OVERHEAD
}

/// Upper bound on the chunk space that an entry takes once packed by next-fit: see DESIGN.md, "Accounts".
///
/// A chunk closed by a small entry is at least seven eighths full, so entries pay a fifth more than their own size (and with it the
/// piece's header), but never more than a chunk; one closed by a large entry wastes less than that one takes, so large entries pay that,
/// too. One that lies bare pays the chunks it fills, and the one that it closes.
pub(crate) fn weight(len: u32, chunk_bytes: u32) -> u64 {
    let (slot, chunk) = (u64::from(len) + PIECE_SLOT_BYTES as u64, u64::from(chunk_bytes));
    if is_bare(len as usize, chunk_bytes) {
        return u64::from(len).next_multiple_of(chunk) + chunk;
    }
    let own = (slot * 6 / 5 + 1).min(chunk);
    if slot >= chunk / 8 { own + slot + PIECE_HEADER_BYTES as u64 } else { own }
}

impl Places {
    pub fn weight(&self) -> u64 {
        self.resident.weight
    }

    pub fn journal_bytes(&self) -> u64 {
        self.resident.bytes
    }

    pub fn spans(&self) -> &Spans {
        &self.spans
    }

    pub fn chain(&self) -> &VecDeque<ChainPiece> {
        self.chain.as_deref().map_or(&NO_PIECES, |chain| chain.pieces.all())
    }

    /// Where the next small piece may go.
    pub fn tail(&self) -> Option<Tail> {
        self.chain.as_deref()?.tail
    }

    /// Nobody writes behind it until it is set anew.
    pub fn take_tail(&mut self) -> Option<Tail> {
        self.chain.as_deref_mut()?.tail.take()
    }

    pub fn set_tail(&mut self, tail: Option<Tail>) {
        if tail.is_some() || self.chain.is_some() {
            self.chain.get_or_insert_default().tail = tail;
        }
    }

    fn pieces_mut(&mut self) -> Option<&mut VecDeque<ChainPiece>> {
        self.chain.as_deref_mut().map(|chain| chain.pieces.all_mut())
    }

    pub fn get(&self, index: u64) -> Option<Place<'_>> {
        if let Some(loc) = self.loc(index) {
            return Some(Place::Journal(loc));
        }
        let chain = self.chain();
        let i = chain.partition_point(|p| p.desc.first <= index).checked_sub(1)?;
        let piece = chain.get(i)?;
        (index - piece.desc.first < u64::from(piece.desc.count)).then_some(Place::Chain(piece))
    }

    pub fn loc(&self, index: u64) -> Option<Loc> {
        // The newest span first: nearly every replica has just one.
        let span = match self.spans.last() {
            Some(s) if s.first() <= index => s,
            _ => self.spans.up_to(index)?,
        };
        span.locs().get(usize::try_from(index - span.first()).ok()?).copied()
    }

    /// The pieces that begin at `first` or later.
    pub fn pieces_from(&self, first: u64) -> impl Iterator<Item = &ChainPiece> {
        let chain = self.chain();
        chain.range(chain.partition_point(|p| p.desc.first < first)..)
    }

    pub fn pieces_from_mut(&mut self, first: u64) -> impl Iterator<Item = &mut ChainPiece> {
        self.pieces_mut().into_iter().flat_map(move |chain| {
            let from = chain.partition_point(|p| p.desc.first < first);
            chain.range_mut(from..)
        })
    }

    /// The piece of this id, which began at `first` when it was linked: nothing changes that.
    pub fn piece_mut(&mut self, first: u64, id: u64) -> Option<&mut ChainPiece> {
        self.pieces_from_mut(first).next().filter(|p| p.desc.id == id)
    }

    /// Makes room for so many pieces: they are about to be added.
    pub fn reserve_pieces(&mut self, pieces: usize) {
        if pieces > 0 {
            self.chain.get_or_insert_default().pieces.all_mut().reserve_exact(pieces);
        }
    }

    /// Adds entries at the end; nothing at or above `first` is held (see [`Places::cut_from`]).
    pub fn push(&mut self, first: u64, locs: impl IntoIterator<Item = Loc>, chunk: u32) {
        self.push_each(first, locs, chunk, Span::push);
    }

    /// Adds entries that lie behind all else in the journal, as whatever is appended does.
    pub fn push_newest(&mut self, first: u64, locs: impl IntoIterator<Item = Loc>, chunk: u32) {
        self.push_each(first, locs, chunk, Span::push_newest);
    }

    fn push_each(
        &mut self,
        first: u64,
        locs: impl IntoIterator<Item = Loc>,
        chunk: u32,
        push: impl Fn(&mut Span, Loc),
    ) {
        let adjoins = self.spans.last().is_some_and(|s| s.last().checked_add(1) == Some(first));
        if !adjoins {
            self.spans.insert(Span::new(first));
        }
        let Some(span) = self.spans.last_mut() else { return };
        let locs = locs.into_iter();
        span.reserve(locs.size_hint().0);
        // Neighbours are mostly of one length.
        let (mut len, mut each) = (None, 0);
        for loc in locs {
            if len != Some(loc.len()) {
                (len, each) = (Some(loc.len()), weight(loc.len(), chunk));
            }
            self.resident.weight += each;
            self.resident.bytes += journal_bytes(loc.len());
            push(span, loc);
        }
        if span.locs().is_empty() {
            self.spans.take(first);
        }
    }

    /// Forgets every index at or above `from`; the space of pieces that die goes to `freed`.
    pub fn cut_from(&mut self, from: u64, chunk: u32, freed: &mut Vec<Extent>) {
        while let Some(span) = self.spans.last_mut().filter(|span| span.last() >= from) {
            let (first, keep) = (span.first(), span.count_below(from));
            self.resident.let_go(span.locs().get(keep..).unwrap_or(&[]), chunk);
            if keep > 0 {
                span.truncate(keep);
                break;
            }
            self.spans.take(first);
        }
        if let Some(chain) = self.chain.as_deref_mut() {
            chain.pieces.cut_from(from, freed);
        }
    }

    /// Weight and journal bytes of what lies in the journal below `first`.
    pub fn below(&self, first: u64, chunk: u32) -> (u64, u64) {
        let mut gone = Resident::default();
        for span in self.spans.iter().take_while(|span| span.first() < first) {
            span.locs().get(..span.count_below(first)).unwrap_or(&[]).iter().for_each(|&loc| gone.add(loc, chunk));
        }
        (gone.weight, gone.bytes)
    }

    /// Forgets every index below `first`; the space of pieces that die goes to `freed`.
    pub fn drop_below(&mut self, first: u64, chunk: u32, freed: &mut Vec<Extent>) {
        while let Some(span) = self.spans.first().filter(|span| span.first() < first) {
            let n = span.count_below(first);
            self.resident.let_go(span.locs().get(..n).unwrap_or(&[]), chunk);
            self.spans.drop_front(n);
        }
        if let Some(chain) = self.chain.as_deref_mut() {
            chain.pieces.drop_below(first, freed);
        }
    }

    /// Forgets journal locations in `lo..=hi`, wherever they are; pieces stay.
    pub fn forget_journal(&mut self, lo: u64, hi: u64, chunk: u32) {
        let mut next = lo;
        while self.spans.up_to(hi).is_some_and(|span| span.last() >= next) {
            let Some(mut span) = self.spans.take_from(next) else { break };
            let (from, to) =
                (span.count_below(lo), hi.checked_add(1).map_or(span.locs().len(), |n| span.count_below(n)));
            let last = span.last();
            self.resident.let_go(span.locs().get(from..to).unwrap_or(&[]), chunk);
            // What is settled is mostly the front of very many: the others stay where they are.
            let tail = if from == 0 {
                span.drop_front(to);
                None
            } else {
                let tail = span.split_off(to);
                span.truncate(from);
                tail
            };
            [Some(span), tail]
                .into_iter()
                .flatten()
                .filter(|s| !s.locs().is_empty())
                .for_each(|s| self.spans.insert(s));
            let Some(behind) = last.checked_add(1) else { break };
            next = behind;
        }
    }

    /// Entries of `lo..=hi` were moved within the journal: so what pieces hold from `lo` on was cut before, though the record that says so may
    /// be lost. What begins behind `hi` may be newer than that, and stays.
    pub fn forget_chain(&mut self, lo: u64, hi: u64) {
        if let Some(chain) = self.chain.as_deref_mut() {
            chain.pieces.forget(lo, hi);
        }
    }

    /// Points journal-resident entries elsewhere in the journal (carried), adding those that are not held yet.
    pub fn set_journal(&mut self, first: u64, locs: impl ExactSizeIterator<Item = Loc>, chunk: u32) {
        self.set_journal_where(first, locs, chunk, |_, _| true);
    }

    /// As [`Places::set_journal`], of a log that is replayed: it may part long spans and have them meet, again and again. They are one again when
    /// all is [settled](Places::settle).
    pub fn replay_journal(&mut self, first: u64, locs: impl ExactSizeIterator<Item = Loc>, chunk: u32) {
        self.set_journal_where(first, locs, chunk, Span::is_quickly_joined);
    }

    fn set_journal_where(
        &mut self,
        first: u64,
        locs: impl ExactSizeIterator<Item = Loc>,
        chunk: u32,
        joins: impl Fn(&Span, &Span) -> bool,
    ) {
        let n = locs.len() as u64;
        if n == 0 {
            return;
        }
        if let Some(held) = self.spans.up_to_mut(first).and_then(|span| span.range_mut(first, locs.len())) {
            // All of them are held, side by side: nothing else moves.
            for (held, loc) in held.iter_mut().zip(locs) {
                self.resident.let_go(&[*held], chunk);
                self.resident.add(loc, chunk);
                *held = loc;
            }
            return;
        }
        let last = first.saturating_add(n - 1);
        self.forget_journal(first, last, chunk);
        let mut span = Span::new(first);
        for loc in locs {
            self.resident.add(loc, chunk);
            span.push(loc);
        }
        if let Some(next) = last.checked_add(1).and_then(|next| self.spans.take(next)) {
            if joins(&span, &next) {
                span.append(next);
            } else {
                self.spans.insert(next);
            }
        }
        let before = first.checked_sub(1).and_then(|before| self.spans.up_to_mut(before));
        match before.filter(|before| before.last().checked_add(1) == Some(first) && joins(before, &span)) {
            Some(before) => before.append(span),
            None => self.spans.insert(span),
        }
    }

    /// Adds a piece, or renews the one of the same id. Answers `false`, and changes nothing, where another piece overlaps.
    pub fn set_chain(&mut self, piece: ChainPiece, chunk: u32) -> bool {
        let (first, last) = (piece.desc.first, piece.desc.last());
        let added = self.chain.get_or_insert_default().pieces.add(piece);
        if added == Added::New {
            self.forget_journal(first, last, chunk);
        }
        added != Added::Refused
    }

    /// As [`Places::set_chain`], of a log that is replayed: it may name many in any order. What is there is seen again when they are
    /// [settled](Places::settle).
    pub fn replay_chain(&mut self, piece: ChainPiece, chunk: u32) -> bool {
        self.chain.get_or_insert_default().pieces.expect_anywhere(piece.desc.first);
        self.set_chain(piece, chunk)
    }

    /// The log is replayed.
    pub fn settle(&mut self) {
        self.spans.join();
        if let Some(chain) = self.chain.as_deref_mut() {
            chain.pieces.settle();
        }
    }

    /// Keeps the pieces that `keep` says yes to; answers the ranges of the others.
    pub fn retain_chain(&mut self, mut keep: impl FnMut(&ChainPiece) -> bool) -> Vec<(u64, u64)> {
        let mut lost = Vec::new();
        let Some(chain) = self.pieces_mut() else { return lost };
        chain.retain(|piece| {
            let kept = keep(piece);
            if !kept {
                lost.push((piece.desc.first, piece.desc.last()));
            }
            kept
        });
        chain.spare();
        lost
    }

    /// Forgets everything.
    pub fn clear(&mut self, freed: &mut Vec<Extent>) {
        self.pieces_mut();
        for piece in self.chain() {
            freed.extend_from_slice(&piece.desc.extents);
        }
        *self = Self::default();
    }

    /// The ranges of `first..=last` that are held nowhere.
    pub fn holes(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        if let Spans::One(span) = &self.spans
            && span.first() <= first
            && last <= span.last()
        {
            // Nearly every replica.
            return Vec::new();
        }
        let mut ranges: Vec<(u64, u64)> = self.spans.iter().map(|s| (s.first(), s.last())).collect();
        ranges.extend(self.chain().iter().filter(|p| p.desc.count > 0).map(|p| (p.desc.first, p.desc.last())));
        ranges.sort_unstable();
        let mut holes = Vec::new();
        let mut next = Some(first);
        for (lo, hi) in ranges {
            let Some(n) = next else { break };
            if lo > n && n <= last {
                holes.push((n, last.min(lo - 1)));
            }
            next = if hi >= n { hi.checked_add(1) } else { Some(n) };
        }
        if let Some(n) = next.filter(|&n| n <= last && last.checked_add(1) != Some(first)) {
            holes.push((n, last));
        }
        holes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use smallvec::smallvec;
    use std::collections::BTreeMap;

    const CHUNK: u32 = 65536;

    fn piece(id: u64, first: u64, count: u32) -> ChainPiece {
        let desc = PieceDesc {
            id,
            first,
            count,
            slots: count,
            bare: false,
            bytes: 100,
            crc: 0,
            terms: smallvec![],
            extents: smallvec![Extent { block: id as u32, blocks: 1 }],
        };
        ChainPiece { desc, meta_seq: 0, mem: None }
    }

    /// Every operation against a plain map from index to place.
    #[test]
    fn agrees_with_a_map_under_random_operations() {
        for seed in 0..300 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut places = Places::default();
            let mut map: BTreeMap<u64, Result<Loc, u64>> = BTreeMap::new();
            let mut freed = Vec::new();
            let (mut next, mut low) = (1_u64, 1_u64);
            for step in 0..80 {
                let i = rng.random_range(low..next + 1);
                match rng.random_range(0..6) {
                    0 | 1 => {
                        places.cut_from(i, CHUNK, &mut freed);
                        map.split_off(&i);
                        let n = rng.random_range(1..6);
                        let locs: Vec<_> = (0..n).map(|k| Loc::new(step * 1000 + k, (step * k) as u32)).collect();
                        places.push(i, locs.iter().copied(), CHUNK);
                        map.extend(locs.iter().enumerate().map(|(k, &l)| (i + k as u64, Ok(l))));
                        next = i + n;
                    }
                    2 => {
                        places.drop_below(i, CHUNK, &mut freed);
                        map = map.split_off(&i);
                        low = i;
                    }
                    3 => {
                        let n = rng.random_range(1..4);
                        if (i..i + n).all(|k| matches!(map.get(&k), Some(Ok(_)))) {
                            let locs: Vec<_> = (0..n).map(|k| Loc::new(step * 1000 + k, 7)).collect();
                            places.set_journal(i, locs.iter().copied(), CHUNK);
                            map.extend(locs.iter().enumerate().map(|(k, &l)| (i + k as u64, Ok(l))));
                        }
                    }
                    4 => {
                        let n = rng.random_range(1..5);
                        if (i..i + n).all(|k| matches!(map.get(&k), Some(Ok(_)))) {
                            assert!(places.set_chain(piece(step + 1, i, n as u32), CHUNK));
                            map.extend((i..i + n).map(|k| (k, Err(step + 1))));
                        }
                    }
                    _ => {
                        let n = rng.random_range(1..5);
                        if (i..i + n).all(|k| matches!(map.get(&k), Some(Ok(_)))) {
                            places.forget_journal(i, i + n - 1, CHUNK);
                            map.retain(|k, _| !(i..i + n).contains(k));
                        }
                    }
                }
                // Below `low` a piece may still hold the dead; the replica's first index hides them.
                for k in low..next + 3 {
                    let got = places.get(k).map(|p| match p {
                        Place::Journal(l) => Ok(l),
                        Place::Chain(p) => Err(p.desc.id),
                    });
                    assert_eq!(got, map.get(&k).copied(), "seed {seed} step {step} index {k}");
                }
                let want: u64 = map.values().flatten().map(|l| weight(l.len(), CHUNK)).sum();
                assert_eq!(places.weight(), want, "seed {seed} step {step}");
                let holes: u64 = places.holes(low, next).iter().map(|(a, b)| b - a + 1).sum();
                assert_eq!(holes, next - low + 1 - map.keys().filter(|&&k| k >= low && k <= next).count() as u64);
            }
        }
    }

    /// Also where its end was overwritten; and never another that begins where it began.
    #[test]
    fn a_piece_is_found_by_where_it_begins() {
        let mut places = Places::default();
        assert!(places.piece_mut(10, 1).is_none() && places.pieces_from(0).next().is_none());
        for (id, first) in [(1, 10), (2, 15), (3, 30)] {
            assert!(places.set_chain(piece(id, first, 5), CHUNK));
        }
        places.cut_from(32, CHUNK, &mut Vec::new());
        for (id, first) in [(1, 10), (2, 15), (3, 30)] {
            assert_eq!(places.piece_mut(first, id).map(|p| p.desc.id), Some(id));
        }
        for (id, first) in [(2, 10), (2, 16), (3, 31)] {
            assert!(places.piece_mut(first, id).is_none(), "{id} at {first}");
        }
        let from = |first| places.pieces_from(first).map(|p| p.desc.id).collect::<Vec<_>>();
        assert_eq!((from(0), from(11), from(15), from(31)), (vec![1, 2, 3], vec![2, 3], vec![2, 3], vec![]));
    }

    /// One by one: nothing beside them is copied.
    #[test]
    fn what_is_carried_takes_the_place_of_what_it_was() {
        let mut places = Places::default();
        places.push(10, (0..1000).map(|k| Loc::new(k, 7)), CHUNK);
        let lie_at = places.spans().first().expect("one").locs().as_ptr();
        for k in (0..1000).step_by(2) {
            places.set_journal(10 + k, [Loc::new(5000 + k, 9), Loc::new(6000 + k, 8)].into_iter(), CHUNK);
            assert!(places.spans().len() == 1 && places.spans().first().expect("one").locs().as_ptr() == lie_at);
        }
        assert_eq!((places.loc(10), places.loc(1009)), (Some(Loc::new(5000, 9)), Some(Loc::new(6998, 8))));
        assert_eq!(places.weight(), 500 * (weight(9, CHUNK) + weight(8, CHUNK)));
        assert_eq!(places.journal_bytes(), 1000 * JOURNAL_OVERHEAD + 500 * 17);
    }

    #[test]
    fn few_pieces_keep_no_memory_of_a_longer_time() {
        for behind in [false, true] {
            let mut places = Places::default();
            (1..=10_000).for_each(|i| assert!(places.set_chain(piece(i, i, 1), CHUNK)));
            if behind {
                places.cut_from(4, CHUNK, &mut Vec::new());
            } else {
                places.drop_below(9998, CHUNK, &mut Vec::new());
            }
            assert!(places.chain().len() == 3 && places.chain().capacity() < 100, "{}", places.chain().capacity());
        }
    }

    /// In any order, as a log may name them, and with gaps between them: moved for each, these would not come to an end.
    #[test]
    fn spans_come_to_an_end_in_whatever_order_they_are_named() {
        const N: u64 = 400_000;
        let descending = (1..=N).rev();
        let from_both_ends = (1..=N / 2).flat_map(|i| [i, N + 1 - i]);
        let mut places = [Places::default(), Places::default()];
        let [down, inwards] = &mut places;
        descending.for_each(|i| down.set_journal(2 * i, [Loc::new(i, 7)].into_iter(), CHUNK));
        from_both_ends.for_each(|i| inwards.set_journal(2 * i, [Loc::new(i, 7)].into_iter(), CHUNK));
        for places in &mut places {
            assert_eq!(places.spans().len() as u64, N);
            // And what fills the gaps joins them.
            for i in (1..N).rev() {
                places.set_journal(2 * i + 1, [Loc::new(i, 7)].into_iter(), CHUNK);
            }
            let one = places.spans().first().expect("one");
            assert_eq!((places.spans().len(), one.first(), one.last()), (1, 2, 2 * N));
        }
    }

    /// The same: a log names the pieces last that were carried last, before and among the others.
    #[test]
    fn pieces_come_to_an_end_in_whatever_order_they_are_named() {
        const N: u64 = 400_000;
        let mut places = Places::default();
        for i in (1..=N / 2).flat_map(|i| [i, N + 1 - i]) {
            assert!(places.replay_chain(piece(i, 2 * i, 1), CHUNK));
        }
        // And go, from the midst on.
        for i in (0..N / 4).flat_map(|i| [N / 2 - i, N / 2 + 1 + i]) {
            places.forget_chain(2 * i, 2 * i);
        }
        places.settle();
        let firsts = places.chain().iter().map(|p| p.desc.first / 2);
        assert!(firsts.eq((1..=N / 4).chain(3 * N / 4 + 1..=N)), "{}", places.chain().len());
    }

    /// Of very many entries one is moved into a piece, and one more; or one is parted from the others and comes back, again and again.
    #[test]
    fn parting_a_span_moves_little_wherever_that_is() {
        const N: u64 = 1_000_000;
        let spans = || {
            let mut places = Places::default();
            places.push(1, (1..=N).map(|k| Loc::new(k, 7)), CHUNK);
            places
        };
        let (mut parted, mut met) = (spans(), spans());
        for i in (2..N).step_by(2) {
            parted.forget_journal(i, i, CHUNK);
        }
        assert_eq!(
            (parted.spans().len() as u64, parted.loc(2), parted.loc(N - 1)),
            (N / 2, None, Some(Loc::new(N - 1, 7)))
        );
        for k in 0..N / 4 {
            met.forget_journal(N / 2, N / 2, CHUNK);
            met.replay_journal(N / 2, [Loc::new(2 * N + k, 7)].into_iter(), CHUNK);
        }
        met.settle();
        assert_eq!(met.spans().len(), 1, "in the end they are one: each more would be charged");
        assert!((1..=N).all(|i| met.loc(i).is_some_and(|loc| (loc == Loc::new(i, 7)) != (i == N / 2))));
        assert_eq!((met.holes(1, N), met.journal_bytes()), (vec![], N * journal_bytes(7)));
    }

    /// In a queue or in a tree, and whichever of them it is when.
    #[test]
    fn pieces_that_are_named_in_any_order_are_as_those_in_a_queue() {
        for seed in 0..20 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut replayed, mut queued) = (Places::default(), Places::default());
            let (mut freed, mut also) = (Vec::new(), Vec::new());
            for id in 1..3000 {
                let i = rng.random_range(1..5000);
                match rng.random_range(0..100) {
                    0 => {
                        replayed.cut_from(5500 - i / 5, CHUNK, &mut freed);
                        queued.cut_from(5500 - i / 5, CHUNK, &mut also);
                    }
                    1 => {
                        replayed.drop_below(i / 8, CHUNK, &mut freed);
                        queued.drop_below(i / 8, CHUNK, &mut also);
                    }
                    2..5 => {
                        replayed.forget_chain(i, i + 9);
                        queued.forget_chain(i, i + 9);
                        queued.settle();
                    }
                    5 => replayed.settle(),
                    6 => {
                        let again = queued.chain().get(i as usize % queued.chain().len().max(1)).cloned();
                        for mut again in again.into_iter() {
                            again.meta_seq = id;
                            assert!(replayed.replay_chain(again.clone(), CHUNK) && queued.set_chain(again, CHUNK));
                        }
                    }
                    _ => {
                        let new = piece(id, i, rng.random_range(1..4));
                        assert_eq!(
                            replayed.replay_chain(new.clone(), CHUNK),
                            queued.set_chain(new, CHUNK),
                            "{seed} {id}"
                        );
                    }
                }
            }
            replayed.settle();
            let told = |places: &Places| {
                let of = |p: &ChainPiece| (p.desc.id, p.desc.first, p.desc.count, p.meta_seq);
                places.chain().iter().map(of).collect::<Vec<_>>()
            };
            assert!(told(&replayed).len() > 300, "{}", told(&replayed).len());
            assert_eq!((told(&replayed), freed), (told(&queued), also), "seed {seed}");
        }
    }

    #[test]
    fn what_was_moved_in_the_journal_is_in_no_piece() {
        let held = |lo, hi| {
            let mut places = Places::default();
            for (id, first) in [(1, 10), (2, 15), (3, 20), (4, 25)] {
                assert!(places.set_chain(piece(id, first, 5), CHUNK));
            }
            places.forget_chain(lo, hi);
            places.chain().iter().map(|p| (p.desc.first, p.desc.last())).collect::<Vec<_>>()
        };
        assert_eq!(held(1, 9), [(10, 14), (15, 19), (20, 24), (25, 29)]);
        assert_eq!(held(30, 40), [(10, 14), (15, 19), (20, 24), (25, 29)]);
        assert_eq!(held(12, 12), [(10, 11), (15, 19), (20, 24), (25, 29)]);
        assert_eq!(held(14, 20), [(10, 13), (25, 29)]);
        assert_eq!(held(15, 24), [(10, 14), (25, 29)]);
        assert_eq!(held(1, u64::MAX), []);
        Places::default().forget_chain(1, u64::MAX);
    }

    #[test]
    fn an_overlapping_piece_is_refused() {
        let mut places = Places::default();
        assert!(places.set_chain(piece(1, 10, 5), CHUNK));
        assert!(!places.set_chain(piece(2, 12, 5), CHUNK));
        assert!(!places.set_chain(piece(3, 8, 3), CHUNK));
        assert!(places.set_chain(piece(4, 15, 5), CHUNK));
        assert!(places.set_chain(piece(1, 10, 5), CHUNK), "the same piece named again is no overlap");
    }
}

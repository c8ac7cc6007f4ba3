//! Which index lies where: spans of journal locations, and the pieces of the chain.

use std::collections::VecDeque;

use super::loc::Loc;
use super::pieces::{Added, ChainPiece, NO_PIECES, Pieces};
use super::room::Spare as _;
use super::span::Span;
use super::spans::Spans;
use super::weight::{Resident, journal_bytes, weight};
use crate::format::piece::Extent;
use crate::space::Tail;

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

/// What a replica has in chunks.
#[derive(Debug, Default)]
struct Chain {
    pieces: Pieces,
    tail: Option<Tail>,
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

    /// Takes the tail away: nobody writes behind it until it is set anew.
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

    /// Makes room for this many pieces, which are about to be added.
    pub fn reserve_pieces(&mut self, pieces: usize) {
        if pieces > 0 {
            self.chain.get_or_insert_default().pieces.all_mut().reserve_exact(pieces);
        }
    }

    /// Adds entries at the end; nothing at or above `first` is held (see [`Places::cut_from`]).
    pub fn push(&mut self, first: u64, locs: impl IntoIterator<Item = Loc>, chunk: u32) {
        self.push_each(first, locs, chunk, Span::push);
    }

    /// Adds entries that lie behind all else in the journal, as appended ones do.
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
            // Settling mostly takes the front of very many: the others stay where they are.
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

    /// Forgets what pieces hold of `lo..=hi`, which was moved within the journal: so what pieces hold from `lo` on was cut before, though
    /// the record of that may be lost. A piece that begins behind `hi` may be newer, and stays.
    pub fn forget_chain(&mut self, lo: u64, hi: u64) {
        if let Some(chain) = self.chain.as_deref_mut() {
            chain.pieces.forget(lo, hi);
        }
    }

    /// Points journal-resident entries elsewhere in the journal (carried), adding those that are not held yet.
    pub fn set_journal(&mut self, first: u64, locs: impl ExactSizeIterator<Item = Loc>, chunk: u32) {
        self.set_journal_where(first, locs, chunk, |_, _| true);
    }

    /// As [`Places::set_journal`], for a replay: it may part long spans and have them meet, again and again. They are joined when all is
    /// [settled](Places::settle).
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

    /// Adds a piece, or renews the one of the same id. Returns `false`, and changes nothing, where another piece overlaps.
    pub fn set_chain(&mut self, piece: ChainPiece, chunk: u32) -> bool {
        let (first, last) = (piece.desc.first, piece.desc.last());
        let added = self.chain.get_or_insert_default().pieces.add(piece);
        if added == Added::New {
            self.forget_journal(first, last, chunk);
        }
        added != Added::Refused
    }

    /// As [`Places::set_chain`], for a replay: it may name many pieces in any order. They can be read again when they are
    /// [settled](Places::settle).
    pub fn replay_chain(&mut self, piece: ChainPiece, chunk: u32) -> bool {
        self.chain.get_or_insert_default().pieces.expect_anywhere(piece.desc.first);
        self.set_chain(piece, chunk)
    }

    /// Ends a replay.
    pub fn settle(&mut self) {
        self.spans.join();
        if let Some(chain) = self.chain.as_deref_mut() {
            chain.pieces.settle();
        }
    }

    /// Keeps the pieces that `keep` says yes to; returns the ranges of the others.
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
            // So it is with nearly every replica.
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
#[path = "places_tests.rs"]
mod tests;

//! A span: where consecutive journal-resident entries lie.

use std::ops::Range;

use smallvec::SmallVec;

use super::loc::Loc;
use super::room::Spare as _;

/// Room in front is made for the number of locations held, divided by this.
const MORE_ROOM: usize = 4;
/// At most this many locations are moved to join two spans during a replay.
const MOST_MOVED: usize = 4096;

/// Consecutive journal-resident entries: a queue, whose dropped front stays until it is as long as what is left.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// Index of the first entry held.
    first: u64,
    /// The first of them are gone already, or spare room. Two take no memory of their own.
    buf: SmallVec<[Loc; 2]>,
    /// How many these are: fewer than four thousand million, as there may be a million spans.
    left: u32,
    /// How many at its end lie each behind the one before: all, but for carried ones and those in front of them. Counts to four thousand
    /// million.
    ordered: u32,
}

// Each of a million replicas has room for one.
const _: () = assert!(size_of::<Span>() == 40);

/// `n`, or four thousand million.
fn at_most(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Span {
    /// An empty span.
    pub fn new(first: u64) -> Self {
        Self { first, buf: SmallVec::new(), left: 0, ordered: 0 }
    }

    pub fn first(&self) -> u64 {
        self.first
    }

    fn left(&self) -> usize {
        self.left as usize
    }

    /// Index of the last. An empty span has none, and never stays.
    pub fn last(&self) -> u64 {
        self.first.saturating_add((self.locs().len() as u64).saturating_sub(1))
    }

    pub fn locs(&self) -> &[Loc] {
        self.buf.get(self.left()..).unwrap_or(&[])
    }

    /// How many of them are below `index`.
    pub fn count_below(&self, index: u64) -> usize {
        usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.locs().len())
    }

    pub fn push(&mut self, loc: Loc) {
        let follows = self.locs().last().is_none_or(|last| loc.follows(*last));
        self.ordered = if follows { self.ordered.saturating_add(1) } else { 1 };
        self.buf.push(loc);
    }

    /// Appends one that lies behind all others, without reading the last: its memory has left the cache, and would be waited for.
    pub fn push_newest(&mut self, loc: Loc) {
        debug_assert!(self.locs().last().is_none_or(|last| loc.follows(*last)), "{loc:?} is not the newest");
        self.ordered = self.ordered.saturating_add(1);
        self.buf.push(loc);
    }

    /// The front of the span up to the last that may lie at these LSNs. Where many lie in order, few are looked at.
    pub fn up_to(&self, lsns: &Range<u64>) -> &[Loc] {
        let (before, ordered) = self.by_order();
        // If not, those LSNs begin in the midst of them.
        let in_turn = match (ordered.first(), ordered.last()) {
            (Some(first), Some(last)) => first.behind(lsns.start) <= last.behind(lsns.start),
            _ => false,
        };
        if !in_turn {
            return self.locs();
        }
        let there = ordered.iter().take_while(|loc| loc.is_in(lsns)).count();
        self.locs().get(..before.len() + there).unwrap_or_default()
    }

    /// The LSN of the entry that lies first in the journal, whose end is `head`.
    pub fn oldest(&self, head: u64) -> Option<u64> {
        let (before, ordered) = self.by_order();
        before.iter().chain(ordered.first()).map(|loc| loc.lsn(head)).min()
    }

    /// Splits off those that lie in order from those before them.
    fn by_order(&self) -> (&[Loc], &[Loc]) {
        let locs = self.locs();
        locs.split_at(locs.len().saturating_sub(self.ordered as usize))
    }

    /// Makes room for `n` more. For one that is done when it comes.
    #[inline]
    pub fn reserve(&mut self, n: usize) {
        if n > 1 {
            self.buf.reserve(n);
        }
    }

    /// Forgets all but the first `n`.
    pub fn truncate(&mut self, n: usize) {
        let gone = self.locs().len().saturating_sub(n);
        self.ordered = self.ordered.saturating_sub(at_most(gone));
        self.buf.truncate(self.left() + n);
        self.settle();
    }

    /// Forgets the first `n`, which must be there. Never moves more to the front for it than has gone.
    pub fn drop_front(&mut self, n: usize) {
        self.first = self.first.saturating_add(n as u64);
        match u32::try_from(self.left() + n) {
            Ok(left) => self.left = left,
            Err(_) => self.close_up(self.left() + n),
        }
        self.ordered = self.ordered.min(at_most(self.locs().len()));
        self.settle();
    }

    fn settle(&mut self) {
        if self.left() >= self.locs().len() {
            self.close_up(self.left());
        }
        self.buf.spare();
    }

    /// Moves what is behind the first `gone` to the front.
    fn close_up(&mut self, gone: usize) {
        self.buf.drain(..gone.min(self.buf.len()));
        self.left = 0;
    }

    /// Takes those from the `n`th on, if there are any.
    pub fn split_off(&mut self, n: usize) -> Option<Self> {
        let rest = self.locs().get(n..).filter(|rest| !rest.is_empty())?;
        if n < rest.len() {
            // The shorter one is moved.
            let (front, ordered) =
                (SmallVec::from_slice(self.locs().get(..n)?), self.ordered.saturating_sub(at_most(rest.len())));
            let mut tail = std::mem::replace(self, Self { first: self.first, buf: front, left: 0, ordered });
            tail.drop_front(n);
            return Some(tail);
        }
        let ordered = self.ordered.min(at_most(rest.len()));
        let tail =
            Self { first: self.first.saturating_add(n as u64), buf: SmallVec::from_slice(rest), left: 0, ordered };
        self.truncate(n);
        Some(tail)
    }

    /// Whether appending `next` moves little.
    pub fn is_quickly_joined(&self, next: &Self) -> bool {
        self.locs().len().min(next.locs().len()) <= MOST_MOVED
    }

    /// Appends the span that follows.
    pub fn append(&mut self, next: Self) {
        let follows = match (self.locs().last(), next.locs().first()) {
            (Some(last), Some(first)) => first.follows(*last),
            _ => true,
        };
        let all = follows && next.ordered as usize == next.locs().len();
        let ordered = next.ordered.saturating_add(if all { self.ordered } else { 0 });
        if self.locs().len() >= next.locs().len() {
            self.buf.extend_from_slice(next.locs());
        } else {
            // The shorter one is moved.
            let front = std::mem::replace(self, next);
            self.prepend(front.first, front.locs());
        }
        self.ordered = ordered;
    }

    /// Puts these in front, into the room of what has gone. If that is too little, more is made than they take: a log may name entries in
    /// descending order.
    fn prepend(&mut self, first: u64, front: &[Loc]) {
        self.first = first;
        match self.left().checked_sub(front.len()) {
            Some(left) => {
                let end = self.left();
                if let Some(room) = self.buf.get_mut(left..end) {
                    room.copy_from_slice(front);
                }
                self.left = at_most(left);
            }
            None => {
                let left = at_most(self.locs().len() / MORE_ROOM);
                let room = left as usize;
                let mut buf = SmallVec::with_capacity(room + front.len() + self.locs().len());
                buf.resize(room, Loc::new(0, 0));
                buf.extend_from_slice(front);
                buf.extend_from_slice(self.locs());
                (self.buf, self.left) = (buf, left);
            }
        }
    }

    /// The `n` locations from this index on, if all are there, to be overwritten.
    pub fn range_mut(&mut self, first: u64, n: usize) -> Option<&mut [Loc]> {
        let at = usize::try_from(first.checked_sub(self.first)?).ok()?;
        let behind = self.locs().len().checked_sub(at)?.checked_sub(n)?;
        self.ordered = self.ordered.min(at_most(behind));
        let at = self.left().checked_add(at)?;
        self.buf.get_mut(at..)?.get_mut(..n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loc(i: u64) -> Loc {
        Loc::new(i, 7)
    }

    fn span(first: u64, n: u64) -> Span {
        let mut span = Span::new(first);
        (first..first + n).for_each(|i| span.push(loc(i)));
        span
    }

    fn assert_holds(span: &Span, first: u64, last: u64) {
        assert_eq!((span.first(), span.last()), (first, last));
        assert!(span.locs().iter().copied().eq((first..=last).map(loc)), "{span:?}");
    }

    #[test]
    fn a_queue_that_is_long_in_use_stays_short() {
        let mut span = span(1, 30);
        for i in 31..10_000 {
            span.push(loc(i));
            span.drop_front(1);
            assert_holds(&span, i - 29, i);
            assert!(span.buf.len() <= 61);
        }
        span.drop_front(28);
        assert!(span.left == 0 && span.buf.len() == 2, "{span:?}");
    }

    /// Whether it was cut in front or behind.
    #[test]
    fn a_short_queue_keeps_no_memory_of_a_longer_time() {
        for behind in [false, true] {
            let mut span = span(1, 131_072);
            for left in [50_000, 1000, 3] {
                let n = span.locs().len();
                if behind {
                    span.truncate(left)
                } else {
                    span.drop_front(n - left)
                }
                assert_eq!(span.locs().len(), left);
                assert!(span.buf.capacity() <= (4 * span.buf.len()).max(512), "{left}: {}", span.buf.capacity());
            }
        }
        // One by one as well.
        let mut long = span(1, 131_072);
        (0..131_069).for_each(|_| long.drop_front(1));
        assert!(long.buf.capacity() <= 512 && long.locs().len() == 3);
        // One that stays as long as it is keeps its memory, in front of the last and behind it.
        let mut steady = span(1, 1000);
        let mut room = Vec::new();
        for i in 1001..20_000 {
            steady.push(loc(i));
            steady.drop_front(1);
            if i > 3000 {
                room.push((steady.buf.as_ptr(), steady.buf.capacity()));
            }
        }
        assert!(room.windows(2).all(|w| w[0] == w[1]));
    }

    #[test]
    fn the_last_index_there_is() {
        let mut span = Span::new(u64::MAX - 1);
        (0..2).for_each(|i| span.push(loc(i)));
        assert_eq!((span.last(), span.count_below(u64::MAX)), (u64::MAX, 1));
        span.drop_front(1);
        assert_eq!((span.first(), span.last()), (u64::MAX, u64::MAX));
    }

    #[test]
    fn what_is_cut_split_and_joined_keeps_its_indexes() {
        for left in 0..6 {
            let mut whole = span(10 - left, 10 + left);
            whole.drop_front(left as usize);
            assert_holds(&whole, 10, 19);
            assert_eq!([0, 10, 15, 19, 20, u64::MAX].map(|i| whole.count_below(i)), [0, 0, 5, 9, 10, 10]);
            assert!(whole.split_off(10).is_none());
            for at in [1, 5, 9] {
                let mut head = whole.clone();
                let tail = head.split_off(at).expect("a tail");
                assert_holds(&head, 10, 9 + at as u64);
                assert_holds(&tail, 10 + at as u64, 19);
                head.append(tail);
                assert_holds(&head, 10, 19);
            }
            let mut gone = whole.clone();
            gone.truncate(4);
            assert_holds(&gone, 10, 13);
            let mut next = span(14 - left, left + 20);
            next.drop_front(left as usize);
            gone.append(next);
            assert_holds(&gone, 10, 33);
        }
    }

    /// Whatever became of it: carried, cut in front and behind, split and joined.
    #[test]
    fn what_lies_at_given_places_is_found_without_looking_at_all() {
        use rand::rngs::StdRng;
        use rand::{Rng, SeedableRng};
        let seed = rand::random();
        eprintln!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut looked, mut all) = (0, 0);
        for _ in 0..300 {
            // Close to where the bits that are kept of an LSN end.
            let start = (1 << 40) - rng.random_range(0..20_000_u64);
            let (mut span, mut head, mut tail) = (Span::new(1), start, start);
            for _ in 0..60 {
                for _ in 0..rng.random_range(0..40) {
                    span.push(Loc::new(head, 7));
                    head += rng.random_range(11..300);
                }
                // The oldest go, as the segments are cleaned: some to the journal's head, some out of it.
                tail = (head - 1).min(tail + rng.random_range(0..4000));
                let old: Vec<usize> = (0..span.locs().len()).filter(|&i| span.locs()[i].lsn(head) < tail).collect();
                for i in old {
                    let index = span.first() + i as u64;
                    span.range_mut(index, 1).expect("held")[0] = Loc::new(head, 7);
                    head += 11;
                }
                match rng.random_range(0..6) {
                    0 => span.drop_front(rng.random_range(0..=span.locs().len())),
                    1 => span.truncate(rng.random_range(0..=span.locs().len())),
                    2 if !span.locs().is_empty() => {
                        let next = span.split_off(rng.random_range(0..span.locs().len()));
                        span.append(next.expect("a tail"));
                    }
                    3 => {
                        // Carried, and in no span meanwhile.
                        let mut front = Span::new(span.first());
                        for _ in 0..rng.random_range(0..=span.locs().len()) {
                            front.push(Loc::new(head, 7));
                            head += 11;
                        }
                        span.drop_front(front.locs().len());
                        front.append(span);
                        span = front;
                    }
                    _ => {}
                }
                let lsns = tail..(tail + rng.random_range(0..5000)).min(head);
                let found = span.up_to(&lsns);
                let held = |loc: &&Loc| loc.is_in(&lsns);
                assert!(span.locs().starts_with(found));
                assert_eq!(found.iter().filter(held).count(), span.locs().iter().filter(held).count(), "{span:?}");
                let anywhere = rng.random_range(start - 3000..head + 3000);
                let lsns = anywhere..anywhere + 2000;
                let held = |loc: &&Loc| loc.is_in(&lsns);
                let found = span.up_to(&lsns).iter().filter(held).count();
                assert_eq!(found, span.locs().iter().filter(held).count(), "{lsns:?} {span:?}");
                assert_eq!(span.oldest(head), span.locs().iter().map(|loc| loc.lsn(head)).min());
                (looked, all) = (looked + found.min(1), all + span.locs().len());
            }
        }
        assert!(looked > 0 && all > 0);
    }

    /// A span that is long and in order costs what is found; one that was carried in part, that part too.
    #[test]
    fn of_many_in_order_few_are_looked_at() {
        let mut long = span(1, 10_000);
        assert_eq!(long.up_to(&(1..11)).len(), 10);
        for i in 0..10 {
            long.range_mut(1 + i, 1).expect("held")[0] = loc(10_001 + i);
        }
        (10_011..10_100).for_each(|i| long.push(loc(i)));
        assert_eq!(long.up_to(&(11..21)).len(), 20, "ten that were carried, and ten");
        let mut tail = long.split_off(5000).expect("a tail");
        assert_eq!((long.up_to(&(11..21)).len(), tail.up_to(&(5001..5011)).len()), (20, 10));
        long.append(std::mem::replace(&mut tail, Span::new(0)));
        assert_eq!(long.up_to(&(11..21)).len(), 20);
        let mut front = span(0, 1);
        front.append(long.split_off(10).expect("a tail"));
        assert_eq!((front.up_to(&(0..21)).len(), front.oldest(20_000)), (11, Some(0)));
    }

    /// What is named in descending order is not moved for each that comes before it.
    #[test]
    fn room_in_front_is_made_for_many_at_once() {
        const N: u64 = 10_000;
        let (mut all, mut moved) = (span(N, 1), 0);
        for i in (1..N).rev() {
            let (before, left) = (all.locs().len(), all.left());
            let mut front = span(i, 1);
            front.append(all);
            all = front;
            if all.left() + 1 != left {
                moved += before as u64;
            }
            assert!(all.left() <= all.locs().len());
        }
        assert_holds(&all, 1, N);
        assert!(moved < 8 * N, "{moved}");
        assert!(all.buf.len() as u64 <= N + N / 4);
    }
}

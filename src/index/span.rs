//! A span: where consecutive journal-resident entries lie.

use smallvec::SmallVec;

use super::loc::Loc;

/// Room that is made in front: this part of what there is.
const MORE_ROOM: usize = 4;

/// Consecutive journal-resident entries: a queue, which keeps what has left at the front until that is as much as what is left.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// Index of the first that is left.
    first: u64,
    /// The first `left` of them are gone already, or room. Two take no memory of their own.
    buf: SmallVec<[Loc; 2]>,
    left: usize,
}

impl Span {
    /// An empty one.
    pub fn new(first: u64) -> Self {
        Self { first, buf: SmallVec::new(), left: 0 }
    }

    pub fn first(&self) -> u64 {
        self.first
    }

    /// Index of the last. An empty span has none, and never stays.
    pub fn last(&self) -> u64 {
        self.first.saturating_add((self.locs().len() as u64).saturating_sub(1))
    }

    pub fn locs(&self) -> &[Loc] {
        self.buf.get(self.left..).unwrap_or(&[])
    }

    /// How many of them are below `index`.
    pub fn count_below(&self, index: u64) -> usize {
        usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.locs().len())
    }

    pub fn push(&mut self, loc: Loc) {
        self.buf.push(loc);
    }

    /// Makes room for so many more.
    pub fn reserve(&mut self, n: usize) {
        self.buf.reserve(n);
    }

    /// Forgets all but the first `n`.
    pub fn truncate(&mut self, n: usize) {
        self.buf.truncate(self.left + n);
    }

    /// Forgets the first `n`, which are there. What is moved to the front for it is never more than what has gone.
    pub fn drop_front(&mut self, n: usize) {
        self.first = self.first.saturating_add(n as u64);
        self.left += n;
        if self.left >= self.locs().len() {
            let gone = self.left.min(self.buf.len());
            self.buf.drain(..gone);
            self.left = 0;
        }
    }

    /// Takes those from the `n`th on, if there are any.
    pub fn split_off(&mut self, n: usize) -> Option<Self> {
        let rest = self.locs().get(n..).filter(|rest| !rest.is_empty())?;
        let tail = Self { first: self.first.saturating_add(n as u64), buf: SmallVec::from_slice(rest), left: 0 };
        self.truncate(n);
        Some(tail)
    }

    /// Appends the span that follows.
    pub fn append(&mut self, next: Self) {
        if self.locs().len() >= next.locs().len() {
            self.buf.extend_from_slice(next.locs());
        } else {
            // The shorter one is moved.
            let front = std::mem::replace(self, next);
            self.prepend(front.first, front.locs());
        }
    }

    /// Puts these in front, into the room of what has left. Where that is too little more is made than they take: a log may tell of one
    /// after the other, each before the last.
    fn prepend(&mut self, first: u64, front: &[Loc]) {
        self.first = first;
        match self.left.checked_sub(front.len()) {
            Some(left) => {
                if let Some(room) = self.buf.get_mut(left..self.left) {
                    room.copy_from_slice(front);
                }
                self.left = left;
            }
            None => {
                let room = self.locs().len() / MORE_ROOM;
                let mut buf = SmallVec::with_capacity(room + front.len() + self.locs().len());
                buf.resize(room, Loc::new(0, 0));
                buf.extend_from_slice(front);
                buf.extend_from_slice(self.locs());
                (self.buf, self.left) = (buf, room);
            }
        }
    }

    /// The `n` of them from this index on, if all are there.
    pub fn range_mut(&mut self, first: u64, n: usize) -> Option<&mut [Loc]> {
        let at = usize::try_from(first.checked_sub(self.first)?).ok()?;
        self.buf.get_mut(self.left.checked_add(at)?..)?.get_mut(..n)
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

    /// What is named in descending order is not moved for each that comes before it.
    #[test]
    fn room_in_front_is_made_for_many_at_once() {
        const N: u64 = 10_000;
        let (mut all, mut moved) = (span(N, 1), 0);
        for i in (1..N).rev() {
            let (before, left) = (all.locs().len(), all.left);
            let mut front = span(i, 1);
            front.append(all);
            all = front;
            if all.left + 1 != left {
                moved += before as u64;
            }
            assert!(all.left <= all.locs().len());
        }
        assert_holds(&all, 1, N);
        assert!(moved < 8 * N, "{moved}");
        assert!(all.buf.len() as u64 <= N + N / 4);
    }
}

//! The spans of a replica: nearly always one.

use std::collections::BTreeMap;

use super::span::Span;

/// Spans in the order of their indexes, which no two of them share. None and one take no memory of their own; more lie in a tree: a log may
/// name them in any order, and none is moved for another.
#[derive(Debug, Default)]
pub(crate) enum Spans {
    #[default]
    None,
    One(Span),
    /// By their first index. Boxed: the tree itself is too large where there may be a million.
    #[allow(clippy::box_collection)]
    More(Box<BTreeMap<u64, Span>>),
}

// Each of a million replicas has one.
const _: () = assert!(size_of::<Spans>() <= size_of::<Span>() + 8);

impl Spans {
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::More(all) => all.len(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Span> {
        let (one, more) = match self {
            Self::None => (None, None),
            Self::One(one) => (Some(one), None),
            Self::More(all) => (None, Some(all.values())),
        };
        one.into_iter().chain(more.into_iter().flatten())
    }

    pub fn first(&self) -> Option<&Span> {
        match self {
            Self::None => None,
            Self::One(one) => Some(one),
            Self::More(all) => all.first_key_value().map(|(_, span)| span),
        }
    }

    #[inline]
    pub fn last(&self) -> Option<&Span> {
        match self {
            Self::None => None,
            Self::One(one) => Some(one),
            Self::More(all) => all.last_key_value().map(|(_, span)| span),
        }
    }

    /// Entries may be added to it, and taken from its end, but not all of them.
    #[inline]
    pub fn last_mut(&mut self) -> Option<&mut Span> {
        match self {
            Self::None => None,
            Self::One(one) => Some(one),
            Self::More(all) => all.last_entry().map(|entry| entry.into_mut()),
        }
    }

    /// The last that begins at this index or before.
    pub fn up_to(&self, index: u64) -> Option<&Span> {
        match self {
            Self::None => None,
            Self::One(one) => Some(one).filter(|span| span.first() <= index),
            Self::More(all) => all.range(..=index).next_back().map(|(_, span)| span),
        }
    }

    /// As [`Spans::up_to`] and [`Spans::last_mut`].
    pub fn up_to_mut(&mut self, index: u64) -> Option<&mut Span> {
        match self {
            Self::None => None,
            Self::One(one) => Some(one).filter(|span| span.first() <= index),
            Self::More(all) => all.range_mut(..=index).next_back().map(|(_, span)| span),
        }
    }

    /// The first that begins at this index or later.
    fn from(&self, index: u64) -> Option<&Span> {
        match self {
            Self::None => None,
            Self::One(one) => Some(one).filter(|span| span.first() >= index),
            Self::More(all) => all.range(index..).next().map(|(_, span)| span),
        }
    }

    /// Takes the first that ends at this index or later.
    pub fn take_from(&mut self, index: u64) -> Option<Span> {
        let around = self.up_to(index).filter(|span| span.last() >= index);
        let first = around.or_else(|| self.from(index))?.first();
        self.take(first)
    }

    /// Takes the one that begins there.
    pub fn take(&mut self, first: u64) -> Option<Span> {
        match self {
            Self::One(one) if one.first() == first => match std::mem::take(self) {
                Self::One(one) => Some(one),
                _ => None,
            },
            Self::More(all) => {
                let span = all.remove(&first);
                self.settle();
                span
            }
            _ => None,
        }
    }

    /// Forgets the first `n` entries of the first span, which must be there; a span without any goes.
    pub fn drop_front(&mut self, n: usize) {
        match self {
            Self::None => {}
            Self::One(one) if n < one.locs().len() => one.drop_front(n),
            Self::One(_) => *self = Self::None,
            Self::More(all) => {
                if let Some((_, mut span)) = all.pop_first()
                    && n < span.locs().len()
                {
                    span.drop_front(n);
                    all.insert(span.first(), span);
                }
                self.settle();
            }
        }
    }

    /// Adds one that shares no index with the others.
    pub fn insert(&mut self, span: Span) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(span),
            Self::One(one) => Self::More(Box::new([one, span].map(|span| (span.first(), span)).into())),
            Self::More(mut all) => {
                all.insert(span.first(), span);
                Self::More(all)
            }
        };
    }

    /// Joins spans that follow each other.
    pub fn join(&mut self) {
        let follows = |one: &Span, next: &Span| one.last().checked_add(1) == Some(next.first());
        let Self::More(all) = self else { return };
        if !all.values().zip(all.values().skip(1)).any(|(one, next)| follows(one, next)) {
            return;
        }
        let (mut joined, mut last) = (Self::None, None::<Span>);
        for span in std::mem::take(&mut **all).into_values() {
            match &mut last {
                Some(last) if follows(last, &span) => last.append(span),
                _ => last.replace(span).into_iter().for_each(|done| joined.insert(done)),
            }
        }
        last.into_iter().for_each(|done| joined.insert(done));
        *self = joined;
    }

    /// Fewer than two take no memory of their own.
    fn settle(&mut self) {
        if let Self::More(all) = self
            && all.len() < 2
        {
            *self = all.pop_first().map_or(Self::None, |(_, one)| Self::One(one));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::loc::Loc;
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    fn span(first: u64, n: u64) -> Span {
        let mut span = Span::new(first);
        (first..first + n).for_each(|i| span.push(Loc::new(i, 7)));
        span
    }

    #[test]
    fn agrees_with_a_sorted_list_under_random_operations() {
        for seed in 0..300 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut spans, mut plain) = (Spans::default(), Vec::<(u64, u64)>::new());
            for _ in 0..60 {
                // Each in a tenth of its own.
                let (first, n) = (10 * rng.random_range(0..8) + rng.random_range(0..4), rng.random_range(1..6));
                if rng.random_bool(0.1) {
                    spans.drop_front(1);
                    if let Some(front) = plain.first_mut() {
                        *front = (front.0 + 1, front.1 - 1);
                    }
                    plain.retain(|&(_, n)| n > 0);
                } else if rng.random_bool(0.5) {
                    if plain.iter().all(|&(other, _)| other / 10 != first / 10) {
                        spans.insert(span(first, n));
                        plain.push((first, n));
                        plain.sort_unstable();
                    }
                } else if rng.random_bool(0.5) {
                    let i = plain.iter().position(|&(at, n)| at + n > first);
                    let taken = i.map(|i| plain.remove(i));
                    assert_eq!(spans.take_from(first).map(|s| (s.first(), s.locs().len() as u64)), taken);
                } else {
                    let i = plain.iter().position(|&(at, _)| at == first);
                    assert_eq!(spans.take(first).is_some(), i.map(|i| plain.remove(i)).is_some());
                }
                let firsts = |spans: &Spans| spans.iter().map(Span::first).collect::<Vec<_>>();
                assert!(firsts(&spans).into_iter().eq(plain.iter().map(|&(first, _)| first)), "seed {seed}");
                assert_eq!(spans.len(), plain.len());
                assert_eq!(spans.first().map(Span::first), plain.first().map(|p| p.0));
                assert_eq!(spans.last().map(Span::first), plain.last().map(|p| p.0));
                assert_eq!(spans.last_mut().map(|s| s.first()), plain.last().map(|p| p.0));
                for index in 0..90 {
                    let want = plain.iter().rev().map(|p| p.0).find(|&first| first <= index);
                    assert_eq!(spans.up_to(index).map(Span::first), want);
                    assert_eq!(spans.up_to_mut(index).map(|s| s.first()), want);
                }
                assert_eq!(matches!(spans, Spans::More(_)), plain.len() > 1);
            }
        }
    }
}

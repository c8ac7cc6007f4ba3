//! A list that mostly holds one thing, or none.

use std::collections::VecDeque;
use std::ops::Range;

use super::room::Spare as _;

/// None and one take no memory of their own. More lie in a queue, so that an item put before all others moves none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Few<T> {
    #[default]
    None,
    One(T),
    /// Two at least. Boxed: the queue itself is too large where there may be a million.
    #[allow(clippy::box_collection)]
    More(Box<VecDeque<T>>),
}

impl<T: Copy> Few<T> {
    fn slices(&self) -> (&[T], &[T]) {
        match self {
            Self::None => (&[], &[]),
            Self::One(one) => (std::slice::from_ref(one), &[]),
            Self::More(all) => all.as_slices(),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::More(all) => all.len(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let (front, back) = self.slices();
        front.iter().chain(back)
    }

    pub fn get(&self, i: usize) -> Option<&T> {
        let (front, back) = self.slices();
        front.get(i).or_else(|| back.get(i.checked_sub(front.len())?))
    }

    #[inline]
    pub fn last(&self) -> Option<&T> {
        match self {
            Self::None => None,
            Self::One(one) => Some(one),
            Self::More(all) => all.back(),
        }
    }

    pub fn first_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::None => None,
            Self::One(one) => Some(one),
            Self::More(all) => all.front_mut(),
        }
    }

    /// How many of the first satisfy this, where none behind them does.
    pub fn partition_point(&self, satisfies: impl Fn(&T) -> bool) -> usize {
        let (front, back) = self.slices();
        match front.partition_point(&satisfies) {
            n if n < front.len() => n,
            n => n + back.partition_point(&satisfies),
        }
    }

    pub fn push(&mut self, item: T) {
        match self {
            Self::None => *self = Self::One(item),
            Self::One(one) => *self = Self::More(Box::new(VecDeque::from([*one, item]))),
            Self::More(all) => all.push_back(item),
        }
    }

    /// Forgets all but the first `n`.
    pub fn truncate(&mut self, n: usize) {
        match self {
            _ if n == 0 => *self = Self::None,
            Self::More(all) => all.truncate(n),
            _ => {}
        }
        self.settle();
    }

    /// Forgets the first `n`.
    pub fn drop_front(&mut self, n: usize) {
        match self {
            Self::More(all) => drop(all.drain(..n.min(all.len()))),
            _ if n > 0 => *self = Self::None,
            _ => {}
        }
        self.settle();
    }

    /// Puts these in the place of a range, which must be there. Moves what lies before or behind it, whichever is less.
    pub fn replace(&mut self, range: Range<usize>, with: &[T]) {
        if range.len() == self.len() && with.len() < 2 {
            *self = with.first().map_or(Self::None, |&one| Self::One(one));
            return;
        }
        let mut all = match std::mem::take(self) {
            Self::None => Box::default(),
            Self::One(one) => Box::new(VecDeque::from([one])),
            Self::More(all) => all,
        };
        all.drain(range.clone());
        for (i, &item) in (range.start..).zip(with) {
            all.insert(i, item);
        }
        *self = Self::More(all);
        self.settle();
    }

    /// Fewer than two take no memory of their own, and more do not keep for ever what very many took.
    fn settle(&mut self) {
        let Self::More(all) = self else { return };
        if all.len() < 2 {
            *self = all.front().map_or(Self::None, |&one| Self::One(one));
        } else {
            all.spare();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    #[test]
    fn agrees_with_a_vector_under_random_operations() {
        for seed in 0..300 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut few, mut plain) = (Few::default(), Vec::new());
            for step in 0..60 {
                let n = rng.random_range(0..=plain.len());
                match rng.random_range(0..5) {
                    0 | 1 => {
                        few.push(step);
                        plain.push(step);
                    }
                    2 => {
                        let range = n..rng.random_range(n..=plain.len().min(n + 3));
                        let with: Vec<u64> = (0..rng.random_range(0..4)).map(|i| step * 10 + i).collect();
                        few.replace(range.clone(), &with);
                        plain.splice(range, with);
                    }
                    3 => {
                        few.truncate(plain.len() - n.min(2));
                        plain.truncate(plain.len() - n.min(2));
                    }
                    _ => {
                        few.drop_front(n.min(2));
                        plain.drain(..n.min(2));
                    }
                }
                assert!(few.iter().eq(&plain), "seed {seed}: {few:?} {plain:?}");
                assert_eq!((few.len(), few.last().copied()), (plain.len(), plain.last().copied()));
                assert_eq!(few.first_mut().copied(), plain.first().copied());
                assert!((0..=plain.len()).all(|i| few.get(i) == plain.get(i)));
                assert_eq!(matches!(few, Few::More(_)), plain.len() > 1);
            }
        }
        let mut few = Few::default();
        (0..100_000_u64).for_each(|i| few.push(i));
        few.drop_front(50_000);
        few.truncate(3);
        assert!(matches!(&few, Few::More(all) if all.capacity() <= 512), "{}", few.len());
        let mut few = Few::default();
        (0..9).for_each(|i| few.push(i));
        few.drop_front(5);
        (9..14).for_each(|i| few.push(i));
        (0..16).for_each(|i| assert_eq!(few.partition_point(|&n| n < i), few.iter().filter(|&&n| n < i).count()));
    }
}

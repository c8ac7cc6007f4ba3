//! Terms as runs: a log of a million entries and three elections costs three pairs.

use smallvec::SmallVec;

use super::few::Few;
use crate::format::piece::TermRuns;

/// The terms of a range of indexes: `(first index of the run, term)`, ascending; a run ends where the next begins.
///
/// What lies before the first run is unknown; the last run goes on for ever (the owner knows where its log ends).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    runs: Few<(u64, u64)>,
}

impl Terms {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.runs = Few::None;
    }

    /// Says that every index from `index` on has `term`.
    #[inline]
    pub fn push(&mut self, index: u64, term: u64) {
        // Mostly the term that the newest run has.
        match self.runs.last() {
            Some(&(start, newest)) if start < index && newest == term => {}
            _ => self.begin_run(index, term),
        }
    }

    fn begin_run(&mut self, index: u64, term: u64) {
        self.cut_from(index);
        if self.runs.last().is_none_or(|&(_, t)| t != term) {
            self.runs.push((index, term));
        }
    }

    /// The term at `index`, if a run covers it.
    pub fn get(&self, index: u64) -> Option<u64> {
        // The newest run first: that is where a leader asks.
        match self.runs.last() {
            Some(&(start, term)) if start <= index => Some(term),
            _ => {
                let i = self.runs.partition_point(|&(start, _)| start <= index);
                self.runs.get(i.checked_sub(1)?).map(|&(_, term)| term)
            }
        }
    }

    /// Forgets the runs that begin at `index` or later.
    pub fn cut_from(&mut self, index: u64) {
        if self.runs.last().is_some_and(|&(start, _)| start >= index) {
            self.runs.truncate(self.runs.partition_point(|&(start, _)| start < index));
        }
    }

    /// Forgets what lies before `first`.
    pub fn drop_below(&mut self, first: u64) {
        let past = self.runs.iter().skip(1).take_while(|&&(start, _)| start <= first).count();
        self.runs.drop_front(past);
        if let Some(front) = self.runs.first_mut() {
            front.0 = front.0.max(first);
        }
    }

    /// Sets `lo..=hi` to `term` and leaves the rest as it was: replay meets ranges out of order.
    pub fn set(&mut self, lo: u64, hi: u64, term: u64) {
        if self.runs.last().is_none_or(|&(start, _)| start <= lo) && self.get(lo) == Some(term) {
            return;
        }
        let after = hi.checked_add(1).and_then(|next| Some((next, self.get(next)?)));
        let from = self.runs.partition_point(|&(start, _)| start < lo);
        let to = self.runs.partition_point(|&(start, _)| start <= hi);
        let before = from.checked_sub(1).and_then(|i| self.runs.get(i)).map(|&(_, term)| term);
        let with = [Some((lo, term)).filter(|_| before != Some(term)), after.filter(|&(_, behind)| behind != term)];
        // The next one may begin right there, or be of the term that now lasts until then.
        let behind = after.map_or(term, |(_, behind)| behind);
        let goes_on = self.runs.get(to).is_some_and(|&(_, next)| next == behind);
        let with: SmallVec<[_; 2]> = with.into_iter().flatten().collect();
        self.runs.replace(from..to + usize::from(goes_on), &with);
    }

    /// The runs over `first..first + count`, as (entries, term). Indexes that no run covers take the next known term:
    /// they are dead, and only their number matters.
    pub fn runs(&self, first: u64, count: u32) -> TermRuns {
        let mut out = TermRuns::new();
        let mut at = first;
        let mut left = u64::from(count);
        let mut i = self.runs.partition_point(|&(start, _)| start <= first).saturating_sub(1);
        while left > 0 {
            let term = self.runs.get(i).map_or(0, |&(_, term)| term);
            let n = match self.runs.get(i + 1) {
                Some(&(next, _)) => next.saturating_sub(at).min(left),
                None => left,
            };
            if n > 0 {
                out.push((n as u32, term));
            }
            at = at.saturating_add(n);
            left -= n;
            i += 1;
        }
        out
    }

    /// The runs: where each begins, and its term.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.runs.iter().copied()
    }

    /// How many runs there are: what they cost.
    pub fn len(&self) -> usize {
        self.runs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    #[test]
    fn agrees_with_a_plain_array_under_random_sets_pushes_and_cuts() {
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut plain = vec![None; 60];
            let mut terms = Terms::default();
            for _ in 0..40 {
                let lo = rng.random_range(0..50_usize);
                let hi = rng.random_range(lo..50);
                let term = rng.random_range(1..4);
                if rng.random_bool(0.5) {
                    // Holes are only ever asked about by the owner's own range, so the model fills them as `set` may.
                    if plain.iter().take(hi + 2).skip(lo).any(|t: &Option<u64>| t.is_some())
                        || plain.iter().all(|t| t.is_none())
                    {
                        terms.set(lo as u64, hi as u64, term);
                        plain[lo..=hi].fill(Some(term));
                    }
                } else {
                    terms.push(lo as u64, term);
                    plain[lo..].fill(Some(term));
                }
                for (i, want) in plain.iter().enumerate() {
                    if let Some(want) = want {
                        assert_eq!(terms.get(i as u64), Some(*want), "seed {seed} index {i}: {terms:?}");
                    }
                }
            }
        }
    }

    /// Each of them before the last.
    #[test]
    fn terms_named_in_descending_order_are_not_moved_for_each() {
        const N: u64 = 10_000;
        let (mut terms, mut moved, mut lay_at) = (Terms::default(), 0, std::ptr::null());
        for index in (1..=N).rev() {
            terms.set(index, index, index);
            let lies_at = std::ptr::from_ref(terms.runs.last().expect("one"));
            moved += u64::from(std::mem::replace(&mut lay_at, lies_at) != lies_at);
        }
        assert!(moved < 100, "{moved} times");
        assert_eq!((terms.len() as u64, terms.get(1), terms.get(N)), (N, Some(1), Some(N)));
    }

    #[test]
    fn runs_cover_a_range_and_prefixes_can_be_dropped() {
        let mut terms = Terms::default();
        terms.push(10, 1);
        terms.push(15, 1);
        terms.push(20, 2);
        assert_eq!(terms.len(), 2);
        assert_eq!(terms.runs(12, 10).as_slice(), [(8, 1), (2, 2)]);
        terms.drop_below(18);
        assert_eq!(terms.get(17), None);
        assert_eq!(terms.runs(16, 6).as_slice(), [(4, 1), (2, 2)]);
        terms.cut_from(20);
        assert_eq!(terms.get(20), Some(1));
    }
}

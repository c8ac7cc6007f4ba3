//! What the cleaner remembers of replicas: the segment in which the oldest entry or metadata of each lies, so that it need not look again
//! before it comes there.
//!
//! A replica that is truncated soon has nothing in most of the segments that list it, and each look at it fetches memory that has left the
//! cache. **Nothing of a replica ever grows older**: what lies in the journal stays where it is, or goes, or is moved to the head. There
//! are two exceptions. Damage that a cleaning finds concerns only replicas at which that cleaning looked and of which it found something;
//! these are not remembered. A loss that an opening could not write down comes before anything is remembered.

use crate::index::IdMap;

/// For each replica that is remembered: a segment before which it has nothing.
#[derive(Debug, Default)]
pub(crate) struct Oldest(IdMap<u64>);

impl Oldest {
    /// At most this many replicas are remembered, in two megabytes.
    pub const MOST: usize = 1 << 16;

    /// The segments up to `last` are cleaned: only replicas that have nothing in them are still remembered.
    pub fn come_to(&mut self, last: u64) {
        self.0.retain(|_, oldest| *oldest > last);
    }

    /// Whether the replica has nothing in the segments that it [came to](Oldest::come_to).
    pub fn is_beyond(&self, replica: u64) -> bool {
        self.0.contains_key(&replica)
    }

    /// Remembers replicas and their segments, as a cleaning saw them.
    pub fn learn(&mut self, seen: impl IntoIterator<Item = (u64, u64)>) {
        let room = Self::MOST.saturating_sub(self.0.len());
        self.0.extend(seen.into_iter().take(room));
    }

    /// The replicas that are remembered, and their segments.
    #[cfg(test)]
    pub fn all(&self) -> Vec<(u64, u64)> {
        self.0.iter().map(|(&replica, &segment)| (replica, segment)).collect()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_beyond_until_the_cleaner_comes_to_what_it_has() {
        let mut oldest = Oldest::default();
        let beyond = |oldest: &Oldest| (1..=4).filter(|&id| oldest.is_beyond(id)).collect::<Vec<_>>();
        oldest.come_to(3);
        assert_eq!(beyond(&oldest), [0; 0], "nothing is known");
        oldest.learn([(1, 9), (2, 5), (3, 6)]);
        oldest.come_to(5);
        assert_eq!(beyond(&oldest), [1, 3]);
        oldest.come_to(6);
        assert_eq!(beyond(&oldest), [1]);
        // Fewer of them, this time.
        oldest.come_to(4);
        assert_eq!(beyond(&oldest), [1], "what was forgotten is not believed again");
        oldest.come_to(9);
        assert_eq!(beyond(&oldest), [0; 0]);
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        let mut oldest = Oldest::default();
        oldest.learn((0..Oldest::MOST as u64 - 1).map(|id| (id, 7)));
        oldest.learn([(u64::MAX, 7), (u64::MAX - 1, 7)]);
        assert_eq!(oldest.all().len(), Oldest::MOST);
    }
}

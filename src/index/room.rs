//! Gives back memory that a list has to spare: none keeps for ever what it took at its longest.

use std::collections::VecDeque;

/// A list may have room for this many times what is in it: as much as doubling may leave, so that a list of steady length keeps its memory.
const MOST_TIMES: usize = 4;
/// Half of that is left to it, so that it halves at least before anything is moved again.
const LEFT_TIMES: usize = MOST_TIMES / 2;
/// This many bytes are kept in any case: thousands of replicas that write each fill and empty a little again and again.
const KEPT_BYTES: usize = 4096;

/// The room that a list of `T` should have, where it has far too much.
fn instead_of<T>(len: usize, room: usize) -> Option<usize> {
    let kept = KEPT_BYTES / size_of::<T>().max(1);
    (room > kept && room / MOST_TIMES > len).then(|| (len * LEFT_TIMES).max(kept))
}

/// A collection whose items come and go.
pub(super) trait Spare {
    /// Gives back memory that is far more than it needs. Costs less than what was added and taken since the last time.
    fn spare(&mut self);
}

impl<T> Spare for VecDeque<T> {
    fn spare(&mut self) {
        if let Some(room) = instead_of::<T>(self.len(), self.capacity()) {
            self.shrink_to(room);
        }
    }
}

impl<T> Spare for Vec<T> {
    fn spare(&mut self) {
        if let Some(room) = instead_of::<T>(self.len(), self.capacity()) {
            self.shrink_to(room);
        }
    }
}

impl<A: smallvec::Array> Spare for smallvec::SmallVec<A> {
    fn spare(&mut self) {
        if let Some(room) = instead_of::<A::Item>(self.len(), self.capacity()) {
            // No less than what is in it: then it does not panic.
            self.grow(room.max(self.len()));
        }
    }
}

impl<K: Eq + std::hash::Hash, V> Spare for std::collections::HashMap<K, V> {
    fn spare(&mut self) {
        if let Some(room) = instead_of::<(K, V)>(self.len(), self.capacity()) {
            self.shrink_to(room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However it comes and goes.
    #[test]
    fn a_list_keeps_no_memory_of_its_longest_time_and_moves_little_for_it() {
        let mut list: VecDeque<u64> = (0..100_000).collect();
        let (mut room, mut moved) = (list.capacity(), 0);
        while list.pop_front().is_some() {
            list.spare();
            if list.capacity() != room {
                (room, moved) = (list.capacity(), moved + list.len());
            }
            assert!(room <= (MOST_TIMES * (list.len() + 1)).max(KEPT_BYTES / 8), "{} of {room}", list.len());
        }
        assert!(moved > 0 && moved < 100_000, "{moved}");
        // What is as long as before allocates nothing.
        for n in [1, 10, 500, 1000, 10_000] {
            let mut list = VecDeque::new();
            let mut room = Vec::new();
            for i in 0..10 * n {
                list.push_back(i);
                if list.len() > n {
                    list.pop_front();
                    list.spare();
                }
                if i >= 2 * n {
                    room.push(list.capacity());
                }
            }
            assert!(room.windows(2).all(|w| w[0] == w[1]), "{n}");
        }
    }
}

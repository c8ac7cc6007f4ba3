//! Readies between "submitted" and "durable": which waits for which position in the log.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use raft::Ready;
use raft::eraftpb::Message;

/// A Ready that is written, but not durable yet.
#[derive(Debug)]
pub struct Written {
    /// The group.
    pub group: u64,
    /// For [`RawNode::advance_append_async`](raft::RawNode::advance_append_async). Its messages are not in it any more.
    pub ready: Ready,
    /// The messages that need not wait, to be sent at once: a leader's, provided that its term and vote are durable. The others come with
    /// [`Persisted`].
    pub messages: Vec<Message>,
}

/// A Ready (and all of its group before it) that is durable now.
#[derive(Debug)]
pub struct Persisted {
    /// The group.
    pub group: u64,
    /// For [`RawNode::on_persist_ready`](raft::RawNode::on_persist_ready), to be called first.
    pub number: u64,
    /// The messages that had to wait, to be sent after that.
    pub messages: Vec<Message>,
}

/// Group and number of each Ready that a round took since the queue looked last: shared by a queue and its rounds.
#[derive(Debug, Default)]
pub(crate) struct Met(Mutex<Vec<(u64, u64)>>);

impl Met {
    pub(crate) fn add(&self, group: u64, number: u64) {
        self.lock().push((group, number));
    }

    pub(crate) fn take(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u64, u64)>> {
        // Nothing panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waiting readies, oldest first.
///
/// A Ready that changes nothing raft relies on (`must_sync` is false) waits for no sync of its own. But
/// it must not overtake an earlier one of its group: its messages may acknowledge what that one wrote.
/// So it joins the group's newest Ready that waits; if none does, it is handed over at once.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    through: Vec<Persisted>,
    queue: VecDeque<Place>,
    /// The place of each group's newest Ready in the queue, counted from the first that was ever queued.
    newest: HashMap<u64, u64>,
    popped: u64,
    /// How many of a group's readies in the queue bring a term or a vote.
    pledges: HashMap<u64, usize>,
    /// The number of each group's last Ready, by its node's own count.
    last: HashMap<u64, u64>,
}

#[derive(Debug)]
struct Place {
    lsn: u64,
    ready: Persisted,
    /// The Ready brings another term or vote than the group had.
    pledges: bool,
}

impl Waiting {
    /// A Ready was written; it waits until `lsn` is durable, or for no sync if that is `None`. `pledges`: it brings a term or a vote.
    ///
    /// LSNs must not go back from call to call.
    pub(crate) fn push(&mut self, lsn: Option<u64>, ready: Persisted, pledges: bool) {
        self.meet(ready.group, ready.number);
        self.last.insert(ready.group, ready.number);
        match lsn {
            Some(lsn) => {
                let place = self.popped + self.queue.len() as u64;
                self.newest.insert(ready.group, place);
                if pledges {
                    *self.pledges.entry(ready.group).or_default() += 1;
                }
                self.queue.push_back(Place { lsn, ready, pledges });
            }
            None => match self.newest.get(&ready.group) {
                Some(place) => {
                    let Place { ready: earlier, .. } = &mut self.queue[(place - self.popped) as usize];
                    earlier.number = ready.number;
                    earlier.messages.extend(ready.messages);
                }
                None => self.through.push(ready),
            },
        }
    }

    /// There is a Ready of this number, written or not. If the numbers begin anew, it is another node of the group, which would take for its own
    /// what the one before it wrote.
    pub(crate) fn meet(&mut self, group: u64, number: u64) {
        if self.last.get(&group).is_some_and(|&last| number <= last) {
            self.forget(group);
        }
    }

    /// Hands over every Ready that waits for no LSN beyond `durable`.
    pub(crate) fn release(&mut self, durable: u64, mut each: impl FnMut(Persisted)) {
        self.through.drain(..).for_each(&mut each);
        while self.queue.front().is_some_and(|place| place.lsn <= durable) {
            let Some(Place { ready, pledges, .. }) = self.queue.pop_front() else {
                break;
            };
            if pledges && let Some(left) = self.pledges.get_mut(&ready.group) {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.pledges.remove(&ready.group);
                }
            }
            if self.newest.get(&ready.group) == Some(&self.popped) {
                self.newest.remove(&ready.group);
            }
            self.popped += 1;
            each(ready);
        }
    }

    /// Hands over nothing more of the group: another life of it, or nobody, would hear of it.
    pub(crate) fn forget(&mut self, group: u64) {
        self.through.retain(|ready| ready.group != group);
        self.queue.retain(|place| place.ready.group != group);
        self.pledges.remove(&group);
        self.last.remove(&group);
        // Places have moved; of a group's several places the last one stays, which is the newest.
        self.newest = (self.popped..).zip(&self.queue).map(|(at, place)| (place.ready.group, at)).collect();
    }

    /// Whether a term or a vote of the group is not durable yet: then no message of any kind may tell of it.
    pub(crate) fn awaits_pledge(&self, group: u64) -> bool {
        self.pledges.contains_key(&group)
    }

    pub(crate) fn awaits_sync(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.through.len() + self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(group: u64, number: u64) -> Persisted {
        let message = Message { index: number, ..Message::default() };
        Persisted { group, number, messages: vec![message] }
    }

    fn released(waiting: &mut Waiting, durable: u64) -> Vec<(u64, u64, usize)> {
        let mut out = Vec::new();
        waiting.release(durable, |r| out.push((r.group, r.number, r.messages.len())));
        out
    }

    #[test]
    fn nothing_leaves_before_its_position_is_durable() {
        let mut waiting = Waiting::default();
        waiting.push(Some(10), ready(1, 1), false);
        waiting.push(Some(10), ready(2, 1), false);
        waiting.push(Some(20), ready(1, 2), false);
        assert_eq!(released(&mut waiting, 9), []);
        assert_eq!(released(&mut waiting, 10), [(1, 1, 1), (2, 1, 1)]);
        assert_eq!(released(&mut waiting, 19), []);
        assert_eq!(released(&mut waiting, 20), [(1, 2, 1)]);
        assert_eq!(waiting.len(), 0);
        assert!(waiting.newest.is_empty());
    }

    #[test]
    fn a_ready_without_a_sync_never_overtakes_its_group() {
        let mut waiting = Waiting::default();
        waiting.push(None, ready(1, 1), false);
        assert_eq!(released(&mut waiting, 0), [(1, 1, 1)]);

        waiting.push(Some(10), ready(1, 2), false);
        waiting.push(Some(20), ready(2, 1), false);
        waiting.push(None, ready(1, 3), false);
        waiting.push(None, ready(3, 1), false);
        // Group 3 has nothing to wait for; group 1 must not acknowledge ready 2 through ready 3.
        assert_eq!(released(&mut waiting, 5), [(3, 1, 1)]);
        assert_eq!(released(&mut waiting, 10), [(1, 3, 2)]);
        waiting.push(None, ready(1, 4), false);
        waiting.push(None, ready(2, 2), false);
        assert_eq!(released(&mut waiting, 10), [(1, 4, 1)]);
        assert_eq!(released(&mut waiting, 20), [(2, 2, 2)]);
    }

    #[test]
    fn a_group_that_is_forgotten_leaves_the_others_where_they_are() {
        let mut waiting = Waiting::default();
        waiting.push(Some(5), ready(3, 1), false);
        assert_eq!(released(&mut waiting, 5), [(3, 1, 1)]);
        waiting.push(None, ready(1, 1), false);
        waiting.push(Some(10), ready(1, 2), false);
        waiting.push(Some(10), ready(2, 1), false);
        waiting.push(Some(20), ready(1, 3), false);
        waiting.push(Some(20), ready(2, 2), false);
        waiting.forget(1);
        assert_eq!(waiting.len(), 2);
        // Its next life begins, and waits for nothing of the last.
        waiting.push(None, ready(1, 1), false);
        waiting.push(None, ready(2, 3), false);
        waiting.push(Some(30), ready(1, 2), false);
        assert_eq!(released(&mut waiting, 10), [(1, 1, 1), (2, 1, 1)]);
        assert_eq!(released(&mut waiting, 20), [(2, 3, 2)]);
        assert_eq!(released(&mut waiting, 30), [(1, 2, 1)]);
        assert!(waiting.newest.is_empty());
    }

    #[test]
    fn whose_numbers_begin_anew_hears_nothing_of_who_was_before() {
        let mut waiting = Waiting::default();
        for lsn in [Some(10), None] {
            waiting.push(lsn, ready(1, 6), true);
            waiting.push(None, ready(2, 1), false);
            waiting.push(Some(20), ready(1, 1), false);
            assert!(!waiting.awaits_pledge(1));
            assert_eq!(released(&mut waiting, 19), [(2, 1, 1)]);
            assert_eq!(released(&mut waiting, 20), [(1, 1, 1)]);
            waiting.forget(2);
        }
    }

    #[test]
    fn a_term_is_awaited_until_the_last_ready_that_brought_one_is_durable() {
        let mut waiting = Waiting::default();
        waiting.push(Some(10), ready(1, 1), true);
        waiting.push(Some(10), ready(2, 1), false);
        waiting.push(Some(20), ready(1, 2), true);
        waiting.push(Some(30), ready(1, 3), false);
        let awaits = |waiting: &Waiting| [1, 2].map(|group| waiting.awaits_pledge(group));
        released(&mut waiting, 10);
        assert_eq!(awaits(&waiting), [true, false]);
        released(&mut waiting, 20);
        assert_eq!(awaits(&waiting), [false, false]);
        waiting.push(Some(40), ready(1, 4), true);
        waiting.forget(1);
        assert!(waiting.pledges.is_empty());
    }
}

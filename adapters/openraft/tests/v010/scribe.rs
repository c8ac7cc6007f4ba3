//! A group with random writes, and every state that it may be found in after a power cut.

use std::io;
use std::sync::Arc;

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use strandlog::Wal;

use crate::support::{Held, LogId, Rng, Store, Told, Types, entry, held, log_id, store, told_already, vote};

pub struct Scribe {
    store: Store,
    /// The state of the group after each of its writes: one batch each.
    states: Vec<Held>,
    /// The write up to which it must survive.
    acknowledged: usize,
    waiting: Vec<(usize, Told)>,
    term: u64,
}

impl Scribe {
    /// Continues from what the log holds.
    pub async fn open(wal: &Arc<Wal>, group: u64) -> Self {
        let mut store = store(wal, group);
        let found = held(&mut store).await;
        let term =
            found.last.map_or(1, |last| last.leader_id.term).max(found.vote.map_or(1, |vote| vote.leader_id.term));
        Self { store, states: vec![found], acknowledged: 0, waiting: Vec::new(), term }
    }

    pub fn group(&self) -> u64 {
        self.store.group()
    }

    /// The number of writes that it completed.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    fn now(&self) -> Held {
        self.states.last().unwrap().clone()
    }

    fn write(&mut self, after: Held) -> usize {
        self.states.push(after);
        self.states.len() - 1
    }

    /// One write of a random kind. An error ends the scribe: the power is off.
    pub async fn step(&mut self, rng: &mut Rng) -> io::Result<()> {
        let now = self.now();
        // openraft's order: purged <= committed <= last.
        let floor = now.committed.max(now.purged);
        let next = now.last.map_or(0, |last| last.index + 1);
        let firm = floor.map_or(0, |floor| floor.index + 1);
        match rng.below(12) {
            0 => self.save_vote(rng).await?,
            1 => self.truncate(firm + rng.below(next - firm + 1)).await?,
            2 => self.append(firm + rng.below(next - firm + 1), rng).await?,
            3 => self.save_committed(rng).await?,
            4 => self.purge(rng).await?,
            _ => self.append(next, rng).await?,
        }
        self.listen();
        assert_eq!(held(&mut self.store).await, self.now(), "group {}: at once", self.group());
        Ok(())
    }

    async fn save_vote(&mut self, rng: &mut Rng) -> io::Result<()> {
        self.term += 1;
        let vote = vote(self.term, rng.below(3));
        let at = self.write(Held { vote: Some(vote), ..self.now() });
        self.store.save_vote(&vote).await?;
        self.acknowledged = at;
        Ok(())
    }

    /// The state of the group with everything from `end` on cut off.
    fn cut(&self, end: u64) -> Held {
        let mut cut = self.now();
        cut.entries.retain(|entry| entry.log_id.index < end);
        cut.last = cut.entries.last().map(|entry| entry.log_id).or(cut.purged);
        cut
    }

    async fn truncate(&mut self, end: u64) -> io::Result<()> {
        let cut = self.cut(end);
        if cut == self.now() {
            // Nothing is written, so nothing is acknowledged.
            return self.store.truncate_after(cut.last).await;
        }
        let last = cut.last;
        let at = self.write(cut);
        self.store.truncate_after(last).await?;
        self.acknowledged = at;
        Ok(())
    }

    async fn append(&mut self, first: u64, rng: &mut Rng) -> io::Result<()> {
        if self.now().last.is_some_and(|last| last.index >= first) {
            self.term += 1;
        }
        let size = [3, 30, 300, 3000, 12_000][rng.below(5) as usize];
        let text = format!("{:x}", rng.next()).repeat(size / 16 + 1);
        let entries: Vec<_> = (first..=first + rng.below(4)).map(|index| entry(self.term, index, &text)).collect();
        let mut after = self.cut(first);
        after.entries.extend(entries.iter().cloned());
        after.last = entries.last().map(|entry| entry.log_id);
        let at = self.write(after);
        let (told, told_later) = Types::oneshot();
        self.store.append(entries, IOFlushed::signal(told)).await?;
        self.waiting.push((at, told_later));
        Ok(())
    }

    async fn save_committed(&mut self, rng: &mut Rng) -> io::Result<()> {
        let now = self.now();
        let firm = now.committed.max(now.purged).map_or(0, |id| id.index + 1);
        let ids: Vec<LogId> = now.entries.iter().map(|entry| entry.log_id).filter(|id| id.index >= firm).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let committed = Some(ids[rng.below(ids.len() as u64) as usize]);
        self.write(Held { committed, ..now });
        self.store.save_committed(committed).await
    }

    async fn purge(&mut self, rng: &mut Rng) -> io::Result<()> {
        let now = self.now();
        let known: Vec<LogId> =
            now.entries.iter().map(|entry| entry.log_id).filter(|id| Some(*id) <= now.committed).collect();
        let point = match rng.below(4) {
            // A snapshot beyond the end.
            0 => log_id(self.term, now.last.map_or(0, |last| last.index) + 1 + rng.below(20)),
            _ if known.is_empty() => return Ok(()),
            _ => known[rng.below(known.len() as u64) as usize],
        };
        let mut after = now;
        after.entries.retain(|entry| entry.log_id.index > point.index);
        after.purged = Some(point);
        after.last = after.entries.last().map(|entry| entry.log_id).or(after.purged);
        self.write(after);
        self.store.purge(point).await
    }

    /// Notes what became durable. Callbacks come in the order of the appends: if one has run, so have all before it.
    ///
    /// Searches from the newest backwards. From the oldest on, both could complete between the look at one and at the next.
    fn listen(&mut self) {
        let mut later = false;
        let mut silent = Vec::new();
        while let Some((at, mut told)) = self.waiting.pop() {
            match told_already(&mut told) {
                Some(Ok(())) => {
                    self.acknowledged = self.acknowledged.max(at);
                    later = true;
                }
                Some(Err(_)) => {}
                None => {
                    assert!(!later, "a callback overtook another");
                    silent.push((at, told));
                }
            }
        }
        silent.reverse();
        self.waiting = silent;
    }

    /// Compares what was found after a power cut with what was promised.
    pub async fn judge(mut self, found: &Arc<Wal>, what: &str) {
        self.listen();
        let group = self.group();
        let found = held(&mut store(found, group)).await;
        let survived = self.states.iter().rposition(|state| *state == found);
        let acknowledged = self.acknowledged;
        assert!(
            survived.is_some_and(|survived| survived >= acknowledged),
            "{what}, group {group}: found {found:#?}\nwhich is write {survived:?}, {acknowledged} of {} are acknowledged: {:#?}",
            self.states.len() - 1,
            self.states[acknowledged],
        );
    }
}

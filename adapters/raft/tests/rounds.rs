//! Many groups, one log, one batch per round: what a crash between "written" and "durable" leaves, and the order in which groups are told.

mod support;

use std::sync::Arc;

use raft::RawNode;
use raft::eraftpb::{Message, MessageType};
use strandlog::Wal;
use strandlog::disk::sim::SimDisk;
use strandlog_raft::{Error, GroupStorage, PersistQueue, Round};
use support::{entry, message, nodes, open};

const GROUPS: u64 = 100;

struct Poller {
    nodes: Vec<RawNode<GroupStorage>>,
    queue: PersistQueue,
    round: Round,
}

impl Poller {
    /// Replica 1 of every group, as the log has it.
    fn open(disk: &Arc<SimDisk>, fresh: bool) -> Self {
        Self::on(open(disk), fresh)
    }

    fn on(wal: Wal, fresh: bool) -> Self {
        let wal = Arc::new(wal);
        let nodes = nodes(&wal, GROUPS, fresh);
        let queue = PersistQueue::new(wal, || ());
        Self { nodes, round: queue.round(), queue }
    }

    /// The leader of term 2 sends every group its entry `index`, and all of it is written as one round.
    fn follow(&mut self, index: u64) {
        self.hear(index);
        let nodes = &mut self.nodes;
        self.queue
            .submit(&mut self.round, |written| nodes[written.group as usize].advance_append_async(written.ready))
            .unwrap();
    }

    /// Submits the round if that is possible without waiting.
    fn try_submit(&mut self) -> Result<(), Error> {
        let nodes = &mut self.nodes;
        self.queue
            .try_submit(&mut self.round, |written| nodes[written.group as usize].advance_append_async(written.ready))
    }

    /// Puts what the leader sends into the round.
    fn hear(&mut self, index: u64) {
        for node in &mut self.nodes {
            let mut append = message(MessageType::MsgAppend, 2, 1, 2);
            (append.index, append.log_term) = (index - 1, if index == 2 { 1 } else { 2 });
            append.set_entries(vec![entry(index, 2)].into());
            node.step(append).unwrap();
            let ready = node.ready();
            assert!(ready.messages().is_empty(), "a follower says nothing before it is durable");
            self.round.persist(node.mut_store(), ready).unwrap();
        }
    }

    /// The groups that may answer now, and up to which index.
    fn answers(&mut self) -> Vec<(u64, u64)> {
        let mut answers = Vec::new();
        let nodes = &mut self.nodes;
        self.queue
            .poll(|durable| {
                nodes[durable.group as usize].on_persist_ready(durable.number);
                let index = |m: &Message| (m.get_msg_type() == MessageType::MsgAppendResponse).then_some(m.index);
                answers.extend(durable.messages.iter().filter_map(index).map(|index| (durable.group, index)));
            })
            .unwrap();
        answers
    }

    fn last_indexes(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.store().replica().last_index()).collect()
    }
}

fn all(index: u64) -> Vec<(u64, u64)> {
    (0..GROUPS).map(|group| (group, index)).collect()
}

#[test]
fn a_crash_between_written_and_durable_takes_a_whole_round_of_which_nobody_has_heard() {
    let disk = support::disk();
    let mut poller = Poller::open(&disk, true);
    poller.follow(2);
    poller.queue.flush().unwrap();
    poller.follow(3);
    assert_eq!(poller.last_indexes(), [3; GROUPS as usize], "written is readable");
    assert_eq!(poller.answers(), all(2), "in the order of the round, and nothing of the next one");
    assert_eq!(poller.answers(), []);

    let crashed = Arc::new(disk.crash_lost_all());
    let mut again = Poller::open(&crashed, false);
    assert_eq!(again.last_indexes(), [2; GROUPS as usize]);
    // The leader sends it again, and goes on.
    again.follow(3);
    again.follow(4);
    again.queue.flush().unwrap();
    assert_eq!(again.answers(), [all(3), all(4)].concat());
    let found = Poller::open(&Arc::new(crashed.crash_lost_all()), false);
    assert_eq!(found.last_indexes(), [4; GROUPS as usize]);
    assert!(found.nodes.iter().all(|node| node.store().hard_state().term == 2));
}

/// The power fails at each event of the write: all groups have the round, or none has, and every group that was answered has it.
#[test]
fn a_round_is_there_whole_or_not_at_all_wherever_the_power_fails() {
    let mut found = std::collections::BTreeSet::new();
    for seed in 0..12 {
        let disk = support::disk();
        let mut poller = Poller::open(&disk, true);
        poller.follow(2);
        disk.fail_at(disk.events() + seed % 3, strandlog::disk::sim::Fault::Cut);
        let flushed = poller.queue.flush();
        let failed = matches!(flushed, Err(Error::Log(_)));
        let answered = poller.queue.poll(|_| ()).is_ok() && !failed;
        let crashed = Poller::open(&Arc::new(disk.crash_seeded(seed)), false);
        let last = crashed.last_indexes();
        assert!(last.iter().all(|&index| index == last[0]), "seed {seed}: {last:?}");
        assert!(!answered || last[0] == 2, "seed {seed}: acknowledged, and gone");
        found.insert(last[0]);
    }
    assert_eq!(found.len(), 2, "always the same came of it: {found:?}");
}

#[test]
fn an_end_that_is_not_committed_is_cut_off_and_no_other() {
    let disk = support::disk();
    let mut poller = Poller::open(&disk, true);
    for index in 2..6 {
        poller.follow(index);
    }
    poller.queue.flush().unwrap();
    drop(poller);
    let wal = open(&disk.restart().into());
    let mut storage = GroupStorage::open(&wal, 3).unwrap();
    let state = support::hard_state(2, 0, 3);
    support::commit(&wal, |batch| storage.set_hard_state(batch, &state));
    support::commit(&wal, |batch| storage.cut(batch, 4)).unwrap();
    assert_eq!(storage.replica().bounds(), (2, 3));
    for committed in [3, 2, 1, 0] {
        let refused = support::commit(&wal, |batch| storage.cut(batch, committed));
        assert!(matches!(refused, Err(Error::Misuse { group: 3, .. })), "{refused:?}");
    }
    support::commit(&wal, |batch| storage.cut(batch, 9)).unwrap();
    assert_eq!(storage.replica().bounds(), (2, 3), "there is nothing");
}

#[test]
fn who_does_not_wait_is_told_that_the_queue_is_full_and_keeps_the_round() {
    // There are plenty of segments: only the queue is short.
    let options = support::options().queue_bytes(64 << 10);
    let wal = options.open_disk(Arc::new(SimDisk::new(64 << 20))).expect("the log opens");
    let mut poller = Poller::on(wal, true);
    let mut index = 2;
    let refused = loop {
        poller.hear(index);
        match poller.try_submit() {
            Ok(()) => index += 1,
            Err(refused) => break refused,
        }
        assert!(index < 100, "a queue of 64 KiB takes it all");
    };
    let busy = |error: &Error| matches!(error, Error::Log(strandlog::Error::Busy { queued: 1.., limit: 65_536 }));
    assert!(index > 2 && busy(&refused), "{index} {refused:?}");
    assert_eq!(poller.last_indexes(), [index - 1; GROUPS as usize], "nothing of it can be read");
    assert!(poller.try_submit().is_err_and(|error| busy(&error)), "nobody has written anything");
    assert_eq!(poller.answers(), []);

    poller.queue.flush().unwrap();
    assert_eq!(poller.answers(), (2..index).flat_map(all).collect::<Vec<_>>());
    poller.try_submit().expect("there is room");
    assert_eq!(poller.last_indexes(), [index; GROUPS as usize]);
    poller.queue.flush().unwrap();
    assert_eq!(poller.answers(), all(index));
}

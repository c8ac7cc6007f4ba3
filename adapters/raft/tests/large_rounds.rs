//! Rounds that no batch takes: they are written as several, and only the group is refused that can never be written.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use raft::RawNode;
use raft::eraftpb::{Entry, MessageType};
use strandlog::Wal;
use strandlog::disk::sim::{Fault, SimDisk};
use strandlog_raft::{Checkpoint, Error, GroupStorage, PersistQueue, Round};
use support::{conf_state, entry, message, nodes};

/// More than ten batches hold, in segments of 64 KiB.
const GROUPS: u64 = 900;
const DISK: u64 = 32 << 20;
/// The group whose Ready is written last.
const LAST: usize = GROUPS as usize - 1;

struct Poller {
    nodes: Vec<RawNode<GroupStorage>>,
    queue: PersistQueue,
    round: Round,
    /// The groups that the log reported as written.
    written: Vec<u64>,
}

impl Poller {
    fn on(wal: Wal, fresh: bool) -> Self {
        let wal = Arc::new(wal);
        let nodes = nodes(&wal, GROUPS, fresh);
        let queue = PersistQueue::new(wal, || ());
        Self { nodes, round: queue.round(), queue, written: Vec::new() }
    }

    /// The leader of term 2 sends the group entries after its first one.
    fn hear(&mut self, group: u64, entries: Vec<Entry>) {
        let node = &mut self.nodes[group as usize];
        let term = entries.last().map_or(2, |entry| entry.term);
        let mut append = message(MessageType::MsgAppend, 2, 1, term);
        (append.index, append.log_term) = (1, 1);
        append.set_entries(entries.into());
        node.step(append).unwrap();
        let ready = node.ready();
        self.round.persist(node.mut_store(), ready).unwrap();
    }

    fn hear_all(&mut self) {
        for group in 0..GROUPS {
            self.hear(group, vec![Entry { data: vec![7; 100].into(), ..entry(2, 2) }]);
        }
    }

    fn submit(&mut self) -> Result<(), Error> {
        let (nodes, written) = (&mut self.nodes, &mut self.written);
        self.queue.submit(&mut self.round, |one| {
            written.push(one.group);
            assert!(one.messages.is_empty(), "a follower says nothing before it is durable");
            nodes[one.group as usize].advance_append_async(one.ready);
        })
    }

    /// The groups that may answer now.
    fn answers(&mut self) -> Vec<u64> {
        let (mut answers, nodes) = (Vec::new(), &mut self.nodes);
        let told = self.queue.poll(|durable| {
            nodes[durable.group as usize].on_persist_ready(durable.number);
            let acknowledges = durable.messages.iter().any(|m| m.get_msg_type() == MessageType::MsgAppendResponse);
            assert!(acknowledges, "of {} nothing was said", durable.group);
            answers.push(durable.group);
        });
        told.map(|()| answers).unwrap_or_default()
    }

    fn lasts(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.store().replica().last_index()).collect()
    }
}

fn open(disk: &Arc<SimDisk>) -> Wal {
    support::open(disk)
}

fn all() -> Vec<u64> {
    (0..GROUPS).collect()
}

#[test]
fn a_round_that_no_batch_takes_is_written_as_several() {
    let disk = Arc::new(SimDisk::new(DISK));
    let mut poller = Poller::on(open(&disk), true);
    poller.hear_all();
    poller.submit().expect("it is not too large for the log");
    assert_eq!(poller.written, all(), "in their order");
    assert_eq!(poller.lasts(), [2; GROUPS as usize], "written is readable");
    assert_eq!(poller.answers(), [0; 0], "nothing is durable");
    assert!(poller.round.is_empty() && !poller.round.is_full());
    poller.queue.flush().unwrap();
    assert_eq!(poller.answers(), all());

    let found = Poller::on(open(&Arc::new(disk.crash_lost_all())), false);
    assert_eq!(found.lasts(), [2; GROUPS as usize]);
    assert!(found.nodes.iter().all(|node| node.store().hard_state().term == 2));
}

/// Whatever else the round has of a group stays with it: the checkpoint that a compaction relies on, and the caller's own keys.
#[test]
fn what_a_large_round_has_of_one_group_is_in_one_batch() {
    let mut poller = Poller::on(open(&Arc::new(SimDisk::new(DISK))), true);
    poller.hear_all();
    let conf_state = conf_state(&[1, 2, 3]);
    for node in &mut poller.nodes {
        let (group, storage) = (node.store().group(), node.mut_store());
        poller.round.put(group, b"mine", b"first").unwrap();
        let checkpoint = Checkpoint { index: 2, term: 2, conf_state: &conf_state, data: &[8; 100] };
        poller.round.checkpoint(storage, checkpoint).unwrap();
    }
    poller.submit().unwrap();
    for node in &mut poller.nodes {
        let (group, storage) = (node.store().group(), node.mut_store());
        let checkpoint = Checkpoint { index: 2, term: 2, conf_state: &conf_state, data: &[9; 100] };
        poller.round.checkpoint(storage, checkpoint).unwrap();
        poller.round.put(group, b"mine", b"last").unwrap();
        assert_eq!(poller.round.compact(storage, 3).unwrap(), 3);
    }
    poller.submit().unwrap();
    for node in &poller.nodes {
        let replica = node.store().replica();
        assert_eq!((replica.first_index(), replica.get(b"mine").unwrap().as_deref()), (3, Some(&b"last"[..])));
        assert_eq!(node.store().checkpoint_data().unwrap().as_deref(), Some(&[9; 100][..]));
    }
}

/// The power fails at each event of the writes: a group that was answered is there, with its term; a Ready is there as a whole
/// or not at all.
#[test]
fn wherever_the_power_fails_in_a_large_round_nobody_has_heard_what_is_gone() {
    let mut found = BTreeSet::new();
    for seed in 0..20 {
        let disk = Arc::new(SimDisk::new(DISK));
        let mut poller = Poller::on(open(&disk), true);
        poller.hear_all();
        disk.fail_at(disk.events() + seed / 2, Fault::Cut);
        let _ = poller.submit();
        let _ = poller.queue.flush();
        let answered = poller.answers();
        let crashed = Poller::on(open(&Arc::new(disk.crash_seeded(seed))), false);
        for (node, last) in crashed.nodes.iter().zip(crashed.lasts()) {
            assert_eq!(node.store().hard_state().term, last, "seed {seed}: an entry without its term, or a term alone");
        }
        for group in answered {
            assert_eq!(crashed.lasts()[group as usize], 2, "seed {seed}: {group} was answered, and is gone");
        }
        found.insert(crashed.lasts().iter().filter(|&&last| last == 2).count());
    }
    assert!(found.len() > 2 && found.contains(&0), "always the same came of it: {found:?}");
}

/// A new term with each entry, in the log of one group: the record of the terms fits no segment, wherever the entries lie.
fn hopeless() -> Vec<Entry> {
    (2..9000).map(|index| entry(index, index)).collect()
}

#[test]
fn a_ready_that_fits_no_batch_is_refused_of_its_group_and_all_others_are_written() {
    let disk = Arc::new(SimDisk::new(DISK));
    let mut poller = Poller::on(open(&disk), true);
    for group in 0..GROUPS {
        match group {
            70 | 500 => poller.hear(group, hopeless()),
            _ => poller.hear(group, vec![entry(2, 2)]),
        }
    }
    let others: Vec<u64> = all().into_iter().filter(|group| ![70, 500].contains(group)).collect();
    for group in [70, 500] {
        for _ in 0..2 {
            let refused = poller.submit();
            let named = matches!(refused, Err(Error::TooLarge { group: of, index: 2, .. }) if of == group);
            assert!(named, "{refused:?}");
            assert_eq!(poller.written, others, "once, and all of them");
        }
        let refused = poller.round.persist(poller.nodes[0].mut_store(), raft::Ready::default());
        assert!(matches!(refused, Err(Error::Misuse { group: 0, .. })), "it takes no Ready before it is submitted");
        poller.queue.forget(&mut poller.round, group);
    }
    poller.submit().expect("there is nothing left to refuse");
    poller.queue.flush().unwrap();
    assert_eq!(poller.answers(), others);
    assert!([70, 500].map(|group| poller.lasts()[group]) == [1, 1] && poller.lasts()[501] == 2);
}

/// The log takes only the first batches of a large round: what it took is written, and the rest may be submitted again.
#[test]
fn what_is_left_of_a_large_round_waits_for_room_in_the_queue() {
    let options = support::options().queue_bytes(128 << 10);
    let mut poller = Poller::on(options.open_disk(Arc::new(SimDisk::new(DISK))).unwrap(), true);
    poller.hear_all();
    let mut refusals = 0;
    loop {
        let (nodes, written) = (&mut poller.nodes, &mut poller.written);
        let tried = poller.queue.try_submit(&mut poller.round, |one| {
            written.push(one.group);
            nodes[one.group as usize].advance_append_async(one.ready);
        });
        let is_written = |group: &u64| poller.written.contains(group);
        assert!((0..GROUPS).all(|group| is_written(&group) == (poller.lasts()[group as usize] == 2)), "half written");
        match tried {
            Ok(()) => break,
            Err(Error::Log(strandlog::Error::Busy { .. })) => refusals += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(!poller.round.is_empty() && refusals < 100);
        if refusals == 1 {
            // What is added for a group goes after what is already there of it.
            let (storage, conf_state) = (poller.nodes[LAST].mut_store(), conf_state(&[1, 2, 3]));
            let checkpoint = Checkpoint { index: 2, term: 2, conf_state: &conf_state, data: b"at two" };
            poller.round.checkpoint(storage, checkpoint).unwrap();
            poller.round.put(LAST as u64, b"mine", b"value").unwrap();
            poller.queue.remove(&mut poller.round, LAST as u64 - 1);
        }
        poller.queue.flush().unwrap();
    }
    let left: Vec<u64> = all().into_iter().filter(|&group| group != LAST as u64 - 1).collect();
    assert!(refusals > 0 && poller.written == left, "{refusals} refusals, {:?}", poller.written);
    poller.queue.flush().unwrap();
    assert_eq!(poller.answers(), left);
    let (last, gone) = (&poller.nodes[LAST], &poller.nodes[LAST - 1]);
    assert!(!gone.store().replica().exists());
    assert_eq!(last.store().checkpoint_data().unwrap().as_deref(), Some(&b"at two"[..]));
    assert_eq!(last.store().replica().get(b"mine").unwrap().as_deref(), Some(&b"value"[..]));
}

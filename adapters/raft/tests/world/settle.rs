//! In the end nothing fails any more: all come back, and agree.

use crate::group::Group;
use crate::members::ids;
use crate::world::World;

/// Rounds within which every group must have a leader, commit something new, and be the same everywhere.
const ROUNDS: u64 = 3000;

impl World {
    pub fn settle(&mut self) {
        self.say(|| "everybody comes back".into());
        self.network.heal();
        self.settles = true;
        for store in 1..=self.manner.stores {
            // All restart at once: nobody remembers anything of another from memory.
            self.crash(store);
        }
        let before: Vec<u64> = (1..=self.manner.groups).map(|group| self.checks.end(group)).collect();
        for store in 1..=self.manner.stores {
            self.come_back(store);
        }
        let mut settled = vec![false; before.len()];
        for round in 0..ROUNDS {
            for store in 1..=self.manner.stores {
                self.pass_time(store, 20);
                let all = self.network.waits(store) as u64;
                self.deliver(store, all);
                self.attend_to_all(store);
            }
            for group in 1..=self.manner.groups {
                let Some(leader) = self.leader(group) else { continue };
                self.notice(group, leader);
                self.bury_who_left(group, leader);
                if round % 40 == 20 {
                    self.take_out_the_damaged(group, leader);
                }
                let is_joint = |conf_state: raft::eraftpb::ConfState| !conf_state.voters_outgoing.is_empty();
                if round % 40 == 0 && self.configuration(group, leader).is_some_and(is_joint) {
                    self.leave_joint(group, leader);
                }
                let goes_on = self.checks.end(group) > before[group as usize - 1];
                if !goes_on && round % 20 == 0 {
                    self.propose(leader, group);
                }
                settled[group as usize - 1] = goes_on && self.agrees(group, leader);
            }
            if settled.iter().all(|&settled| settled) {
                return;
            }
        }
        for group in 1..=self.manner.groups {
            self.tell_of(group);
        }
        panic!("not everybody came together: {settled:?}");
    }

    fn attend_to_all(&mut self, store: u64) {
        let outcome = self.with(store, |store, around| {
            for poller in 0..store.pollers.len() {
                store.drive(poller, true, around)?;
                store.hear_of_old_entries(poller, around.checks);
            }
            for group in store.groups.keys().copied().collect::<Vec<_>>() {
                store.work(group, around)?;
            }
            store.wal.sync().map_err(strandlog_raft::Error::Log)?;
            (0..store.pollers.len()).try_for_each(|poller| store.poll(poller, around.checks))?;
            store.give_up()
        });
        self.go_on(store, outcome);
        if self.stores[store as usize - 1].is_none() {
            self.come_back(store);
        }
    }

    /// Whether all members have applied everything, and have the same log.
    fn agrees(&self, group: u64, leader: u64) -> bool {
        let Some(conf_state) = self.configuration(group, leader) else { return false };
        let named = ids(&conf_state);
        let members: Vec<&Group> = self
            .stores
            .iter()
            .flatten()
            .filter_map(|store| store.groups.get(&group))
            .filter(|g| named.contains(&g.id))
            .collect();
        let Some(one) = members.first() else { return false };
        let log = |group: &Group, low: u64| {
            let (_, last) = group.node.store().replica().bounds();
            group.node.store().read_entries(low, last + 1, None).expect("it is read")
        };
        conf_state.voters_outgoing.is_empty()
            && members.len() == named.len()
            && members.iter().all(|other| {
                let low = [one, other].map(|group| group.node.store().replica().first_index());
                let low = low[0].max(low[1]);
                let last = other.node.store().replica().last_index();
                other.machine.index == self.checks.end(group)
                    && other.machine == one.machine_as(other)
                    && last == other.machine.index
                    && log(other, low) == log(one, low)
            })
    }

    fn tell_of(&self, group: u64) {
        println!("group {group} is at {}", self.checks.end(group));
        for one in self.stores.iter().flatten().filter_map(|store| store.groups.get(&group)) {
            let (raft, bounds) = (&one.node.raft, one.node.store().replica().bounds());
            let (state, term, commit) = (raft.state, raft.term, raft.raft_log.committed);
            println!("  {}: {state:?} of {term}, {bounds:?}, committed {commit}, {:?}", one.id, one.machine);
            println!(
                "    {:?}",
                raft.prs().iter().map(|(id, p)| (*id, p.state, p.matched, p.next_idx)).collect::<Vec<_>>()
            );
        }
    }
}

impl Group {
    /// Its machine, with the configuration in the same order as another's.
    fn machine_as(&self, other: &Self) -> crate::machine::Machine {
        let sorted = |of: &raft::eraftpb::ConfState| {
            let mut lists = [&of.voters, &of.learners, &of.voters_outgoing, &of.learners_next].map(|ids| ids.to_vec());
            lists.iter_mut().for_each(|ids| ids.sort_unstable());
            lists
        };
        let mut machine = self.machine.clone();
        if sorted(&machine.conf_state) == sorted(&other.machine.conf_state) {
            machine.conf_state = other.machine.conf_state.clone();
        }
        machine
    }
}

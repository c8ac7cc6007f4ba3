//! Changes of a group's members.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::world::{Change, Member, Phase, World};

impl<R: Member> World<R> {
    /// Takes members out, and back in as learners that are promoted.
    ///
    /// With openraft 0.9 it takes out the leader only in a quiet time, when only clients go on. There a leader appends the change that
    /// removes it, and if it ends before others have that entry, it is by its own log no longer a candidate, and cannot be made one
    /// (`ExternalCommand::Elect`); a node with a shorter log asks in vain for its vote, which two configurations may need. So the group is
    /// without a leader for good (databendlabs/openraft#2091, mended only for 0.10 by #2098): of seeds 0 to 199 that ended 27, 84 and 169
    /// when the leader could go at any time, and nothing else ended any. No storage can change that.
    pub async fn change_members(self, group: u64) {
        loop {
            sleep(Duration::from_millis(1000 + self.net.env.below(4000))).await;
            match self.phase() {
                Phase::Chaos if !self.net.env.one_in(3) => self.change_some(group).await,
                Phase::Chaos => self.take_one_out(group).await,
                Phase::Calm => {}
                Phase::Closed => return,
            }
            sleep(Duration::from_millis(self.net.env.below(1000))).await;
            // Some stay out for a while.
            if self.phase() == Phase::Chaos && self.net.env.one_in(3) {
                continue;
            }
            for node in 0..self.net.env.nodes {
                self.change(group, Change::AddLearner(node)).await;
                self.change(group, Change::Promote(node)).await;
            }
        }
    }

    /// Whatever happens to them meanwhile; no node forgets anything.
    async fn change_some(&self, group: u64) {
        let env = &self.net.env;
        for _ in 0..1 + env.below(4) {
            let node = env.below(env.nodes);
            let leader = self.net.leader(group).map_or(node, |(leader, _)| leader);
            let stays = env.one_in(2);
            let change = match env.below(8) {
                0 => Change::AddLearner(node),
                1 => Change::Promote(node),
                2 => Change::Demote { node, stays },
                3 | 4 => Change::Demote { node: leader, stays },
                5 => Change::Drop(node),
                _ => {
                    let mut voters: BTreeSet<u64> = (0..env.nodes).filter(|_| env.one_in(2)).collect();
                    voters.insert(node);
                    Change::Voters { voters, stay: stays }
                }
            };
            self.change(group, change).await;
            sleep(Duration::from_millis(env.below(300))).await;
        }
    }

    /// In a quiet time, in which some lose all that they have of the group, and come back as new members.
    async fn take_one_out(&self, group: u64) {
        *self.quiet.lock().unwrap() += 1;
        self.net.env.heal_net();
        for (life, _) in self.net.members.lock().unwrap().values() {
            life.spare();
        }
        sleep(Duration::from_secs(2)).await;
        // Nodes that still go by the earlier membership could be elected by those that have forgotten what came of it.
        let are_all_in = self.are_all_voters(group);
        sleep(Duration::from_secs(1)).await;
        if let Some((node, leader)) = self.leader_inside(group).filter(|_| are_all_in) {
            let nodes = self.net.env.nodes;
            let away = match R::LEADER_GOES_AT_ANY_TIME {
                true => (node + 1 + self.net.env.below(nodes - 1)) % nodes,
                false => self.net.env.below(nodes),
            };
            let change = Change::Demote { node: away, stays: false };
            let change = timeout(Duration::from_secs(5), leader.change(change)).await;
            // A learner stays a learner.
            let is_out = change.is_ok_and(|is_done| is_done) && !leader.view().members.contains(&away);
            if is_out && self.net.env.one_in(2) {
                self.make_blank(away, group).await;
            }
        }
        *self.quiet.lock().unwrap() -= 1;
    }

    /// By what each of them knows.
    fn are_all_voters(&self, group: u64) -> bool {
        let all: BTreeSet<u64> = (0..self.net.env.nodes).collect();
        let knows = |node| self.net.member(node, group).is_some_and(|(_, raft)| raft.view().voters == all);
        all.iter().all(|&node| knows(node))
    }

    /// Rebuilds it like a damaged group: it is removed from the log, and the node begins it anew.
    async fn make_blank(&self, node: u64, group: u64) {
        let member = self.net.member(node, group).filter(|(life, _)| !life.has_erred() && !life.is_full());
        let Some((life, raft)) = member else { return };
        self.net.members.lock().unwrap().remove(&(node, group));
        raft.shutdown().await;
        *self.net.lives.lock().unwrap().entry((node, group)).or_default() += 1;
        self.net.env.judge.forget(node, group);
        life.forget(group);
        self.start(&life, group).await;
    }

    /// If the configuration is joint, or the change would remove a leader that must not go, the leader is made a voter instead.
    async fn change(&self, group: u64, change: Change) {
        if let Some((node, leader)) = self.leader_inside(group) {
            let may_not = leader.view().is_joint || !R::LEADER_GOES_AT_ANY_TIME && change.takes_out(node);
            let change = if may_not { Change::Promote(node) } else { change };
            drop(timeout(Duration::from_secs(2), leader.change(change)).await);
        }
    }

    /// The leader, provided that it is a member itself. A debug build of openraft 0.10 panics if a leader that was removed, and leads on
    /// until it steps down, is asked for the next change: it answers as a leader as long as it has its leader's state
    /// (`Engine::try_leader_handler`), and asserts that it is one by the membership (`ReplicationHandler::append_membership`,
    /// `RaftState::is_leading`). It asks itself for one if a change that begins in a joint configuration leads to another, neither of which
    /// has the leader: the second step comes when the first is committed, with the leader removed. No storage can change that.
    fn leader_inside(&self, group: u64) -> Option<(u64, R)> {
        self.net.leader(group).filter(|(node, leader)| leader.view().members.contains(node))
    }
}

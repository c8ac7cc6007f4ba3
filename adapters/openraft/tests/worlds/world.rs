//! One world: three nodes, or five, two groups in each node's one log, clients, and everything that happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use crate::env::{Env, GROUPS};
use crate::judge::Ballot;
use crate::life::{Life, Remains};

/// What a world needs of one version of openraft.
pub trait Member: Clone + Send + Sync + 'static {
    /// Whether the leader may be removed from the voters while anything may happen: see [`World::change_members`].
    const LEADER_GOES_AT_ANY_TIME: bool;

    /// The node's member of a group, from what its log and files hold.
    async fn start(net: Net<Self>, life: Arc<Life>, group: u64) -> Result<Self, String>;
    async fn begin(&self);
    /// Whether the write was acknowledged; otherwise, which node may know better.
    async fn write(&self, line: u64) -> Result<(), Option<u64>>;
    /// Whether it is done.
    async fn change(&self, change: Change) -> bool;
    async fn elect(&self);
    async fn snapshot(&self);
    async fn shutdown(&self);
    fn view(&self) -> View;
}

#[derive(Clone, Debug)]
pub enum Change {
    AddLearner(u64),
    Promote(u64),
    /// Not a voter any more: a learner, or removed.
    Demote {
        node: u64,
        stays: bool,
    },
    /// Removes nodes that are not voters.
    Drop(u64),
    /// Makes these the voters, through a joint configuration. A voter that is not among them becomes a learner, or is removed.
    Voters {
        voters: BTreeSet<u64>,
        stay: bool,
    },
}

impl Change {
    /// Whether this node is no voter after the change.
    pub fn takes_out(&self, node: u64) -> bool {
        match self {
            Self::AddLearner(_) | Self::Promote(_) => false,
            Self::Demote { node: gone, .. } | Self::Drop(gone) => *gone == node,
            Self::Voters { voters, .. } => !voters.contains(&node),
        }
    }
}

/// What a member reports about itself.
#[derive(Debug)]
pub struct View {
    /// Why it no longer runs.
    pub ended: Option<String>,
    /// The vote by which it leads. A leader that was removed, and has not heard of it, still reports that it leads.
    pub leads: Option<Ballot>,
    /// The voters; in a joint configuration those that are in both.
    pub voters: BTreeSet<u64>,
    pub is_joint: bool,
    /// The other known nodes.
    pub members: BTreeSet<u64>,
    /// The number of entries applied, and the lines.
    pub applied: u64,
    pub lines: Vec<u64>,
    /// For people.
    pub metrics: String,
}

/// The members that exist now, by node and group.
pub type Members<R> = Arc<Mutex<BTreeMap<(u64, u64), (Arc<Life>, R)>>>;

pub struct Net<R> {
    pub env: Arc<Env>,
    pub members: Members<R>,
    /// How often a node was a new member of a group. Messages of an earlier life are not for it.
    pub lives: Arc<Mutex<BTreeMap<(u64, u64), u64>>>,
}

#[derive(Clone, Copy)]
pub struct Path {
    group: u64,
    from: u64,
    pub to: u64,
    lives: [u64; 2],
}

impl<R> Clone for Net<R> {
    fn clone(&self) -> Self {
        Self { env: Arc::clone(&self.env), members: Arc::clone(&self.members), lives: Arc::clone(&self.lives) }
    }
}

impl<R: Member> Net<R> {
    pub fn member(&self, node: u64, group: u64) -> Option<(Arc<Life>, R)> {
        self.members.lock().unwrap().get(&(node, group)).filter(|(life, _)| life.is_alive()).cloned()
    }

    /// The link to a group's member. The lives of both ends are part of it, as they should be of a member's address: a link to a member
    /// that was removed does not lead to the new one in its place.
    pub fn path(&self, from: u64, to: u64, group: u64) -> Path {
        Path { group, to, from, lives: self.lives(group, [from, to]) }
    }

    /// Sends a request to a group's member over the link. Its answer counts only if its node lives on; `heard`: the
    /// vote that it goes by after that.
    pub async fn call<Q, A, F>(
        &self,
        from: &Arc<Life>,
        path: Path,
        question: Q,
        ask: fn(R, Q) -> F,
        heard: fn(&A) -> Option<Ballot>,
    ) -> Option<A>
    where
        Q: Clone + Send + Sync + 'static,
        A: Send + 'static,
        F: Future<Output = Option<A>> + Send + 'static,
    {
        let net = self.clone();
        let Path { group, to, .. } = path;
        let ask = move || {
            let (net, question) = (net.clone(), question.clone());
            async move {
                let (life, node) = net.member(to, group).filter(|_| net.leads_there(path))?;
                let given = net.env.judge.given(to, group);
                let answer = ask(node, question).await?;
                if !life.is_alive() || !net.leads_there(path) {
                    return None;
                }
                if let Some(ballot) = heard(&answer) {
                    net.env.judge.voted(to, group, ballot, given);
                }
                Some(answer)
            }
        };
        self.env.call(from, to, ask).await
    }

    fn leads_there(&self, path: Path) -> bool {
        self.lives(path.group, [path.from, path.to]) == path.lives
    }

    fn lives(&self, group: u64, nodes: [u64; 2]) -> [u64; 2] {
        let lives = self.lives.lock().unwrap();
        nodes.map(|node| lives.get(&(node, group)).copied().unwrap_or_default())
    }

    /// The leader. A leader that was removed, and has not heard of it, also reports that it leads: its vote is the lower one.
    pub fn leader(&self, group: u64) -> Option<(u64, R)> {
        let leads = |node| self.member(node, group).and_then(|(_, raft)| Some((raft.view().leads?, (node, raft))));
        (0..self.env.nodes).filter_map(leads).max_by_key(|(ballot, _)| *ballot).map(|(_, leader)| leader)
    }
}

/// What was attempted.
#[derive(Debug, Default)]
pub struct Tally {
    pub acknowledged: u64,
    pub deaths: u64,
}

/// The error of a full log.
const FULL: &str = "the log is full";
const CHAOS: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(120);

pub fn run<R: Member>(seed: u64) -> Tally {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let world = World::<R> {
            net: Net { env: Arc::new(Env::new(seed)), members: Members::default(), lives: Arc::default() },
            phase: Arc::new(Mutex::new(Phase::Chaos)),
            deaths: Arc::default(),
            quiet: Arc::default(),
        };
        let mut outcome = world.history().await;
        if let Some(why) = world.net.env.judge.verdict() {
            outcome = Err(why);
        }
        if let Err(why) = outcome {
            panic!("STRANDLOG_SEED={seed} ({:?}): {why}", world.net.env.keeps);
        }
        let deaths = *world.deaths.lock().unwrap();
        Tally { acknowledged: world.net.env.judge.count(), deaths }
    })
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Chaos,
    /// No node dies any more, and every message arrives.
    Calm,
    /// Nor does any client write.
    Closed,
}

pub struct World<R> {
    pub net: Net<R>,
    phase: Arc<Mutex<Phase>>,
    /// How many tasks want a quiet time.
    pub quiet: Arc<Mutex<u64>>,
    deaths: Arc<Mutex<u64>>,
}

impl<R> Clone for World<R> {
    fn clone(&self) -> Self {
        Self {
            net: self.net.clone(),
            phase: Arc::clone(&self.phase),
            quiet: Arc::clone(&self.quiet),
            deaths: Arc::clone(&self.deaths),
        }
    }
}

impl<R: Member> World<R> {
    async fn history(&self) -> Result<(), String> {
        for node in 0..self.net.env.nodes {
            spawn_local(self.clone().live(node));
        }
        for group in 1..=GROUPS {
            self.until("a group begins", PATIENCE, || self.net.member(0, group).is_some()).await?;
            if let Some((_, raft)) = self.net.member(0, group) {
                raft.begin().await;
            }
            spawn_local(self.clone().client(group));
            spawn_local(self.clone().change_members(group));
        }
        let end = Instant::now() + CHAOS;
        while Instant::now() < end {
            sleep(Duration::from_millis(20 + self.net.env.below(250))).await;
            if *self.quiet.lock().unwrap() == 0 {
                self.strike().await;
            }
            self.look()?;
        }
        *self.phase.lock().unwrap() = Phase::Calm;
        self.net.env.heal_net();
        // Longer than a change of membership takes.
        sleep(Duration::from_secs(10)).await;
        self.settle().await
    }

    pub fn phase(&self) -> Phase {
        *self.phase.lock().unwrap()
    }

    /// A node's lives, one after the other.
    async fn live(self, node: u64) {
        let env = &self.net.env;
        let mut remains = Remains::blank();
        let mut number = 0;
        loop {
            number += 1;
            let is_calm = self.phase() != Phase::Chaos || *self.quiet.lock().unwrap() > 0;
            // Some die while they open their log, or soon afterwards.
            let cut = if !is_calm && number > 1 && env.one_in(4) { 1 + env.below(12) } else { 0 };
            match env.with_rng(|rng| Life::begin(node, remains, cut, rng)) {
                Ok(life) => remains = self.live_once(life).await,
                Err(left) => remains = left,
            }
            *self.deaths.lock().unwrap() += 1;
            sleep(Duration::from_millis(env.below(600))).await;
        }
    }

    async fn live_once(&self, life: Arc<Life>) -> Remains {
        let env = Arc::clone(&self.net.env);
        let flushing = Arc::clone(&life);
        let draws = Arc::clone(&env);
        spawn_local(async move {
            let mut seen = BTreeMap::new();
            while flushing.is_alive() {
                sleep(Duration::from_millis(draws.below(12))).await;
                draws.with_rng(|rng| flushing.flush(&mut seen, GROUPS, rng));
            }
        });
        if life.is_full() {
            spawn_local(self.clone().relieve(Arc::clone(&life)));
        }
        for group in 1..=GROUPS {
            self.start(&life, group).await;
        }
        spawn_local(self.clone().end_soon_after_an_error(Arc::clone(&life)));
        life.death().await;
        for group in 1..=GROUPS {
            if let Some((_, raft)) = self.net.members.lock().unwrap().remove(&(life.node, group)) {
                spawn_local(async move { raft.shutdown().await });
            }
        }
        env.with_rng(|rng| life.remains(rng))
    }

    pub async fn start(&self, life: &Arc<Life>, group: u64) {
        match R::start(self.net.clone(), Arc::clone(life), group).await {
            // A node that died meanwhile has had its members taken away already.
            Ok(raft) if life.is_alive() => {
                self.net.members.lock().unwrap().insert((life.node, group), (Arc::clone(life), raft));
            }
            Ok(raft) => raft.shutdown().await,
            Err(_) if !life.is_alive() || life.has_erred() => {}
            // Its first write may be refused. It is tried again when there is room.
            Err(why) if life.is_full() && why.contains(FULL) => {}
            Err(why) => self.net.env.judge.fail(format!("node {}, group {group} does not start: {why}", life.node)),
        }
    }

    /// A failed log does nothing more. An operator looks at the device, and opens it anew.
    async fn end_soon_after_an_error(self, life: Arc<Life>) {
        while life.is_alive() {
            sleep(Duration::from_millis(50 + self.net.env.below(400))).await;
            if life.has_erred() {
                self.net.env.with_rng(|rng| life.kill(false, rng));
            }
        }
    }

    /// Others make room in a full log, and the groups that it ended are started anew.
    async fn relieve(self, life: Arc<Life>) {
        sleep(Duration::from_millis(self.net.env.below(1500))).await;
        life.relieve();
        // By now every refusal has been reported.
        sleep(Duration::from_secs(2)).await;
        for group in 1..=GROUPS {
            let member = self.net.member(life.node, group);
            if !life.is_alive() || member.as_ref().is_some_and(|(_, raft)| raft.view().ended.is_none()) {
                continue;
            }
            if let Some((_, raft)) = member {
                self.net.members.lock().unwrap().remove(&(life.node, group));
                raft.shutdown().await;
            }
            if life.is_alive() {
                self.start(&life, group).await;
            }
        }
        life.is_well_again();
    }

    async fn client(self, group: u64) {
        let nodes = self.net.env.nodes;
        let mut ask = self.net.env.below(nodes);
        for number in 0.. {
            sleep(Duration::from_millis(self.net.env.below(40))).await;
            if self.phase() == Phase::Closed {
                return;
            }
            let Some((life, raft)) = self.net.member(ask, group) else {
                ask = self.net.env.below(nodes);
                continue;
            };
            match timeout(Duration::from_millis(700), raft.write(number << 8 | group)).await {
                Ok(Ok(())) if life.is_alive() => self.net.env.judge.acknowledged(group, number << 8 | group),
                Ok(Err(Some(leader))) => ask = leader,
                _ => ask = self.net.env.below(nodes),
            }
        }
    }

    async fn strike(&self) {
        let env = &self.net.env;
        let (node, group) = (env.below(env.nodes), 1 + env.below(GROUPS));
        if let Some(group) = env.wanted_election() {
            if let Some((_, raft)) = self.net.member(node, group) {
                raft.elect().await;
            }
            return;
        }
        let Some((life, raft)) = self.net.member(node, group) else { return };
        match env.below(14) {
            0 | 1 => life.cut_at(1 + env.below(30)),
            2 => env.with_rng(|rng| life.kill(true, rng)),
            3 => env.with_rng(|rng| life.kill(false, rng)),
            4..=6 => env.change_net(),
            7 => raft.elect().await,
            8 => raft.snapshot().await,
            9 => {
                // All at once.
                for node in 0..env.nodes {
                    if let Some((life, _)) = self.net.member(node, group) {
                        env.with_rng(|rng| life.kill(false, rng));
                    }
                }
            }
            10 => life.fail_at(1 + env.below(30)),
            11 if !life.is_full() => {
                life.fill();
                spawn_local(self.clone().relieve(life));
            }
            _ => {}
        }
    }

    /// A member ends with its node, its disk or its room, and not before.
    fn look(&self) -> Result<(), String> {
        if let Some(why) = self.net.env.judge.verdict() {
            return Err(why);
        }
        for (&(node, group), (life, raft)) in &*self.net.members.lock().unwrap() {
            let may_end = |why: &String| !life.is_alive() || life.has_erred() || life.is_full() && why.contains(FULL);
            if let Some(why) = raft.view().ended.filter(|why| !may_end(why)) {
                return Err(format!("node {node}, group {group} ended: {why}; {}", raft.view().metrics));
            }
        }
        Ok(())
    }

    async fn until(&self, what: &str, patience: Duration, mut is: impl FnMut() -> bool) -> Result<(), String> {
        let end = Instant::now() + patience;
        while !is() {
            self.look()?;
            if Instant::now() > end {
                let members = self.net.members.lock().unwrap();
                let views: Vec<_> = members.iter().map(|(at, (_, raft))| (at, raft.view().metrics)).collect();
                return Err(format!("never: {what}: {views:?}"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// All nodes are up, all are voters again, clients are served, and all hold the same.
    async fn settle(&self) -> Result<(), String> {
        let many = self.net.env.nodes;
        let nodes = || (0..many).flat_map(|node| (1..=GROUPS).map(move |group| (node, group)));
        for (node, group) in nodes() {
            self.until("every node is back", PATIENCE, || self.net.member(node, group).is_some()).await?;
        }
        for group in 1..=GROUPS {
            let all: BTreeSet<u64> = (0..many).collect();
            let whole = || self.net.leader(group).is_some_and(|(_, leader)| leader.view().voters == all);
            self.until("all are voters", PATIENCE, whole).await?;
            let before = self.net.env.judge.count();
            self.until("something is written", PATIENCE, || self.net.env.judge.count() > before + 20).await?;
        }
        *self.phase.lock().unwrap() = Phase::Closed;
        // Longer than a client waits, or a change of membership takes.
        sleep(Duration::from_secs(10)).await;
        for (node, group) in nodes() {
            let member = |node| self.net.member(node, group).map(|(_, raft)| raft.view());
            let applied = || (0..many).map(|node| member(node).map_or(0, |view| view.applied)).collect::<BTreeSet<_>>();
            self.until("all have applied the same", PATIENCE, || applied().len() == 1).await?;
            let lines = member(node).map(|view| view.lines).unwrap_or_default();
            self.net.env.judge.ends_with(node, group, &lines);
        }
        self.look()
    }
}

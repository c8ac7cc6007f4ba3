//! The whole run: elections, load, a store that is cut off, its return, the end.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::args::{Args, Crash};
use crate::board::Board;
use crate::clients::{Clients, Load, Report};
use crate::display::Display;
use crate::member::Member;
use crate::net::{Inbound, Network};
use crate::store::{Opened, Usage, World};
use crate::{Result, STORES};

/// The store that is cut off.
const VICTIM: u64 = 3;
/// The shares of the load time after which it is cut off, and after which it comes back.
const CUT_AT: f64 = 0.35;
const BACK_AT: f64 = 0.6;
/// Nothing in this run takes longer, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(120);

/// What happened.
pub struct Story {
    pub report: Report,
    pub load_time: Duration,
    pub usage: Usage,
    /// A killed process takes its figures with it.
    pub usage_is_partial: bool,
    pub comeback: Option<Comeback>,
}

pub struct Comeback {
    pub opened: Opened,
    /// Groups that lagged behind when it came back.
    pub behind: usize,
    /// Snapshots that some of them needed.
    pub snapshots: u64,
    pub caught_up: Duration,
}

pub struct Scenario {
    world: World,
    display: Display,
    load: Arc<Load>,
    members: Vec<Option<Member>>,
    usage: Usage,
    usage_is_partial: bool,
    seen: (Instant, u64),
    rate: f64,
}

/// Runs everything, until all logs are closed.
pub fn play(args: Args, display: Display) -> Result<(Story, Display)> {
    let (outcomes, answers) = channel();
    let world = World {
        network: Arc::new(Network::new(args.pollers)),
        board: Arc::new(Board::new(args.groups)),
        args: Arc::new(args),
        outcomes,
    };
    let load = Arc::new(Load::default());
    let mut scenario = Scenario {
        members: Vec::new(),
        usage: Usage::default(),
        usage_is_partial: false,
        seen: (Instant::now(), 0),
        rate: 0.0,
        load: Arc::clone(&load),
        display,
        world,
    };
    scenario.open()?;
    scenario.elect()?;
    let clients = Clients::new(scenario.world.clone(), load, answers)?;
    let clients = std::thread::Builder::new().name("clients".into()).spawn(move || clients.run())?;
    let start = Instant::now();
    let comeback = scenario.run_load(start)?;
    scenario.load.stop();
    let load_time = start.elapsed();
    let report = scenario.finish_clients(clients)?;
    scenario.drain()?;
    scenario.close()?;
    let Scenario { usage, usage_is_partial, display, .. } = scenario;
    Ok((Story { report, load_time, usage, usage_is_partial, comeback }, display))
}

impl Scenario {
    fn open(&mut self) -> Result<()> {
        let args = Arc::clone(&self.world.args);
        self.display.say(format!(
            "{STORES} stores x {} groups, {} MiB a log, in {}",
            args.groups,
            args.capacity() >> 20,
            args.data_dir().display()
        ));
        for store in 1..=STORES as u64 {
            self.display.live(format!("creating log {store}"));
            let (member, _) = self.open_member(store)?;
            self.members.push(Some(member));
        }
        self.display.say("logs created, groups bootstrapped");
        Ok(())
    }

    fn open_member(&self, store: u64) -> Result<(Member, Opened)> {
        let apart = store == VICTIM && self.world.args.crash == Crash::Kill;
        Member::open(&self.world, store, apart)
    }

    fn elect(&mut self) -> Result<()> {
        let start = Instant::now();
        for store in 1..=STORES as u64 {
            self.world.network.tell(store, || Inbound::Campaign);
        }
        let groups = self.world.args.groups;
        self.wait("electing", |board| board.led() == groups)?;
        let board = &self.world.board;
        let led = |store| (1..=groups).filter(|group| board.leader(*group) == store).count();
        let each: Vec<String> = (1..=STORES as u64).map(|store| led(store).to_string()).collect();
        let each = each.join(" + ");
        self.display.say(format!("{groups} leaders elected in {:.2?} ({each})", start.elapsed()));
        Ok(())
    }

    fn run_load(&mut self, start: Instant) -> Result<Option<Comeback>> {
        let seconds = self.world.args.seconds as f64;
        let until = |share: f64| start + Duration::from_secs_f64(seconds * share);
        let mut comeback = None;
        if self.world.args.crash != Crash::None {
            self.wait_until("load", until(CUT_AT))?;
            self.cut()?;
            self.wait_until("load on two stores", until(BACK_AT))?;
            comeback = Some(self.come_back()?);
        }
        self.wait_until("load", until(1.0))?;
        Ok(comeback)
    }

    fn cut(&mut self) -> Result<()> {
        let how = if self.world.args.crash == Crash::Kill { "killed (SIGKILL)" } else { "cut off, its log dropped" };
        let member = self.members[VICTIM as usize - 1].take().ok_or("the victim is gone already")?;
        match member.cut()? {
            Some(usage) => self.usage = self.usage.plus(usage),
            None => self.usage_is_partial = true,
        }
        let lost = self.world.args.groups - self.world.board.led();
        self.display.say(format!("store {VICTIM} {how}: {lost} groups have to elect another leader"));
        Ok(())
    }

    fn come_back(&mut self) -> Result<Comeback> {
        let board = Arc::clone(&self.world.board);
        let target = board.furthest();
        let before = board.totals(VICTIM).snapshots.load(Relaxed);
        let start = Instant::now();
        let (member, opened) = self.open_member(VICTIM)?;
        self.members[VICTIM as usize - 1] = Some(member);
        let behind = board.behind(VICTIM, &target);
        self.display.say(format!(
            "store {VICTIM} is back: log of {} entries recovered in {:.1} ms, {} to apply again, {behind} groups behind",
            opened.entries,
            opened.log_micros as f64 / 1e3,
            opened.reapplied,
        ));
        self.wait("catching up", |board| board.behind(VICTIM, &target) == 0)?;
        let caught_up = start.elapsed();
        let snapshots = board.totals(VICTIM).snapshots.load(Relaxed) - before;
        self.display.say(format!("store {VICTIM} caught up in {caught_up:.2?}: by {snapshots} snapshots, and by log"));
        Ok(Comeback { opened, behind, snapshots, caught_up })
    }

    fn finish_clients(&mut self, clients: std::thread::JoinHandle<Result<Report>>) -> Result<Report> {
        self.wait("the last answers", |_| clients.is_finished())?;
        clients.join().map_err(|_| "the clients panicked")?
    }

    /// Waits until all replicas of all groups have applied the same, and stay so.
    fn drain(&mut self) -> Result<()> {
        let start = Instant::now();
        let mut since = None;
        let mut last = 0;
        self.wait("draining", |board| {
            let applied = board.furthest().iter().sum::<u64>();
            if board.apart() > 0 || applied != std::mem::replace(&mut last, applied) {
                since = None;
                return false;
            }
            since.get_or_insert_with(Instant::now).elapsed() > Duration::from_millis(500)
        })?;
        self.display.say(format!("all replicas at the same index, {:.2?} after the last answer", start.elapsed()));
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        for member in self.members.iter_mut().filter_map(Option::take) {
            self.usage = self.usage.plus(member.close()?);
        }
        self.display.say("logs closed");
        Ok(())
    }

    fn wait_until(&mut self, phase: &str, when: Instant) -> Result<()> {
        self.wait(phase, |_| Instant::now() >= when)
    }

    fn wait(&mut self, phase: &str, mut done: impl FnMut(&Board) -> bool) -> Result<()> {
        let board = Arc::clone(&self.world.board);
        let patience = PATIENCE + Duration::from_secs(self.world.args.seconds);
        let start = Instant::now();
        while !done(&board) {
            if let Some(failure) = board.failure() {
                return Err(failure.into());
            }
            if self.members.iter_mut().flatten().any(Member::has_died) {
                return Err("a store died".into());
            }
            if start.elapsed() > patience {
                return Err(format!("{phase}: no end after {patience:?}").into());
            }
            self.show(phase);
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn show(&mut self, phase: &str) {
        let (then, answered) = self.seen;
        if then.elapsed() >= Duration::from_millis(500) {
            let now = self.load.answered.load(Relaxed);
            self.rate = (now - answered) as f64 / then.elapsed().as_secs_f64();
            self.seen = (Instant::now(), now);
            let (p50, p99) = self.load.recent();
            let board = &self.world.board;
            let applied: u64 = board.totals.iter().map(|totals| totals.applied.load(Relaxed)).sum();
            self.display.live(format!(
                "{phase}: {} leaders, {:.0} proposals/s, {applied} entries applied, latency p50 {:.1} ms p99 {:.1} ms",
                board.led(),
                self.rate,
                p50 as f64 / 1e3,
                p99 as f64 / 1e3,
            ));
        }
    }
}

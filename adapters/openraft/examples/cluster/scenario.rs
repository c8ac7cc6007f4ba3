//! The whole run: three nodes, load, one of them is killed and comes back, and what was acknowledged is there.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::check;
use crate::client::Client;
use crate::load::Load;
use crate::nodes::Nodes;
use crate::wire::{Answer, Ask, Status};

pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

pub const NODES: u64 = 3;

#[derive(Clone, Debug, clap::Args)]
pub struct ClusterArgs {
    /// Raft groups, each with a member on every node.
    #[arg(long, default_value_t = 1000)]
    pub groups: u64,
    /// Size of each node's log in MiB.
    #[arg(long, default_value_t = 512)]
    pub log_mib: u64,
    /// Milliseconds between a leader's signs of life; by default as many as there are groups.
    #[arg(long)]
    pub heartbeat: Option<u64>,
}

#[derive(Clone, Debug, clap::Args)]
pub struct LoadArgs {
    /// Seconds of load.
    #[arg(long, default_value_t = 24)]
    pub seconds: u64,
    /// Clients, each with one write at a time.
    #[arg(long, default_value_t = 256)]
    pub writers: u64,
    /// Keys of each client.
    #[arg(long, default_value_t = 8)]
    pub keys: u64,
    /// Bytes a value.
    #[arg(long, default_value_t = 128)]
    pub payload: usize,
}

/// Starts the nodes, and forms the groups that do not exist yet.
pub async fn start(dir: &Path, args: &ClusterArgs) -> Outcome<(Nodes, Arc<Client>)> {
    let began = Instant::now();
    let heartbeat = args.heartbeat.unwrap_or(args.groups.max(100));
    let mut nodes = Nodes::new(dir, NODES, args.groups, args.log_mib << 20, heartbeat)?;
    for id in 0..NODES as usize {
        let pid = nodes.start(id)?;
        println!("node {id}: process {pid}, {}", nodes.addrs[id]);
    }
    let client = Arc::new(Client::new(&nodes.addrs, args.groups));
    for id in 0..NODES as usize {
        wait_for(&client, &mut nodes, id).await?;
    }
    println!("{} groups open on each node, {:.1} s", args.groups, began.elapsed().as_secs_f64());
    let began = Instant::now();
    let all = Duration::from_secs(60) + Duration::from_millis(heartbeat * 12);
    for id in 0..NODES as usize {
        // Forming a group twice does no harm; a machine that is busy with other things may take its time.
        while client.of(id, Ask::Form).await.is_err() {
            if began.elapsed() > all || !nodes.ended().is_empty() {
                return Err(format!("node {id} does not form its groups").into());
            }
        }
    }
    loop {
        let statuses = statuses(&client).await;
        let leads: u64 = statuses.iter().flatten().map(|status| status.leads).sum();
        if leads >= args.groups {
            break;
        }
        if began.elapsed() > all {
            return Err(format!("{leads} of {} groups have a leader", args.groups).into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("every group has a leader, {:.1} s\n", began.elapsed().as_secs_f64());
    Ok((nodes, client))
}

/// Waits until a node answers; returns its status.
async fn wait_for(client: &Client, nodes: &mut Nodes, id: usize) -> Outcome<Status> {
    let began = Instant::now();
    loop {
        if let Ok(Answer::Status(status)) = client.of(id, Ask::Status).await {
            return Ok(status);
        }
        if let Some((id, status)) = nodes.ended().first() {
            return Err(format!("node {id} ended: {status}").into());
        }
        if began.elapsed() > Duration::from_secs(120) {
            return Err(format!("node {id} does not answer").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn statuses(client: &Client) -> Vec<Option<Status>> {
    let asked = (0..client.nodes()).map(|node| client.of(node, Ask::Status));
    let answers = futures_util::future::join_all(asked).await;
    answers
        .into_iter()
        .map(|answer| if let Ok(Answer::Status(status)) = answer { Some(status) } else { None })
        .collect()
}

/// One node is killed after a third of the load, and started again after two thirds.
pub async fn run(dir: &Path, args: &ClusterArgs, load_args: &LoadArgs, victim: usize) -> Outcome<()> {
    let (mut nodes, client) = start(dir, args).await?;
    let load = Load::start(&client, load_args.writers, load_args.keys, load_args.payload);
    let mut ticker = Ticker::new();
    let (down, up) = (load_args.seconds / 3, load_args.seconds * 2 / 3);
    for second in 1..=load_args.seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        ticker.print(second, &client, &load).await;
        if second == down {
            nodes.kill(victim)?;
            println!("        node {victim} was killed (SIGKILL)");
        }
        if second == up {
            let began = Instant::now();
            let pid = nodes.start(victim)?;
            println!("        node {victim} is started again, process {pid}");
            let status = wait_for(&client, &mut nodes, victim).await?;
            println!(
                "        node {victim} is back after {:.2} s: log recovered in {:.0} ms, {} entries found in it, {} groups opened in {:.0} ms",
                began.elapsed().as_secs_f64(),
                status.recovery_micros as f64 / 1e3,
                grouped(status.found),
                args.groups,
                status.open_micros as f64 / 1e3,
            );
        }
        if let Some((id, status)) = nodes.ended().iter().find(|(id, _)| *id != victim) {
            return Err(format!("node {id} ended: {status}").into());
        }
    }
    let meter = Arc::clone(&load.meter);
    let written = load.stop().await?;
    let total = meter.acknowledged.load(Ordering::Relaxed);
    println!("\n{} writes acknowledged; the load has ended", grouped(total));
    finish(&client, &written, load_args.payload).await?;
    nodes.stop()?;
    Ok(())
}

/// The comparison at the end. A cluster that acknowledged nothing fails it.
pub async fn finish(client: &Client, written: &[crate::load::Written], payload: usize) -> Outcome<()> {
    if written.iter().all(|one| one.acknowledged == 0) {
        return Err("no write was acknowledged, so nothing is proved".into());
    }
    let took = check::agreement(client, Duration::from_secs(120)).await?;
    println!("all nodes hold the same after {:.1} s", took.as_secs_f64());
    for (node, status) in statuses(client).await.into_iter().enumerate() {
        let Some(status) = status else { continue };
        println!(
            "  node {node}: leads {}, {} batches in {} writes to its log ({:.1} a write), {} snapshots from others",
            status.leads,
            grouped(status.batches),
            grouped(status.frames),
            status.batches as f64 / status.frames.max(1) as f64,
            status.snapshots,
        );
    }
    let unsure = written.iter().filter(|one| one.acknowledged != one.asked).count();
    if unsure > 0 {
        println!("{unsure} last writes had no answer: they may be there or not");
    }
    println!("every acknowledged write is there: {}", check::writes(client, written, payload).await?);
    Ok(())
}

/// Prints a line every second.
pub struct Ticker {
    acknowledged: u64,
    before: Vec<Status>,
}

impl Ticker {
    pub fn new() -> Self {
        Self { acknowledged: 0, before: vec![Status::default(); NODES as usize] }
    }

    pub async fn print(&mut self, second: u64, client: &Client, load: &Load) {
        let acknowledged = load.meter.acknowledged.load(Ordering::Relaxed);
        let (median, p99, worst) = load.meter.take();
        let mut line = format!(
            "[{second:3} s] {:>7} writes/s, p50 {:.1} ms, p99 {:.1} ms, worst {:.0} ms | leads",
            grouped(acknowledged - self.acknowledged),
            median as f64 / 1e3,
            p99 as f64 / 1e3,
            worst as f64 / 1e3,
        );
        self.acknowledged = acknowledged;
        let statuses = tokio::time::timeout(Duration::from_millis(500), statuses(client)).await.unwrap_or_default();
        let mut log = String::new();
        for (node, before) in self.before.iter_mut().enumerate() {
            match statuses.get(node).copied().flatten() {
                Some(now) => {
                    line += &format!(" {}", now.leads);
                    if now.frames < before.frames {
                        // The node was started again, so its counters begin anew.
                        *before = Status::default();
                    }
                    let frames = now.frames.saturating_sub(before.frames);
                    let batches = now.batches.saturating_sub(before.batches);
                    log += &format!(" {frames}x{:.1}", batches as f64 / frames.max(1) as f64);
                    *before = now;
                }
                None => {
                    line += " -";
                    log += " -";
                }
            }
        }
        println!("{line} | log writes x batches{log}");
    }
}

pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

//! A sharded key-value store on openraft: a thousand raft groups on three nodes, each node a process with **one** log for all of its
//! groups and one connection to each other node.
//!
//! ```text
//! cargo cluster                    starts it, writes, kills a node, starts it again, and checks that every acknowledged write is there
//! cargo cluster serve              starts it and leaves it running: kill any of its processes and watch it come back
//! cargo cluster put KEY VALUE      and, in another terminal, uses what `serve` runs
//! cargo cluster get KEY
//! cargo cluster load
//! ```

mod check;
mod client;
mod link;
mod load;
mod machine;
mod network;
mod node;
mod nodes;
mod scenario;
mod types;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use clap::{Parser, Subcommand};

use crate::client::Client;
use crate::load::Load;
use crate::nodes::Nodes;
use crate::scenario::{ClusterArgs, LoadArgs, Outcome, Ticker};
use crate::types::{Put, Versioned, group_of};

/// A sharded key-value store: many openraft groups on three nodes, one log a node.
#[derive(Debug, Parser)]
#[command(name = "cluster")]
struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// The node that is killed: 0, 1 or 2.
    #[arg(long, default_value_t = 1)]
    kill: usize,
    /// Where the logs are; by default a directory that is removed afterwards.
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Start the nodes and leave them running; one that dies is started again.
    Serve {
        #[command(flatten)]
        cluster: ClusterArgs,
        #[command(flatten)]
        place: Place,
    },
    /// Set a key.
    Put {
        key: String,
        value: String,
        #[command(flatten)]
        place: Place,
    },
    /// Read a key from its leader.
    Get {
        key: String,
        #[command(flatten)]
        place: Place,
    },
    /// Write for a while, and check.
    Load {
        #[command(flatten)]
        load: LoadArgs,
        #[command(flatten)]
        place: Place,
    },
    /// One node. The others start these.
    #[command(hide = true)]
    Node(node::NodeArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct Place {
    /// Where the logs are, and the addresses of the nodes.
    #[arg(long, default_value_os_t = std::env::temp_dir().join("strandlog-cluster"))]
    dir: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // One thread: each node's log has its own, and the machine is shared with the other nodes.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(args)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Outcome<()> {
    match args.what {
        None => {
            let removed = tempfile::tempdir()?;
            let dir = args.dir.as_deref().unwrap_or(removed.path());
            scenario::run(dir, &args.cluster, &args.load, args.kill).await
        }
        Some(What::Node(args)) => Ok(node::run(args).await?),
        Some(What::Serve { cluster, place }) => serve(&cluster, &place).await,
        Some(What::Put { key, value, place }) => put(key, value, &place).await,
        Some(What::Get { key, place }) => get(&key, &place).await,
        Some(What::Load { load, place }) => write(&load, &place).await,
    }
}

async fn serve(cluster: &ClusterArgs, place: &Place) -> Outcome<()> {
    let (mut nodes, _) = scenario::start(&place.dir, cluster).await?;
    println!("kill -9 any of these processes, and watch it come back; Ctrl-C ends all");
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        for (id, status) in nodes.ended() {
            println!("node {id} ended: {status}; it is started again in 3 s");
            tokio::time::sleep(Duration::from_secs(3)).await;
            println!("node {id}: process {}", nodes.start(id)?);
        }
    }
}

fn client(place: &Place) -> Outcome<Arc<Client>> {
    let (groups, addrs) = Nodes::find(&place.dir).map_err(|e| format!("no cluster in {}: {e}", place.dir.display()))?;
    Ok(Arc::new(Client::new(&addrs, groups)))
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

async fn put(key: String, text: String, place: &Place) -> Outcome<()> {
    let client = client(place)?;
    // Later writes win: the clock is good enough for a person who types.
    let version = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as u64 * 1000;
    println!("{key} is of group {}", group_of(&key, client.groups()));
    client.put(Put { key, value: Versioned { version, text } }, soon()).await?;
    println!("acknowledged");
    Ok(())
}

async fn get(key: &str, place: &Place) -> Outcome<()> {
    match client(place)?.get(key, soon()).await? {
        Some(value) => println!("{} (version {})", value.text, value.version),
        None => println!("(not set)"),
    }
    Ok(())
}

async fn write(args: &LoadArgs, place: &Place) -> Outcome<()> {
    let client = client(place)?;
    let load = Load::start(&client, args.writers, args.keys, args.payload);
    let mut ticker = Ticker::new();
    for second in 1..=args.seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        ticker.print(second, &client, &load).await;
    }
    let written = load.stop().await?;
    scenario::finish(&client, &written, args.payload).await
}

//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Three stores, many raft groups, one strandlog a store: elections, replication, a crash, recovery, and
/// at the end a comparison of everything, byte for byte. Exit code 1 on any difference.
#[derive(Clone, Debug, Parser)]
pub struct Args {
    /// Raft groups; each has a replica on each of the three stores
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub groups: u64,

    /// Seconds of client load, the crash and the recovery among them
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=86_400))]
    pub seconds: u64,

    /// Bytes a proposal, random and incompressible
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    pub payload: u32,

    /// Clients; each waits for the answer to one proposal before it makes the next
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub clients: u32,

    /// What the clients write, and to which groups, follows from it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Where the three logs go [default: a directory of its own under target/, removed if all is well]
    #[arg(long)]
    pub data_dir: Option<PathBuf>,

    /// How store 3 is cut off in mid-run
    #[arg(long, value_enum, default_value_t = Crash::Drop)]
    pub crash: Crash,

    /// Size of each log, such as 512M or 2G [default: by groups and payload]
    #[arg(long, value_parser = bytes)]
    pub capacity: Option<u64>,

    /// Entries that a group's log keeps behind what is applied, for followers that lag
    #[arg(long, default_value_t = 64)]
    pub retain: u64,

    /// Poller threads a store
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub pollers: u64,

    /// Damages one store's copy before the comparison, to see the comparison fail
    #[arg(long, value_enum, hide = true)]
    pub plant: Option<Plant>,

    #[command(subcommand)]
    pub role: Option<Role>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Crash {
    /// Its threads stop and its log is dropped without closing
    Drop,
    /// It runs as a process of its own, which is killed with SIGKILL
    Kill,
    /// Not at all
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Plant {
    /// One entry of one group gets another payload
    Entry,
    /// One group's applied state is another
    State,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Role {
    /// One store as a process of its own
    #[command(hide = true)]
    Store {
        #[arg(long)]
        id: u64,
        #[arg(long)]
        connect: SocketAddr,
    },
}

impl Args {
    pub fn data_dir(&self) -> PathBuf {
        let own = || PathBuf::from(format!("target/multi_raft-{}", std::process::id()));
        self.data_dir.clone().unwrap_or_else(own)
    }

    /// Room for what the groups retain, four times over: the journal is a quarter of the file.
    pub fn capacity(&self) -> u64 {
        let entry = u64::from(self.payload) + 64;
        let held = self.groups * (self.retain + crate::group::CHECKPOINT_EVERY) * entry;
        let suggested = (held * 4).next_multiple_of(64 << 20).max(256 << 20);
        self.capacity.unwrap_or(suggested)
    }

    /// The command line of a child process with the same options.
    pub fn child(&self, id: u64, connect: SocketAddr) -> Vec<String> {
        let mut line: Vec<String> = Vec::new();
        for (flag, value) in [
            ("groups", self.groups.to_string()),
            ("payload", self.payload.to_string()),
            ("data-dir", self.data_dir().display().to_string()),
            ("capacity", self.capacity().to_string()),
            ("retain", self.retain.to_string()),
            ("pollers", self.pollers.to_string()),
        ] {
            line.extend([format!("--{flag}"), value]);
        }
        line.extend(["store", "--id"].map(String::from));
        line.extend([id.to_string(), "--connect".into(), connect.to_string()]);
        line
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is not a number with K, M or G"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is too large"))
}

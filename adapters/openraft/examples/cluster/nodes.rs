//! The node processes: this program, started once more for each.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::node::NodeArgs;

/// The file with the addresses of a running cluster, for clients that come later.
const ADDRESSES: &str = "nodes";

pub struct Nodes {
    dir: PathBuf,
    pub addrs: Vec<SocketAddr>,
    groups: u64,
    log_bytes: u64,
    heartbeat: u64,
    children: Vec<Option<Child>>,
}

impl Nodes {
    pub fn new(dir: &Path, count: u64, groups: u64, log_bytes: u64, heartbeat: u64) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        // All bound at once, so that they differ; free again when this returns.
        let ports: Vec<TcpListener> =
            (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<_>>()?;
        let addrs: Vec<SocketAddr> = ports.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
        let lines = std::iter::once(groups.to_string()).chain(addrs.iter().map(SocketAddr::to_string));
        std::fs::write(dir.join(ADDRESSES), lines.collect::<Vec<_>>().join("\n"))?;
        let children = addrs.iter().map(|_| None).collect();
        Ok(Self { dir: dir.into(), addrs, groups, log_bytes, heartbeat, children })
    }

    /// How many groups a running cluster has, and where it listens.
    pub fn find(dir: &Path) -> io::Result<(u64, Vec<SocketAddr>)> {
        let text = std::fs::read_to_string(dir.join(ADDRESSES))?;
        let mut lines = text.lines();
        let groups = lines.next().and_then(|line| line.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let addrs = lines.map(|line| line.parse().map_err(io::Error::other)).collect::<io::Result<_>>()?;
        Ok((groups, addrs))
    }

    /// Starts a node; returns its process id.
    pub fn start(&mut self, id: usize) -> io::Result<u32> {
        let args = NodeArgs {
            id: id as u64,
            nodes: self.addrs.clone(),
            groups: self.groups,
            log: self.dir.join(format!("node-{id}.log")),
            log_bytes: self.log_bytes,
            heartbeat: self.heartbeat,
        };
        let child = Command::new(std::env::current_exe()?)
            .args(args.command_line())
            // It ends when this end of the pipe does, for whatever reason.
            .stdin(Stdio::piped())
            .spawn()?;
        let pid = child.id();
        if let Some(place) = self.children.get_mut(id) {
            *place = Some(child);
        }
        Ok(pid)
    }

    /// Kills it with SIGKILL: nothing more is written, closed or sent.
    pub fn kill(&mut self, id: usize) -> io::Result<()> {
        if let Some(child) = self.children.get_mut(id).and_then(Option::as_mut) {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Nodes that have ended by themselves, or that somebody else killed.
    pub fn ended(&mut self) -> Vec<(usize, String)> {
        let mut ended = Vec::new();
        for (id, place) in self.children.iter_mut().enumerate() {
            if let Some(Ok(Some(status))) = place.as_mut().map(Child::try_wait) {
                ended.push((id, status.to_string()));
                *place = None;
            }
        }
        ended
    }

    /// Has all of them end in an orderly way.
    pub fn stop(&mut self) -> io::Result<()> {
        for child in self.children.iter_mut().flatten() {
            drop(child.stdin.take());
        }
        self.children.iter_mut().flatten().try_for_each(|child| child.wait().map(drop))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

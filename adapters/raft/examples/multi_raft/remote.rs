//! The parent's end of a store that runs as a process of its own.

use std::io::BufReader;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Result;
use crate::child::send_frames;
use crate::net::{Inbound, Outlet};
use crate::store::{Opened, Usage, World};
use crate::wire::{self, Frame};

/// Creating or recovering a log takes time; a child that is silent for longer is broken.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Remote {
    id: u64,
    process: Child,
    world: World,
    reader: JoinHandle<()>,
    usage: Receiver<Usage>,
}

enum Word {
    Hello(Opened),
    Bye(Usage),
}

impl Remote {
    /// Starts the process and waits until its store is open.
    pub fn open(world: &World, id: u64) -> Result<(Remote, Opened)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let line = world.args.child(id, listener.local_addr()?);
        let mut process = Command::new(std::env::current_exe()?).args(line).stdin(Stdio::null()).spawn()?;
        let stream = accept(&listener, &mut process)?;
        stream.set_nodelay(true)?;
        let frames = send_frames(stream.try_clone()?)?;
        let (words, heard) = channel();
        let reader = {
            let world = world.clone();
            std::thread::Builder::new().name(format!("remote-{id}")).spawn(move || {
                // The kill is meant to break the connection; an unexpected break is noticed elsewhere.
                let _ = listen(&world, id, stream, &words);
            })?
        };
        let opened = match heard.recv_timeout(PATIENCE) {
            Ok(Word::Hello(opened)) => opened,
            _ => return Err(format!("store {id} did not start").into()),
        };
        world.network.set(id, Outlet::Wire(frames));
        let (sender, usage) = channel();
        std::thread::spawn(move || {
            while let Ok(word) = heard.recv() {
                if let Word::Bye(usage) = word {
                    let _ = sender.send(usage);
                }
            }
        });
        let world = world.clone();
        Ok((Remote { id, process, world, reader, usage }, opened))
    }

    /// Kills it with SIGKILL.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        self.world.network.set(self.id, Outlet::Down);
        self.reader.join().map_err(|_| "a reader thread panicked")?;
        self.world.board.depose(self.id);
        Ok(())
    }

    /// Has it close its log and end.
    pub fn close(mut self) -> Result<Usage> {
        self.world.network.tell(self.id, || Inbound::Finish);
        let usage = self.usage.recv_timeout(PATIENCE).map_err(|_| format!("store {} did not close", self.id))?;
        // Drops the last sender of frames, and with it the connection.
        self.world.network.set(self.id, Outlet::Down);
        self.process.kill()?;
        self.process.wait()?;
        self.reader.join().map_err(|_| "a reader thread panicked")?;
        Ok(usage)
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }
}

fn accept(listener: &TcpListener, process: &mut Child) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error.into()),
            Err(_) if process.try_wait()?.is_some() || start.elapsed() > PATIENCE => {
                return Err("the child process did not connect".into());
            }
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn listen(world: &World, id: u64, stream: TcpStream, words: &Sender<Word>) -> Result<()> {
    // A new life counts from zero; the board's totals go on.
    let totals = world.board.totals(id);
    let before = [&totals.applied, &totals.snapshots].map(|total| total.load(Ordering::Relaxed));
    let mut stream = BufReader::with_capacity(1 << 20, stream);
    while let Some(frame) = wire::read(&mut stream)? {
        match frame {
            Frame::Raft { store, lane, batch } => drop(world.network.raft(store, lane, batch)),
            Frame::Outcomes(outcomes) => world.outcomes.send(outcomes)?,
            Frame::Status(status) => take_status(world, id, before, status),
            Frame::Hello(opened) => words.send(Word::Hello(opened))?,
            Frame::Bye(usage) => words.send(Word::Bye(usage))?,
            Frame::Propose(_) | Frame::Campaign | Frame::Finish => {}
        }
    }
    Ok(())
}

fn take_status(world: &World, id: u64, [applied, snapshots]: [u64; 2], status: wire::Status) {
    let totals = world.board.totals(id);
    totals.applied.store(applied + status.applied_entries, Ordering::Relaxed);
    totals.snapshots.store(snapshots + status.snapshots, Ordering::Relaxed);
    for (group, (applied, leads)) in (1..).zip(status.groups) {
        world.board.set_applied(id, group, applied);
        world.board.set_leader(group, id, leads);
    }
    if let Some(failure) = status.failure {
        world.board.fail(failure);
    }
}

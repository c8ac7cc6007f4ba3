//! A store in a process of its own, and that process's end of the connection.

use std::io::{BufReader, BufWriter, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::args::Args;
use crate::board::Board;
use crate::net::{Inbound, Network, Outcome, Outlet};
use crate::store::{Store, World};
use crate::wire::{self, Frame, Status};
use crate::{Result, STORES};

/// How often this store reports its progress to the parent.
const STATUS_EVERY: Duration = Duration::from_millis(50);

/// Runs store `id` until the parent tells it to finish, or goes away.
pub fn run(args: Args, id: u64, connect: SocketAddr) -> Result<()> {
    let stream = TcpStream::connect(connect)?;
    stream.set_nodelay(true)?;
    let frames = send_frames(stream.try_clone()?)?;
    let (outcomes, answers) = channel();
    let world = World {
        network: Arc::new(Network::new(args.pollers)),
        board: Arc::new(Board::new(args.groups)),
        args: Arc::new(args),
        outcomes,
    };
    for other in (1..=STORES as u64).filter(|other| *other != id) {
        world.network.set(other, Outlet::Wire(frames.clone()));
    }
    let (store, opened) = Store::open(&world, id)?;
    frames.send(Frame::Hello(opened))?;
    forward(answers, frames.clone());
    report(Arc::clone(&world.board), id, frames.clone());
    let mut stream = BufReader::with_capacity(1 << 20, stream);
    while let Some(frame) = wire::read(&mut stream)? {
        match frame {
            Frame::Raft { lane, batch, .. } => drop(world.network.raft(id, lane, batch)),
            Frame::Propose(proposals) => world.network.propose(id, proposals),
            Frame::Campaign => world.network.tell(id, || Inbound::Campaign),
            Frame::Finish => {
                let usage = store.close()?;
                frames.send(Frame::Bye(usage))?;
                // The parent closes the connection when it has read the last frame.
                while wire::read(&mut stream).is_ok_and(|frame| frame.is_some()) {}
                return Ok(());
            }
            other => return Err(format!("the parent sent {other:?}").into()),
        }
    }
    Err("the parent is gone".into())
}

/// A thread that writes frames; it flushes when there are no more for the moment.
pub fn send_frames(stream: TcpStream) -> Result<Sender<Frame>> {
    let (sender, frames) = channel::<Frame>();
    let run = move || -> Result<()> {
        let mut stream = BufWriter::with_capacity(1 << 20, stream);
        while let Ok(frame) = frames.recv() {
            wire::write(&mut stream, &frame)?;
            while let Ok(frame) = frames.try_recv() {
                wire::write(&mut stream, &frame)?;
            }
            stream.flush()?;
        }
        Ok(())
    };
    // A broken connection ends the thread, and from then on sending into the channel fails.
    std::thread::Builder::new().name("wire".into()).spawn(move || drop(run()))?;
    Ok(sender)
}

fn forward(answers: Receiver<Vec<Outcome>>, frames: Sender<Frame>) {
    std::thread::spawn(move || {
        while let Ok(outcomes) = answers.recv() {
            if frames.send(Frame::Outcomes(outcomes)).is_err() {
                return;
            }
        }
    });
}

fn report(board: Arc<Board>, id: u64, frames: Sender<Frame>) {
    std::thread::spawn(move || {
        loop {
            let totals = board.totals(id);
            let groups = 1..=board.groups();
            let status = Status {
                applied_entries: totals.applied.load(std::sync::atomic::Ordering::Relaxed),
                snapshots: totals.snapshots.load(std::sync::atomic::Ordering::Relaxed),
                groups: groups.map(|group| (board.applied(id, group), board.leader(group) == id)).collect(),
                failure: board.failure(),
            };
            if frames.send(Frame::Status(status)).is_err() {
                return;
            }
            std::thread::sleep(STATUS_EVERY);
        }
    });
}

//! The limit for callers who share writes: they leave their bytes, one of them or a thread writes these together, and all are released. No
//! replica, no index, no checksum, no order, and nothing that could be read. What this costs on a machine, no log can save.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use rustix::io::{ReadWriteFlags, pwritev2};
use strandlog::disk::AlignedBuf;

use super::{Part, Scratch, Store};

/// As many writes as a device of this kind has use for.
const IN_FLIGHT: usize = 2;
/// Fewer callers are faster when each writes for itself.
const CROWD: u64 = 4;
/// How often the thread that writes yields to the callers that it has just released.
const YIELDS: u32 = 16;
const LEN: u64 = 512 << 20;

/// What is written together.
struct Frame {
    bytes: AlignedBuf,
    commits: u64,
    landed: Arc<OnceLock<()>>,
}

struct State {
    open: Frame,
    /// Buffers to be used again.
    spare: VecDeque<AlignedBuf>,
    next: u64,
    in_flight: usize,
    /// Commits of the last frame.
    last: u64,
    resting: bool,
    ended: bool,
}

struct Inner {
    file: OwnedFd,
    state: Mutex<State>,
    work: Condvar,
}

pub struct Shared {
    inner: Arc<Inner>,
    writer: Option<JoinHandle<()>>,
}

impl Frame {
    fn new(bytes: AlignedBuf) -> Self {
        Self { bytes, commits: 0, landed: Arc::default() }
    }
}

impl Inner {
    /// Takes what callers have left, if one more write may be in flight.
    fn take(state: &mut State) -> Option<(Frame, u64)> {
        if state.open.commits == 0 || state.in_flight == IN_FLIGHT {
            return None;
        }
        let next = Frame::new(state.spare.pop_front().unwrap_or_default());
        let mut frame = std::mem::replace(&mut state.open, next);
        frame.bytes.pad_to_block();
        let len = frame.bytes.len() as u64;
        let offset = if state.next + len > LEN { 0 } else { state.next };
        state.next = offset + len;
        state.in_flight += 1;
        Some((frame, offset))
    }

    fn write(&self, (mut frame, offset): (Frame, u64)) {
        let bytes = frame.bytes.as_slice();
        let n = pwritev2(&self.file, &[std::io::IoSlice::new(bytes)], offset, ReadWriteFlags::DSYNC).unwrap();
        assert_eq!(n, bytes.len());
        {
            let mut state = self.state.lock();
            state.in_flight -= 1;
            state.last = frame.commits;
            frame.bytes.clear();
            state.spare.push_back(frame.bytes);
        }
        let _ = frame.landed.set(());
    }

    fn run(&self) {
        loop {
            for _ in 0..YIELDS {
                {
                    let state = self.state.lock();
                    if state.last < CROWD || 2 * state.open.commits >= state.last {
                        break;
                    }
                }
                std::thread::yield_now();
            }
            let mut state = self.state.lock();
            if let Some(taken) = Self::take(&mut state) {
                drop(state);
                self.write(taken);
                continue;
            }
            if state.ended {
                return;
            }
            state.resting = true;
            self.work.wait(&mut state);
            state.resting = false;
        }
    }

    fn commit(&self, leave: impl FnOnce(&mut AlignedBuf)) {
        let (landed, taken) = {
            let mut state = self.state.lock();
            leave(&mut state.open.bytes);
            state.open.commits += 1;
            let landed = Arc::clone(&state.open.landed);
            let taken = if state.last < CROWD { Self::take(&mut state) } else { None };
            if taken.is_none() && state.resting {
                self.work.notify_one();
            }
            (landed, taken)
        };
        if let Some(taken) = taken {
            self.write(taken);
            let state = self.state.lock();
            if state.open.commits > 0 && state.resting {
                self.work.notify_one();
            }
        }
        landed.wait();
    }
}

impl Shared {
    pub fn open(dir: &Path) -> Self {
        let file = crate::rows::bare_file(&dir.join("shared"), LEN);
        let open = Frame::new(AlignedBuf::default());
        let state =
            State { open, spare: VecDeque::new(), next: 0, in_flight: 0, last: 0, resting: false, ended: false };
        let inner = Arc::new(Inner { file, state: Mutex::new(state), work: Condvar::new() });
        let writer = std::thread::spawn({
            let inner = Arc::clone(&inner);
            move || inner.run()
        });
        Self { inner, writer: Some(writer) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.inner.state.lock().ended = true;
        self.inner.work.notify_one();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Store for Shared {
    fn commit(&self, parts: &[Part<'_>], _: &mut Scratch) {
        self.inner.commit(|bytes| parts.iter().flat_map(|p| p.entries).for_each(|e| bytes.extend_from_slice(e)));
    }

    fn state(&self, replicas: &[u64], value: &[u8], _: &mut Scratch) {
        self.inner.commit(|bytes| {
            for replica in replicas {
                bytes.extend_from_slice(&replica.to_le_bytes());
                bytes.extend_from_slice(value);
            }
        });
    }
}

//! Frames in flight: sealed, and on their way to the disk. They land in any order, and count in the order of the log.

use std::collections::VecDeque;

use super::frames::SealedFrame;
use super::notices::Notices;
use super::ticket::Ticket;
use crate::sync::Arc;

/// Where a frame in flight is.
enum State {
    /// Being written.
    Flying,
    /// Written; an older one is not yet.
    Landed(Box<SealedFrame>),
    /// Being written, in vain: an older one failed.
    Doomed,
}

struct Flight {
    lsn: u64,
    end: u64,
    ticket: Arc<Ticket>,
    state: State,
}

/// What becomes of a frame that was written.
pub(crate) enum Landing {
    /// It is the oldest: everything up to its end is durable.
    Next(Box<SealedFrame>),
    /// An older one is on its way; whoever writes that one completes this one, too.
    Waits,
    /// An older one failed: this one must never be acknowledged.
    Doomed(Box<SealedFrame>),
}

/// The frames in flight, oldest first.
pub(crate) struct Flights {
    queue: VecDeque<Flight>,
    limit: usize,
    /// None of this opening is complete yet.
    first: bool,
}

impl Flights {
    /// At most `limit` at once; **the first alone**.
    ///
    /// By it the next opening knows that there was this one. Were it lost, and the one behind it not, an opening could take that for
    /// something older, or not find it at all, and draw its number again: then two say of each other that they do not exist.
    pub fn new(limit: usize) -> Self {
        Self { queue: VecDeque::with_capacity(limit), limit, first: true }
    }

    /// Whether nothing is being written.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether one more may be sealed.
    pub fn may_start(&self) -> bool {
        self.queue.len() < if self.first { 1 } else { self.limit }
    }

    pub fn start(&mut self, frame: &SealedFrame) {
        let (lsn, end) = (frame.header.lsn, frame.header.end());
        self.queue.push_back(Flight { lsn, end, ticket: Arc::clone(&frame.ticket), state: State::Flying });
    }

    /// The frame was written. **It counts only when all before it do.**
    pub fn land(&mut self, frame: Box<SealedFrame>) -> Landing {
        let Some(i) = self.queue.iter().position(|f| f.lsn == frame.header.lsn) else { return Landing::Doomed(frame) };
        match self.queue.get_mut(i) {
            Some(flight) if matches!(flight.state, State::Doomed) => {
                self.queue.remove(i);
                Landing::Doomed(frame)
            }
            Some(flight) if i > 0 => {
                flight.state = State::Landed(frame);
                Landing::Waits
            }
            _ => Landing::Next(frame),
        }
    }

    /// The oldest is complete; answers the next one, if that was written meanwhile.
    pub fn completed(&mut self) -> Option<Box<SealedFrame>> {
        self.first = false;
        self.queue.pop_front();
        let next = self.queue.front_mut()?;
        match std::mem::replace(&mut next.state, State::Flying) {
            State::Landed(frame) => Some(frame),
            other => {
                next.state = other;
                None
            }
        }
    }

    /// The frame at `lsn` failed, and with it all behind it: answers whom to tell. Those before it may still succeed.
    pub fn fail(&mut self, lsn: u64) -> Vec<(Arc<Ticket>, Notices)> {
        let mut told = Vec::new();
        self.queue.retain_mut(|flight| {
            if flight.lsn <= lsn {
                return flight.lsn < lsn;
            }
            let landed = std::mem::replace(&mut flight.state, State::Doomed);
            let (keep, notices) = match landed {
                State::Landed(frame) => (false, frame.notices),
                State::Flying | State::Doomed => (true, Notices::default()),
            };
            told.push((Arc::clone(&flight.ticket), notices));
            keep
        });
        told
    }

    /// Whether the frame of this ticket may still succeed.
    pub fn holds(&self, ticket: &Arc<Ticket>) -> bool {
        self.queue.iter().any(|f| Arc::ptr_eq(&f.ticket, ticket) && !matches!(f.state, State::Doomed))
    }

    pub fn oldest(&self) -> Option<&Arc<Ticket>> {
        self.queue.front().map(|f| &f.ticket)
    }

    pub fn newest(&self) -> Option<&Arc<Ticket>> {
        self.queue.back().map(|f| &f.ticket)
    }

    /// The ticket of the frame that holds what ends at `lsn`.
    pub fn ticket_of(&self, lsn: u64) -> Option<&Arc<Ticket>> {
        self.queue.iter().find(|f| lsn <= f.end).map(|f| &f.ticket)
    }
}

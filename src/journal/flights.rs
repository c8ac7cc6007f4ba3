//! Frames in flight: sealed, and on their way to the disk. They land in any order, and count in the order of the log.

use std::collections::VecDeque;

use super::frames::{OpenFrame, SealedFrame};
use super::notices::Notices;
use super::ticket::Ticket;
use crate::sync::Arc;

/// Where a frame in flight is.
enum State {
    /// Being written.
    Flying,
    /// Written, but an older one is not yet.
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
    /// An older one is still being written; its writer completes this one, too.
    Waits,
    /// An older one failed: this one must never be acknowledged, and is among those that [ended](Flights::ended).
    Doomed,
}

/// The waiters of a frame that will never be durable, as far as anybody can know.
pub(crate) struct Ended {
    lsn: u64,
    pub ticket: Arc<Ticket>,
    pub notices: Notices,
}

impl From<SealedFrame> for Ended {
    fn from(frame: SealedFrame) -> Self {
        Self { lsn: frame.header.lsn, ticket: frame.ticket, notices: frame.notices }
    }
}

/// The frames in flight, oldest first.
pub(crate) struct Flights {
    queue: VecDeque<Flight>,
    /// Ended frames whose waiters have not been told yet, in no order.
    ended: Vec<Ended>,
    limit: usize,
    /// No frame of this opening is complete yet.
    first: bool,
}

impl Flights {
    /// At most `limit` frames at once; **the first of an opening alone**.
    ///
    /// The first frame tells the next opening that this opening took place. Were it lost, and the frame behind it not, an opening could
    /// take that frame for an older one, or miss it, and draw the same session number again: then two sessions would declare each other
    /// void.
    pub fn new(limit: usize) -> Self {
        Self { queue: VecDeque::with_capacity(limit), ended: Vec::new(), limit, first: true }
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
        let at = self.queue.iter().position(|f| f.lsn == frame.header.lsn);
        match at.and_then(|i| self.queue.get_mut(i)).map(|flight| &mut flight.state) {
            Some(state @ State::Flying) if at > Some(0) => {
                *state = State::Landed(frame);
                Landing::Waits
            }
            Some(State::Flying) => Landing::Next(frame),
            _ => {
                at.map(|i| self.queue.remove(i));
                self.ended.push((*frame).into());
                Landing::Doomed
            }
        }
    }

    /// Removes the oldest frame, which is complete; returns the next one if that was written meanwhile.
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

    /// The frame failed, and with it all behind it. Those before it may still succeed.
    pub fn fail(&mut self, frame: SealedFrame) {
        self.fail_at(frame.header.lsn);
        self.ended.push(frame.into());
    }

    fn fail_at(&mut self, lsn: u64) {
        let ended = &mut self.ended;
        self.queue.retain_mut(|flight| {
            if flight.lsn <= lsn {
                return flight.lsn < lsn;
            }
            match std::mem::replace(&mut flight.state, State::Doomed) {
                State::Landed(frame) => {
                    ended.push((*frame).into());
                    false
                }
                State::Flying | State::Doomed => true,
            }
        });
    }

    /// Ends a frame that was not sealed, and never will be.
    pub fn end(&mut self, frame: &mut OpenFrame) {
        let notices = std::mem::take(&mut frame.notices);
        self.ended.push(Ended { lsn: frame.lsn, ticket: Arc::clone(&frame.ticket), notices });
    }

    /// Takes the ended frames in the order of the log, and **none behind one that is being written**: that one's waiters are told first.
    /// Each is returned once.
    pub fn ended(&mut self) -> Vec<Ended> {
        let flying = self.queue.front().map_or(u64::MAX, |oldest| oldest.lsn);
        self.ended.sort_unstable_by_key(|frame| frame.lsn);
        let before = self.ended.partition_point(|frame| frame.lsn < flying);
        let later = self.ended.split_off(before);
        std::mem::replace(&mut self.ended, later)
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

    /// The ticket of the frame that holds the batch that ends at `lsn`.
    pub fn ticket_of(&self, lsn: u64) -> Option<&Arc<Ticket>> {
        self.queue.iter().find(|f| lsn <= f.end).map(|f| &f.ticket)
    }
}

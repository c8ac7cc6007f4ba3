//! Notices: who is told what became of a frame, in the order of the log.

use std::sync::Arc;

use crate::caught::{caught, said};
use crate::error::Result;
use crate::lsn::Lsn;

/// Receives the outcome of batches, by the tags that they were submitted with: see [`Wal::submit_to`](crate::Wal::submit_to).
///
/// For callers with thousands of batches in flight: one call for all adjacent tags of a frame, and no allocation per batch.
pub trait Sink: Send + Sync {
    /// The batches with these tags, in log order, are durable, up to the LSN; or the error says why they never will be.
    ///
    /// Called on the thread that wrote the frame, or, if the log has ended or failed, on the thread that ended it or was the last to write; never on two
    /// threads at once. It must be short. A submit in it that would have to wait returns [`Error::Busy`](crate::Error::Busy), and so does
    /// closing the log. The last [`Wal`](crate::Wal) may be dropped in it, or
    /// with it: the log then stops, and another thread gives up the file a little later.
    fn done(&self, tags: &[u64], outcome: &Result<Lsn>);
}

/// Whom to tell the outcome of one batch.
pub(crate) enum Whom<'a> {
    Caller(Box<dyn FnOnce(Result<Lsn>) + Send>),
    Sink(&'a Arc<dyn Sink>, u64),
}

enum Notice {
    Caller(Lsn, Box<dyn FnOnce(Result<Lsn>) + Send>),
    Tags(Lsn, Arc<dyn Sink>, Vec<u64>),
}

/// What a notice takes of memory, beside what its closure holds; and what one more tag takes.
const NOTICE_BYTES: u64 = 64;
const TAG_BYTES: u64 = size_of::<u64>() as u64;

/// The notices of one frame.
#[derive(Default)]
pub(crate) struct Notices {
    list: Vec<Notice>,
    bytes: u64,
}

impl Notices {
    /// About how much memory they take. It counts in the queue: a batch may be empty, and nothing else would bound the number of notices.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Notes whom to tell of the batch that ends at `lsn`.
    pub fn add(&mut self, lsn: Lsn, whom: Whom<'_>) {
        self.bytes += NOTICE_BYTES;
        match (whom, self.list.last_mut()) {
            (Whom::Caller(done), _) => self.list.push(Notice::Caller(lsn, done)),
            (Whom::Sink(sink, tag), Some(Notice::Tags(last, same, tags)))
                if std::ptr::addr_eq(Arc::as_ptr(sink), Arc::as_ptr(same)) =>
            {
                *last = lsn;
                tags.push(tag);
                self.bytes -= NOTICE_BYTES - TAG_BYTES;
            }
            (Whom::Sink(sink, tag), _) => self.list.push(Notice::Tags(lsn, Arc::clone(sink), vec![tag])),
        }
    }

    /// Tells everybody, in order. One that panics does not take the others' notices with it.
    pub fn tell(self, outcome: &Result<()>) {
        for notice in self.list {
            let told = |lsn: Lsn| outcome.clone().map(|()| lsn);
            let (lsn, ran) = match notice {
                Notice::Caller(lsn, done) => (lsn, caught(|| done(told(lsn)))),
                Notice::Tags(lsn, sink, tags) => {
                    let tell = move || {
                        sink.done(&tags, &told(lsn));
                        // In here, where panics are caught: it may be the last to hold the sink.
                        drop(sink);
                    };
                    (lsn, caught(tell))
                }
            };
            if ran.is_none() {
                said(|| tracing::error!(target: "strandlog", %lsn, "a completion callback panicked"));
            }
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::panic::panic_any;

    use super::*;
    use crate::caught::tests::Bomb;

    #[test]
    fn a_callback_whose_panic_panics_takes_nobody_along() {
        let (mut notices, (tell, told)) = (Notices::default(), std::sync::mpsc::channel());
        notices.add(Lsn(1), Whom::Caller(Box::new(|_| panic_any(Bomb))));
        notices.add(Lsn(2), Whom::Caller(Box::new(move |o| tell.send(o.is_ok()).expect("heard"))));
        notices.tell(&Ok(()));
        assert_eq!(told.try_recv(), Ok(true));
    }
}

//! What the log says by `tracing` is heard by other people's code, which may ask the log for something.

use std::ops::ControlFlow;
use std::sync::{Mutex, OnceLock, Weak, mpsc};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};

use crate::disk::sim::{EIO, Fault, SimDisk};
use crate::format::superblock::SUPERBLOCK_OFFSETS;
use crate::sync::Arc;
use crate::{Batch, Wal};

/// For what would never happen at all.
const LIMIT: Duration = Duration::from_secs(30);

/// Whatever it hears, it asks for what each of the log's locks guards.
struct Asks {
    wal: Arc<OnceLock<Weak<Wal>>>,
    tell: Mutex<mpsc::Sender<String>>,
}

/// The message of an event.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl tracing::Subscriber for Asks {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        if let Some(wal) = self.wal.get().and_then(Weak::upgrade) {
            wal.stats();
            wal.replica(1).bounds();
            let _ = wal.verify(|_| ());
        }
        let _ = self.tell.lock().expect("no panic").send(message.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// What is said while a log with an entry does this.
fn said(work: impl FnOnce(&SimDisk, &Wal) + Send + 'static) -> Vec<String> {
    let ((tell, told), (done, ended)) = (mpsc::channel(), mpsc::channel());
    // Not in a scope: where it waits for itself it never ends.
    std::thread::spawn(move || {
        let known = Arc::new(OnceLock::new());
        let asks = Asks { wal: Arc::clone(&known), tell: Mutex::new(tell) };
        tracing::subscriber::with_default(asks, || {
            let disk = Arc::new(SimDisk::new(4 << 20));
            let options = Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
            let wal = Arc::new(options.open_disk(disk.clone()).expect("formatted"));
            wal.commit(Batch::new().append(1, &[(1, 1, [7; 700])])).expect("room");
            assert!(known.set(Arc::downgrade(&wal)).is_ok());
            work(&disk, &wal);
            done.send(()).expect("heard");
        });
    });
    ended.recv_timeout(LIMIT).expect("who hears of it waits for what the log holds");
    told.try_iter().collect()
}

fn scrub(wal: &Wal) {
    wal.scrub(u64::MAX, |_| ControlFlow::Continue(())).expect("scrubbed");
}

#[test]
fn who_hears_of_damage_may_ask_the_log() {
    let heard = said(|disk, wal| {
        let image = disk.kept_image();
        let at = image.windows(700).position(|bytes| bytes == [7; 700]).expect("it is there") as u64;
        disk.flip_bit(at + 350, 3);
        scrub(wal);
        assert_eq!(wal.damage().len(), 1);
    });
    assert_eq!(heard.iter().filter(|said| *said == "an entry is damaged").count(), 1, "{heard:?}");
}

#[test]
fn who_hears_of_a_bad_superblock_may_ask_the_log() {
    let heard = said(|disk, wal| {
        disk.flip_bit(SUPERBLOCK_OFFSETS[0] + 100, 3);
        scrub(wal);
    });
    assert_eq!(heard.iter().filter(|said| *said == "a superblock is bad").count(), 1, "{heard:?}");
}

#[test]
fn who_hears_that_a_superblock_cannot_be_written_may_ask_the_log() {
    let heard = said(|disk, wal| {
        disk.flip_bit(SUPERBLOCK_OFFSETS[0] + 100, 3);
        disk.fail_at(disk.events(), Fault::Error(EIO));
        wal.scrub(u64::MAX, |_| ControlFlow::Continue(())).expect_err("poisoned");
    });
    let failed = |said: &&String| said.contains("writing the superblock");
    assert_eq!(heard.iter().filter(failed).count(), 1, "{heard:?}");
}

#[test]
fn who_hears_that_the_journal_grows_and_shrinks_may_ask_the_log() {
    let heard = said(|_, wal| {
        let budget = wal.engine.seq.lock().accounts.budget();
        wal.engine.grow_for_carried(budget).expect("written");
        assert!(wal.engine.shrink_journal().expect("written"));
    });
    let heard: Vec<_> = heard.iter().filter(|said| said.starts_with("the journal has")).collect();
    assert_eq!(heard, ["the journal has grown", "the journal has shrunk"]);
}

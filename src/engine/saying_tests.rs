//! What the log says by `tracing` is heard by other people's code, which may ask the log for something.

use std::ops::ControlFlow;
use std::sync::{Mutex, OnceLock, Weak, mpsc};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};

use crate::disk::sim::{EIO, Fault, SimDisk};
use crate::format::superblock::SUPERBLOCK_OFFSETS;
use crate::sync::Arc;
use crate::{Batch, Error, Wal};

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

impl Asks {
    fn hear(&self, what: String) {
        if let Some(wal) = self.wal.get().and_then(Weak::upgrade) {
            wal.stats();
            wal.replica(1).bounds();
            if let Err(Error::Busy { .. }) = wal.verify(|_| ()) {
                let _ = self.tell.lock().expect("no panic").send(format!("{what}: who hears it is turned away"));
            }
        }
        let _ = self.tell.lock().expect("no panic").send(what);
    }
}

impl tracing::Subscriber for Asks {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.hear(format!("{} begins", span.metadata().name()));
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        self.hear(format!("recorded: {values:?}"));
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        self.hear(message.0);
    }
    fn enter(&self, _: &Id) {
        self.hear("entered".into());
    }
    fn exit(&self, _: &Id) {
        self.hear("left".into());
    }
    fn try_close(&self, _: Id) -> bool {
        self.hear("closed".into());
        true
    }
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
            let options = options.slow_commit(Duration::ZERO);
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

/// Where another test's thread is the first to come to a place just as this one begins to listen, `tracing` believes that nobody does.
fn listen() {
    tracing::callsite::rebuild_interest_cache();
}

/// Fills more than a segment.
fn fill(wal: &Wal) {
    for i in 0..200 {
        listen();
        wal.commit(Batch::new().append(1, &[(2 + i, 1, [7; 700])])).expect("room");
    }
}

#[test]
fn who_hears_of_the_cleaner_may_ask_the_log() {
    let heard = said(|_, wal| {
        fill(wal);
        wal.checkpoint().expect("cleaned");
        assert!(wal.stats().segments_cleaned > 0);
    });
    let cleans: Vec<_> = heard.iter().skip_while(|said| *said != "clean begins").collect();
    let turn = |said: &str| cleans.iter().filter(|heard| **heard == said).count();
    assert!(turn("clean begins") > 0 && turn("clean begins") == turn("closed"), "{cleans:?}");
    assert!(cleans.iter().any(|said| said.starts_with("recorded") && said.contains("segments")), "{cleans:?}");
}

/// Nor is it told among callbacks, which must not wait for the cleaner.
#[test]
fn who_hears_of_a_slow_commit_may_ask_the_log() {
    let heard = said(|disk, wal| {
        // Longer than no time at all.
        disk.on_event(|_| {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_micros(2) {}
            None
        });
        for i in 0..50_u8 {
            listen();
            wal.commit(Batch::new().put(1, b"k", &[i])).expect("room");
        }
        fill(wal);
        wal.checkpoint().expect("cleaned");
    });
    let slow = heard.iter().filter(|said| *said == "a slow commit").count() as u64;
    assert!(slow > 200, "{slow}");
    assert!(!heard.iter().any(|said| said.contains("turned away")), "{heard:?}");
}

#[test]
fn who_hears_what_the_cleaner_cannot_read_may_ask_the_log() {
    let heard = said(|disk, wal| {
        fill(wal);
        disk.fail_reads(crate::format::POOL_OFFSET..u64::MAX, EIO);
        wal.checkpoint().expect_err("it cannot be read");
    });
    assert!(heard.iter().any(|said| said.starts_with("reading")), "{heard:?}");
}

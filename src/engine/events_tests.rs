//! What a listener is told, and when.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::holding::Holding;
use super::*;
use crate::events::SlowReason;

#[derive(Default)]
struct Heard(Mutex<Vec<Event>>);

impl Listener for Heard {
    fn event(&self, event: &Event) {
        self.0.lock().push(event.clone());
    }
}

#[test]
fn nothing_is_told_while_a_lock_is_held() {
    let heard = Arc::new(Heard::default());
    let events = Events::new(Some(heard.clone()), None);
    let grown = |segments| move || Event::JournalGrown { segments };
    {
        let _outer = Holding::begin(events.log());
        {
            let _inner = Holding::begin(events.log());
            events.tell(grown(1));
        }
        events.later(grown(2));
        events.flush();
        assert_eq!(heard.0.lock().len(), 0);
    }
    events.flush();
    assert_eq!(*heard.0.lock(), [grown(1)(), grown(2)()]);
    events.tell(grown(3));
    assert_eq!(heard.0.lock().len(), 3);
    let nobody = Events::default();
    nobody.tell(|| unreachable!("nobody asks for it"));
}

#[test]
fn what_happens_to_another_log_meanwhile_is_told_at_once() {
    let heard: Vec<_> = (0..6).map(|_| Arc::new(Heard::default())).collect();
    let logs: Vec<_> = heard.iter().map(|h| Events::new(Some(Arc::clone(h) as Arc<dyn Listener>), None)).collect();
    let tell = |log: usize| {
        logs[log].tell(|| Event::JournalShrunk { segments: 0 });
        heard[log].0.lock().len()
    };
    {
        let _of_the_first = Holding::begin(logs[0].log());
        assert_eq!([tell(0), tell(1)], [0, 1]);
        let _of_three_more = [1, 2, 3].map(|log| Holding::begin(logs[log].log()));
        // There is no place for another, and so nothing is told of it under its own lock.
        let _deeper = Holding::begin(logs[4].log());
        assert_eq!([tell(1), tell(4), tell(5)], [1, 0, 0]);
    }
    assert_eq!([0, 1, 4, 5].map(tell), [2, 3, 2, 2], "what waited is told");
}

#[test]
fn what_took_longest_is_the_reason() {
    let of = |queued_micros, device_micros, cleaner_micros| {
        Commit { queued_micros, device_micros, cleaner_micros, ..Commit::default() }.reason()
    };
    assert_eq!(of(1, 2, 1), SlowReason::Device);
    assert_eq!(of(3, 2, 1), SlowReason::Queue);
    assert_eq!(of(3, 2, 4), SlowReason::Cleaner);
}

struct Explodes(Heard);

impl Listener for Explodes {
    fn event(&self, event: &Event) {
        self.0.event(event);
        std::panic::panic_any(crate::caught::tests::Bomb);
    }
}

#[test]
fn a_listener_whose_panic_panics_hears_of_the_rest() {
    let heard = Arc::new(Explodes(Heard::default()));
    let events = Events::new(Some(heard.clone()), None);
    for segments in [1, 2] {
        events.later(|| Event::JournalGrown { segments });
    }
    events.flush();
    assert_eq!(heard.0.0.lock().len(), 2);
}

/// Of a frame that another thread may tell of while it is being completed.
#[test]
fn a_slow_commit_is_told_before_that_it_is_committed() {
    /// Gives others the processor in between.
    #[derive(Default)]
    struct Slow(Heard);
    impl Listener for Slow {
        fn event(&self, event: &Event) {
            if matches!(event, Event::SlowCommit { .. }) {
                std::thread::sleep(Duration::from_micros(100));
            }
            self.0.event(event);
        }
    }
    let heard = Arc::new(Slow::default());
    let options = crate::Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
    let options = options.slow_commit(Duration::ZERO).listener(heard.clone());
    let disk = Arc::new(crate::disk::sim::SimDisk::new(4 << 20));
    let wal = options.open_disk(Arc::clone(&disk) as _).expect("formatted");
    // What takes no microsecond is not slow.
    disk.on_event(|_| {
        std::thread::sleep(Duration::from_micros(1));
        None
    });
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                wal.engine.events.flush();
            }
        });
        for _ in 0..2000 {
            wal.commit(crate::Batch::new().put(1, b"k", b"v")).expect("room");
        }
        done.store(true, Ordering::Relaxed);
    });
    let (mut slow, mut committed) = (0, std::collections::HashSet::new());
    for event in &*heard.0.0.lock() {
        match event {
            Event::SlowCommit { commit, .. } => {
                assert!(!committed.contains(&commit.lsn), "{commit:?} was told before");
                slow += 1;
            }
            Event::Committed(commit) => _ = committed.insert(commit.lsn),
            _ => {}
        }
    }
    assert!(slow >= 2000, "{slow}");
}

/// Of chunks there are more than enough.
#[test]
fn space_is_low_where_it_is_metadata_that_runs_out() {
    let heard = Arc::new(Heard::default());
    let options = crate::Wal::options().segment_size(64 << 10).chunk_size(4096).journal_cap(8 * (64 << 10));
    let disk = Arc::new(crate::disk::sim::SimDisk::new(4 << 20));
    let wal = options.background(false).listener(heard.clone()).open_disk(disk).expect("formatted");
    let low = || heard.0.lock().iter().filter(|event| matches!(event, Event::SpaceLow(_))).count();
    let again = || heard.0.lock().iter().filter(|event| matches!(event, Event::SpaceRecovered(_))).count();
    let put = |key: u32| wal.commit(crate::Batch::new().put(u64::from(key % 50), &key.to_le_bytes(), &[7; 100]));
    let (mut keys, mut told) = (0, 0);
    while put(keys).is_ok() {
        keys += 1;
        told += u32::from(low() > 0);
        let stats = wal.stats();
        let left = stats.carried_class_limit - stats.carried_class_bytes;
        assert!(low() == 0 || left < stats.carried_class_limit / 10, "too early: {left} left, {stats:#?}");
    }
    let stats = wal.stats();
    assert!(stats.free_chunks - stats.reserved_chunks > stats.chunks / 4, "{stats:#?}");
    assert!(keys > 500 && told > keys / 20, "{told} of {keys} were put when it was told");
    assert_eq!((low(), again()), (1, 0), "once");
    for replica in 0..50 {
        wal.commit(crate::Batch::new().remove(replica)).expect("removed");
        let stats = wal.stats();
        let left = stats.carried_class_limit - stats.carried_class_bytes;
        assert_eq!(again() > 0, left >= stats.carried_class_limit * 15 / 100, "{left} left, {stats:#?}");
    }
    assert_eq!((low(), again()), (1, 1), "and once that it is over");
}

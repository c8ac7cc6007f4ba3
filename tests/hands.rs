//! A frame and the payload beside it are written at once by two threads: a cut may leave either without the other, and neither counts
//! before both are written.

mod support;

use std::io;
use std::sync::{Arc, Condvar, Mutex};

use strandlog::disk::Disk;
use strandlog::disk::sim::SimDisk;
use strandlog::{Batch, Error, Placement, Wal};

use support::{assert_sound, open, payload, small};

/// Larger than any frame that only describes such a payload.
const PAYLOAD: usize = 40_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Frame,
    Payload,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Hold,
    Pass,
    Fail,
}

/// A disk that holds back one part of a commit, or has it fail.
#[derive(Debug)]
struct Parted {
    disk: Arc<SimDisk>,
    /// For frames and for payloads: what becomes of them.
    verdicts: Mutex<[Verdict; 2]>,
    /// Plain writes of frames and of payloads that reached the disk.
    arrived: Mutex<[u64; 2]>,
    told: Condvar,
}

impl Parted {
    fn new() -> Arc<Self> {
        let disk = Arc::new(SimDisk::new(4 << 20));
        Arc::new(Self {
            disk,
            verdicts: Mutex::new([Verdict::Pass; 2]),
            arrived: Mutex::default(),
            told: Condvar::new(),
        })
    }

    fn set(&self, part: Part, verdict: Verdict) {
        self.verdicts.lock().expect("no other panic")[part as usize] = verdict;
        self.told.notify_all();
    }

    fn arrived(&self, part: Part) -> u64 {
        self.arrived.lock().expect("no other panic")[part as usize]
    }

    /// Waits until so many of them have arrived, by another thread.
    fn until_arrived(&self, part: Part, n: u64) {
        let mut arrived = self.arrived.lock().expect("no other panic");
        while arrived[part as usize] < n {
            arrived = self.told.wait(arrived).expect("no other panic");
        }
    }

    fn pass(&self, part: Part) -> io::Result<()> {
        let mut verdicts = self.verdicts.lock().expect("no other panic");
        loop {
            match verdicts[part as usize] {
                Verdict::Pass => return Ok(()),
                Verdict::Fail => return Err(io::Error::from_raw_os_error(5)),
                Verdict::Hold => verdicts = self.told.wait(verdicts).expect("no other panic"),
            }
        }
    }
}

/// Lets everything pass when it is dropped: a test that fails must not leave a thread waiting.
struct Release<'a>(&'a Parted);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        for part in [Part::Frame, Part::Payload] {
            self.0.set(part, Verdict::Pass);
        }
    }
}

impl Disk for Parted {
    // A disk that takes several writes at once needs no hands.
    support::passed_on!(one_at_a_time);
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let part = if buf.len() < PAYLOAD { Part::Frame } else { Part::Payload };
        self.pass(part)?;
        self.disk.write_at(offset, buf)?;
        self.arrived.lock().expect("no other panic")[part as usize] += 1;
        self.told.notify_all();
        Ok(())
    }
    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.disk.write_durable_at(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }
}

fn entry(index: u64) -> Batch {
    let mut batch = Batch::new();
    batch.append(1, &[(index, 1, payload(1, index, 1, PAYLOAD))]);
    batch
}

fn last(wal: &Wal) -> u64 {
    let last = wal.replica(1).last_index();
    for i in 1..=last {
        assert_eq!(wal.replica(1).entry(i).expect("held").data, payload(1, i, 1, PAYLOAD));
    }
    last
}

fn opened(disk: &Arc<Parted>) -> Arc<Wal> {
    let wal = small(Placement::Chain).background(true).open_disk(disk.clone()).expect("opened");
    wal.commit(entry(1)).expect("committed");
    // Go on until a hand takes a frame at once: by then the hands are at rest.
    for i in 2.. {
        disk.set(Part::Payload, Verdict::Hold);
        let before = disk.arrived(Part::Frame);
        let pending = wal.submit(entry(i)).expect("submitted");
        std::thread::sleep(std::time::Duration::from_millis(5));
        let at_once = disk.arrived(Part::Frame) > before;
        disk.set(Part::Payload, Verdict::Pass);
        pending.wait().expect("durable");
        if at_once {
            return Arc::new(wal);
        }
        assert!(i < 20, "no hand ever took a frame");
    }
    unreachable!("the loop ends by itself");
}

/// The log as power cuts leave it: seeded mixtures of what was written and not flushed, none of it, and all of it.
fn cuts(disk: &Parted) -> Vec<SimDisk> {
    let mut cuts: Vec<SimDisk> = (0..20).map(|seed| disk.disk.crash_seeded(seed)).collect();
    cuts.extend([disk.disk.crash_lost_all(), disk.disk.crash_kept_all()]);
    cuts
}

#[test]
fn a_frame_without_its_payload_and_a_payload_without_its_frame_are_nothing() {
    for missing in [Part::Payload, Part::Frame] {
        let other = if missing == Part::Frame { Part::Payload } else { Part::Frame };
        let disk = Parted::new();
        let wal = opened(&disk);
        let _release = Release(&disk);
        let kept = last(&wal);
        disk.set(missing, Verdict::Hold);
        let arrived = disk.arrived(other);
        let ours = Arc::clone(&wal);
        let commit = std::thread::spawn(move || ours.commit(entry(kept + 1)));
        disk.until_arrived(other, arrived + 1);
        // Time enough for a wrong acknowledgement.
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!commit.is_finished(), "acknowledged without its {missing:?}");
        for cut in cuts(&disk) {
            let cut = Arc::new(cut);
            let again = open(small(Placement::Chain), &cut);
            assert_eq!(last(&again), kept, "without {missing:?}");
            assert_sound(&again, "after the cut");
            again.commit(entry(kept + 1)).expect("goes on");
            drop(again);
            assert_eq!(last(&open(small(Placement::Chain), &Arc::new(cut.crash_lost_all()))), kept + 1);
        }
        disk.set(missing, Verdict::Pass);
        commit.join().expect("no panic").expect("durable now");
        assert_eq!(last(&open(small(Placement::Chain), &Arc::new(disk.disk.crash_lost_all()))), kept + 1);
    }
}

#[test]
fn a_failure_of_either_poisons_and_nobody_writes_after_the_log_was_given_up() {
    for bad in [Part::Payload, Part::Frame] {
        let other = if bad == Part::Frame { Part::Payload } else { Part::Frame };
        let disk = Parted::new();
        let wal = opened(&disk);
        let _release = Release(&disk);
        let kept = last(&wal);
        disk.set(other, Verdict::Hold);
        disk.set(bad, Verdict::Fail);
        let ours = Arc::clone(&wal);
        let commit = std::thread::spawn(move || ours.commit(entry(kept + 1)));
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!commit.is_finished(), "told while its {other:?} may still be written");
        disk.set(other, Verdict::Pass);
        let outcome = commit.join().expect("no panic");
        assert!(matches!(outcome, Err(Error::Poisoned { .. })), "{bad:?} failed: {outcome:?}");
        assert!(matches!(wal.commit(entry(kept + 2)), Err(Error::Poisoned { .. })));
        drop(wal);
        let events = disk.disk.events();
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(disk.disk.events(), events, "written after it was given up");
        for cut in cuts(&disk) {
            assert_eq!(last(&open(small(Placement::Chain), &Arc::new(cut))), kept, "{bad:?} failed");
        }
    }
}

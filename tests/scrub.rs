//! Scrubbing a log in use: what rotted is found, quarantined and healed; what did not is never accused.

mod support;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use strandlog::disk::Disk;
use strandlog::disk::sim::{EIO, SimDisk};
use strandlog::format::frame::{FRAME_HEADER_BYTES, FrameHeader};
use strandlog::format::superblock::{SUPERBLOCK_BYTES, Superblock};
use strandlog::{Batch, Damage, Error, Event, Listener, Lost, Options, Placement, Scrubbed, Wal};

use support::{PLACEMENTS, assert_sound, open, payload, small};

fn options(placement: Placement) -> Options {
    small(placement)
}

fn fill(wal: &Wal, replicas: std::ops::RangeInclusive<u64>) {
    for index in 1..=20 {
        let mut batch = Batch::new();
        for replica in replicas.clone() {
            batch.append(replica, &[(index, 1, payload(replica, index, 1, 700))]);
        }
        wal.commit(batch).expect("committed");
    }
}

/// Rots the entry wherever its bytes lie: old copies, too.
fn rot(disk: &SimDisk, replica: u64, index: u64) {
    let (image, wanted) = (disk.kept_image(), payload(replica, index, 1, 700));
    let mut hits = 0;
    for at in 0..image.len() - wanted.len() {
        if image[at] == wanted[0] && image[at..at + wanted.len()] == wanted[..] {
            disk.flip_bit(at as u64 + 350, 3);
            hits += 1;
        }
    }
    assert!(hits > 0, "entry {index} of replica {replica} is not on the disk");
}

fn scrub(wal: &Wal) -> Vec<Scrubbed> {
    let mut all = Vec::new();
    let journal = wal.scrub(u64::MAX, |one| {
        all.push(one.clone());
        ControlFlow::Continue(())
    });
    assert_eq!(journal.expect("scrubbed").rotten_frames, 0);
    all
}

fn lost(replica: u64, first: u64, last: u64) -> Damage {
    Damage { replica, lost: Lost::Entries { first, last } }
}

fn assert_quarantined(wal: &Wal) {
    assert_eq!(wal.damage(), [lost(2, 5, 6)]);
    for index in 1..=20 {
        let read = wal.replica(2).entry(index);
        match index {
            5 | 6 => assert!(matches!(read, Err(Error::Damaged(ref d)) if *d == lost(2, 5, 6)), "{read:?}"),
            _ => assert_eq!(read.expect("whole").data, payload(2, index, 1, 700)),
        }
        for whole in [1, 3] {
            assert_eq!(wal.replica(whole).entry(index).expect("whole").data, payload(whole, index, 1, 700));
        }
    }
}

#[test]
fn rot_is_found_quarantined_remembered_and_healed() {
    for placement in PLACEMENTS {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let wal = open(options(placement), &disk);
        fill(&wal, 1..=3);
        assert!(scrub(&wal).iter().all(|s| s.damage.is_empty() && s.entries == 20), "{placement:?}");
        rot(&disk, 2, 5);
        rot(&disk, 2, 6);
        let found: Vec<_> = scrub(&wal).into_iter().filter(|s| !s.damage.is_empty()).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].replica, &found[0].damage[..]), (2, &[lost(2, 5, 6)][..]));
        assert_eq!(wal.stats().damaged_entries, 2);
        assert_quarantined(&wal);
        // Not found twice, and known after a crash and after cleaning.
        scrub(&wal);
        assert_eq!(wal.stats().damaged_entries, 2);
        drop(wal);
        let disk = Arc::new(disk.crash_lost_all());
        let wal = open(options(placement), &disk);
        assert_quarantined(&wal);
        wal.checkpoint().expect("cleaned");
        assert_quarantined(&wal);
        // Healed by a snapshot; the damaged replica's neighbours never noticed.
        let mut heal = Batch::new();
        heal.install_snapshot(2, 20, 1).append(2, &[(21, 1, b"healed")]);
        wal.commit(heal).expect("committed");
        assert_eq!(wal.damage(), []);
        assert_eq!(wal.replica(2).entry(21).expect("whole").data, b"healed"[..]);
        assert!(scrub(&wal).iter().all(|s| s.damage.is_empty()));
        assert_sound(&wal, "healed");
    }
}

/// What is cut need not be read, and damage goes with the entries that it is of.
#[test]
fn a_suffix_that_rotted_is_cut_and_its_damage_goes_with_it() {
    for placement in PLACEMENTS {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let wal = open(options(placement), &disk);
        fill(&wal, 1..=3);
        rot(&disk, 2, 5);
        rot(&disk, 2, 6);
        scrub(&wal);
        assert_quarantined(&wal);
        // First the last entry kept is a rotten one, then the first one cut.
        wal.commit(Batch::new().truncate_suffix(2, 6)).expect("cut");
        assert_eq!((wal.replica(2).bounds(), wal.damage()), ((1, 5), vec![lost(2, 5, 5)]), "{placement:?}");
        wal.commit(Batch::new().truncate_suffix(2, 5)).expect("cut");
        let whole = |wal: &Wal, last: u64| {
            assert_eq!((wal.replica(2).bounds(), wal.damage()), ((1, last), vec![]), "{placement:?}");
            let read = wal.replica(2).entries(1..5, usize::MAX).expect("whole");
            assert!((1..).zip(&read).all(|(i, e)| e.data == payload(2, i, 1, 700)) && read.len() == 4);
        };
        whole(&wal, 4);
        drop(wal);
        let disk = Arc::new(disk.crash_lost_all());
        let wal = open(options(placement), &disk);
        whole(&wal, 4);
        wal.commit(Batch::new().append(2, &[(5, 2, payload(2, 5, 2, 700))])).expect("committed");
        wal.checkpoint().expect("cleaned");
        whole(&wal, 5);
        assert_eq!(wal.replica(2).entry(5).expect("whole").data, payload(2, 5, 2, 700));
        assert_sound(&wal, "cut");
    }
}

/// Were it only forgotten, the log would say that nothing is damaged until it is opened anew.
#[test]
fn what_the_cleaner_cannot_read_is_recorded_as_damage_at_once() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = open(options(Placement::Journal), &disk);
    fill(&wal, 1..=3);
    // Opened anew, so that nothing is read from memory; then written on into the next segment, so that the first can be cleaned.
    drop(wal);
    let disk = Arc::new(disk.restart());
    rot(&disk, 2, 5);
    rot(&disk, 2, 6);
    let wal = open(options(Placement::Journal), &disk);
    fill(&wal, 10..=15);
    wal.checkpoint().expect("cleaned");
    assert_quarantined(&wal);
    assert_eq!(wal.stats().damaged_entries, 2);
    drop(wal);
    assert_quarantined(&open(options(Placement::Journal), &Arc::new(disk.crash_lost_all())));
}

#[test]
fn a_scrub_ends_when_it_is_told_to_and_refuses_to_stand_still() {
    let wal = open(options(Placement::Auto), &Arc::new(SimDisk::new(4 << 20)));
    fill(&wal, 1..=3);
    let mut seen = 0;
    wal.scrub(u64::MAX, |_| {
        seen += 1;
        if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .expect("scrubbed");
    assert_eq!(seen, 2);
    assert!(matches!(wal.scrub(0, |_| ControlFlow::Continue(())), Err(Error::Option { .. })));
    wal.close().expect("closed");
    assert!(matches!(wal.scrub(u64::MAX, |_| ControlFlow::Continue(())), Err(Error::Closed)));
}

/// Entries come, go, are overwritten and move while they are read: none of that is damage.
#[test]
fn nothing_is_accused_while_the_log_changes_under_the_scrub() {
    for placement in PLACEMENTS {
        let disk = Arc::new(SimDisk::new(8 << 20));
        let options = options(placement).background(true);
        let wal = options.open_disk(disk).expect("opened");
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..3_u64 {
                let (wal, stop) = (&wal, &stop);
                scope.spawn(move || {
                    let mut next = [1_u64; 4];
                    for round in 0_u64.. {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let at = (round % 4) as usize;
                        let replica = thread * 4 + at as u64;
                        let term = 1 + round / 50;
                        // Back by two now and then: a conflict is overwritten.
                        let first = next[at].saturating_sub(u64::from(round % 7 == 0) * 2).max(1);
                        let first = first.max(wal.replica(replica).bounds().0);
                        let entries: Vec<_> =
                            (first..first + 3).map(|i| (i, term, payload(replica, i, term, 900))).collect();
                        let mut batch = Batch::new();
                        batch.append(replica, &entries);
                        next[at] = first + 3;
                        if round % 5 == 0 && first > 30 {
                            batch.truncate_prefix(replica, first - 20);
                        }
                        wal.commit(batch).expect("committed");
                    }
                });
            }
            let mut scrubs = 0;
            let mut entries = 0;
            let started = std::time::Instant::now();
            while scrubs < 20 || started.elapsed().as_millis() < 700 {
                for one in scrub(&wal) {
                    assert!(one.damage.is_empty() && one.structure.is_empty(), "{placement:?}: {one:?}");
                    entries += one.entries;
                }
                scrubs += 1;
            }
            stop.store(true, Ordering::Relaxed);
            assert!(entries > 0);
        });
        assert_eq!(wal.stats().damaged_entries, 0);
        assert_sound(&wal, "after the scrubs");
    }
}

type Hook = Box<dyn FnMut(u64) + Send>;

/// Calls back before each read of one place.
struct Watched {
    disk: Arc<SimDisk>,
    place: u64,
    reads: AtomicU64,
    hook: Mutex<Option<Hook>>,
}

impl Watched {
    fn new(disk: SimDisk, place: u64) -> Arc<Self> {
        Arc::new(Self { disk: Arc::new(disk), place, reads: AtomicU64::new(0), hook: Mutex::new(None) })
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.disk.fmt(f)
    }
}

impl Disk for Watched {
    support::passed_on!();
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        if (offset..offset + buf.len() as u64).contains(&self.place) {
            let n = self.reads.fetch_add(1, Ordering::SeqCst) + 1;
            let hook = self.hook.lock().expect("no other panic").take();
            if let Some(mut hook) = hook {
                hook(n);
                *self.hook.lock().expect("no other panic") = Some(hook);
            }
        }
        self.disk.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> std::io::Result<()> {
        self.disk.write_at(offset, buf)
    }
    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> std::io::Result<()> {
        self.disk.write_durable_at(offset, buf)
    }
    fn flush(&self) -> std::io::Result<()> {
        self.disk.flush()
    }
}

/// What was rotten was written anew while the scrub read it for the last time: the new entry must not pay for the old one.
#[test]
fn an_entry_written_anew_while_it_was_read_is_not_accused() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = open(options(Placement::Journal), &disk);
    fill(&wal, 1..=1);
    wal.close().expect("closed");
    drop(wal);
    let (image, wanted) = (disk.kept_image(), payload(1, 7, 1, 700));
    let at = image.windows(700).position(|w| w == &wanted[..]).expect("it is there") as u64;
    disk.flip_bit(at + 350, 3);
    let scrub_hooked = |at_read: Option<u64>| {
        let watched = Watched::new(disk.restart(), at + 350);
        let wal = Arc::new(options(Placement::Journal).open_disk(watched.clone()).expect("opened"));
        let (within, before) = (Arc::downgrade(&wal), watched.reads.load(Ordering::SeqCst));
        *watched.hook.lock().expect("no panic") = Some(Box::new(move |n| {
            if Some(n - before) == at_read {
                let wal = within.upgrade().expect("open");
                wal.commit(Batch::new().append(1, &[(7, 2, b"written anew")])).expect("committed");
            }
        }));
        scrub(&wal);
        (watched.reads.load(Ordering::SeqCst) - before, wal)
    };
    let (reads, wal) = scrub_hooked(None);
    assert!(reads > 1, "it is looked at more than once");
    assert_eq!(wal.damage(), [lost(1, 7, 7)]);
    for at_read in 1..=reads {
        let (_, wal) = scrub_hooked(Some(at_read));
        assert_eq!(wal.damage(), [], "written anew at reading {at_read} of {reads}");
        assert_eq!(wal.replica(1).entry(7).expect("whole").data, b"written anew"[..]);
    }
}

/// Both are in memory still, where readers find them whole.
#[test]
fn rot_under_a_large_value_is_found_as_under_a_large_entry() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    let wal = Wal::options().create(true).capacity(64 << 20).open(&path).expect("formatted");
    let [value, entry] = [payload(1, 1, 1, 300 << 10), payload(2, 1, 1, 300 << 10)];
    wal.commit(Batch::new().put(1, b"snapshot", &value).append(2, &[(1, 1, entry.clone())])).expect("committed");
    assert!(wal.verify(|_| ()).expect("read").is_clean());
    let image = std::fs::read(&path).expect("readable");
    let file = std::fs::File::options().write(true).open(&path).expect("there");
    for wanted in [&value, &entry] {
        let at = image.windows(4096).position(|w| *w == wanted[8192..12288]).expect("it is there");
        file.write_at(&[!image[at + 50]], at as u64 + 50).expect("written");
    }
    file.sync_all().expect("durable");
    let report = wal.verify(|_| ()).expect("read");
    assert_eq!(report.damage, [Damage { replica: 1, lost: Lost::State }, lost(2, 1, 1)]);
}

#[derive(Default)]
struct Told(Mutex<Vec<Damage>>);

impl Listener for Told {
    fn event(&self, event: &Event) {
        if let Event::Damaged(damage) = event {
            self.0.lock().expect("no other panic").push(damage.clone());
        }
    }
}

/// It is no damage of the replica's whole state, which would cost a sound vote. It is told, and gone with the next put.
#[test]
fn a_rotten_value_is_told_once_and_costs_nothing_but_itself() {
    let (mut disk, told) = (Arc::new(SimDisk::new(4 << 20)), Arc::new(Told::default()));
    let listener = Arc::clone(&told) as Arc<dyn Listener>;
    let open = |disk: &Arc<SimDisk>| {
        let options = options(Placement::Auto).listener(Arc::clone(&listener));
        options.open_disk(Arc::clone(disk) as _).expect("the log opens")
    };
    let wal = open(&disk);
    let rot = |disk: &SimDisk, value: &[u8]| {
        let image = disk.kept_image();
        let at = image.windows(64).position(|w| *w == value[5000..5064]).expect("it is on the disk");
        disk.flip_bit(at as u64, 3);
    };
    let lost = |n: usize| vec![Damage { replica: 1, lost: Lost::State }; n];
    let events = || std::mem::take(&mut *told.0.lock().expect("no panic"));
    let found = |wal: &Wal| scrub(wal).into_iter().flat_map(|one| one.damage).collect::<Vec<_>>();
    let values = [1, 2, 3].map(|n| payload(1, n, 1, 9000));
    let mut batch = Batch::new();
    batch.put(1, b"vote", b"whole").put(1, b"big", &values[0]).put(1, b"other", &values[1]);
    wal.commit(&mut batch).expect("committed");
    assert_eq!((found(&wal), events()), (lost(0), lost(0)));
    rot(&disk, &values[0]);
    for round in 0..3 {
        assert_eq!((found(&wal), events()), (lost(1), lost(usize::from(round == 0))), "round {round}");
    }
    rot(&disk, &values[1]);
    assert_eq!((found(&wal), events()), (lost(1), lost(1)), "another one");
    wal.close().expect("closed");
    drop(wal);
    disk = Arc::new(disk.restart());
    let wal = open(&disk);
    assert_eq!(wal.damage(), [], "the state is whole");
    assert_eq!(wal.replica(1).get(b"vote").expect("whole").as_deref(), Some(&b"whole"[..]));
    assert!(matches!(wal.replica(1).get(b"big"), Err(Error::Damaged(damage)) if lost(1) == [damage.clone()]));
    assert_eq!((found(&wal), events()), (lost(1), lost(2)), "of both, by another opening");
    wal.commit(Batch::new().put(1, b"big", &values[2]).delete(1, b"other")).expect("committed");
    assert_eq!((found(&wal), events()), (lost(0), lost(0)));
    assert_eq!(wal.replica(1).get(b"big").expect("whole").as_deref(), Some(&values[2][..]));
    rot(&disk, &values[2]);
    assert_eq!((found(&wal), events()), (lost(1), lost(1)));
}

/// Values are told of one by one, not by how many there are.
#[test]
fn another_value_that_rots_is_told_though_the_first_was_put_again() {
    let (disk, told) = (Arc::new(SimDisk::new(4 << 20)), Arc::new(Told::default()));
    let wal = open(options(Placement::Auto).listener(Arc::clone(&told) as Arc<dyn Listener>), &disk);
    let values = [1, 2, 3].map(|n| payload(1, n, 1, 9000));
    let rot = |value: &[u8]| {
        let image = disk.kept_image();
        let at = image.windows(64).position(|bytes| *bytes == value[5000..5064]).expect("on the disk");
        disk.flip_bit(at as u64, 3);
    };
    let lost = [Damage { replica: 1, lost: Lost::State }];
    let events = || std::mem::take(&mut *told.0.lock().expect("no panic"));
    let is_found = || assert!(scrub(&wal).iter().all(|one| one.damage == lost));
    wal.commit(Batch::new().put(1, b"a", &values[0]).put(1, b"b", &values[1])).expect("room");
    rot(&values[0]);
    is_found();
    assert_eq!(events(), lost);
    wal.commit(Batch::new().put(1, b"a", &values[2])).expect("room");
    rot(&values[1]);
    is_found();
    assert_eq!(events(), lost);
    is_found();
    assert_eq!(events(), [], "it is known by now");
}

/// A small value lies in the table of a frame; what is in memory is right, and nobody asks the disk for it before the next crash.
#[test]
fn a_rotten_frame_is_found_and_what_it_said_is_written_anew() {
    const VOTE: &[u8] = b"term 7, voted for the replica of node 3";
    for fill in [20, 0] {
        let disk = Arc::new(SimDisk::new(4 << 20));
        let wal = open(options(Placement::Auto), &disk);
        wal.commit(Batch::new().put(7, b"hard_state", VOTE)).expect("committed");
        for index in 1..=fill {
            wal.commit(Batch::new().append(2, &[(index, 1, payload(2, index, 1, 3000))])).expect("committed");
        }
        assert_sound(&wal, "before it rots");
        let image = disk.kept_image();
        let at = image.windows(VOTE.len()).position(|w| w == VOTE).expect("it is there") as u64;
        disk.flip_bit(at + 9, 3);
        let report = wal.verify(|_| ()).expect("read");
        assert!(!report.is_clean() && report.rotten_frames == 1, "behind it {fill} entries: {report:?}");
        let found = wal.scrub(u64::MAX, |_| ControlFlow::Continue(())).expect("scrubbed");
        assert!(found.rotten_frames == 1 && found.healed, "{found:?}");
        let found = wal.scrub(u64::MAX, |_| ControlFlow::Continue(())).expect("scrubbed");
        assert_eq!(found, Default::default(), "nothing is left of it");
        assert_sound(&wal, "after the scrub");
        let disk = Arc::new(disk.crash_lost_all());
        drop(wal);
        let wal = open(options(Placement::Auto), &disk);
        assert_eq!(wal.damage(), [], "behind it {fill} entries");
        assert_eq!(wal.replica(7).get(b"hard_state").expect("whole").as_deref(), Some(VOTE));
        for index in 1..=fill {
            assert_eq!(wal.replica(2).entry(index).expect("whole").data, payload(2, index, 1, 3000));
        }
        assert_sound(&wal, "opened again");
    }
}

/// Where the frames of a log that was never cleaned are in the file.
fn frames(image: &[u8]) -> Vec<(u64, FrameHeader)> {
    let superblock = Superblock::decode(&image[..SUPERBLOCK_BYTES], image.len() as u64).expect("whole");
    let mut found = Vec::new();
    for slab in superblock.journal_slabs.iter().map(|&slab| superblock.slab_offset(slab)) {
        for at in (0..u64::from(superblock.segment_bytes)).step_by(4096) {
            let from = (slab + at) as usize;
            let bytes = &image[from..from + FRAME_HEADER_BYTES];
            let header = FrameHeader::decode(superblock.seed(), at, superblock.segment_bytes.into(), bytes);
            found.extend(header.map(|header| (slab + at, header)));
        }
    }
    found
}

/// Frames in several segments, among them the one that is being written.
#[test]
fn whichever_frame_rots_it_is_found_and_healed() {
    let fill = |wal: &Wal| {
        for index in 1..=24 {
            let mut batch = Batch::new();
            batch.append(1, &[(index, 1, payload(1, index, 1, 5000))]).put(index, b"vote", &[index as u8; 50]);
            wal.commit(&mut batch).expect("committed");
        }
    };
    let assert_whole = |wal: &Wal, what: &str| {
        assert_eq!(wal.damage(), [], "{what}");
        for index in 1..=24 {
            assert_eq!(wal.replica(1).entry(index).expect(what).data, payload(1, index, 1, 5000));
            let vote = wal.replica(index).get(b"vote").expect(what);
            assert_eq!(vote.as_deref(), Some(&[index as u8; 50][..]), "{what}");
        }
        assert_sound(wal, what);
    };
    let options = || options(Placement::Journal);
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = open(options(), &disk);
    fill(&wal);
    let frames = frames(&disk.kept_image());
    let segments: BTreeSet<u64> = frames.iter().map(|(_, header)| header.lsn >> 16).collect();
    assert!(frames.len() == 24 && segments.len() > 2, "{} frames in {} segments", frames.len(), segments.len());
    for (at, header) in frames {
        for (what, rots) in [("the header", at + 50), ("the table", at + header.table_range().start as u64 + 3)] {
            let what = &format!("{what} of the frame at {}", header.lsn);
            let disk = Arc::new(SimDisk::new(4 << 20));
            let wal = open(options(), &disk);
            fill(&wal);
            assert_whole(&wal, what);
            disk.flip_bit(rots, 3);
            assert_eq!(wal.verify(|_| ()).expect("read").rotten_frames, 1, "{what}");
            let found = wal.scrub(u64::MAX, |_| ControlFlow::Continue(())).expect("scrubbed");
            assert!(found.rotten_frames == 1 && found.healed, "{what}: {found:?}");
            assert_whole(&wal, what);
            let disk = Arc::new(disk.crash_lost_all());
            drop(wal);
            assert_whole(&open(options(), &disk), what);
        }
    }
}

/// There is a bad sector under a vote. Another one, under an entry, hinders the cleaner that is to heal it, but not the scrub before it
/// comes there itself.
#[test]
fn a_frame_that_cannot_be_read_is_healed_unless_an_entry_beside_it_cannot_either() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = open(options(Placement::Journal), &disk);
    wal.commit(Batch::new().put(7, b"vote", b"of 7")).expect("committed");
    fill(&wal, 8..=9);
    drop(wal);
    let disk = Arc::new(disk.restart());
    let wal = open(options(Placement::Journal), &disk);
    let image = disk.kept_image();
    let find = |wanted: &[u8]| image.windows(wanted.len()).position(|w| w == wanted).expect("it is there") as u64;
    let (vote, entry) = (find(b"of 7"), find(&payload(9, 1, 1, 700)));
    disk.fail_reads(vote..vote + 1, EIO);
    disk.fail_reads(entry..entry + 1, EIO);
    let mut told = Vec::new();
    let hindered = wal.scrub(u64::MAX, |one| {
        told.push(one.replica);
        ControlFlow::Continue(())
    });
    assert!(matches!(hindered, Err(Error::Io { .. })) && told == [7, 8], "{hindered:?}, {told:?}");
    disk.heal_reads();
    disk.fail_reads(vote..vote + 1, EIO);
    let found = wal.scrub(u64::MAX, |_| ControlFlow::Continue(())).expect("scrubbed");
    assert!(found.rotten_frames == 1 && found.healed, "{found:?}");
    let disk = Arc::new(disk.crash_lost_all());
    drop(wal);
    let wal = open(options(Placement::Journal), &disk);
    assert_eq!(wal.replica(7).get(b"vote").expect("whole").as_deref(), Some(&b"of 7"[..]));
    assert_sound(&wal, "healed");
}

/// Otherwise no other replica would be looked at as long as the sector is bad.
#[test]
fn a_bad_sector_under_one_replica_keeps_no_other_from_being_looked_at() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = open(options(Placement::Journal), &disk);
    fill(&wal, 7..=9);
    wal.commit(Batch::new().put(7, b"large", &[7; 20_000])).expect("committed");
    drop(wal);
    let disk = Arc::new(disk.restart());
    let wal = open(options(Placement::Journal), &disk);
    let image = disk.kept_image();
    let find = |wanted: &[u8]| image.windows(wanted.len()).position(|w| w == wanted).expect("it is there") as u64;
    let (unread, value) = (find(&payload(7, 1, 1, 700)), find(&[7; 20_000]) + 10_000);
    disk.fail_reads(unread..unread + 1, EIO);
    disk.fail_reads(value..value + 1, EIO);
    disk.flip_bit(find(&payload(9, 1, 1, 700)), 3);
    let lost = |replica, lost| Damage { replica, lost };
    let report = wal.verify(|_| ()).expect("verified");
    let [Damage { replica: 7, lost: Lost::Entries { first: 1, .. } }, state] = &report.unreadable[..] else {
        panic!("{report:?}")
    };
    assert!(*state == lost(7, Lost::State) && !report.is_clean(), "{report:?}");
    assert_eq!((report.replicas, &report.damage[..]), (3, &[lost(9, Lost::Entries { first: 1, last: 1 })][..]));
    let mut told = Vec::new();
    let outcome = wal.scrub(u64::MAX, |one| {
        told.push(one.replica);
        ControlFlow::Continue(())
    });
    assert!(matches!(outcome, Err(Error::Io { .. })) && told == [8, 9], "{outcome:?}, {told:?}");
    assert_eq!(wal.damage(), report.damage, "quarantined, and what may be readable tomorrow is not");
}

/// An entry is rotten when it is first read, and when it is looked at again the device does not answer: a bad sector like any other, which
/// may be readable tomorrow.
#[test]
fn a_sector_that_goes_bad_while_it_is_looked_at_keeps_no_other_from_being_looked_at() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = open(options(Placement::Journal), &disk);
    fill(&wal, 7..=9);
    wal.close().expect("closed");
    drop(wal);
    let image = disk.kept_image();
    let find = |wanted: &[u8]| image.windows(wanted.len()).position(|w| w == wanted).expect("it is there") as u64;
    let [going, rotten] = [payload(7, 7, 1, 700), payload(7, 15, 1, 700)].map(|payload| find(&payload) + 350);
    disk.flip_bit(find(&payload(9, 1, 1, 700)), 3);
    disk.flip_bit(going, 3);
    disk.flip_bit(rotten, 3);
    let scrubbed = |goes_at: u64| {
        let disk = disk.restart();
        let watched = Watched::new(disk, going);
        let wal = options(Placement::Journal).open_disk(watched.clone()).expect("opened");
        let (of, before) = (watched.disk.clone(), watched.reads.load(Ordering::SeqCst));
        *watched.hook.lock().expect("no panic") = Some(Box::new(move |n| {
            if n - before == goes_at {
                of.fail_reads(going..going + 1, EIO);
            }
        }));
        let mut told = Vec::new();
        let outcome = wal.scrub(u64::MAX, |one| {
            told.push(one.replica);
            ControlFlow::Continue(())
        });
        (outcome, told, wal.damage(), watched.reads.load(Ordering::SeqCst) - before)
    };
    let (outcome, told, damage, reads) = scrubbed(u64::MAX);
    assert!(outcome.is_ok() && told == [7, 8, 9] && reads > 1, "{outcome:?}, {told:?}");
    assert_eq!(damage, [lost(7, 7, 7), lost(7, 15, 15), lost(9, 1, 1)]);
    for goes_at in 1..=reads {
        let (outcome, told, damage, _) = scrubbed(goes_at);
        assert!(matches!(outcome, Err(Error::Io { .. })) && told == [8, 9], "{goes_at}: {outcome:?}, {told:?}");
        assert_eq!(
            damage,
            [lost(7, 15, 15), lost(9, 1, 1)],
            "{goes_at}: what may be readable tomorrow is not quarantined"
        );
    }
}

/// The frame cannot be healed there, and is told of.
#[test]
fn a_log_that_is_read_only_tells_of_a_rotten_frame() {
    let disk = Arc::new(SimDisk::new(4 << 20));
    let wal = open(options(Placement::Journal), &disk);
    fill(&wal, 1..=1);
    wal.commit(Batch::new().put(7, b"vote", b"of 7")).expect("committed");
    fill(&wal, 2..=2);
    let at = disk.kept_image().windows(4).position(|w| w == b"of 7").expect("it is there") as u64;
    drop(wal);
    let (reads, disk) = (|| options(Placement::Journal).read_only(true), Arc::new(disk.restart()));
    let wal = open(reads(), &disk);
    assert!(wal.verify(|_| ()).expect("read").is_clean());
    disk.flip_bit(at, 3);
    let rotted = |wal: &Wal| {
        let found = wal.scrub(u64::MAX, |_| ControlFlow::Continue(())).expect("scrubbed");
        (wal.verify(|_| ()).expect("read").rotten_frames, found.rotten_frames, found.healed)
    };
    assert_eq!(rotted(&wal), (1, 1, false));
    drop(wal);
    let wal = open(reads(), &Arc::new(disk.restart()));
    assert_eq!((rotted(&wal), wal.damage()), ((1, 1, false), vec![Damage { replica: 7, lost: Lost::State }]));
}

//! `hostile_image`: whatever the file holds, opening it gives an error or a log that works. No panic, no hang, no memory without bound.
//!
//! Either the input *is* the file; or it is a list of edits to a valid one, after which the checksums over each edit are repaired:
//! otherwise the fuzzer would never get past them.

use std::ops::ControlFlow;
use std::sync::Arc;

use strandlog::disk::sim::SimDisk;
use strandlog::format::frame::FrameHeader;
use strandlog::format::piece::{Extent, PIECE_HEADER_BYTES, PieceHeader};
use strandlog::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, Snapshot};
use strandlog::format::{BLOCK_BYTES, Reader, varint};
use strandlog::{Batch, Error, RecoveryMode, Wal};

use super::craft;
use super::input::Input;
use super::specimen::{Frame, Specimen, specimens};

/// Runs one input.
///
/// # Panics
/// When the log panics.
pub fn run(bytes: &[u8]) {
    is_worked_on(bytes);
}

/// As [`run`]; answers whether the image was a log, so that everything was done to it.
///
/// # Panics
/// When the log panics.
pub fn is_worked_on(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let mode = input.u8();
    let image = if mode & 3 == 0 { raw(&mut input) } else { edited(&specimens()[specimen(mode)], &mut input) };
    let disk = Arc::new(SimDisk::from_image(image));
    if mode & 0x80 != 0 {
        look_only(&disk, RecoveryMode::TolerateTornTail);
    }
    if mode & 0x40 != 0 {
        look_only(&disk, RecoveryMode::Salvage);
    }
    exercise(&disk)
}

fn specimen(mode: u8) -> usize {
    if mode & 0x13 == 0x13 { 4 } else { usize::from(mode >> 2) % 4 }
}

/// The input is the file's content, from any place on.
fn raw(input: &mut Input<'_>) -> Vec<u8> {
    let (blocks, at) = (input.below(256), input.u32() as usize);
    let bytes = input.rest();
    let mut image = vec![0; bytes.len().max(blocks * BLOCK_BYTES as usize)];
    let at = at % (image.len() - bytes.len() + 1);
    image[at..][..bytes.len()].copy_from_slice(bytes);
    image
}

/// A valid file, edited.
fn edited(specimen: &Specimen, input: &mut Input<'_>) -> Vec<u8> {
    let mut s = specimen.clone();
    while !input.is_empty() {
        match input.u8() % 12 {
            0 => superblock(&mut s, input),
            1 | 2 => header(&mut s, input),
            3 | 4 => table(&mut s, input),
            5 | 6 => crafted(&mut s, input),
            7 => successor(&mut s, input),
            8 => piece(&mut s, input),
            9 => rot(&mut s, input),
            10 => misdirect(&mut s, input),
            _ => rechain(&mut s),
        }
    }
    s.image
}

/// Changes a field of both superblocks.
fn superblock(s: &mut Specimen, input: &mut Input<'_>) {
    let sb = &mut s.superblock;
    // Apart from the values below: the corpora are older than `durable`.
    match input.u8() {
        255 => sb.durable = input.number(sb.durable),
        what => return superblock_field(s, what, input),
    }
    vouch(s, input.u8());
}

fn superblock_field(s: &mut Specimen, what: u8, input: &mut Input<'_>) {
    let sb = &mut s.superblock;
    match what % 10 {
        9 => return snapshot(s, input),
        0 => sb.epoch = input.number(sb.epoch),
        1 => sb.chunk_bytes = input.number(sb.chunk_bytes.into()) as u32,
        2 => sb.segment_bytes = 1 << (input.u8() % 32),
        3 => sb.slab_count = input.number(sb.slab_count.into()) as u32,
        4 => sb.journal_floor = input.number(sb.journal_floor.into()) as u32,
        5 => sb.journal_cap = input.number(sb.journal_cap.into()) as u32,
        6 => sb.journal_slabs.push(input.number(0) as u32),
        7 => drop(sb.journal_slabs.pop()),
        _ => sb.chunk_bytes = 1 << (input.u8() % 32),
    }
    vouch(s, input.u8());
}

/// Writes the superblock as it is now: one copy, or both.
fn vouch(s: &mut Specimen, which: u8) {
    let bytes = s.superblock.encode();
    for (i, at) in SUPERBLOCK_OFFSETS.into_iter().enumerate() {
        if which & 3 != i as u8 {
            s.image[at as usize..][..SUPERBLOCK_BYTES].copy_from_slice(&bytes);
        }
    }
}

/// Changes bytes of the snapshot, or where it lies; the superblocks vouch for it.
fn snapshot(s: &mut Specimen, input: &mut Input<'_>) {
    let Some(named) = &mut s.superblock.snapshot else { return };
    let place = |e: &Extent| e.offset() as usize..(e.offset() + e.bytes()) as usize;
    let mut bytes: Vec<u8> = named
        .extents
        .iter()
        .filter_map(|e| s.image.get(place(e)))
        .flatten()
        .copied()
        .take(named.bytes as usize)
        .collect();
    for _ in 0..1 + input.below(4) {
        match (input.u8() % 8, bytes.len()) {
            (0, _) => named.lsn = input.number(named.lsn),
            (1, n) => bytes.truncate(input.below(n + 1)),
            (_, 0) => {}
            (2, n) => drop(bytes.remove(input.below(n))),
            (3, n) => bytes.insert(input.below(n), input.u8()),
            (4, n) => {
                // A varint of any length.
                let mut number = Vec::new();
                varint::encode(input.number(1), &mut number);
                let at = input.below(n);
                bytes.splice(at..at, number);
            }
            (_, n) => bytes[input.below(n)] = input.u8(),
        }
    }
    bytes.truncate(named.extents.iter().map(|e| e.bytes() as usize).sum());
    named.bytes = bytes.len() as u64;
    named.crc = Snapshot::checksum(s.seed, s.superblock.epoch, &bytes);
    let mut rest = bytes.as_slice();
    for extent in &named.extents {
        let (part, tail) = rest.split_at(rest.len().min(extent.bytes() as usize));
        if let Some(room) = s.image.get_mut(place(extent)) {
            room[..part.len()].copy_from_slice(part);
        }
        rest = tail;
    }
    vouch(s, !0);
}

/// A frame, and the image from there on.
fn pick<'a>(s: &'a mut Specimen, input: &mut Input<'_>) -> (&'a mut Frame, &'a mut [u8]) {
    // Counted from the end: the newest matter most.
    let n = s.frames.len();
    let frame = &mut s.frames[n - 1 - usize::from(input.u8()) % n];
    let at = frame.at;
    (frame, &mut s.image[at..])
}

/// Changes a field of a frame's header.
fn header(s: &mut Specimen, input: &mut Input<'_>) {
    let seed = s.seed;
    let (frame, room) = pick(s, input);
    let h = &mut frame.header;
    match input.u8() {
        254 => h.next = input.number(h.next.into()) as u32,
        253 => h.after = input.number(h.after.into()) as u32,
        what => header_field(h, what, input),
    }
    if let Some(table) = room.get(h.table_range()) {
        h.table_crc = seed.crc(h.lsn, table);
    }
    h.encode(seed, room);
}

fn header_field(h: &mut FrameHeader, what: u8, input: &mut Input<'_>) {
    match what % 15 {
        0 => h.lsn = input.number(h.lsn),
        1 => h.session = input.number(h.session),
        2 => h.cut = input.number(h.cut),
        3 => h.blocks = input.number(h.blocks.into()) as u32,
        4 => h.prev_blocks = input.number(h.prev_blocks.into()) as u32,
        5 => h.prev_lsn = input.number(h.prev_lsn),
        6 => h.prev_hash = input.number(h.prev_hash),
        7 => h.payload_bytes = input.number(h.payload_bytes.into()) as u32,
        8 => h.table_bytes = input.number(h.table_bytes.into()) as u32,
        9 => h.payload_digest = input.u32(),
        10 => h.watermark = input.number(h.lsn),
        11 => h.tail_seq = input.number(h.tail_seq),
        12 => h.session = h.session.wrapping_add(u64::from(input.u8()) << 32),
        13 => h.prev_prev_hash = input.number(h.prev_prev_hash),
        _ => h.session |= !0 << 32,
    }
}

/// Changes bytes of a frame's table.
fn table(s: &mut Specimen, input: &mut Input<'_>) {
    let seed = s.seed;
    let (frame, room) = pick(s, input);
    let Some(mut table) = room.get(frame.header.table_range()).map(<[u8]>::to_vec) else { return };
    if table.is_empty() {
        return;
    }
    for _ in 0..1 + input.below(4) {
        let at = input.below(table.len());
        table[at] = input.u8();
    }
    craft::set_table(&mut frame.header, seed, room, &table);
}

/// Replaces a frame by one full of lies.
fn crafted(s: &mut Specimen, input: &mut Input<'_>) {
    let seed = s.seed;
    let segment = u64::from(s.superblock.segment_bytes);
    let (frame, room) = pick(s, input);
    let left = segment.saturating_sub(frame.header.lsn % segment.max(1)) as usize;
    let left = left.min(room.len());
    if left >= BLOCK_BYTES as usize {
        frame.header = craft::frame(input, frame.header, seed, &mut room[..left]);
    }
}

/// Adds a frame full of lies behind the last.
fn successor(s: &mut Specimen, input: &mut Input<'_>) {
    let Some(last) = s.frames.last() else { return };
    let (prev, segment) = (last.header, u64::from(s.superblock.segment_bytes).max(1));
    let at = last.at.saturating_add(prev.bytes() as usize);
    let left = segment.saturating_sub(prev.end() % segment) as usize;
    let header = FrameHeader {
        lsn: prev.end(),
        prev_lsn: prev.lsn,
        prev_blocks: prev.blocks,
        prev_hash: prev.hash(s.seed),
        prev_prev_hash: prev.prev_hash,
        watermark: if input.bool() { prev.end() } else { prev.watermark },
        ..prev
    };
    let Some(room) = s.image.get_mut(at..).filter(|_| prev.end() % segment != 0) else { return };
    let left = left.min(room.len());
    if left >= BLOCK_BYTES as usize {
        let header = craft::frame(input, header, s.seed, &mut room[..left]);
        s.frames.push(Frame { at, header });
    }
}

/// Changes a piece's header and slots.
fn piece(s: &mut Specimen, input: &mut Input<'_>) {
    if s.pieces.is_empty() {
        return;
    }
    let at = s.pieces[input.below(s.pieces.len())];
    let room = &mut s.image[at..];
    let Some((mut header, _)) = PieceHeader::decode(s.seed, room) else { return };
    let slot = input.below(64);
    if let Some(bytes) = room.get_mut(PIECE_HEADER_BYTES + slot..).and_then(|b| b.get_mut(..4)) {
        bytes.copy_from_slice(&(input.number(1) as u32).to_le_bytes());
    }
    match input.u8() % 5 {
        0 => header.first = input.number(header.first),
        1 => header.replica = input.number(header.replica),
        2 => header.bytes = input.number(header.bytes.into()) as u32,
        _ => {}
    }
    header.seal(s.seed, room);
}

/// Changes bytes, and repairs nothing.
fn rot(s: &mut Specimen, input: &mut Input<'_>) {
    let at = input.u32() as usize % s.image.len();
    let n = input.below(32);
    for (old, new) in s.image[at..].iter_mut().zip(input.take(n)) {
        *old = *new;
    }
}

/// Copies a block over another.
fn misdirect(s: &mut Specimen, input: &mut Input<'_>) {
    let block = BLOCK_BYTES as usize;
    let n = s.image.len() / block;
    let (from, to) = (input.below(n) * block, input.below(n) * block);
    s.image.copy_within(from..from + block, to);
}

/// Makes every frame name its predecessor again.
fn rechain(s: &mut Specimen) {
    let mut prev: Option<FrameHeader> = None;
    for frame in &mut s.frames {
        let room = &mut s.image[frame.at..];
        // Overwritten by a longer neighbour, or by a piece: no longer a frame.
        if Reader::new(room).u32() != Reader::new(&encoded(frame, s.seed)).u32() {
            continue;
        }
        if let Some(prev) = prev {
            (frame.header.prev_lsn, frame.header.prev_blocks) = (prev.lsn, prev.blocks);
            (frame.header.prev_hash, frame.header.prev_prev_hash) = (prev.hash(s.seed), prev.prev_hash);
            frame.header.encode(s.seed, room);
        }
        prev = Some(frame.header);
    }
}

fn encoded(frame: &Frame, seed: strandlog::format::Seed) -> Vec<u8> {
    let mut bytes = vec![0; strandlog::format::frame::FRAME_HEADER_BYTES];
    frame.header.encode(seed, &mut bytes);
    bytes
}

/// A read-only opening writes nothing, whatever it finds.
fn look_only(disk: &SimDisk, mode: RecoveryMode) {
    // A log gives up its disk: the next one opens a copy.
    let disk = Arc::new(disk.clone());
    let events = disk.events();
    if let Ok(wal) = super::open(&disk, super::options().read_only(true).recovery_mode(mode)) {
        read_all(&wal);
        if mode == RecoveryMode::Salvage {
            salvage(&wal);
        }
    }
    assert_eq!(disk.events(), events, "a read-only opening wrote");
}

/// What is copied compares, and the copy is a log as any other.
fn salvage(wal: &Wal) {
    let disk = Arc::new(SimDisk::new(2 * super::DISK));
    let copy = super::open(&disk, super::options().capacity(2 * super::DISK)).expect("a blank disk is formatted");
    let outcome = wal.salvage_into(&copy, |_| ());
    // Any other refusal says that the copy lacks room.
    assert!(
        !matches!(outcome, Err(Error::Damaged(_) | Error::Contradiction { .. } | Error::Gap { .. })),
        "{outcome:?}"
    );
    allowed(outcome);
    read_all(&copy);
}

/// Does everything that can be done to a log.
fn exercise(disk: &Arc<SimDisk>) -> bool {
    let Ok(wal) = super::open(disk, super::options()) else { return false };
    read_all(&wal);
    let ids = wal.replicas();
    for id in ids.iter().copied().take(8).chain([77]) {
        let mut batch = Batch::new();
        let next = wal.replica(id).last_index().saturating_add(1);
        batch.append(id, &[(next, 1, b"appended")]).put(id, b"state", b"changed");
        allowed(wal.commit(batch));
    }
    allowed(wal.checkpoint());
    if let Some(&id) = ids.first() {
        let mut batch = Batch::new();
        batch.install_snapshot(id, wal.replica(id).last_index().min(u64::MAX - 1), 9);
        allowed(wal.commit(batch));
    }
    read_all(&wal);
    let before = extents(&wal);
    // A snapshot is believed without the frames that it stands for: if these were forged, the journal says otherwise.
    let from_journal = wal.stats().opened_by_snapshot == 0;
    if wal.close().is_ok() {
        let disk = Arc::new(disk.restart());
        if from_journal {
            let reader = super::open(&Arc::new((*disk).clone()), super::options().read_only(true));
            assert_eq!(extents(&reader.expect("what was closed can be read")), before, "the journal says otherwise");
        }
        let wal = super::open(&disk, super::options()).expect("what was closed opens again");
        assert_eq!(extents(&wal), before, "the log changed while it was closed");
        read_all(&wal);
        go_on(&wal);
        if from_journal && wal.sync().is_ok() {
            let before = extents(&wal);
            let wal = super::open(&Arc::new(disk.crash_lost_all()), super::options()).expect("what was synced opens");
            assert_eq!(extents(&wal), before, "the log changed when its process died");
            read_all(&wal);
        }
    }
    true
}

/// What was added to this target later: reports, removal and a new life, large values, a scrub.
fn go_on(wal: &Wal) {
    let mut batch = Batch::new();
    for (i, id) in wal.replicas().into_iter().take(8).enumerate() {
        let (first, last) = wal.replica(id).bounds();
        match i % 4 {
            0 => batch.durable_applied(id, first.saturating_sub(1)).truncate_prefix(id, last),
            1 => batch.put(id, b"large", &[6; 9000]),
            2 => batch.truncate_suffix(id, last.max(1)),
            _ => batch.remove(id),
        };
        allowed(wal.commit(&mut batch));
        batch.clear();
        batch.durable_applied(id, last).append(id, &[(wal.replica(id).last_index().saturating_add(1), 2, b"anew")]);
        allowed(wal.commit(&mut batch));
        batch.clear();
    }
    allowed(wal.scrub(u64::MAX, |_| ControlFlow::Continue(())));
    allowed(wal.checkpoint());
    read_all(wal);
}

fn extents(wal: &Wal) -> Vec<(u64, (u64, u64))> {
    wal.replicas().into_iter().map(|id| (id, wal.replica(id).bounds())).collect()
}

/// Refusals with a reason are fine; nothing is wrong with the disk.
fn allowed<T>(outcome: strandlog::Result<T>) {
    assert!(!matches!(outcome, Err(Error::Poisoned { .. } | Error::Io { .. })), "{:?}", outcome.err());
}

fn read_all(wal: &Wal) {
    for id in wal.replicas().into_iter().take(32) {
        let replica = wal.replica(id);
        let (first, last) = replica.bounds();
        for index in [0, first.saturating_sub(1), first, last, last.saturating_add(1), u64::MAX] {
            let _ = (replica.term(index), replica.entry(index));
        }
        let mut next = first;
        for _ in 0..64 {
            match replica.entries(next..last.saturating_add(1), 16 << 10) {
                Ok(entries) if !entries.is_empty() => next += entries.len() as u64,
                Err(Error::Damaged(_)) if next < last => next += 1,
                _ => break,
            }
        }
        for key in replica.keys() {
            let _ = replica.get(&key);
        }
    }
    let _ = (wal.damage(), wal.stats());
    let report = wal.verify(|_| ()).expect("the disk is whole");
    assert!(report.accounting.is_empty(), "{:?}", report.accounting);
}

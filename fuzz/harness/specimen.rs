//! Valid images to start from, with a map of what lies where in them, so that after an edit every checksum over it can be repaired.

use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use strandlog::disk::sim::SimDisk;
use strandlog::format::frame::FrameHeader;
use strandlog::format::piece::PieceHeader;
use strandlog::format::superblock::{SUPERBLOCK_BYTES, Superblock};
use strandlog::format::{BLOCK_BYTES, POOL_OFFSET, Seed};
use strandlog::{Batch, Placement, Wal};

/// A frame of a specimen.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Where it lies in the image.
    pub at: usize,
    pub header: FrameHeader,
}

/// A valid image with its map.
#[derive(Clone, Debug)]
pub struct Specimen {
    pub image: Vec<u8>,
    pub superblock: Superblock,
    pub seed: Seed,
    /// In order of LSN.
    pub frames: Vec<Frame>,
    /// Where pieces lie.
    pub pieces: Vec<usize>,
}

/// The specimens: small and closed; small and cut off; large entries; churned until segments and chunks were used anew; all that a snapshot can hold.
pub fn specimens() -> &'static [Specimen; 5] {
    static ALL: OnceLock<[Specimen; 5]> = OnceLock::new();
    ALL.get_or_init(|| {
        [
            make(Placement::Auto, |wal, _| {
                small(wal);
                wal.close().expect("closes");
            }),
            make(Placement::Auto, |wal, _| small(wal)),
            make(Placement::Chain, |wal, _| large(wal)),
            make(Placement::Auto, |wal, _| churn(wal)),
            make(Placement::Auto, everything),
        ]
    })
}

fn make(placement: Placement, fill: fn(&Wal, &SimDisk)) -> Specimen {
    let disk = Arc::new(SimDisk::new(super::DISK));
    let wal = super::open(&disk, super::options().placement(placement)).expect("a blank disk is formatted");
    fill(&wal, &disk);
    drop(wal);
    survey(disk.kept_image())
}

fn survey(image: Vec<u8>) -> Specimen {
    let superblock = Superblock::decode(&image[..SUPERBLOCK_BYTES], image.len() as u64).expect("a valid image");
    let seed = superblock.seed();
    let segment = u64::from(superblock.segment_bytes);
    let (mut frames, mut pieces) = (Vec::new(), Vec::new());
    for at in (POOL_OFFSET as usize..image.len()).step_by(BLOCK_BYTES as usize) {
        let within = (at as u64 - POOL_OFFSET) % segment;
        if let Some(header) = FrameHeader::decode(seed, within, segment, &image[at..]) {
            frames.push(Frame { at, header });
        }
        if PieceHeader::decode(seed, &image[at..]).is_some() {
            pieces.push(at);
        }
    }
    frames.sort_by_key(|f| f.header.lsn);
    Specimen { image, superblock, seed, frames, pieces }
}

fn commit(wal: &Wal, fill: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    fill(&mut batch);
    wal.commit(batch).expect("there is room");
}

fn small(wal: &Wal) {
    for id in 1..=4 {
        commit(wal, |b| {
            b.append(id, &[(1, 1, vec![1; 100]), (2, 1, vec![2; 10]), (3, 2, vec![])]).put(id, b"state", b"voted");
        });
    }
    commit(wal, |b| {
        b.append(1, &[(2, 3, vec![7; 300])]).truncate_prefix(2, 3).remove(3).install_snapshot(4, 50, 5);
        b.delete(2, b"state");
    });
    commit(wal, |b| {
        b.append(1, &[(3, 3, vec![8; 50])]).append(4, &[(51, 6, vec![9; 50])]);
    });
}

fn large(wal: &Wal) {
    commit(wal, |b| {
        b.append(1, &[(1, 1, vec![1; 9000]), (2, 1, vec![2; 100]), (3, 2, vec![3; 5000])]);
        b.put(1, b"large", &[5; 10_000]);
    });
    commit(wal, |b| {
        b.append(1, &[(3, 3, vec![4; 6000])]).append(2, &[(1, 1, vec![6; 3000])]);
    });
}

fn churn(wal: &Wal) {
    for i in 1..=150_u64 {
        commit(wal, |b| {
            b.append(1, &[(i, i / 40, vec![i as u8; 1500])]).append(2, &[(i, 1, vec![i as u8; 1000])]);
            b.append(3, &[(i, 1, vec![i as u8; 50])]).put(3, b"applied", &i.to_le_bytes());
            if i > 10 {
                b.truncate_prefix(2, i - 10);
            }
            if i == 100 {
                b.truncate_prefix(1, 60).put(2, b"large", &[1; 5000]);
            }
        });
    }
}

/// Pieces and runs, terms, a report, values within and without, a life behind a removal; an entry that rotted, and is known to be lost.
fn everything(wal: &Wal, disk: &SimDisk) {
    churn(wal);
    commit(wal, |b| {
        b.append(4, &[(1, 1, &[0xa5; 64]), (2, 1, &[0x5a; 64]), (3, 2, &[1; 64])]).durable_applied(4, 0);
    });
    let lies = disk.kept_image().windows(64).position(|bytes| bytes == [0x5a; 64]).expect("it is durable");
    disk.poke(lies as u64, b"rot");
    wal.scrub(u64::MAX, |_| ControlFlow::Continue(())).expect("readable");
    assert_eq!(wal.damage().len(), 1, "the entry is lost");
    commit(wal, |b| {
        b.durable_applied(3, 100).remove(2);
    });
    commit(wal, |b| {
        b.install_snapshot(2, 9, 1).append(2, &[(10, 1, b"anew")]).put(2, b"large", &[2; 7000]);
    });
    wal.close().expect("closes");
}

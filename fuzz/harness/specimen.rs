//! Valid images to start from, and what lies where in them: so that an edit can be followed by the repair of every checksum over it.

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

/// The specimens: small and closed; small and cut off; large entries; churned until segments and chunks were used anew.
pub fn specimens() -> &'static [Specimen; 4] {
    static ALL: OnceLock<[Specimen; 4]> = OnceLock::new();
    ALL.get_or_init(|| {
        [
            make(Placement::Auto, |wal| {
                small(wal);
                wal.close().expect("closes");
            }),
            make(Placement::Auto, small),
            make(Placement::Chain, large),
            make(Placement::Auto, churn),
        ]
    })
}

fn make(placement: Placement, fill: fn(&Wal)) -> Specimen {
    let disk = Arc::new(SimDisk::new(super::DISK));
    let wal = super::open(&disk, super::options().placement(placement)).expect("a blank disk is formatted");
    fill(&wal);
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

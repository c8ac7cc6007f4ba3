//! What a device holds: bytes that reads see, bytes that surely survive, and what lies between.
//!
//! For each 512-byte sector the medium keeps every version written since the last sync that covered
//! it, oldest first. A power cut may leave any of them, or what was there before all of them. A
//! sync that covers the sector ends the doubt: the newest version becomes the durable one.
//!
//! A version is *abandoned* when the write or the sync that should have made it durable failed. Later
//! syncs no longer cover it, as on a real system, where a failed sync leaves its pages marked clean;
//! only writing the sector again and syncing that does. Whoever opens the file next no longer believes such pages
//! (`FileDisk::open` has the system forget them), so what is read then is on the device.

use super::pages::Pages;
use std::{collections::BTreeMap, ops::Range, sync::Arc};

/// The unit that a device writes, and in which it may lose, tear or spoil what it was not asked to sync.
pub const SECTOR: usize = 512;

/// One write to a sector that no sync has covered yet.
#[derive(Clone)]
pub(super) struct Version {
    /// Which write it came from; grows with time, and over restarts.
    pub(super) write: u64,
    abandoned: bool,
    /// The bytes of the whole write, shared by its sectors.
    bytes: Arc<[u8]>,
    at: usize,
}

impl Version {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.at..self.at + SECTOR]
    }
}

#[derive(Clone)]
pub(super) struct Medium {
    live: Pages,
    durable: Pages,
    unsynced: BTreeMap<u64, Vec<Version>>,
    writes: u64,
}

impl Medium {
    pub(super) fn new(contents: Pages) -> Self {
        Self { live: contents.clone(), durable: contents, unsynced: BTreeMap::new(), writes: 0 }
    }

    pub(super) fn live(&self) -> &Pages {
        &self.live
    }

    pub(super) fn durable(&self) -> &Pages {
        &self.durable
    }

    /// The sectors in doubt, in order, each with its versions, oldest first.
    pub(super) fn unsynced(&self) -> impl Iterator<Item = (u64, &[Version])> {
        self.unsynced.iter().map(|(sector, versions)| (*sector, versions.as_slice()))
    }

    /// The numbers of the oldest and the newest write that left something in doubt.
    pub(super) fn writes_in_doubt(&self) -> (u64, u64) {
        let writes = || self.unsynced.values().flatten().map(|version| version.write);
        (writes().min().unwrap_or(0), writes().max().unwrap_or(0))
    }

    /// A write that succeeded, and that the next sync covers.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.live.write(offset, bytes);
        self.doubt(offset, bytes, false);
    }

    /// A write that is durable as it returns.
    pub(super) fn write_synced(&mut self, offset: u64, bytes: &[u8]) {
        self.live.write(offset, bytes);
        self.durable.write(offset, bytes);
        // The new bytes are what every covered sector now surely holds, whatever was in doubt.
        let sectors: Vec<u64> = self.unsynced.range(sectors(offset, bytes.len())).map(key).collect();
        for sector in sectors {
            self.unsynced.remove(&sector);
        }
    }

    /// A write that failed: the medium may hold it or not, and reads see it only if `visible`.
    pub(super) fn write_failed(&mut self, offset: u64, bytes: &[u8], visible: bool) {
        if visible {
            self.live.write(offset, bytes);
        }
        self.doubt(offset, bytes, true);
    }

    /// Makes every version durable that has not been abandoned.
    pub(super) fn sync(&mut self) {
        for (sector, mut versions) in std::mem::take(&mut self.unsynced) {
            if let Some(newest) = versions.iter().rposition(|version| !version.abandoned) {
                self.durable.write(sector * SECTOR as u64, versions[newest].bytes());
                // An abandoned version that came later stays in doubt; one from before is overwritten.
                versions.drain(..=newest);
            }
            if !versions.is_empty() {
                self.unsynced.insert(sector, versions);
            }
        }
    }

    /// A sync of everything has failed, and nothing that it should have covered ever will be.
    pub(super) fn abandon(&mut self) {
        for version in self.unsynced.values_mut().flatten() {
            version.abandoned = true;
        }
    }

    /// Another process opens the file and reads it from the device: what failed to be written is there or not, and the next sync covers
    /// that, too.
    pub(super) fn read_anew(&mut self) {
        for (sector, versions) in &mut self.unsynced {
            if versions.iter().any(|version| version.abandoned) {
                let mut bytes = vec![0; SECTOR];
                self.live.read(sector * SECTOR as u64, &mut bytes);
                self.writes += 1;
                *versions = vec![Version { write: self.writes, abandoned: false, bytes: bytes.into(), at: 0 }];
            }
        }
    }

    /// Changes bytes behind everybody's back: in what reads see, and in what surely survives.
    pub(super) fn damage(&mut self, offset: u64, bytes: &[u8]) {
        self.live.write(offset, bytes);
        self.durable.write(offset, bytes);
    }

    fn doubt(&mut self, offset: u64, bytes: &[u8], abandoned: bool) {
        self.writes += 1;
        let shared: Arc<[u8]> = bytes.into();
        for (i, sector) in sectors(offset, bytes.len()).enumerate() {
            self.unsynced.entry(sector).or_default().push(Version {
                write: self.writes,
                abandoned,
                bytes: shared.clone(),
                at: i * SECTOR,
            });
        }
    }
}

/// The sectors of a range of whole sectors.
fn sectors(offset: u64, len: usize) -> Range<u64> {
    let first = offset / SECTOR as u64;
    first..first + (len / SECTOR) as u64
}

fn key<V>((sector, _): (&u64, V)) -> u64 {
    *sector
}

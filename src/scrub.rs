//! Scrubbing: a slow verification of a log in use, which quarantines what it finds, and repairs what memory has right.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::caught::said;
use crate::engine::Engine;
use crate::error::{Damage, Error, Lost, Result};
use crate::events::Event;
use crate::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS};
use crate::index::{Cell, Loc, Place, ReplicaState};
use crate::verify::VerifyReport;

/// What a scrub found in one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scrubbed {
    /// Its id.
    pub replica: u64,
    /// Entries read.
    pub entries: u64,
    /// Bytes of payload read.
    pub bytes: u64,
    /// Its damage, known before or found now. Entries found damaged now are quarantined: from now on reads of them return this damage,
    /// also after the log is reopened.
    ///
    /// A [`Lost::State`] that [`Wal::damage`](crate::Wal::damage) does not name means that a large keyed value rotted. Each scrub reports it here, and so does
    /// [`Replica::get`](crate::Replica::get) of that key once it is no longer in memory, until the key is put
    /// again. It is not recorded, because the rest of the state is whole, including the vote.
    pub damage: Vec<Damage>,
    /// Rot that costs no data: in the header of a piece.
    pub structure: Vec<String>,
}

/// What a scrub found in the journal's frames, which hold hard states, other small values and all metadata, and in the superblock, without which
/// nothing in the file can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrubbedJournal {
    /// Frames whose header or table rotted, or cannot be read: see [`VerifyReport::rotten_frames`].
    pub rotten_frames: u64,
    /// Whether their contents were rewritten, durably, and their segments freed, so that nothing is lost. False if none rotted; also if the log is
    /// read-only or too full for it, or if something else in these segments cannot be read: then the next scrub tries again.
    pub healed: bool,
    /// How many of the two copies of the superblock were bad, could not be read, or had missed their last write. They were rewritten, durably, except
    /// in a read-only log, for which an older copy does not count as bad.
    pub bad_superblocks: u64,
}

/// Keeps a reader to a number of bytes a second, whatever the size of its reads.
#[derive(Debug)]
pub(crate) struct Pace {
    started: Instant,
    bytes: u64,
    rate: u64,
}

/// The least charge of a read: an entry without payload costs one, too.
const LEAST_BYTES: u64 = 512;
/// Shorter pauses are saved up.
const LEAST_PAUSE: Duration = Duration::from_millis(5);

impl Pace {
    pub fn new(bytes_per_second: u64) -> Self {
        Self { started: Instant::now(), bytes: 0, rate: bytes_per_second.max(1) }
    }

    /// Accounts for `bytes`; returns how far the reader is ahead of its rate after `elapsed`.
    fn ahead(&mut self, bytes: u64, elapsed: Duration) -> Duration {
        self.bytes = self.bytes.saturating_add(bytes.max(LEAST_BYTES));
        let micros = u128::from(self.bytes) * 1_000_000 / u128::from(self.rate);
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)).saturating_sub(elapsed)
    }

    fn keep(&mut self, bytes: u64) {
        let ahead = self.ahead(bytes, self.started.elapsed());
        if ahead >= LEAST_PAUSE {
            std::thread::sleep(ahead);
        }
    }
}

/// What hinders the cleaner is no reason to look no further: an entry that cannot be read is reported when it is looked at.
fn hindered(why: Error) -> Result<bool> {
    match why {
        Error::Io { .. } | Error::Full(_) => {
            tracing::warn!(target: "strandlog", %why, "what rotten frames said is not written anew");
            Ok(false)
        }
        why => Err(why),
    }
}

/// Where an entry was when it could not be read.
#[derive(PartialEq, Eq)]
enum Spot {
    Journal(Loc),
    Piece(u64),
}

fn spot(state: &ReplicaState, index: u64) -> Option<(u64, Spot)> {
    let held = state.exists && index >= state.first && index <= state.last && state.damage_at(index).is_none();
    let spot = match state.places.get(index).filter(|_| held)? {
        Place::Journal(loc) => Spot::Journal(loc),
        Place::Chain(piece) => Spot::Piece(piece.desc.id),
    };
    Some((state.incarnation, spot))
}

impl Engine {
    pub(crate) fn scrub(
        &self,
        bytes_per_second: u64,
        mut each: impl FnMut(&Scrubbed) -> ControlFlow<()>,
    ) -> Result<ScrubbedJournal> {
        if bytes_per_second == 0 {
            let (name, given) = ("bytes_per_second", "0".to_owned());
            return Err(Error::Option { name, given, range: "1 or more; u64::MAX for no limit".into() });
        }
        // Asked before everything is read, not only when the first damage is to be recorded.
        self.may_wait()?;
        let mut pace = Pace::new(bytes_per_second);
        // First, as what rotten frames say is lost with the next crash.
        let journal = self.scrub_journal(&mut pace)?;
        let mut cells = self.registry.all();
        cells.sort_unstable_by_key(|c| c.id);
        // A bad sector under one replica is reported when all others were looked at: otherwise nobody would look at them, as long as it is
        // there.
        let mut unreadable = None;
        for cell in cells {
            if !cell.lock().exists {
                continue;
            }
            if let Some(why) = self.seq.lock().stopped.clone() {
                return Err(why);
            }
            let mut report = VerifyReport::default();
            let mut found = self.check_replica(&cell, &mut report, |bytes| pace.keep(bytes))?;
            if !self.read_only {
                let second = self.quarantine(&cell, &report.damage)?;
                self.tell_of_values(&cell, found.rotten_values);
                found.unreadable = found.unreadable.or(second);
            }
            if let Some(why) = found.unreadable {
                unreadable.get_or_insert(why);
                continue;
            }
            let mut damage = report.damage;
            if !self.read_only {
                // As it stands now: entries that were truncated or healed meanwhile are no damage any more. Rot of a keyed value is
                // reported as found: nothing quarantines it.
                let state = Damage { replica: cell.id, lost: Lost::State };
                let found = damage.contains(&state);
                damage = cell.lock().damage(cell.id);
                if found && !damage.contains(&state) {
                    damage.push(state);
                }
            }
            let (entries, bytes) = (report.entries, report.bytes);
            let done = Scrubbed { replica: cell.id, entries, bytes, damage, structure: report.structure };
            if each(&done).is_break() {
                break;
            }
        }
        unreadable.map_or(Ok(journal), Err)
    }

    /// Repairs the superblock's copies, then has the segments freed in which a frame rotted: what is alive there is written anew, and what
    /// lay in tables comes out of memory. The next opening need not read what was freed.
    fn scrub_journal(&self, pace: &mut Pace) -> Result<ScrubbedJournal> {
        let bad_superblocks = self.heal_copies()?;
        pace.keep((SUPERBLOCK_OFFSETS.len() * SUPERBLOCK_BYTES) as u64);
        let rot = self.check_frames(|bytes| pace.keep(bytes));
        let mut journal = ScrubbedJournal { rotten_frames: rot.frames, healed: false, bad_superblocks };
        if let Some(newest) = rot.newest {
            tracing::error!(target: "strandlog", frames = rot.frames, "frames of the journal rotted");
            journal.healed = !self.read_only && self.clean_through(newest).or_else(hindered)?;
        }
        Ok(journal)
    }

    /// Records what is found damaged, durably. Every entry is looked at once more: **what is quarantined is lost**, so it must lie where it
    /// lay when it could not be read, and everything must be on the disk. An entry that the device does not return then may be readable
    /// tomorrow, as on any bad sector: it is no damage, and no hindrance to the others. Returns the first such error.
    fn quarantine(&self, cell: &Cell, found: &[Damage]) -> Result<Option<Error>> {
        let (mut hurt, mut unreadable) = (false, None);
        for damage in found {
            let Lost::Entries { first, last } = damage.lost else { continue };
            let mut next = Some(first);
            while let Some(index) = next.filter(|&index| index <= last) {
                // Known damage need not be looked at one by one: it may be all the numbers there are.
                let known = cell.lock().damage_at(index);
                next = known.map_or(index, |(_, end)| end).checked_add(1);
                if known.is_some() {
                    continue;
                }
                let Some(before) = spot(&cell.lock(), index) else { continue };
                self.sync()?;
                match self.check_entry(cell, index) {
                    Ok(None) => {}
                    Ok(Some(_)) => continue,
                    Err(error @ Error::Io { .. }) => {
                        unreadable.get_or_insert(error);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
                let mut s = self.seq.lock();
                let mut state = cell.lock();
                if spot(&state, index).as_ref() == Some(&before) {
                    self.forget_damaged(&mut s, cell.id, &mut state, index);
                    hurt = true;
                }
            }
        }
        if hurt {
            self.record_damage_of(cell)?;
        }
        Ok(unreadable)
    }

    /// Reports values that rotted, each once; `rotten` are their pieces. This damage of the state is not recorded: that would cost the
    /// replica its vote, which is whole.
    fn tell_of_values(&self, cell: &Cell, mut rotten: Vec<u64>) {
        if cell.lock().state_suspect {
            // All of its state has been reported as lost.
            rotten.clear();
        }
        let untold = {
            let mut told = self.rotten_values.lock();
            let before = told.remove(&cell.id).unwrap_or_default();
            let untold = rotten.iter().filter(|id| !before.contains(id)).count();
            if !rotten.is_empty() {
                told.insert(cell.id, rotten);
            }
            untold
        };
        for _ in 0..untold {
            said(|| tracing::error!(target: "strandlog", replica = cell.id, "a value is damaged"));
            self.events.tell(|| Event::Damaged(Damage { replica: cell.id, lost: Lost::State }));
        }
    }

    /// From now on the entry is damage: the cleaner leaves it, and nobody is given wrong bytes.
    pub(crate) fn forget_damaged(
        &self,
        s: &mut crate::journal::Sequencer,
        id: u64,
        state: &mut ReplicaState,
        index: u64,
    ) {
        self.events.say_later(move || tracing::error!(target: "strandlog", replica = id, index, "an entry is damaged"));
        self.events.later(|| Event::Damaged(Damage { replica: id, lost: Lost::Entries { first: index, last: index } }));
        state.places.forget_journal(index, index, self.geo.chunk_bytes);
        state.add_damage(index, index);
        self.counters.damaged_entries.add(1);
        self.recharge(s, state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_kept_over_all_and_catches_up_after_a_pause() {
        let mut pace = Pace::new(1_000_000);
        let second = Duration::from_secs(1);
        assert_eq!(pace.ahead(1_000_000, Duration::ZERO), second);
        assert_eq!(pace.ahead(1_000_000, second), second);
        assert_eq!(pace.ahead(1_000_000, 5 * second), Duration::ZERO);
        assert_eq!(pace.ahead(0, 3 * second), Duration::from_micros(LEAST_BYTES));
        assert_eq!(Pace::new(u64::MAX).ahead(u64::MAX, Duration::ZERO), second);
        assert_eq!(Pace::new(0).ahead(u64::MAX, Duration::ZERO), Duration::from_micros(u64::MAX));
    }

    #[cfg(not(any(loom, shuttle)))]
    #[test]
    fn what_is_known_is_told_once() {
        let disk = crate::sync::Arc::new(crate::disk::sim::SimDisk::new(4 << 20));
        let options = crate::Wal::options().segment_size(64 << 10).chunk_size(4096);
        let wal = options.background(false).open_disk(disk).expect("formatted");
        wal.commit(crate::Batch::new().append(1, &[(1, 1, b"one"), (2, 1, b"two")])).expect("committed");
        {
            let cell = wal.engine.registry.get(1).expect("there");
            let mut state = cell.lock();
            state.add_damage(1, 1);
            state.state_suspect = true;
        }
        let mut told = Vec::new();
        let scrubbed = wal.scrub(u64::MAX, |one| {
            told.extend_from_slice(&one.damage);
            ControlFlow::Continue(())
        });
        scrubbed.expect("scrubbed");
        let lost = |lost| Damage { replica: 1, lost };
        assert_eq!(told, [lost(Lost::Entries { first: 1, last: 1 }), lost(Lost::State)]);
    }

    /// All the numbers there are may be damage: nobody looks at them one by one.
    #[cfg(not(any(loom, shuttle)))]
    #[test]
    fn what_is_known_to_be_lost_takes_no_time() {
        let disk = crate::sync::Arc::new(crate::disk::sim::SimDisk::new(4 << 20));
        let options = crate::Wal::options().segment_size(64 << 10).chunk_size(4096);
        let wal = options.background(false).open_disk(disk).expect("formatted");
        wal.commit(crate::Batch::new().append(1, &[(1, 1, b"entry")])).expect("committed");
        let cell = wal.engine.registry.get(1).expect("there");
        {
            let mut state = cell.lock();
            state.last = u64::MAX - 1;
            state.add_damage(2, u64::MAX - 1);
        }
        let all = Damage { replica: 1, lost: Lost::Entries { first: 1, last: u64::MAX - 1 } };
        wal.engine.quarantine(&cell, &[all]).expect("looked at");
        assert_eq!(*cell.lock().damaged, [(2, u64::MAX - 1)]);
        assert!(wal.engine.is_in_memory(&cell, 1..u64::MAX, usize::MAX));
    }
}

//! All that a power cut may leave of a directory: every name, every size and every write in doubt, each independently.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::path::Path;

use super::filesystem::{Doubt, File, FileSystem, Number};

/// Of more writes in doubt than this, all but the last this many share one fate.
const ALONE: usize = 3;
/// The contents of the file with this name are varied closely. Under any other name a file is rubbish, to be removed as such.
const CLOSELY: &str = "log";

/// What the power cut makes of a write in doubt.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Kept,
    Lost,
    Garbage,
    /// Only its first so many bytes.
    Head(usize),
    /// All but its first so many bytes.
    Tail(usize),
}

/// A directory as it is found.
pub struct State {
    pub names: BTreeMap<String, Number>,
    files: BTreeMap<Number, Vec<u8>>,
    how: String,
}

impl State {
    /// Makes the directory; a file with two names is linked.
    pub fn write(&self, dir: &Path) -> std::io::Result<()> {
        let mut written: BTreeMap<Number, &str> = BTreeMap::new();
        for (name, number) in &self.names {
            match written.get(number) {
                Some(first) => std::fs::hard_link(dir.join(first), dir.join(name))?,
                None => std::fs::write(dir.join(name), &self.files[number])?,
            }
            written.entry(*number).or_insert(name);
        }
        Ok(())
    }

    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (name, number) in &self.names {
            // A file is told apart by what it holds and by which names share it, not by its number.
            let first = self.names.iter().find(|(_, n)| *n == number).map(|(name, _)| name);
            (name, first, &self.files[number]).hash(&mut hasher);
        }
        hasher.finish()
    }

    pub fn describe(&self) -> String {
        let sizes: Vec<_> = self.names.iter().map(|(name, n)| (name, *n, self.files[n].len())).collect();
        format!("{sizes:?}, {}", self.how)
    }
}

/// Every state that a cut at this moment may leave, until `seen` breaks off.
pub fn each(fs: &FileSystem, seen: &mut dyn FnMut(State) -> ControlFlow<()>) -> ControlFlow<()> {
    let mut ways: Vec<BTreeMap<String, Number>> = vec![BTreeMap::new()];
    for (name, leads) in &fs.names {
        let mut choices: Vec<_> = std::iter::once(leads.durable).chain(leads.since.iter().copied()).collect();
        choices.sort_unstable();
        choices.dedup();
        let with = |way: &BTreeMap<String, Number>, choice: &Option<Number>| {
            let mut way = way.clone();
            way.extend(choice.map(|number| (name.clone(), number)));
            way
        };
        ways = ways.iter().flat_map(|way| choices.iter().map(move |choice| with(way, choice))).collect();
    }
    for names in ways {
        let mut numbers: Vec<Number> = names.values().copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        each_file(fs, &numbers, &mut State { names, files: BTreeMap::new(), how: String::new() }, seen)?;
    }
    ControlFlow::Continue(())
}

fn each_file(
    fs: &FileSystem,
    numbers: &[Number],
    state: &mut State,
    seen: &mut dyn FnMut(State) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let Some((&number, rest)) = numbers.split_first() else {
        return seen(State { names: state.names.clone(), files: state.files.clone(), how: state.how.clone() });
    };
    let before = state.how.clone();
    let alone = if state.names.get(CLOSELY) == Some(&number) { ALONE } else { 0 };
    each_content(&fs.files[number], alone, &mut |bytes, how| {
        state.files.insert(number, bytes);
        state.how = format!("{before} file {number}: {how}");
        each_file(fs, rest, state, seen)
    })?;
    state.how = before;
    ControlFlow::Continue(())
}

/// Is given the bytes, and in words how they came to be so.
type Seen<'a> = &'a mut dyn FnMut(Vec<u8>, String) -> ControlFlow<()>;

/// Every content that the file may be found with.
fn each_content(file: &File, alone: usize, seen: Seen<'_>) -> ControlFlow<()> {
    let mut told = HashSet::new();
    for size in sizes(file.durable.len(), file.live.len()) {
        // What lies beyond the durable bytes and was not written may be zeros, or what the blocks held before.
        for garbage in [false, true] {
            let mut base = file.durable.clone();
            base.resize(file.live.len(), 0);
            if garbage {
                spoil(&mut base[file.durable.len()..]);
            }
            let rest = if garbage { "garbage" } else { "zeros" };
            each_fate(&file.doubts, alone, base, &mut Vec::new(), &mut |mut bytes, fates| {
                bytes.truncate(size);
                let mut hasher = DefaultHasher::new();
                bytes.hash(&mut hasher);
                if !told.insert(hasher.finish()) {
                    return ControlFlow::Continue(());
                }
                seen(bytes, format!("{size} bytes, {fates}, else {rest}"))
            })?;
        }
    }
    ControlFlow::Continue(())
}

fn each_fate(doubts: &[Doubt], alone: usize, base: Vec<u8>, fates: &mut Vec<Fate>, seen: Seen<'_>) -> ControlFlow<()> {
    let Some(first) = doubts.first() else { return seen(base, format!("{fates:?}")) };
    let together = if alone == 0 { doubts.len() } else { doubts.len().saturating_sub(alone).max(1) };
    let mut all = vec![Fate::Lost, Fate::Kept, Fate::Garbage];
    if together == 1 {
        let len = first.bytes.len();
        // Cut within the first few fields; after a sector or two; in the middle of a far one; before the last.
        let cuts = [1, 37, 100, 512, 1024, len / 2 + 100, len.saturating_sub(512)];
        all.extend(cuts.into_iter().filter(|cut| *cut < len).map(Fate::Head));
        all.extend([37, 512].into_iter().filter(|cut| *cut < len).map(Fate::Tail));
    }
    // Zeros over zeros are one case and not eight.
    let mut different: Vec<Vec<u8>> = Vec::new();
    for fate in all {
        let mut bytes = base.clone();
        for doubt in &doubts[..together] {
            apply(doubt, fate, &mut bytes);
        }
        if different.contains(&bytes) {
            continue;
        }
        different.push(bytes.clone());
        fates.push(fate);
        each_fate(&doubts[together..], alone, bytes, fates, seen)?;
        fates.pop();
    }
    ControlFlow::Continue(())
}

fn apply(doubt: &Doubt, fate: Fate, bytes: &mut [u8]) {
    let range = doubt.at..doubt.at + doubt.bytes.len();
    let before = bytes.to_vec();
    let target = &mut bytes[range];
    match fate {
        Fate::Lost => {}
        Fate::Kept => target.copy_from_slice(&doubt.bytes),
        Fate::Garbage => spoil(target),
        Fate::Head(n) => target[..n].copy_from_slice(&doubt.bytes[..n]),
        Fate::Tail(n) => target[n..].copy_from_slice(&doubt.bytes[n..]),
    }
    for settled in &doubt.settled {
        bytes[settled.clone()].copy_from_slice(&before[settled.clone()]);
    }
}

/// The sizes to try: both ends, and between them just begun, within and behind each part of the head of the file, half, one byte short.
fn sizes(durable: usize, live: usize) -> Vec<usize> {
    let marks = [
        1,
        4096,
        16 << 10,
        20_000,
        32 << 10,
        64 << 10,
        live / 2 + 1,
        live.saturating_sub(4096),
        live.saturating_sub(1),
    ];
    let mut sizes: Vec<usize> = marks.into_iter().filter(|mark| durable < *mark && *mark < live).collect();
    sizes.extend([durable, live]);
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// Fills the bytes with what nobody wrote.
fn spoil(bytes: &mut [u8]) {
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = (i as u32).wrapping_mul(0x9e37_79b1).wrapping_add(0x51).to_be_bytes()[0] | 1;
    }
}

//! Checks that all files of a raft-engine are there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result};

/// Digits of the number with which a file's name begins.
const DIGITS: usize = 16;
/// Suffixes of the two queues; each numbers its files without gaps.
const SUFFIXES: [&str; 2] = [".raftlog", ".rewrite"];
/// Every directory that an engine has used has a file of this name.
const LOCK: &str = "LOCK";

/// Refuses directories that are not raft-engine's, because it would turn them into its own; and files of which one is missing or there twice, because the
/// engine silently skips everything before a missing one. One reason for that is a spill-dir that was not named.
pub fn all_there(main: &Path, spill: Option<&Path>) -> Result<()> {
    let mut found = [const { BTreeMap::new() }; SUFFIXES.len()];
    for dir in [Some(main), spill].into_iter().flatten() {
        if dir.is_file() {
            return Err(Failure::Request(format!(
                "{} is a file, and a raft-engine is a directory: that comes first, and then the log that it is imported into",
                dir.display()
            )));
        }
        let mut is_used = false;
        let opening = |e| Failure::Request(format!("opening {}: {e}", dir.display()));
        for file in std::fs::read_dir(dir).map_err(opening)? {
            let name = file.map_err(opening)?.file_name();
            is_used |= name == LOCK && Some(dir) == spill;
            if let Some((queue, number)) = name.to_str().and_then(numbered) {
                is_used = true;
                if let Some(other) = found[queue].insert(number, dir.join(&name)) {
                    return Err(twice(&other, &dir.join(&name)));
                }
            }
        }
        if !is_used {
            return Err(Failure::Request(format!("{} holds no files of raft-engine", dir.display())));
        }
    }
    found.iter().zip(SUFFIXES).try_for_each(|(files, suffix)| contiguous(files, suffix))
}

/// The file's queue, and its number there.
fn numbered(name: &str) -> Option<(usize, u64)> {
    let (number, suffix) = name.split_at_checked(DIGITS)?;
    let queue = SUFFIXES.iter().position(|s| *s == suffix)?;
    number.parse().ok().map(|number| (queue, number))
}

fn contiguous(files: &BTreeMap<u64, PathBuf>, suffix: &str) -> Result<()> {
    let gap = files.iter().zip(files.keys().skip(1)).find(|((before, _), after)| **before + 1 < **after);
    let Some(((before, path), after)) = gap else { return Ok(()) };
    let named = |number: u64| format!("{number:0DIGITS$}{suffix}");
    let (first, last) = (named(before + 1), named(after - 1));
    let missing = if first == last { format!("{first} is") } else { format!("{first} to {last} are") };
    Err(Failure::Request(format!(
        "{missing} missing behind {}: name the engine's spill-dir, if it has one (--spill-dir). Without what is missing raft-engine counts \
         nothing that lies before it; where that is as it should be, move it away",
        path.display()
    )))
}

fn twice(one: &Path, other: &Path) -> Failure {
    Failure::Request(format!(
        "{} and {} are the same file of one engine: which of them counts?",
        one.display(),
        other.display()
    ))
}

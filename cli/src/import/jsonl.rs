//! Reading an export, line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};
use std::path::Path;

use strandlog::format::superblock::MAGIC;

use super::Items;
use crate::failure::{Failure, Result};
use crate::item::{Item, Line, Shape, Sums, parse};
use crate::save::{self, EXPORT};
use crate::size::with_spare;

/// The longest line: the largest entry as base64, and some bytes around it.
const LONGEST_LINE: u64 = strandlog::MAX_ENTRY_BYTES as u64 / 3 * 4 + (64 << 10);

/// How packed files begin, what they are called, and what unpacks them.
const PACKED: [(&[u8], &str, &str); 4] = [
    (b"\x1f\x8b", "gzip", "gzip -dc"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd -dc"),
    (b"\xfd7zXZ\0", "xz", "xz -dc"),
    (b"BZh", "bzip2", "bzip2 -dc"),
];

/// The lines of a file, or of standard input.
pub struct Lines {
    name: String,
    input: Box<dyn BufRead>,
    /// Length of the file; 0 if unknown.
    len: u64,
    read: u64,
    number: u64,
    line: Vec<u8>,
    shape: Shape,
    seen: Sums,
}

impl Lines {
    /// Opens the file, or standard input for `-`, and reads the first line. `into` is the log that the lines are for.
    pub fn open(path: &Path, into: &Path) -> Result<Self> {
        let (name, input, len): (String, Box<dyn BufRead>, u64) = if path.as_os_str() == "-" {
            ("standard input".into(), Box::new(BufReader::new(stdin())), 0)
        } else {
            let name = path.display().to_string();
            if path.is_dir() {
                return Err(Failure::Request(format!(
                    "{name} is a directory: `--from jsonl` reads a file that `strandlog export` wrote; a raft-engine is read with `--from raft-engine`"
                )));
            }
            let file = File::open(path).map_err(|e| Failure::Request(format!("opening {name}: {e}")))?;
            let len = file.metadata().map_or(0, |m| m.len());
            (name, Box::new(BufReader::with_capacity(1 << 20, file)), len)
        };
        let (line, shape, seen) = (Vec::new(), Shape::default(), Sums::default());
        let mut this = Self { name, input, len, read: 0, number: 0, line, shape, seen };
        match this.line() {
            Ok(Some(Line::Begin { shape, .. })) => this.shape = shape,
            // A layout that is not known, or one that is not whole.
            Err(failure) if this.line.starts_with(EXPORT) => return Err(failure),
            // It could not be read.
            Err(failure) if this.line.is_empty() => return Err(failure),
            _ => return Err(this.no_export(path, into)),
        }
        Ok(this)
    }

    /// Says what the file is instead of an export, and what to do.
    fn no_export(&self, path: &Path, into: &Path) -> Failure {
        let (name, shown) = (&self.name, into.display());
        let is_log = self.line.starts_with(&MAGIC) || save::is_log(path).unwrap_or(false);
        let packed = PACKED.iter().find(|(magic, ..)| self.line.starts_with(magic));
        let what = match packed {
            _ if is_log => "a strandlog file, a log itself".to_owned(),
            Some((_, kind, unpack)) => {
                format!("packed ({kind}): `{unpack} {name} | strandlog import --from jsonl - {shown}` unpacks it first")
            }
            None if self.line.is_empty() => "empty".to_owned(),
            None if serde_json::from_slice::<serde_json::Value>(&self.line).is_ok() => {
                "JSON, but no strandlog export begins like this".to_owned()
            }
            None => "not JSON".to_owned(),
        };
        let then = if save::is_export(into) {
            format!("; the export is {shown}, and comes first: `strandlog import --from jsonl {shown} {name}`")
        } else if is_log {
            format!(
                "; `strandlog export {name} --out LINES` writes what can be imported, and `strandlog salvage {name} NEW` copies the log itself"
            )
        } else if packed.is_some() {
            String::new()
        } else {
            "; wanted is what `strandlog export` wrote, and then the log that it is imported into".to_owned()
        };
        Failure::Request(format!("{name}, line 1: this is no export of a log, but {what}{then}"))
    }

    fn wrong(&self, why: &str) -> Failure {
        Failure::Request(format!("{}, line {}: {why}", self.name, self.number))
    }

    /// Refuses anything behind the end, such as a second export or an added line: skipping it would lose it silently.
    fn nothing_more(&mut self) -> Result<()> {
        if self.read_line()? { Err(self.wrong("something stands behind the end of the export")) } else { Ok(()) }
    }

    /// Returns whether there was a line.
    fn read_line(&mut self) -> Result<bool> {
        self.line.clear();
        self.number += 1;
        let read = (&mut self.input).take(LONGEST_LINE).read_until(b'\n', &mut self.line);
        self.read += read.map_err(|e| Failure::Request(format!("reading {}: {e}", self.name)))? as u64;
        Ok(!self.line.is_empty())
    }

    fn line(&mut self) -> Result<Option<Line>> {
        if !self.read_line()? {
            return Ok(None);
        }
        if self.line.len() as u64 == LONGEST_LINE {
            return Err(self.wrong("longer than any line of an export"));
        }
        parse(&self.line).map(Some).map_err(|why| self.wrong(&why))
    }
}

impl Items for Lines {
    fn shape(&self) -> Shape {
        Shape { capacity: with_spare(self.shape.capacity), ..self.shape }
    }

    fn next(&mut self) -> Result<Option<Item>> {
        match self.line()? {
            Some(Line::Item(item)) => {
                match item {
                    Item::Replica(_) => self.seen.replicas += 1,
                    Item::Key { .. } => self.seen.keys += 1,
                    Item::Entry { .. } => self.seen.entries += 1,
                }
                Ok(Some(item))
            }
            Some(Line::End(sums)) if sums == self.seen => self.nothing_more().map(|()| None),
            Some(Line::End(_)) => Err(self.wrong("lines are missing before this one")),
            Some(Line::Lost(what)) => Err(self.wrong(&format!(
                "{what} could not be exported; `strandlog salvage` copies such a log, and marks what is lost"
            ))),
            Some(Line::Begin { .. }) => Err(self.wrong("a second export begins here")),
            None => Err(self.wrong("the end is missing")),
        }
    }

    fn progress(&self) -> (u64, u64) {
        (self.read, self.len.max(self.read))
    }
}

//! Reading an export, line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};
use std::path::Path;

use super::Items;
use crate::failure::{Failure, Result};
use crate::item::{Item, Line, Shape, Sums, parse};
use crate::size::with_spare;

/// The longest line: the largest entry as base64, and some bytes around it.
const LONGEST_LINE: u64 = strandlog::MAX_ENTRY_BYTES as u64 / 3 * 4 + (64 << 10);

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
    /// Opens the file, or standard input for `-`, and reads the first line.
    pub fn open(path: &Path) -> Result<Self> {
        let (name, input, len): (String, Box<dyn BufRead>, u64) = if path.as_os_str() == "-" {
            ("standard input".into(), Box::new(BufReader::new(stdin())), 0)
        } else {
            let name = path.display().to_string();
            let file = File::open(path).map_err(|e| Failure::Request(format!("opening {name}: {e}")))?;
            let len = file.metadata().map_or(0, |m| m.len());
            (name, Box::new(BufReader::with_capacity(1 << 20, file)), len)
        };
        let (line, shape, seen) = (Vec::new(), Shape::default(), Sums::default());
        let mut this = Self { name, input, len, read: 0, number: 0, line, shape, seen };
        match this.line()? {
            Some(Line::Begin { shape, .. }) => this.shape = shape,
            _ => return Err(this.wrong("no strandlog export begins like this")),
        }
        Ok(this)
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

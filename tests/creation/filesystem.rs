//! A model of a file system that makes nothing durable before it must: sizes, contents and names, each independently.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::trace::Call;

/// A file's position among all files that there ever were.
pub type Number = usize;

/// A write that no sync has covered.
#[derive(Clone)]
pub struct Doubt {
    pub at: usize,
    pub bytes: Vec<u8>,
    /// Ranges that were durably written since: nothing of this write can come back there.
    pub settled: Vec<Range<usize>>,
}

#[derive(Clone, Default)]
pub struct File {
    pub durable: Vec<u8>,
    pub live: Vec<u8>,
    pub doubts: Vec<Doubt>,
    /// The end of what was written: a sync of the data alone leaves a size beyond it in doubt.
    written: usize,
}

impl File {
    pub fn whole(bytes: Vec<u8>) -> Self {
        Self { durable: bytes.clone(), written: bytes.len(), live: bytes, doubts: Vec::new() }
    }

    fn grow(&mut self, len: u64) {
        let len = usize::try_from(len).expect("small files");
        self.live.resize(self.live.len().max(len), 0);
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        let end = at + bytes.len() as u64;
        self.grow(end);
        let at = at as usize;
        self.live[at..at + bytes.len()].copy_from_slice(bytes);
        self.written = self.written.max(end as usize);
        self.doubts.push(Doubt { at, bytes: bytes.to_vec(), settled: Vec::new() });
    }

    /// Makes the newest write durable: its bytes, and as much of the size as it takes to read them.
    fn settle_newest(&mut self) {
        let Some(Doubt { at, bytes, .. }) = self.doubts.pop() else { return };
        let range = at..at + bytes.len();
        self.durable.resize(self.durable.len().max(range.end), 0);
        self.durable[range.clone()].copy_from_slice(&bytes);
        for older in &mut self.doubts {
            older.settled.push(range.clone());
        }
    }

    fn sync(&mut self, with_size: bool) {
        let size = if with_size { self.live.len() } else { self.durable.len().max(self.written) };
        self.durable = self.live[..size].to_vec();
        self.doubts.clear();
    }
}

/// What a name leads to.
#[derive(Clone, Default)]
pub struct Name {
    pub durable: Option<Number>,
    /// What it led to since the directory was synced, in order.
    pub since: Vec<Option<Number>>,
}

impl Name {
    pub fn live(&self) -> Option<Number> {
        self.since.last().copied().unwrap_or(self.durable)
    }
}

#[derive(Clone, Copy)]
enum Open {
    Directory,
    File {
        number: Number,
        /// Whether each write to it is durable.
        durable: bool,
    },
}

/// A system that says it has made something durable, and has not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lie {
    None,
    Directory,
    Files,
}

/// One directory, as a sequence of system calls leaves it.
pub struct FileSystem {
    dir: PathBuf,
    pub files: Vec<File>,
    pub names: BTreeMap<String, Name>,
    open: HashMap<u64, Open>,
    /// What the process has printed so far.
    pub said: String,
    lie: Lie,
}

impl FileSystem {
    /// A directory that holds these files, durably.
    pub fn new(dir: &Path, files: &[(&str, Vec<u8>)], lie: Lie) -> Self {
        let (mut names, mut all) = (BTreeMap::new(), Vec::new());
        for (name, bytes) in files {
            names.insert((*name).to_owned(), Name { durable: Some(all.len()), since: Vec::new() });
            all.push(File::whole(bytes.clone()));
        }
        Self { dir: dir.into(), files: all, names, open: HashMap::new(), said: String::new(), lie }
    }

    /// What a call does as soon as it is made. Returns whether that changed anything, on the disk or of what was promised.
    pub fn begin(&mut self, call: &Call) -> bool {
        match call.name.as_str() {
            "open" => return self.open("AT_FDCWD", call, 0),
            "openat" => return self.open(call.arg(0), call, 1),
            "dup" | "dup2" | "dup3" => self.duplicate(call),
            "fcntl" if call.arg(1).starts_with("F_DUPFD") => self.duplicate(call),
            "close" => drop(self.open.remove(&call.number(0))),
            "write" if call.number(0) == 1 => {
                self.said += &String::from_utf8_lossy(&call.bytes(1));
                return true;
            }
            "rename" => return self.rename(self.name("AT_FDCWD", call, 0), self.name("AT_FDCWD", call, 1), false),
            "renameat" | "renameat2" => {
                return self.rename(self.name(call.arg(0), call, 1), self.name(call.arg(2), call, 3), false);
            }
            "link" => return self.rename(self.name("AT_FDCWD", call, 0), self.name("AT_FDCWD", call, 1), true),
            "linkat" => return self.rename(self.name(call.arg(0), call, 1), self.name(call.arg(2), call, 3), true),
            "unlink" => return self.name("AT_FDCWD", call, 0).is_some_and(|name| self.point(name, None)),
            "unlinkat" => return self.name(call.arg(0), call, 1).is_some_and(|name| self.point(name, None)),
            "mmap" => {
                let ours = call.arg(4).parse().is_ok_and(|fd| self.open.contains_key(&fd));
                assert!(!ours || !call.has(2, "PROT_WRITE"), "writing through a mapping is not modelled");
            }
            "creat" | "truncate" => panic!("not modelled: {call}"),
            _ => return self.change(call),
        }
        false
    }

    /// What a call does to an open file. Returns whether that changed it.
    fn change(&mut self, call: &Call) -> bool {
        let Some(Open::File { number, .. }) = call.arg(0).parse().ok().and_then(|fd| self.open.get(&fd)).copied()
        else {
            // Not ours, or the directory, which is only ever synced.
            return false;
        };
        let file = &mut self.files[number];
        let before = file.live.len();
        match call.name.as_str() {
            "fallocate" if call.arg(1) == "0" => file.grow(call.number(2) + call.number(3)),
            "ftruncate" if call.number(1) >= before as u64 => file.grow(call.number(1)),
            "pwrite64" | "pwritev" | "pwritev2" => {
                let mut bytes = call.bytes(1);
                bytes.truncate(call.result as usize);
                assert_eq!(bytes.len() as u64, call.result, "the whole write is in the trace");
                file.write(call.number(3), &bytes);
                return true;
            }
            // Calls that sync do so when they return: see `end`. A call that only begins to write back promises nothing.
            "fsync" | "fdatasync" | "sync_file_range" | "fcntl" => {}
            _ => panic!("not modelled: {call}"),
        }
        file.live.len() != before
    }

    /// What a call has made durable when it returns. Returns whether it may have made anything durable.
    pub fn end(&mut self, call: &Call) -> bool {
        let Some(open) = call.arg(0).parse().ok().and_then(|fd| self.open.get(&fd)).copied() else { return false };
        match (call.name.as_str(), open) {
            ("fsync" | "fdatasync", Open::Directory) if self.lie != Lie::Directory => {
                for name in self.names.values_mut() {
                    *name = Name { durable: name.live(), since: Vec::new() };
                }
            }
            (sync @ ("fsync" | "fdatasync"), Open::File { number, .. }) if self.lie != Lie::Files => {
                self.files[number].sync(sync == "fsync");
            }
            ("pwrite64" | "pwritev" | "pwritev2", Open::File { number, durable }) => {
                if !(durable || call.has(4, "RWF_DSYNC") || call.has(4, "RWF_SYNC")) {
                    return false;
                }
                self.files[number].settle_newest();
            }
            _ => return false,
        }
        true
    }

    fn open(&mut self, dir: &str, call: &Call, at: usize) -> bool {
        let flags = at + 1;
        let Some(name) = self.name(dir, call, at) else {
            if Path::new(&call.text(at)) == self.dir {
                self.open.insert(call.result, Open::Directory);
            }
            return false;
        };
        let found = self.names.get(&name).and_then(Name::live);
        let number = found.unwrap_or_else(|| {
            assert!(call.has(flags, "O_CREAT"), "{name} is there, and was not made: {call}");
            self.files.push(File::default());
            self.files.len() - 1
        });
        assert!(found.is_none() || !call.has(flags, "O_TRUNC"), "cutting a file is not modelled");
        let durable = call.has(flags, "O_DSYNC") || call.has(flags, "O_SYNC");
        self.open.insert(call.result, Open::File { number, durable });
        found.is_none() && self.point(name, Some(number))
    }

    fn duplicate(&mut self, call: &Call) {
        if let Some(open) = self.open.get(&call.number(0)).copied() {
            self.open.insert(call.result, open);
        }
    }

    /// The name of a file in our directory; `None` if it lies elsewhere.
    fn name(&self, dir: &str, call: &Call, at: usize) -> Option<String> {
        let path = call.text(at);
        let within = dir.parse().ok().and_then(|fd| self.open.get(&fd));
        let path = if matches!(within, Some(Open::Directory)) { self.dir.join(path) } else { path.into() };
        (path.parent() == Some(&self.dir)).then(|| path.file_name()?.to_str().map(str::to_owned))?
    }

    /// A rename is two changes, of which each may come about without the other.
    fn rename(&mut self, from: Option<String>, to: Option<String>, keep: bool) -> bool {
        let (Some(from), Some(to)) = (from, to) else { return false };
        let number = self.names.get(&from).and_then(Name::live);
        self.point(to, number);
        keep || self.point(from, None)
    }

    fn point(&mut self, name: String, number: Option<Number>) -> bool {
        self.names.entry(name).or_default().since.push(number);
        true
    }
}

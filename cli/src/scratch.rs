//! Files that a measurement needs, and that go with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::failure::{Failure, Result};

/// What the shell says of who was ended by SIGINT.
const INTERRUPTED: i32 = 130;
/// Behind the name of a file that is being made.
const CREATING: &str = ".creating";

/// A file that is removed when this is dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A name in the directory that nobody else uses.
    pub fn new(dir: &Path, what: &str) -> Result<Self> {
        if !dir.is_dir() {
            return Err(Failure::Request(format!("{} is no directory", dir.display())));
        }
        Ok(Self(dir.join(format!("strandlog-{what}-{}.tmp", std::process::id()))))
    }

    /// Another one, with this behind its name.
    pub fn beside(&self, suffix: &str) -> Self {
        let mut path = self.0.clone().into_os_string();
        path.push(suffix);
        Self(path.into())
    }

    /// Where the file is, or will be.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Scratch {
    /// Asked while the file is being made: nothing was measured that could be shown, and it may take minutes still. Whoever interrupts that ends
    /// the process, and finds nothing left.
    pub fn end_if(&self, interrupt: &Interrupt) {
        if interrupt.came() {
            drop(self.beside(CREATING));
            std::process::exit(INTERRUPTED);
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may never have been made; and there is nobody left to tell.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Set when the user has had enough: what was measured so far is shown, and nothing is left behind.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens for an interruption from now on. A second one ends the process at once.
    pub fn new() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: the first signal finds the flag unset, and sets it.
            signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&flag))?;
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Self(flag))
    }

    /// Whether it came.
    pub fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What kind of file system a directory is on, and on which device, as the system calls them.
pub fn file_system(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    // Device, mount point, type. The longest mount point above the directory is the one; of two the later covers the earlier.
    let covers = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (device, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        // Spaces in names are written as octal.
        let point = point.replace("\\040", " ");
        dir.starts_with(&point).then(|| (point.len(), format!("{kind} on {device}")))
    });
    covers.max_by_key(|(len, _)| *len).map(|(_, name)| name)
}

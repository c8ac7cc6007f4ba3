//! Temporary files of a measurement, and its interruption.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::failure::{Failure, Result};

/// Exit code that a shell reports for a process ended by SIGINT.
const INTERRUPTED: i32 = 130;
/// Suffix of a file that is being created.
const CREATING: &str = ".creating";

/// A file that is removed when this is dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A file in the directory, under a name that no other process uses.
    pub fn new(dir: &Path, what: &str) -> Result<Self> {
        if !dir.is_dir() {
            return Err(Failure::Request(format!("{} is no directory", dir.display())));
        }
        Ok(Self(dir.join(format!("strandlog-{what}-{}.tmp", std::process::id()))))
    }

    /// Another file, with this suffix behind the name.
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
    /// Ends the process if it was interrupted, and leaves no file. Called while the file is being created, which may take minutes: nothing has been
    /// measured yet that could be shown.
    pub fn end_if(&self, interrupt: &Interrupt) {
        if interrupt.came() {
            drop(self.beside(CREATING));
            std::process::exit(INTERRUPTED);
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may never have been created, and there is nobody to tell.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Set when the user interrupts: what was measured so far is then shown, and nothing is left behind.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens for SIGINT, SIGTERM and SIGHUP from now on. A second one ends the process at once.
    pub fn new() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // The order matters: the first signal must find the flag unset, and then set it.
            signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&flag))?;
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Self(flag))
    }

    /// Whether a signal came.
    pub fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The file system that a directory is on, and its device, as the system names them.
pub fn file_system(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    // Device, mount point, type. The longest mount point above the directory counts; of two equal ones, the later covers the earlier.
    let covers = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (device, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        // Spaces in names are written in octal.
        let point = point.replace("\\040", " ");
        dir.starts_with(&point).then(|| (point.len(), format!("{kind} on {device}")))
    });
    covers.max_by_key(|(len, _)| *len).map(|(_, name)| name)
}

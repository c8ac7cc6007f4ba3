//! How a disk makes writes durable, and the figures behind the choice.

use std::fmt;

/// A way to make a write durable. Which is fastest depends on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SyncMethod {
    /// Time the others when the disk is opened, and take the best.
    #[default]
    Auto,
    /// Direct I/O past the page cache, each write durable by itself (`O_DIRECT` and `O_DSYNC`).
    DirectDsync,
    /// Through the page cache, but syncing only the range written (`RWF_DSYNC`).
    RwfDsync,
    /// Through the page cache, then `fdatasync`, which flushes other writers' dirty pages as well.
    Fdatasync,
}

impl fmt::Display for SyncMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SyncMethod::Auto => "auto",
            SyncMethod::DirectDsync => "direct+dsync",
            SyncMethod::RwfDsync => "rwf_dsync",
            SyncMethod::Fdatasync => "fdatasync",
        })
    }
}

/// What one durable block costs with each method when nothing interferes, in microseconds; `None` where it
/// was not timed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeMicros {
    /// With [`SyncMethod::DirectDsync`].
    pub direct_dsync: Option<u32>,
    /// With [`SyncMethod::RwfDsync`].
    pub rwf_dsync: Option<u32>,
    /// With [`SyncMethod::Fdatasync`].
    pub fdatasync: Option<u32>,
}

/// How a disk makes writes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskInfo {
    /// The method in use, never [`SyncMethod::Auto`] on a disk that can be written.
    pub method: SyncMethod,
    /// Whether writes go past the page cache.
    pub direct: bool,
    /// Whether several reads or writes go to the device with one system call.
    pub io_uring: bool,
    /// Whether the disk refuses writes because it was opened to be read only.
    pub read_only: bool,
    /// About how many bytes of the file had no space allocated on the device when it was opened, as in a copy made with holes
    /// (`cp --sparse=always`): writing them takes space, and fails if there is none. `cp --sparse=never` makes a copy without holes.
    pub hole_bytes: u64,
    /// What the probe measured when the disk was opened; empty when a method was asked for.
    pub probe: ProbeMicros,
}

impl DiskInfo {
    /// For a writable disk where nothing was measured: one in memory, or one of your own.
    pub fn unprobed(method: SyncMethod) -> Self {
        let direct = method == SyncMethod::DirectDsync;
        Self { method, direct, io_uring: false, read_only: false, hole_bytes: 0, probe: ProbeMicros::default() }
    }
}

impl fmt::Display for DiskInfo {
    /// One line that says what was chosen, and against which figures.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.read_only {
            return f.write_str("read-only");
        }
        write!(f, "{}{}", self.method, if self.io_uring { "+io_uring" } else { "" })?;
        let mut separator = " (";
        for (method, micros) in [
            (SyncMethod::DirectDsync, self.probe.direct_dsync),
            (SyncMethod::RwfDsync, self.probe.rwf_dsync),
            (SyncMethod::Fdatasync, self.probe.fdatasync),
        ] {
            if let Some(micros) = micros {
                write!(f, "{separator}{method} {micros} us")?;
                separator = ", ";
            }
        }
        if separator == ", " { f.write_str(")") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_is_said_with_its_figures() {
        let mut info = DiskInfo::unprobed(SyncMethod::DirectDsync);
        assert_eq!(info.to_string(), "direct+dsync");
        info.probe = ProbeMicros { direct_dsync: Some(78), rwf_dsync: None, fdatasync: Some(90) };
        assert_eq!(info.to_string(), "direct+dsync (direct+dsync 78 us, fdatasync 90 us)");
        info.io_uring = true;
        assert_eq!(info.to_string(), "direct+dsync+io_uring (direct+dsync 78 us, fdatasync 90 us)");
    }
}

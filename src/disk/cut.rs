//! A disk that has lost its end, which reads as zeros, so that what is left can be looked at.

use super::{
    Disk, DiskInfo, Map,
    bounds::{check_read, not_writable},
};
use std::{io, sync::Arc};

/// A disk that is longer than the one behind it. Read-only, and not mapped.
#[derive(Debug)]
pub(crate) struct CutDisk {
    inner: Arc<dyn Disk>,
    len: u64,
}

impl CutDisk {
    /// What is left of a disk that had `len` bytes.
    pub fn new(inner: Arc<dyn Disk>, len: u64) -> Self {
        Self { inner, len }
    }
}

impl Disk for CutDisk {
    fn len(&self) -> u64 {
        self.len
    }

    fn held(&self) -> u64 {
        self.inner.held()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_read(self.len, offset, buf.len())?;
        let left = usize::try_from(self.inner.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let (there, lost) = buf.split_at_mut(left.min(buf.len()));
        lost.fill(0);
        if there.is_empty() { Ok(()) } else { self.inner.read_at(offset, there) }
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(not_writable())
    }

    fn write_durable_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(not_writable())
    }

    fn flush(&self) -> io::Result<()> {
        Err(not_writable())
    }

    fn check_size(&self) -> io::Result<()> {
        self.inner.check_size()
    }

    fn map(&self) -> Option<Arc<Map>> {
        None
    }

    fn info(&self) -> DiskInfo {
        self.inner.info()
    }

    fn release(&self) {
        self.inner.release();
    }
}

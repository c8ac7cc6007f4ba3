//! What a range must be before it reaches a device, the same for every disk.
//!
//! The simulated disk is as strict as direct I/O: code that passes an unaligned buffer must fail in
//! every test, and not only on the one machine whose device minds.

use super::BLOCK;
use std::io;

/// Refuses a read that is not wholly inside a disk of `len` bytes.
pub(super) fn check_read(len: u64, offset: u64, wanted: usize) -> io::Result<()> {
    if fits(len, offset, wanted) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("reading {wanted} bytes at {offset} reaches past the end of the disk at {len}"),
    ))
}

/// Refuses a write that is not whole blocks, from an aligned buffer, inside a disk of `len` bytes.
pub(super) fn check_write(len: u64, offset: u64, buf: &[u8]) -> io::Result<()> {
    let whole_blocks = offset.is_multiple_of(BLOCK as u64) && buf.len().is_multiple_of(BLOCK);
    if whole_blocks && buf.as_ptr().addr().is_multiple_of(BLOCK) && fits(len, offset, buf.len()) {
        return Ok(());
    }
    let why = if !whole_blocks {
        "is not whole blocks"
    } else if fits(len, offset, buf.len()) {
        "comes from a buffer that is not block aligned (use AlignedBuf)"
    } else {
        "reaches past the end of the disk"
    };
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("writing {} bytes at {offset} {why} (length {len}, block {BLOCK})", buf.len()),
    ))
}

/// The error of a write to a disk that was opened read-only or has been released.
pub(super) fn not_writable() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "the disk is read-only or was released")
}

fn fits(len: u64, offset: u64, wanted: usize) -> bool {
    offset.checked_add(wanted as u64).is_some_and(|end| end <= len)
}

#[cfg(test)]
mod tests {
    use super::{super::AlignedBuf, *};
    use std::io::ErrorKind;

    #[test]
    fn a_read_may_end_at_the_end_but_not_behind_it() {
        assert!(check_read(10, 4, 6).is_ok());
        assert!(check_read(10, 10, 0).is_ok());
        assert_eq!(check_read(10, 4, 7).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(check_read(10, u64::MAX, 2).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_write_is_whole_blocks_from_an_aligned_buffer() {
        let mut buf = AlignedBuf::with_capacity(4 * BLOCK);
        buf.resize(4 * BLOCK);
        let (len, bytes) = (8 * BLOCK as u64, buf.as_slice());
        assert!(check_write(len, BLOCK as u64, &bytes[..BLOCK]).is_ok());
        assert!(check_write(len, 4 * BLOCK as u64, bytes).is_ok());
        for (offset, part) in [
            (1, &bytes[..BLOCK]),
            (0, &bytes[..BLOCK - 1]),
            (0, &bytes[512..512 + BLOCK]),
            (5 * BLOCK as u64, bytes),
            (u64::MAX - BLOCK as u64 + 1, &bytes[..BLOCK]),
        ] {
            let error = check_write(len, offset, part).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{offset} {}", part.len());
        }
    }
}

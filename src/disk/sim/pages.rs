//! The bytes of a simulated disk, shared until written, so that a copy costs next to nothing.
//!
//! A crash explorer forks a disk once for every way a crash can end. Two levels of shared pages make
//! a fork cost one pointer per MiB and a write copy at most one page; pages never written take
//! no memory at all.

use std::sync::Arc;

const PAGE: usize = 4096;
/// Pages in a slab: the unit that a fork counts.
const SLAB: usize = 256;

type Page = [u8; PAGE];

#[derive(Clone)]
struct Slab([Option<Arc<Page>>; SLAB]);

/// A fixed number of bytes, zero until written. Ranges are checked by the callers.
#[derive(Clone)]
pub(super) struct Pages {
    len: u64,
    slabs: Vec<Arc<Slab>>,
}

impl Pages {
    pub(super) fn new(len: u64) -> Self {
        let blank = Arc::new(Slab(std::array::from_fn(|_| None)));
        let slabs = len.div_ceil((SLAB * PAGE) as u64) as usize;
        Self { len, slabs: vec![blank; slabs] }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn read(&self, mut offset: u64, mut buf: &mut [u8]) {
        while !buf.is_empty() {
            let (slab, page, at) = locate(offset);
            let (part, rest) = buf.split_at_mut(buf.len().min(PAGE - at));
            match &self.slabs[slab].0[page] {
                Some(bytes) => part.copy_from_slice(&bytes[at..at + part.len()]),
                None => part.fill(0),
            }
            offset += part.len() as u64;
            buf = rest;
        }
    }

    pub(super) fn write(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (slab, page, at) = locate(offset);
            let (part, rest) = bytes.split_at(bytes.len().min(PAGE - at));
            let slot = &mut Arc::make_mut(&mut self.slabs[slab]).0[page];
            let page = Arc::make_mut(slot.get_or_insert_with(|| Arc::new([0; PAGE])));
            page[at..at + part.len()].copy_from_slice(part);
            offset += part.len() as u64;
            bytes = rest;
        }
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut image = vec![0; self.len as usize];
        self.read(0, &mut image);
        image
    }
}

fn locate(offset: u64) -> (usize, usize, usize) {
    let page = (offset / PAGE as u64) as usize;
    (page / SLAB, page % SLAB, (offset % PAGE as u64) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_it_saw() {
        let mut pages = Pages::new(3 << 20);
        pages.write((1 << 20) - 3, b"across a slab");
        let copy = pages.clone();
        pages.write((1 << 20) - 3, b"CHANGED");
        let mut buf = [0; 13];
        copy.read((1 << 20) - 3, &mut buf);
        assert_eq!(&buf, b"across a slab");
        pages.read((1 << 20) - 3, &mut buf);
        assert_eq!(&buf, b"CHANGEDa slab");
    }

    #[test]
    fn any_length_reads_back_whole() {
        let image: Vec<u8> = (0..10_001u32).map(|i| (i % 251) as u8).collect();
        let mut pages = Pages::new(image.len() as u64);
        pages.write(0, &image);
        assert_eq!(pages.to_vec(), image);
    }
}

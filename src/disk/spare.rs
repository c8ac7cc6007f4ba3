//! Allocations to use again: a fresh one of a megabyte costs hundreds of page faults, which is more than writing it to a fast device.

use bytes::BytesMut;
use parking_lot::Mutex;

use super::BLOCK;

/// Smaller ones are what allocators are good at.
const LEAST: usize = 64 << 10;
/// Larger ones are rare, and better given back to the system.
const MOST: usize = 8 << 20;
/// Bytes kept in all, whatever they are made up of.
const KEPT: usize = 16 << 20;
const CLASSES: usize = (MOST / LEAST).ilog2() as usize + 1;
const _: () = assert!(LEAST << (CLASSES - 1) == MOST && KEPT >= MOST && LEAST >= BLOCK);

/// By size: powers of two of [`LEAST`], and a block more to begin at a boundary.
struct Spare {
    lists: [Vec<BytesMut>; CLASSES],
    bytes: usize,
}

/// One for the process: what one log lets go of serves the batches that are being filled for another.
static SPARE: Mutex<Spare> = Mutex::new(Spare { lists: [const { Vec::new() }; CLASSES], bytes: 0 });

/// The class whose allocations hold so many bytes.
fn class_for(bytes: usize) -> Option<usize> {
    (LEAST..=MOST).contains(&bytes).then(|| (bytes.div_ceil(LEAST)).next_power_of_two().ilog2() as usize)
}

const fn bytes_of(class: usize) -> usize {
    (LEAST << class) + BLOCK - 1
}

/// Initialised memory for `capacity` bytes behind the first block boundary; what is in it is unspecified.
pub(super) fn take(capacity: usize) -> BytesMut {
    let Some(class) = class_for(capacity) else { return BytesMut::zeroed(capacity.saturating_add(BLOCK - 1)) };
    let bytes = bytes_of(class);
    let found = {
        let mut spare = SPARE.lock();
        let found = spare.lists.get_mut(class).and_then(Vec::pop);
        spare.bytes -= if found.is_some() { bytes } else { 0 };
        found
    };
    found.unwrap_or_else(|| BytesMut::zeroed(bytes))
}

/// Keeps an allocation of [`take`], if there are not enough already.
pub(super) fn give_back(raw: BytesMut) {
    let Some(class) = raw.len().checked_sub(BLOCK - 1).and_then(class_for) else { return };
    // Parts of a larger allocation, and what was made otherwise, are not whole.
    if raw.len() != bytes_of(class) {
        return;
    }
    let mut spare = SPARE.lock();
    if spare.bytes + raw.len() <= KEPT
        && let Some(list) = spare.lists.get_mut(class)
    {
        let bytes = raw.len();
        list.push(raw);
        spare.bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_holds_what_was_asked_for() {
        for capacity in [0, 1, LEAST - 1, LEAST, LEAST + 1, 3 * LEAST, MOST, MOST + 1] {
            let raw = take(capacity);
            assert!(raw.len() >= capacity + BLOCK - 1, "{capacity}");
            give_back(raw);
        }
        assert_eq!(
            [LEAST - 1, LEAST, LEAST + 1, MOST, MOST + 1].map(class_for),
            [None, Some(0), Some(1), Some(CLASSES - 1), None]
        );
    }

    #[test]
    fn no_more_is_kept_than_may_be() {
        for _ in 0..2 * KEPT / MOST {
            give_back(BytesMut::zeroed(bytes_of(CLASSES - 1)));
        }
        give_back(BytesMut::zeroed(LEAST + BLOCK + 5));
        let spare = SPARE.lock();
        assert!(spare.bytes <= KEPT);
        let kept: usize = spare.lists.iter().flatten().map(|raw| raw.len()).sum();
        assert_eq!(kept, spare.bytes);
        assert!(
            spare.lists.iter().enumerate().all(|(class, list)| list.iter().all(|raw| raw.len() == bytes_of(class)))
        );
    }
}

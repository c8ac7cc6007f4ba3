//! Memory for buffers, used again: a fresh megabyte costs hundreds of page faults, which is more than writing it to a fast device.
//!
//! By size, in slabs. The first slab of a size is small, so that who needs little takes little; those behind it are huge pages.

use parking_lot::Mutex;

use super::BLOCK;
use super::map::{HUGE, Piece, pieces};

/// Larger ones are rare, and given back to the system.
const MOST: usize = 8 << 20;
/// What the first slab of a size takes, if a piece is no larger.
const FIRST: usize = 256 << 10;
/// Bytes of slabs of which nothing is in use that are kept in all.
const KEPT: usize = 16 << 20;
const CLASSES: usize = (MOST / BLOCK).ilog2() as usize + 1;
const _: () = assert!(BLOCK << (CLASSES - 1) == MOST && KEPT >= MOST && FIRST >= BLOCK && HUGE >= FIRST);

/// Pieces of one mapping.
struct Slab {
    /// Its address.
    from: usize,
    /// Of which it consists.
    pieces: usize,
    free: Vec<Piece>,
}

/// How a buffer is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Use {
    /// From front to back.
    #[default]
    Whole,
    /// Here and there: what is not touched should take no memory.
    Sparse,
}

/// By size: powers of two of [`BLOCK`].
struct Spare {
    usage: Use,
    classes: [Vec<Slab>; CLASSES],
    /// Bytes of slabs of which nothing is in use.
    idle: usize,
}

/// One for the process: what one log lets go of serves the batches that are being filled for another.
static WHOLE: Mutex<Spare> = Mutex::new(Spare::new(Use::Whole));
static SPARSE: Mutex<Spare> = Mutex::new(Spare::new(Use::Sparse));

impl Use {
    fn spare(self) -> &'static Mutex<Spare> {
        match self {
            Self::Whole => &WHOLE,
            Self::Sparse => &SPARSE,
        }
    }

    fn pieces(self, count: usize, each: usize) -> impl Iterator<Item = Piece> {
        pieces(count, each, self == Self::Whole)
    }
}

/// The class whose pieces hold so many bytes.
fn class_for(bytes: usize) -> Option<usize> {
    (bytes <= MOST).then(|| bytes.div_ceil(BLOCK).next_power_of_two().ilog2() as usize)
}

const fn bytes_of(class: usize) -> usize {
    BLOCK << class
}

/// Bytes of those slabs of a class of which nothing is in use.
fn idle_bytes(class: usize, slabs: &[Slab]) -> usize {
    slabs.iter().filter(|slab| slab.free.len() == slab.pieces).map(|slab| slab.pieces * bytes_of(class)).sum()
}

impl Spare {
    const fn new(usage: Use) -> Self {
        Self { usage, classes: [const { Vec::new() }; CLASSES], idle: 0 }
    }

    fn take(&mut self, class: usize) -> Option<Piece> {
        let each = bytes_of(class);
        let slabs = self.classes.get_mut(class)?;
        // The oldest first: the younger ones get a chance to be given back whole.
        if let Some(slab) = slabs.iter_mut().find(|slab| !slab.free.is_empty()) {
            self.idle -= if slab.free.len() == slab.pieces { slab.pieces * each } else { 0 };
            return slab.free.pop();
        }
        let bytes = if slabs.is_empty() { FIRST } else { HUGE };
        let mut free: Vec<Piece> = self.usage.pieces((bytes / each).max(1), each).collect();
        let (from, pieces) = (free.first()?.as_ptr().addr(), free.len());
        let taken = free.pop();
        slabs.push(Slab { from, pieces, free });
        taken
    }

    /// Answers the slab that goes back to the system.
    fn give_back(&mut self, piece: Piece) -> Option<Slab> {
        let (each, at) = (piece.len(), piece.as_ptr().addr());
        let slabs = self.classes.get_mut(class_for(each)?)?;
        let i = slabs.iter().position(|slab| (slab.from..slab.from + slab.pieces * each).contains(&at))?;
        let slab = slabs.get_mut(i)?;
        slab.free.push(piece);
        if slab.free.len() < slab.pieces {
            return None;
        }
        self.idle += slab.pieces * each;
        if self.idle <= KEPT {
            return None;
        }
        self.idle -= slab.pieces * each;
        Some(slabs.remove(i))
    }

    /// The slabs of which nothing is in use; the small ones are not worth it.
    fn take_idle(&mut self) -> Vec<Slab> {
        let mut idle = Vec::new();
        for (class, slabs) in self.classes.iter_mut().enumerate() {
            let bytes = |slab: &Slab| slab.pieces * bytes_of(class);
            idle.extend(slabs.extract_if(.., |slab| slab.free.len() == slab.pieces && bytes(slab) > FIRST));
        }
        self.idle = self.classes.iter().enumerate().map(|(class, slabs)| idle_bytes(class, slabs)).sum();
        idle
    }
}

/// Gives all that is not in use back to the system: after something that needs more than what goes on does.
pub(super) fn release() {
    for usage in [Use::Whole, Use::Sparse] {
        let idle = usage.spare().lock().take_idle();
        drop(idle);
    }
}

/// Memory for `capacity` bytes; what is in it is unspecified.
pub(super) fn take(capacity: usize, usage: Use) -> Option<Piece> {
    let Some(class) = class_for(capacity) else { return usage.pieces(1, capacity.next_multiple_of(BLOCK)).next() };
    usage.spare().lock().take(class)
}

/// Takes back what [`take`] gave.
pub(super) fn give_back(piece: Piece, usage: Use) {
    let whole = usage.spare().lock().give_back(piece);
    drop(whole);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_holds_what_was_asked_for() {
        for capacity in [0, 1, BLOCK, BLOCK + 1, 3 * BLOCK, HUGE, MOST, MOST + 1] {
            let piece = take(capacity, Use::Whole).expect("memory");
            assert!(piece.len() >= capacity && piece.as_ptr().addr().is_multiple_of(BLOCK), "{capacity}");
            give_back(piece, Use::Whole);
        }
        let classes = [0, BLOCK, BLOCK + 1, MOST, MOST + 1].map(class_for);
        assert_eq!(classes, [Some(0), Some(0), Some(1), Some(CLASSES - 1), None]);
    }

    #[test]
    fn nobody_has_what_another_has_and_what_was_given_back_is_used_again() {
        let (mut spare, class) = (Spare::new(Use::Whole), 4);
        let mut held = Vec::new();
        for round in 0..3 {
            while held.len() < 100 {
                held.push(spare.take(class).expect("memory"));
            }
            let mut addresses: Vec<usize> = held.iter().map(|p| p.as_ptr().addr()).collect();
            addresses.sort_unstable();
            assert!(addresses.windows(2).all(|w| w[1] - w[0] >= bytes_of(class)), "round {round}");
            held.drain(..50).for_each(|piece| assert!(spare.give_back(piece).is_none()));
        }
        let slabs: Vec<usize> = spare.classes[class].iter().map(|slab| slab.pieces).collect();
        assert_eq!(slabs, [4, 32, 32, 32], "a small one, then as many huge pages as are needed");
    }

    #[test]
    fn no_more_is_kept_than_may_be() {
        let mut spare = Spare::new(Use::Whole);
        let held: Vec<Piece> = (0..2 * KEPT / MOST).map(|_| spare.take(CLASSES - 1).expect("memory")).collect();
        assert_eq!(spare.idle, 0);
        let gone = held.into_iter().filter_map(|piece| spare.give_back(piece)).count();
        assert_eq!((gone, spare.idle), (KEPT / MOST, KEPT));
        let kept: usize = spare.classes.iter().flatten().flat_map(|slab| &slab.free).map(|piece| piece.len()).sum();
        assert_eq!(kept, spare.idle);
        let one = spare.take(CLASSES - 1).expect("memory");
        assert_eq!(spare.idle, KEPT - MOST);
        assert_eq!((spare.take_idle().len(), spare.idle), (KEPT / MOST - 1, 0));
        assert!(spare.give_back(one).is_none());
        assert_eq!((spare.take_idle().len(), spare.idle), (1, 0));
        assert!(spare.classes.iter().all(Vec::is_empty));
        let small = spare.take(0).expect("memory");
        assert!(spare.give_back(small).is_none());
        assert_eq!((spare.take_idle().len(), spare.idle), (0, FIRST), "a small one stays");
    }
}

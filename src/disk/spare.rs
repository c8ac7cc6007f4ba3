//! Memory for buffers, reused: a fresh megabyte costs hundreds of page faults, which is more than writing it to a fast device.
//!
//! Kept by size, in slabs. The first slab of a size is small, so that whoever needs little takes little; the further ones are huge pages.

use parking_lot::Mutex;

use super::BLOCK;
use super::map::{HUGE, Piece, pieces};

/// Larger pieces are rare, and given back to the system.
const MOST: usize = 8 << 20;
/// The length of a class's first slab, if a piece is no longer than that.
const FIRST: usize = 256 << 10;
/// The most bytes kept in idle slabs, of which nothing is in use.
const KEPT: usize = 16 << 20;
const CLASSES: usize = (MOST / BLOCK).ilog2() as usize + 1;
const _: () = assert!(BLOCK << (CLASSES - 1) == MOST && KEPT >= MOST && FIRST >= BLOCK && HUGE >= FIRST);

/// Pieces of one mapping.
struct Slab {
    /// Its address.
    from: usize,
    /// How many pieces it consists of.
    pieces: usize,
    free: Vec<Piece>,
    /// When its last piece came back, on [`Spare::clock`].
    idle_since: u64,
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

/// Slabs by the size of their pieces: powers of two of [`BLOCK`].
struct Spare {
    classes: [Vec<Slab>; CLASSES],
    /// Bytes of all idle slabs.
    idle: usize,
    /// How many times a slab has become idle.
    clock: u64,
}

/// One pool for the process: memory that one log lets go of serves the batches that are being filled for another.
static WHOLE: Mutex<Spare> = Mutex::new(Spare::new());
static SPARSE: Mutex<Spare> = Mutex::new(Spare::new());

impl Use {
    fn spare(self) -> &'static Mutex<Spare> {
        match self {
            Self::Whole => &WHOLE,
            Self::Sparse => &SPARSE,
        }
    }

    /// `count` pieces side by side.
    fn pieces(self, count: usize, each: usize) -> impl Iterator<Item = Piece> {
        pieces(count, each, self == Self::Whole)
    }

    /// A new slab of the class, and a piece of it.
    fn slab(self, class: usize, first: bool) -> Option<(Slab, Piece)> {
        let each = bytes_of(class);
        let bytes = if first && each < FIRST { FIRST } else { HUGE };
        let mut free: Vec<Piece> = self.pieces((bytes / each).max(1), each).collect();
        let (from, pieces) = (free.first()?.as_ptr().addr(), free.len());
        let taken = free.pop()?;
        Some((Slab { from, pieces, free, idle_since: 0 }, taken))
    }
}

/// The class whose pieces hold `bytes`; `None` above [`MOST`].
fn class_for(bytes: usize) -> Option<usize> {
    (bytes <= MOST).then(|| bytes.div_ceil(BLOCK).next_power_of_two().ilog2() as usize)
}

const fn bytes_of(class: usize) -> usize {
    BLOCK << class
}

impl Slab {
    fn is_idle(&self) -> bool {
        self.free.len() == self.pieces
    }

    fn bytes(&self, class: usize) -> usize {
        self.pieces * bytes_of(class)
    }
}

impl Spare {
    const fn new() -> Self {
        Self { classes: [const { Vec::new() }; CLASSES], idle: 0, clock: 0 }
    }

    /// A piece; or, if there is none, whether the class has no slab at all.
    fn take(&mut self, class: usize) -> Result<Piece, bool> {
        let Some(slabs) = self.classes.get_mut(class) else { return Err(true) };
        // The oldest slab first: so the younger ones may become idle, and be given back.
        let Some(slab) = slabs.iter_mut().find(|slab| !slab.free.is_empty()) else { return Err(slabs.is_empty()) };
        self.idle -= if slab.is_idle() { slab.bytes(class) } else { 0 };
        slab.free.pop().ok_or(false)
    }

    fn add(&mut self, class: usize, slab: Slab) {
        if let Some(slabs) = self.classes.get_mut(class) {
            slabs.push(slab);
        }
    }

    /// Returns the slabs that go back to the system: those idle for longest.
    fn give_back(&mut self, piece: Piece) -> Vec<Slab> {
        let (each, at) = (piece.len(), piece.as_ptr().addr());
        let Some(class) = class_for(each) else { return Vec::new() };
        let slabs = self.classes.get_mut(class).into_iter().flatten();
        let Some(slab) = slabs.into_iter().find(|s| (s.from..s.from + s.pieces * each).contains(&at)) else {
            return Vec::new();
        };
        slab.free.push(piece);
        if slab.is_idle() {
            self.clock += 1;
            slab.idle_since = self.clock;
            self.idle += slab.bytes(class);
        }
        let mut gone = Vec::new();
        while self.idle > KEPT {
            let Some(slab) = self.take_oldest() else { break };
            gone.push(slab);
        }
        gone
    }

    /// Takes the slab that has been idle for longest.
    fn take_oldest(&mut self) -> Option<Slab> {
        let idle = self.classes.iter().enumerate().flat_map(|(class, slabs)| {
            slabs.iter().enumerate().filter(|(_, s)| s.is_idle()).map(move |(i, s)| (s.idle_since, class, i))
        });
        let (_, class, i) = idle.min()?;
        let slab = self.classes.get_mut(class)?.remove(i);
        self.idle -= slab.bytes(class);
        Some(slab)
    }

    /// Takes all idle slabs, except for the small ones, which are not worth it.
    fn take_idle(&mut self) -> Vec<Slab> {
        let mut gone = Vec::new();
        for (class, slabs) in self.classes.iter_mut().enumerate() {
            for slab in slabs.extract_if(.., |slab| slab.is_idle() && slab.bytes(class) > FIRST) {
                self.idle -= slab.bytes(class);
                gone.push(slab);
            }
        }
        gone
    }
}

/// Gives idle slabs back to the system, after something that needed more than what follows it.
pub(super) fn release() {
    for usage in [Use::Whole, Use::Sparse] {
        let gone = { usage.spare().lock().take_idle() };
        drop(gone);
    }
}

/// Memory for `capacity` bytes; its content is unspecified.
pub(super) fn take(capacity: usize, usage: Use) -> Option<Piece> {
    let Some(class) = class_for(capacity) else { return usage.pieces(1, capacity.next_multiple_of(BLOCK)).next() };
    let spare = usage.spare();
    let first = {
        match spare.lock().take(class) {
            Ok(piece) => return Some(piece),
            Err(first) => first,
        }
    };
    // Outside the lock: the system may first have to find the memory.
    let (slab, piece) = usage.slab(class, first)?;
    spare.lock().add(class, slab);
    Some(piece)
}

/// Takes back what [`take`] gave.
pub(super) fn give_back(piece: Piece, usage: Use) {
    let gone = { usage.spare().lock().give_back(piece) };
    drop(gone);
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

    /// As [`take`] does, from a pool of its own.
    fn take_from(spare: &mut Spare, class: usize) -> Piece {
        spare.take(class).unwrap_or_else(|first| {
            let (slab, piece) = Use::Whole.slab(class, first).expect("memory");
            spare.add(class, slab);
            piece
        })
    }

    #[test]
    fn nobody_has_what_another_has_and_what_was_given_back_is_used_again() {
        let (mut spare, class) = (Spare::new(), 4);
        let mut held = Vec::new();
        for round in 0..3 {
            while held.len() < 100 {
                held.push(take_from(&mut spare, class));
            }
            let mut addresses: Vec<usize> = held.iter().map(|p| p.as_ptr().addr()).collect();
            addresses.sort_unstable();
            assert!(addresses.windows(2).all(|w| w[1] - w[0] >= bytes_of(class)), "round {round}");
            held.drain(..50).for_each(|piece| assert!(spare.give_back(piece).is_empty()));
        }
        let slabs: Vec<usize> = spare.classes[class].iter().map(|slab| slab.pieces).collect();
        assert_eq!(slabs, [4, 32, 32, 32], "a small one, then as many huge pages as are needed");
    }

    #[test]
    fn no_more_is_kept_than_may_be() {
        let mut spare = Spare::new();
        let held: Vec<Piece> = (0..2 * KEPT / MOST).map(|_| take_from(&mut spare, CLASSES - 1)).collect();
        assert_eq!(spare.idle, 0);
        let gone: usize = held.into_iter().map(|piece| spare.give_back(piece).len()).sum();
        assert_eq!((gone, spare.idle), (KEPT / MOST, KEPT));
        let kept: usize = spare.classes.iter().flatten().flat_map(|slab| &slab.free).map(|piece| piece.len()).sum();
        assert_eq!(kept, spare.idle);
        let one = take_from(&mut spare, CLASSES - 1);
        assert_eq!(spare.idle, KEPT - MOST);
        assert_eq!((spare.take_idle().len(), spare.idle), (KEPT / MOST - 1, 0));
        assert!(spare.give_back(one).is_empty());
        assert_eq!((spare.take_idle().len(), spare.idle), (1, 0));
        assert!(spare.classes.iter().all(Vec::is_empty));
        let small = take_from(&mut spare, 0);
        assert!(spare.give_back(small).is_empty());
        assert_eq!((spare.take_idle().len(), spare.idle), (0, FIRST), "a small one stays");
    }

    /// Giants that were needed once do not displace what is needed again and again.
    #[test]
    fn what_was_idle_for_longest_goes_first() {
        let mut spare = Spare::new();
        let giants: Vec<Piece> = (0..KEPT / MOST).map(|_| take_from(&mut spare, CLASSES - 1)).collect();
        giants.into_iter().for_each(|piece| assert!(spare.give_back(piece).is_empty()));
        assert_eq!(spare.idle, KEPT);
        let mut gone = 0;
        for _ in 0..10 {
            let piece = take_from(&mut spare, CLASSES - 2);
            gone += spare.give_back(piece).len();
        }
        assert_eq!((gone, spare.classes[CLASSES - 2].len(), spare.classes[CLASSES - 1].len()), (1, 1, KEPT / MOST - 1));
    }
}

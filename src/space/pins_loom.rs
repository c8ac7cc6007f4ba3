//! A model of freeing against pinning: a chunk is written anew only when no reader can still look at it.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use super::{Pins, Pool};
use crate::format::piece::Extent;
use crate::sync::{Arc, Mutex};

/// Two chunks of one block each; the second is the journal's, so that one is all there is.
const CHUNK: u32 = 4096;

struct Space {
    /// A replica's index: where its only piece lies.
    cell: Mutex<Option<Extent>>,
    pool: Mutex<Pool>,
    pins: Pins,
    /// Stands for the chunk's bytes. **loom fails the model if a write overlaps a read**, in time or in what is visible of it.
    touched: UnsafeCell<()>,
    /// What those bytes are.
    bytes: AtomicU64,
}

const OLD: u64 = 1;
const NEW: u64 = 2;

impl Space {
    fn new() -> Self {
        let mut pool = Pool::new(2, CHUNK, CHUNK, &[1]);
        let piece = pool.allocate(1, &mut None).unwrap();
        Self {
            cell: Mutex::new(piece.first().copied()),
            pool: Mutex::new(pool),
            pins: Pins::new(2),
            touched: UnsafeCell::new(()),
            bytes: AtomicU64::new(OLD),
        }
    }

    /// As a read does it: look and pin under the cell's lock, touch the bytes under none, let go.
    fn read(&self) {
        let pinned = {
            let cell = self.cell.lock();
            cell.inspect(|extent| self.pins.pin(extent.block))
        };
        let Some(extent) = pinned else { return };
        // The pin keeps writers away; loom is here to say if it does not.
        assert_eq!(self.touched.with(|_| self.bytes.load(Ordering::Relaxed)), OLD);
        self.pins.unpin(extent.block);
    }

    /// As a truncation does it: unlinked under the cell's lock, queued before that is left, free once durable.
    fn truncate(&self) {
        let mut cell = self.cell.lock();
        if let Some(extent) = cell.take() {
            self.pool.lock().unlink(1, vec![extent]);
        }
    }

    /// As the writer and the next append do it. Answers whether there was room.
    fn release_and_reuse(&self) -> bool {
        let mut pool = self.pool.lock();
        pool.release(1, &self.pins);
        let Some(_) = pool.allocate(1, &mut None) else { return false };
        // The pool says that it is ours; loom is here to say if it is not.
        self.touched.with_mut(|_| self.bytes.store(NEW, Ordering::Relaxed));
        true
    }
}

#[test]
fn loom_a_chunk_is_reused_only_when_no_reader_pins_it() {
    loom::model(|| {
        let space = Arc::new(Space::new());
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let space = Arc::clone(&space);
                thread::spawn(move || space.read())
            })
            .collect();
        space.truncate();
        let reused = space.release_and_reuse();
        readers.into_iter().for_each(|r| r.join().unwrap());
        // Nobody holds it any more: what was kept back is free now.
        assert!(reused || space.release_and_reuse(), "a pinned chunk was forgotten");
    });
}

#[test]
fn loom_a_second_look_finds_what_the_first_found_pinned() {
    loom::model(|| {
        let space = Arc::new(Space::new());
        let reader = {
            let space = Arc::clone(&space);
            thread::spawn(move || space.read())
        };
        let writer = {
            let space = Arc::clone(&space);
            thread::spawn(move || {
                space.truncate();
                // Twice, as two commits would: the second may come while the reader still looks, too.
                space.release_and_reuse() || space.release_and_reuse()
            })
        };
        reader.join().unwrap();
        assert!(writer.join().unwrap() || space.release_and_reuse());
    });
}

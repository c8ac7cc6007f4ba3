//! The line before the queue: who waits for room there is let in before those who come later.
//!
//! Without it a batch finds room only when the queue happens to have that much at the moment at which its thread runs, and what is small takes
//! that away while it is being woken: one that is larger than the queue, which must be alone in it, would wait for as long as others come.

/// Those who wait, by numbers. **Whoever is first must come again**, so nobody stands here who may not wait, or might forget to.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Whose turn it is, if anybody waits.
    first: u64,
    /// What the next to come is given.
    next: u64,
}

impl Line {
    pub fn is_empty(&self) -> bool {
        self.first == self.next
    }

    pub fn join(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    pub fn is_first(&self, number: u64) -> bool {
        self.first == number
    }

    /// The first goes.
    pub fn leave(&mut self) {
        self.first += 1;
    }
}

/// A submission, as far as it stands in the line.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    number: Option<u64>,
    /// Nobody stood behind it when it went.
    pub was_last: bool,
}

impl Standing {
    /// Whether nobody goes first.
    pub fn is_next(&self, line: &Line) -> bool {
        self.number.map_or_else(|| line.is_empty(), |number| line.is_first(number))
    }

    /// Whether it is the first, now that it stands there.
    pub fn join(&mut self, line: &mut Line) -> bool {
        let number = *self.number.get_or_insert_with(|| line.join());
        line.is_first(number)
    }

    /// Goes in, if it stood there. Whether it did.
    pub fn leave(&mut self, line: &mut Line) -> bool {
        let stood = self.number.take().is_some();
        if stood {
            line.leave();
            self.was_last = line.is_empty();
        }
        stood
    }
}

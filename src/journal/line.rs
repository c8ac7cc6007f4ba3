//! The line before the queue: callers that wait for room there are let in before those that come later.
//!
//! Without it a batch would find room only if the queue happened to have enough at the moment its thread runs, and smaller batches would
//! take that away while the thread is being woken: a batch larger than the queue, which must be alone in it, would wait for as long as
//! others come.

/// The waiting callers, by number. **The first must come again**, so no caller stands here that may not wait, or that might not come back.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Whose turn it is, if anybody waits.
    first: u64,
    /// The number that the next caller is given.
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

    /// The first caller leaves.
    pub fn leave(&mut self) {
        self.first += 1;
    }
}

/// A submission's place in the line, if it has one.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    number: Option<u64>,
    /// Whether nobody stood behind it when it left.
    pub was_last: bool,
}

impl Standing {
    /// Whether no other submission goes first.
    pub fn is_next(&self, line: &Line) -> bool {
        self.number.map_or_else(|| line.is_empty(), |number| line.is_first(number))
    }

    /// Joins the line, unless it stands there already. Returns whether it is the first.
    pub fn join(&mut self, line: &mut Line) -> bool {
        let number = *self.number.get_or_insert_with(|| line.join());
        line.is_first(number)
    }

    /// Leaves the line, if it stood there. Returns whether it did.
    pub fn leave(&mut self, line: &mut Line) -> bool {
        let stood = self.number.take().is_some();
        if stood {
            line.leave();
            self.was_last = line.is_empty();
        }
        stood
    }
}

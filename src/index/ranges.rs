//! Ranges of indexes: nearly always none.

use std::ops::Deref;

/// Sorted ranges, each from its first index to its last. Eight bytes, as there may be a million of these, few of which hold any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
// A vector in a box: the vector itself, and a boxed slice, are larger.
#[allow(clippy::box_collection)]
pub(crate) struct Ranges(Option<Box<Vec<(u64, u64)>>>);

const _: () = assert!(size_of::<Ranges>() == 8);

impl Ranges {
    pub fn into_vec(self) -> Vec<(u64, u64)> {
        self.0.map_or_else(Vec::new, |ranges| *ranges)
    }
}

impl From<Vec<(u64, u64)>> for Ranges {
    fn from(mut ranges: Vec<(u64, u64)>) -> Self {
        ranges.shrink_to_fit();
        Self((!ranges.is_empty()).then(|| Box::new(ranges)))
    }
}

impl Deref for Ranges {
    type Target = [(u64, u64)];

    fn deref(&self) -> &[(u64, u64)] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }
}

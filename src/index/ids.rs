//! Maps by replica id.
//!
//! The hash is as cheap as can be, one multiplication, and nobody can choose ids that collide: a caller's client may try, and so may
//! whoever forged a file. The factor is odd, and drawn anew by each process: the uppermost bits of any two products then agree about as
//! seldom as if they had been drawn. Both halves of the product count: of ids that are multiples of a large power of two the lower one ends
//! in zeros, whatever the factor. A secret only added before a multiplication by a known number would not do: ids that collide would
//! collide elsewhere.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};

pub(crate) type IdMap<T> = HashMap<u64, T, HashIds>;
pub(crate) type IdSet = HashSet<u64, HashIds>;

/// Each map has the factor beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashIds {
    factor: u64,
}

impl Default for HashIds {
    fn default() -> Self {
        Self { factor: factor() }
    }
}

/// One per process, so that what is done twice in the same way is done in the same order.
#[cfg(not(any(loom, shuttle)))]
fn factor() -> u64 {
    use std::hash::RandomState;
    use std::sync::LazyLock;

    static FACTOR: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0_u64) | 1);
    *FACTOR
}

/// A model is run again and again, and must be the same each time.
#[cfg(any(loom, shuttle))]
fn factor() -> u64 {
    crate::format::SPREAD
}

impl BuildHasher for HashIds {
    type Hasher = Product;

    fn build_hasher(&self) -> Product {
        Product { factor: self.factor, product: 0 }
    }
}

pub(crate) struct Product {
    factor: u64,
    product: u64,
}

impl Hasher for Product {
    fn write_u64(&mut self, id: u64) {
        let product = u128::from(self.product ^ id) * u128::from(self.factor);
        self.product = (product >> 64) as u64 ^ product as u64;
    }

    /// Never called: only ids are hashed.
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    fn finish(&self) -> u64 {
        self.product
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::collections::HashMap;
    use std::hash::BuildHasher;

    use rustc_hash::FxBuildHasher;

    use super::HashIds;

    /// How many are in the fullest of 65,536 places.
    fn fullest(ids: &[u64], hash: &impl BuildHasher) -> u64 {
        let mut places: HashMap<u64, u64> = HashMap::new();
        ids.iter().for_each(|id| *places.entry(hash.hash_one(id) % (1 << 16)).or_default() += 1);
        places.into_values().max().unwrap_or(0)
    }

    #[test]
    fn ids_that_were_chosen_to_meet_where_the_factor_is_known_do_not_meet() {
        const KNOWN: u64 = 0xf135_7aea_2e62_a9c5;
        // Newton: each step doubles the bits that are right.
        let inverse = (0..6).fold(KNOWN, |x, _| x.wrapping_mul(2_u64.wrapping_sub(KNOWN.wrapping_mul(x))));
        assert_eq!(KNOWN.wrapping_mul(inverse), 1);
        // Of their products the uppermost bits are the same.
        let ids: Vec<u64> = (0..40_000).map(|low: u64| low.wrapping_mul(inverse)).collect();
        assert_eq!(fullest(&ids, &FxBuildHasher), 40_000);
        // A factor of which more than a tenth meet is drawn once in ten million processes.
        let met = fullest(&ids, &HashIds::default());
        assert!(met < 4000, "{met}");
        // And ids as they are usually given do not, either.
        let met = fullest(&(0..40_000).collect::<Vec<_>>(), &HashIds::default());
        assert!(met < 4000, "{met}");
    }

    /// Whatever the factor: the lowest bits of its products with these are zeros. Nor may they meet in the uppermost bits, which maps look at, too.
    #[test]
    fn ids_that_are_multiples_of_a_power_of_two_do_not_meet_either() {
        for shift in 0..=51 {
            let ids: Vec<u64> = (0..8192).map(|k: u64| k << shift).collect();
            let (mut low, mut high): (HashMap<u64, u64>, HashMap<u64, u64>) = Default::default();
            for hash in ids.iter().map(|id| HashIds::default().hash_one(id)) {
                *low.entry(hash % (1 << 14)).or_default() += 1;
                *high.entry(hash >> 57).or_default() += 1;
            }
            let met = |places: HashMap<u64, u64>| places.into_values().max().unwrap_or(0);
            let met = (met(low), met(high));
            assert!(met.0 < 800 && met.1 < 4096, "{met:?} of 8192, shifted by {shift}");
        }
    }

    #[test]
    fn all_maps_of_a_process_hash_alike() {
        assert_eq!(HashIds::default().hash_one(7_u64), HashIds::default().hash_one(7_u64));
        assert_ne!(HashIds::default().hash_one(7_u64), HashIds::default().hash_one(8_u64));
    }
}

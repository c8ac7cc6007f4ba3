//! Payload that no compressor shortens and that does not repeat within any window, yet lies as near as what has just come from the network:
//! a random walk through memory would measure the machine's page tables, the same for every contestant.

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

/// Many times the window of LZ4 (64 KiB).
const BYTES: usize = 8 << 20;

/// Lives as long as the process: a contestant that keeps an entry need not copy it, as no store of rafts would.
pub struct Payload(&'static [u8]);

impl Payload {
    pub fn new() -> Self {
        let mut bytes = vec![0; BYTES];
        SmallRng::seed_from_u64(1).fill_bytes(&mut bytes);
        Self(bytes.leak())
    }

    /// A different slice for each `n`, for far longer than any compressor looks back.
    pub fn get(&self, n: u64, len: usize) -> &'static [u8] {
        let at = n.wrapping_mul(len as u64) as usize % (self.0.len() - len);
        &self.0[at..at + len]
    }
}

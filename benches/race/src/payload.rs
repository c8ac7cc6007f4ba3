//! Payload that no compressor shortens and that does not repeat within any window.

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

pub struct Payload(Vec<u8>);

impl Payload {
    pub fn new() -> Self {
        let mut bytes = vec![0; 64 << 20];
        SmallRng::seed_from_u64(1).fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// A different slice for each `n`, for a long time.
    pub fn get(&self, n: u64, len: usize) -> &[u8] {
        let at = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as usize % (self.0.len() - len);
        &self.0[at..at + len]
    }
}

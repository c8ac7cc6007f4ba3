//! What the groups' entries say, and the model of what a state machine must hold after them.
//!
//! Entry `index` of a group is a function of both and of the run's seed, so that the check needs no record of what was proposed.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use crate::Result;

/// Keys of each group: few enough that most entries overwrite something.
pub const KEYS: u32 = 100;
/// One entry in this many deletes its key.
const DELETES: u32 = 16;

/// A change to one key of a group: its new value, or none.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    pub key: u32,
    pub value: Option<Vec<u8>>,
}

impl Command {
    /// The command that the group's entry at `index` holds.
    pub fn of(seed: u64, group: u64, index: u64, value_bytes: usize) -> Self {
        // Odd factors: no two entries of a group draw from the same place.
        let place = seed ^ group.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index.wrapping_mul(0xd1b5_4a32_d192_ed03);
        let mut rng = SmallRng::seed_from_u64(place);
        let key = rng.random_range(0..KEYS);
        let value = (rng.random_range(0..DELETES) > 0).then(|| {
            let mut value = vec![0; value_bytes];
            rng.fill_bytes(&mut value);
            value
        });
        Self { key, value }
    }

    /// As an entry's payload: the key, whether there is a value, the value.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.key.to_le_bytes().to_vec();
        bytes.push(u8::from(self.value.is_some()));
        bytes.extend_from_slice(self.value.as_deref().unwrap_or_default());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        match bytes.split_first_chunk::<4>() {
            Some((key, [0])) => Ok(Self { key: u32::from_le_bytes(*key), value: None }),
            Some((key, [1, value @ ..])) => Ok(Self { key: u32::from_le_bytes(*key), value: Some(value.to_vec()) }),
            _ => Err("an entry that is no command".into()),
        }
    }
}

/// What a group's state machine must hold.
#[derive(Debug, Default)]
pub struct Model {
    pub applied: u64,
    pub values: BTreeMap<u32, Vec<u8>>,
}

impl Model {
    pub fn advance(&mut self, seed: u64, group: u64, to: u64, value_bytes: usize) {
        while self.applied < to {
            self.applied += 1;
            let Command { key, value } = Command::of(seed, group, self.applied, value_bytes);
            match value {
                Some(value) => self.values.insert(key, value),
                None => self.values.remove(&key),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_back_and_nothing_else_is_one() {
        for index in 1..100 {
            let command = Command::of(7, 3, index, 20);
            assert_eq!(Command::decode(&command.encode()).unwrap(), command);
            assert_eq!(command, Command::of(7, 3, index, 20));
        }
        assert!(Command::decode(b"").is_err() && Command::decode(&[0, 0, 0, 0, 2]).is_err());
    }
}

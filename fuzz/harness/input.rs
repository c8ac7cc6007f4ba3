//! The fuzzer's bytes as a stream of decisions. It never runs dry: behind the end it reads zeros.

/// Reads decisions off the front of the input.
#[derive(Debug)]
pub struct Input<'a>(&'a [u8]);

/// Numbers at which things break.
const EDGES: [u64; 12] = [
    0,
    1,
    2,
    (1 << 16) - 1,
    (1 << 24) - 1,
    (1 << 31) - 1,
    (1 << 32) - 1,
    1 << 32,
    1 << 40,
    (1 << 63) - 1,
    u64::MAX - 1,
    u64::MAX,
];

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    pub fn u16(&mut self) -> u16 {
        u16::from(self.u8()) | u16::from(self.u8()) << 8
    }

    pub fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }

    pub fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }

    /// Something below `n`, which is at most 65,536.
    pub fn below(&mut self, n: usize) -> usize {
        let raw = if n <= 256 { usize::from(self.u8()) } else { usize::from(self.u16()) };
        raw % n.max(1)
    }

    pub fn bool(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// At most `n` bytes: what is left may be less.
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }

    /// A number: small, near `now`, at an edge, or anything.
    pub fn number(&mut self, now: u64) -> u64 {
        match self.u8() % 8 {
            0 | 1 => u64::from(self.u8()),
            2 => now.wrapping_add(u64::from(self.u8())),
            3 => now.wrapping_sub(u64::from(self.u8())),
            4 => EDGES[self.below(EDGES.len())],
            5 => u64::from(self.u16()),
            6 => u64::from(self.u32()),
            _ => self.u64(),
        }
    }
}

//! What the map draws: the file cut into cells, and the totals for the legend.

use std::collections::HashMap;
use std::path::Path;

use strandlog::{ChunkUse, Stretch, Wal};

/// How many of the largest replicas get a hue of their own.
pub const HOLDERS: usize = 8;

/// What a part of the file is drawn as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Journal,
    JournalFree,
    /// The chain of one of the largest replicas, by rank.
    Holder(usize),
    /// The chain of any other replica.
    Others,
    /// Dead, but not free until that is durable.
    Dying,
    /// Dead, but not free until a reader lets go.
    Pinned,
    /// Free, except that it holds the snapshot of the index, from the last close until the next opening.
    Snapshot,
    Free,
}

impl Kind {
    /// Its name in JSON.
    pub fn id(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::JournalFree => "journal_free",
            Self::Holder(_) => "holder",
            Self::Others => "others",
            Self::Dying => "dying",
            Self::Pinned => "pinned",
            Self::Snapshot => "snapshot",
            Self::Free => "free",
        }
    }

    /// Whether its bytes may be alive or dead.
    pub fn has_bytes(self) -> bool {
        matches!(self, Self::Journal | Self::Holder(_) | Self::Others)
    }
}

/// One of the largest replicas.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    pub replica: u64,
    pub chunks: u64,
}

/// The total of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Total {
    pub kind: Kind,
    pub chunks: u64,
    pub live_bytes: u64,
}

/// A part of the file that is drawn as one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    pub kind: Kind,
    /// The share of it that is alive, 0 to 1; 1 for kinds without live bytes.
    pub live: f64,
}

/// The file, as it is drawn.
#[derive(Debug, Default)]
pub struct Model {
    pub path: String,
    pub capacity: u64,
    pub chunk_bytes: u64,
    pub segment_bytes: u64,
    pub replicas: u64,
    pub chunks: u64,
    pub stretches: Vec<Stretch>,
    /// The largest replicas, in descending order.
    pub holders: Vec<Holder>,
    /// How many other replicas hold chunks.
    pub other_holders: u64,
    /// The totals of all kinds that occur, in the order of the legend.
    pub totals: Vec<Total>,
    /// The rank of each of the largest replicas.
    pub ranks: HashMap<u64, usize>,
}

impl Model {
    /// The model of a log.
    pub fn of(wal: &Wal, path: &Path) -> Self {
        let stats = wal.stats();
        let stretches = wal.layout();
        let mut held: HashMap<u64, u64> = HashMap::new();
        for s in &stretches {
            if let Some(replica) = s.replica {
                *held.entry(replica).or_default() += s.chunks;
            }
        }
        let mut holders: Vec<Holder> = held.into_iter().map(|(replica, chunks)| Holder { replica, chunks }).collect();
        holders.sort_unstable_by_key(|h| (std::cmp::Reverse(h.chunks), h.replica));
        let other_holders = holders.len().saturating_sub(HOLDERS) as u64;
        holders.truncate(HOLDERS);
        let mut this = Self {
            path: path.display().to_string(),
            capacity: stats.capacity,
            chunk_bytes: stats.chunk_size,
            segment_bytes: stats.segment_size,
            replicas: stats.replicas,
            chunks: stretches.iter().map(|s| s.chunks).sum(),
            ranks: holders.iter().enumerate().map(|(rank, h)| (h.replica, rank)).collect(),
            stretches,
            holders,
            other_holders,
            totals: Vec::new(),
        };
        this.totals = this.sums();
        this
    }

    /// The kind that a stretch is drawn as.
    pub fn kind(&self, s: &Stretch) -> Kind {
        match (s.used, s.replica) {
            (ChunkUse::Journal, _) => Kind::Journal,
            (ChunkUse::JournalFree, _) => Kind::JournalFree,
            (ChunkUse::Chain, Some(replica)) => self.ranks.get(&replica).map_or(Kind::Others, |&r| Kind::Holder(r)),
            (ChunkUse::Chain, None) => Kind::Dying,
            (ChunkUse::Pinned, _) => Kind::Pinned,
            (ChunkUse::Snapshot, _) => Kind::Snapshot,
            _ => Kind::Free,
        }
    }

    fn sums(&self) -> Vec<Total> {
        let mut sums: std::collections::BTreeMap<Kind, (u64, u64)> = std::collections::BTreeMap::new();
        for s in &self.stretches {
            let (chunks, live) = sums.entry(self.kind(s)).or_default();
            *chunks += s.chunks;
            *live += s.live_bytes;
        }
        sums.into_iter().map(|(kind, (chunks, live_bytes))| Total { kind, chunks, live_bytes }).collect()
    }

    /// The file cut into cells of equally many chunks, front to end.
    ///
    /// A cell is drawn as the most frequent kind in it except free: a cell with a little data must not look free.
    pub fn cells(&self, per_cell: u64) -> Vec<Cell> {
        let per_cell = per_cell.max(1);
        let mut cells = Vec::new();
        let mut parts: Vec<(Kind, u64, f64)> = Vec::new();
        let mut filled = 0;
        for s in &self.stretches {
            let (kind, mut left) = (self.kind(s), s.chunks);
            let live_each = s.live_bytes as f64 / s.chunks.max(1) as f64;
            while left > 0 {
                let n = left.min(per_cell - filled);
                parts.push((kind, n, live_each * n as f64));
                (left, filled) = (left - n, filled + n);
                if filled == per_cell {
                    cells.push(self.cell(&parts));
                    parts.clear();
                    filled = 0;
                }
            }
        }
        if !parts.is_empty() {
            cells.push(self.cell(&parts));
        }
        cells
    }

    fn cell(&self, parts: &[(Kind, u64, f64)]) -> Cell {
        let of = |kind: Kind| {
            let same = parts.iter().filter(move |p| p.0 == kind);
            same.fold((0, 0.0), |(chunks, live), p| (chunks + p.1, live + p.2))
        };
        let held = parts.iter().map(|p| p.0).filter(|&k| k != Kind::Free);
        let kind = held.max_by_key(|&k| (of(k).0, std::cmp::Reverse(k))).unwrap_or(Kind::Free);
        let (chunks, live) = of(kind);
        let whole = chunks as f64 * self.chunk_bytes as f64;
        Cell { kind, live: if kind.has_bytes() && whole > 0.0 { (live / whole).clamp(0.0, 1.0) } else { 1.0 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandlog::Batch;

    #[test]
    fn every_chunk_is_in_one_cell_and_the_biggest_have_ranks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let wal = Wal::options().capacity(4 << 20).chunk_size(4096).direct_threshold(4096).open(&path).unwrap();
        for replica in 1..=12_u64 {
            let entries: Vec<_> = (1..=20 * replica).map(|i| (i, 1, vec![1; 1000])).collect();
            wal.commit(Batch::new().append(replica, &entries)).unwrap();
        }
        let model = Model::of(&wal, &path);
        assert_eq!(model.holders.iter().map(|h| h.replica).collect::<Vec<_>>(), (5..=12).rev().collect::<Vec<_>>());
        assert_eq!(model.other_holders, 4);
        assert_eq!(model.totals.iter().map(|t| t.chunks).sum::<u64>(), model.chunks);
        for per_cell in [1, 3, 1 << 40] {
            assert_eq!(model.cells(per_cell).len() as u64, model.chunks.div_ceil(per_cell));
        }
        assert!(model.cells(1).iter().any(|c| c.kind == Kind::Holder(7) && c.live > 0.9));
        assert_ne!(model.cells(1 << 40)[0].kind, Kind::Free, "a little data is seen");
    }
}

//! Which chunks are free, and where several lie side by side.

use std::ops::Range;

use roaring::RoaringBitmap;

/// At most this many free runs are looked at for one that is long enough, which takes some tens of microseconds under the lock that orders
/// all batches; a pool may have millions. A piece that finds none is scattered, which costs its descriptor ten bytes a run, and its readers
/// a copy.
pub(super) const MOST_RUNS: usize = 4096;

/// The free chunks, as a bitmap.
#[derive(Debug)]
pub(super) struct Free {
    chunks: RoaringBitmap,
    /// How many chunks of each slab are not free.
    taken: Vec<u32>,
    /// Slabs whose chunks are all free. A pool may have very many slabs and none of these, and they are looked for under the lock that
    /// orders all batches.
    whole: RoaringBitmap,
    /// How many chunks there are, free or not.
    end: u32,
    per_slab: u32,
    /// Next-fit: the search begins where the last one ended, so that neighbours stay neighbours.
    pub(super) cursor: u32,
}

impl Free {
    /// All chunks are free, except those of the journal's slabs.
    pub fn new(end: u32, per_slab: u32, journal_slabs: &[u32]) -> Self {
        let slabs = end / per_slab;
        let (mut chunks, mut whole) = (RoaringBitmap::new(), RoaringBitmap::new());
        chunks.insert_range(0..end);
        whole.insert_range(0..slabs);
        let mut this = Self { chunks, taken: vec![0; slabs as usize], whole, end, per_slab, cursor: 0 };
        journal_slabs.iter().for_each(|&slab| this.take(slab * per_slab..(slab + 1) * per_slab));
        this
    }

    pub fn len(&self) -> u64 {
        self.chunks.len()
    }

    pub fn contains(&self, chunk: u32) -> bool {
        self.chunks.contains(chunk)
    }

    /// The free chunks, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.chunks.iter()
    }

    /// `false`: it was free already.
    pub fn insert(&mut self, chunk: u32) -> bool {
        if !self.chunks.insert(chunk) {
            return false;
        }
        let slab = chunk / self.per_slab;
        if let Some(taken) = self.taken.get_mut(slab as usize) {
            *taken -= 1;
            if *taken == 0 {
                self.whole.insert(slab);
            }
        }
        true
    }

    pub fn remove(&mut self, chunk: u32) {
        self.take(chunk..chunk + 1);
    }

    /// Takes those of these chunks that are free.
    fn take(&mut self, chunks: Range<u32>) {
        let mut first = chunks.start;
        while first < chunks.end {
            let slab = first / self.per_slab;
            let end = chunks.end.min((slab + 1) * self.per_slab);
            let n = self.chunks.remove_range(first..end) as u32;
            if let Some(taken) = self.taken.get_mut(slab as usize).filter(|_| n > 0) {
                *taken += n;
                self.whole.remove(slab);
            }
            first = end;
        }
    }

    /// Takes `n` adjacent chunks: behind the wish, or else from the cursor on, all around. It gives up after very many runs that are too
    /// short: the next search goes on there.
    pub fn take_run(&mut self, n: u32, wish: Option<u32>) -> Option<u32> {
        let chunk = self.find(n, wish.unwrap_or(self.cursor))?;
        self.take(chunk..chunk + n);
        self.cursor = chunk + n;
        Some(chunk)
    }

    pub(super) fn find(&mut self, n: u32, wish: u32) -> Option<u32> {
        let end = self.end;
        let near = match self.run(n, wish.min(end)..end, MOST_RUNS / 2) {
            Ok(chunk) => return Some(chunk),
            Err(near) => near,
        };
        // Nothing is to be found between the wish and `near`.
        let from = if (wish..near).contains(&self.cursor) { near } else { self.cursor }.min(end);
        let found = self.run(n, from..end, MOST_RUNS / 4).or_else(|far| {
            let around = self.run(n, 0..from.saturating_add(n).min(end), MOST_RUNS / 4);
            around.map_err(|near| if far < end { far } else { near })
        });
        match found {
            Ok(chunk) => Some(chunk),
            Err(cursor) => {
                self.cursor = cursor;
                None
            }
        }
    }

    /// The first `n` adjacent free chunks in `among`, if fewer than `most` runs lie before them. Otherwise where the search ended.
    fn run(&self, n: u32, among: Range<u32>, most: usize) -> Result<u32, u32> {
        let mut free = self.chunks.range(among.clone());
        let (mut run, mut looked) = (0..0, 0);
        while looked < most {
            let Some(next) = free.next_range() else { return Err(among.end) };
            let (first, end) = (*next.start(), *next.end() + 1);
            if run.is_empty() || first != run.end {
                run.start = first;
                looked += 1;
                #[cfg(all(test, not(any(loom, shuttle))))]
                tests::LOOKED_AT.set(tests::LOOKED_AT.get() + 1);
            }
            run.end = end;
            if run.end - run.start >= n {
                return Ok(run.start);
            }
        }
        Err(run.end)
    }

    /// Takes any `n` chunks: only for a piece longer than every free run that was looked at.
    pub fn take_any(&mut self, n: u32) -> Vec<u32> {
        let picked: Vec<u32> = self.chunks.iter().take(n as usize).collect();
        picked.iter().for_each(|&chunk| self.remove(chunk));
        picked
    }

    /// Free runs of `wanted` chunks, each as its first chunk and its length: the smallest run that holds them all; if there is none, the
    /// `most` longest.
    pub fn runs(&self, wanted: u64, most: usize) -> Vec<(u32, u64)> {
        let mut runs: Vec<(u32, u64)> = Vec::new();
        let mut free = self.chunks.range(..);
        // Adjacent ranges of the bitmap may be one run.
        while let Some(next) = free.next_range() {
            let (chunk, more) = (*next.start(), u64::from(next.end() - next.start()) + 1);
            match runs.last_mut() {
                Some((first, n)) if u64::from(*first) + *n == u64::from(chunk) => *n += more,
                _ => runs.push((chunk, more)),
            }
        }
        // The smallest that holds all of them; else the longest.
        if let Some(&run) = runs.iter().filter(|(_, n)| *n >= wanted).min_by_key(|&&(first, n)| (n, first)) {
            return vec![run];
        }
        runs.sort_unstable_by_key(|&(first, n)| (std::cmp::Reverse(n), first));
        runs.truncate(most);
        runs
    }

    /// Takes a slab whose chunks are all free.
    pub fn take_slab(&mut self) -> Option<u32> {
        // From the end: chains fill the pool from the front.
        let slab = self.whole.max()?;
        self.take(slab * self.per_slab..(slab + 1) * self.per_slab);
        Some(slab)
    }

    /// Frees the chunks of a slab. Answers how many were not free.
    pub fn insert_slab(&mut self, slab: u32) -> u64 {
        (slab * self.per_slab..(slab + 1) * self.per_slab).map(|chunk| u64::from(self.insert(chunk))).sum()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
#[path = "free_tests.rs"]
pub(super) mod tests;

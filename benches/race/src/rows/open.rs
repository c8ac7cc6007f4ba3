//! Opening: one process writes and ends, another opens with an empty cache.

use std::time::Instant;

use super::{Context, REPLICAS, read};
use crate::measure::{Figures, anonymous};
use crate::stores::{Part, Scratch, Store};

/// What is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// 4M entries, 1 GiB; the process that wrote them was killed.
    Unclean,
    /// The same, closed.
    Clean,
    /// 16 GiB in entries of 64 KiB, of which the newest 4 GiB are kept; killed.
    Large,
    /// 100,000 replicas with one entry each; killed.
    Idle100k,
    /// 1,000,000 replicas with one entry each; killed.
    Idle1m,
}

impl Open {
    const ALL: [Self; 5] = [Self::Unclean, Self::Clean, Self::Large, Self::Idle100k, Self::Idle1m];

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|o| o.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Unclean => "open-unclean",
            Self::Clean => "open-clean",
            Self::Large => "open-large",
            Self::Idle100k => "idle-100k",
            Self::Idle1m => "idle-1m",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Unclean => "after a kill",
            Self::Clean => "after a close",
            Self::Large => "after 16 GiB of 64 KiB entries",
            Self::Idle100k => "100,000 idle replicas",
            Self::Idle1m => "1,000,000 idle replicas",
        }
    }
}

pub fn open(ctx: &Context, what: Open) -> Figures {
    let each = ((4000.0 * ctx.scale) as u64).max(4);
    let idle = match what {
        Open::Idle1m => 1_000_000,
        _ => 100_000,
    };
    let capacity = match what {
        Open::Unclean | Open::Clean => ((2.5 * ctx.scale * f64::from(1 << 30)) as u64).max(128 << 20),
        Open::Large => 6 << 30,
        Open::Idle100k => 1 << 30,
        Open::Idle1m => 8 << 30,
    };
    let start = Instant::now();
    let store = ctx.open(capacity);
    if ctx.phase == 1 {
        let ms = start.elapsed().as_secs_f64() * 1e3;
        let memory = anonymous() as f64 / f64::from(1 << 20);
        ctx.note(&*store);
        match what {
            Open::Unclean | Open::Clean => assert_eq!(store.read(3, 1, each), each),
            Open::Large => {}
            Open::Idle100k | Open::Idle1m => assert_eq!(store.entry(idle, 1), 256),
        }
        let mut figures = Figures::default().with("open ms", ms).with("anon MiB", memory);
        figures.extend(ctx.footprint(&*store));
        return figures;
    }
    match what {
        Open::Unclean | Open::Clean => read::fill(ctx, &*store, each, 256),
        Open::Large => large(ctx, &*store),
        Open::Idle100k | Open::Idle1m => one_each(ctx, &*store, idle),
    }
    if what == Open::Clean {
        store.close();
        drop(store);
    } else {
        // A killed process gives back nothing: so the store is not dropped.
        std::mem::forget(store);
    }
    Figures::default()
}

fn large(ctx: &Context, store: &dyn Store) {
    let mut scratch = Scratch::default();
    let rounds = (16.0 * ctx.scale * f64::from(1 << 30)) as u64 / (REPLICAS * (64 << 10));
    for index in 1..=rounds {
        for first in (0..REPLICAS).step_by(20) {
            let entries: Vec<[&'static [u8]; 1]> =
                (first..first + 20).map(|r| [ctx.payload.get(index * REPLICAS + r, 64 << 10)]).collect();
            let parts: Vec<_> = (first..first + 20)
                .zip(&entries)
                .map(|(r, entries)| Part {
                    replica: r + 1,
                    first: index,
                    entries,
                    truncate: (index > 60).then(|| index - 60),
                })
                .collect();
            store.commit(&parts, &mut scratch);
        }
        store.tend();
    }
}

fn one_each(ctx: &Context, store: &dyn Store, replicas: u64) {
    let mut scratch = Scratch::default();
    for first in (1..=replicas).step_by(1000) {
        let entries: Vec<[&'static [u8]; 1]> = (first..first + 1000).map(|r| [ctx.payload.get(r, 256)]).collect();
        let parts: Vec<_> = (first..first + 1000)
            .zip(&entries)
            .map(|(r, entries)| Part { replica: r, first: 1, entries, truncate: None })
            .collect();
        store.commit(&parts, &mut scratch);
    }
}

//! Models of readers beside a submitter: what a reader sees is the log as it stood at some moment, and all of it can be read.

use super::rig_loom::{Log, model};
use super::{Engine, Mode};
use crate::batch::Batch;
use crate::error::Error;
use crate::index::Cell;
use crate::sync::Arc;

const REPLICA: u64 = 7;

fn submit(engine: &Engine, batch: &mut Batch) {
    engine.submit(batch, Mode::Block, None, false).unwrap();
}

fn append(index: u64, term: u64, bytes: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.append(REPLICA, &[(index, term, bytes)]);
    batch
}

fn log() -> (Arc<Log>, Arc<Cell>) {
    let log = Log::new(1 << 20);
    submit(&log.engine, &mut append(1, 1, b"one"));
    let cell = log.engine.registry.get(REPLICA).unwrap();
    (log, cell)
}

/// An entry is there with its term and its bytes, or not at all; and what the bounds promise can be read.
#[test]
fn loom_a_reader_sees_an_append_whole_or_not_at_all() {
    model(3, || {
        let (log, cell) = log();
        let writer = log.spawn(|log| submit(&log.engine, &mut append(2, 1, b"two")));
        let last = cell.lock().last;
        let entry = log.engine.read_entry(&cell, 2);
        match entry {
            Ok(entry) => assert_eq!((entry.term, &entry.data[..]), (1, &b"two"[..])),
            Err(Error::OutOfRange { last_index: 1, .. }) => assert_eq!(last, 1, "it was there a moment ago"),
            Err(error) => panic!("{error}"),
        }
        writer.join().unwrap();
        assert_eq!(log.engine.read_entry(&cell, 1).unwrap().data, b"one"[..]);
    });
}

/// Term and bytes are of the same entry, whichever of the two it is.
#[test]
fn loom_a_reader_never_mixes_an_entry_with_the_one_that_replaces_it() {
    model(3, || {
        let (log, cell) = log();
        let writer = log.spawn(|log| submit(&log.engine, &mut append(1, 2, b"uno")));
        let read = |_| {
            let entry = log.engine.read_entry(&cell, 1).unwrap();
            match entry.term {
                1 => assert_eq!(entry.data, b"one"[..]),
                2 => assert_eq!(entry.data, b"uno"[..]),
                term => panic!("term {term}"),
            }
            entry.term
        };
        let terms = [(); 2].map(read);
        assert!(terms[0] <= terms[1], "the old one came back");
        writer.join().unwrap();
    });
}

/// Bytes move from the open frame to the sealed one to the disk; a reader finds them in one of them.
#[test]
fn loom_a_reader_finds_an_entry_while_its_frame_is_sealed_and_written() {
    model(2, || {
        let (log, cell) = log();
        let writer = log.spawn(|log| log.engine.sync().map(drop).unwrap());
        assert_eq!(log.engine.read_entry(&cell, 1).unwrap().data, b"one"[..]);
        writer.join().unwrap();
    });
}

/// A reader of what was truncated is told so; what was kept stays.
#[test]
fn loom_a_reader_beside_a_truncation_is_told_or_served() {
    model(3, || {
        let (log, cell) = log();
        submit(&log.engine, &mut append(2, 3, b"two"));
        let writer = log.spawn(|log| {
            let mut batch = Batch::new();
            batch.truncate_prefix(REPLICA, 2);
            submit(&log.engine, &mut batch);
        });
        match log.engine.read_entry(&cell, 1) {
            Ok(entry) => assert_eq!(entry.data, b"one"[..]),
            Err(Error::Compacted { first_index: 2, .. }) => {}
            Err(error) => panic!("{error}"),
        }
        assert_eq!(log.engine.read_term(&cell, 1).unwrap(), 1, "raft asks for it before and after");
        assert_eq!(log.engine.read_entry(&cell, 2).unwrap().data, b"two"[..]);
        writer.join().unwrap();
    });
}

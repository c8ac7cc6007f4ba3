//! Reading TiKV's raft-engine: its groups become replicas, and its entries and keys remain entries and keys.
//!
//! The engine stores each entry as the message that its owner gave. That message becomes the payload, byte for byte. Index and term are read from two
//! of its fields, by default those of raft's own `eraftpb.Entry`.

use std::any::Any;
use std::cell::Cell;

use protobuf::reflect::MessageDescriptor;
use protobuf::well_known_types::Empty;
use protobuf::wire_format::WireType;
use protobuf::{Clear, CodedInputStream, CodedOutputStream, Message, ProtobufResult, UnknownFields};
use raft_engine::{Config, Engine, MessageExt, RecoveryMode};

use super::{Items, files};
use crate::args::Import;
use crate::failure::{Failure, Result};
use crate::item::{Head, Item, Shape};
use crate::output::say;

/// A new log is this many times as large as what the engine holds: it must hold that, the tails twice for a moment, and a journal.
const ROOM: u64 = 3;
const LEAST_CAPACITY: u64 = 512 << 20;

/// A message that is kept as bytes, not decoded.
#[derive(Clone, Debug, Default, PartialEq)]
struct Kept {
    bytes: Vec<u8>,
    unknown: UnknownFields,
}

impl Clear for Kept {
    fn clear(&mut self) {
        self.bytes.clear();
    }
}

impl Message for Kept {
    fn descriptor(&self) -> &'static MessageDescriptor {
        // Nobody looks inside, so the empty one will do.
        Empty::descriptor_static()
    }
    fn is_initialized(&self) -> bool {
        true
    }
    fn merge_from(&mut self, input: &mut CodedInputStream<'_>) -> ProtobufResult<()> {
        while !input.eof()? {
            self.bytes.push(input.read_raw_byte()?);
        }
        Ok(())
    }
    fn write_to_with_cached_sizes(&self, output: &mut CodedOutputStream<'_>) -> ProtobufResult<()> {
        output.write_raw_bytes(&self.bytes)
    }
    fn compute_size(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }
    fn get_cached_size(&self) -> u32 {
        self.compute_size()
    }
    fn get_unknown_fields(&self) -> &UnknownFields {
        &self.unknown
    }
    fn mut_unknown_fields(&mut self) -> &mut UnknownFields {
        &mut self.unknown
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn new() -> Self {
        Self::default()
    }
    fn default_instance() -> &'static Self {
        static NONE: std::sync::OnceLock<Kept> = std::sync::OnceLock::new();
        NONE.get_or_init(Self::default)
    }
}

thread_local! {
    /// The index of the entry that is being read. The engine asks each message for its index, which `Kept` does not decode.
    static WANTED: Cell<u64> = const { Cell::new(0) };
}

#[derive(Clone)]
struct Entries;

impl MessageExt for Entries {
    type Entry = Kept;
    fn index(_: &Kept) -> u64 {
        WANTED.get()
    }
}

/// The numbers in two fields of a message; 0 if a field is missing or not a number.
fn numbers(bytes: &[u8], fields: [u32; 2]) -> ProtobufResult<[u64; 2]> {
    let mut input = CodedInputStream::from_bytes(bytes);
    let mut found = [0; 2];
    while !input.eof()? {
        let (field, kind) = input.read_tag_unpack()?;
        match fields.iter().position(|f| *f == field) {
            Some(i) if kind == WireType::WireTypeVarint => found[i] = input.read_raw_varint64()?,
            _ => input.skip_field(kind)?,
        }
    }
    Ok(found)
}

/// The groups of an engine, read one after the other.
pub struct Groups {
    engine: Engine,
    fields: [u32; 2],
    ids: Vec<u64>,
    at: usize,
    keys: Vec<(Vec<u8>, Vec<u8>)>,
    /// Index of the next entry of the group, and of the last.
    entries: Option<(u64, u64)>,
    used: u64,
}

impl Groups {
    /// Opens the engine as its owner would. The owner must not have it open.
    pub fn open(args: &Import) -> Result<Self> {
        if args.index_field == args.term_field {
            let why = "--index-field and --term-field are one field: index and term of an entry are in two";
            return Err(Failure::Request(why.into()));
        }
        files::all_there(&args.source, args.spill_dir.as_deref())?;
        let config = Config {
            dir: args.source.to_string_lossy().into_owned(),
            spill_dir: args.spill_dir.as_ref().map(|dir| dir.to_string_lossy().into_owned()),
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            ..Config::default()
        };
        let failed = |e| Failure::Request(format!("opening {} with raft-engine: {e}", args.source.display()));
        let engine = Engine::open(config).map_err(failed)?;
        if args.spill_dir.is_none() {
            say(format_args!(
                "no --spill-dir was named: where the engine has a `spill-dir`, what lies there, which may be its newest, is not imported"
            ));
        }
        let mut ids = engine.raft_groups();
        ids.sort_unstable();
        let used = engine.get_used_size() as u64;
        let fields = [args.index_field, args.term_field];
        Ok(Self { engine, fields, ids, at: 0, keys: Vec::new(), entries: None, used })
    }

    fn entry(&self, group: u64, index: u64) -> Result<(u64, Vec<u8>)> {
        WANTED.set(index);
        let failed = |what: &dyn std::fmt::Display| Failure::Request(format!("group {group}, entry {index}: {what}"));
        let read = self.engine.get_entry::<Entries>(group, index).map_err(|e| failed(&e))?;
        let message = read.ok_or_else(|| failed(&"it is not there"))?;
        let [own, term] = numbers(&message.bytes, self.fields).map_err(|e| failed(&e))?;
        if own != index {
            let [field, _] = self.fields;
            return Err(failed(&format!(
                "field {field} of its message says {own}: --index-field and --term-field say where they are"
            )));
        }
        // No raft entry has term 0.
        if term == 0 {
            let [_, field] = self.fields;
            return Err(failed(&format!("field {field} of its message holds no term: --term-field says where it is")));
        }
        Ok((term, message.bytes))
    }

    /// Begins the next group: reads its keys and its bounds.
    fn group(&mut self) -> Result<Option<Item>> {
        let Some(&replica) = self.ids.get(self.at) else { return Ok(None) };
        let mut keys = Vec::new();
        let scanned = self.engine.scan_raw_messages(replica, None, None, false, |key, value| {
            keys.push((key.to_vec(), value.to_vec()));
            true
        });
        scanned.map_err(|e| Failure::Request(format!("group {replica}: {e}")))?;
        keys.reverse();
        self.keys = keys;
        self.entries = self.engine.first_index(replica).zip(self.engine.last_index(replica));
        let (first, last) = self.entries.unwrap_or((1, 0));
        // The engine does not store the term before the first entry.
        Ok(Some(Item::Replica(Head { replica, first, last, term_before_first: 0, applied: None })))
    }
}

impl Items for Groups {
    fn shape(&self) -> Shape {
        let capacity = self.used.saturating_mul(ROOM).max(LEAST_CAPACITY).next_multiple_of(1 << 20);
        Shape { capacity, ..Shape::default() }
    }

    fn next(&mut self) -> Result<Option<Item>> {
        let Some(replica) = self.at.checked_sub(1).and_then(|at| self.ids.get(at)).copied() else {
            let first = self.group()?;
            self.at += 1;
            return Ok(first);
        };
        if let Some((key, value)) = self.keys.pop() {
            return Ok(Some(Item::Key { replica, key, value }));
        }
        if let Some((index, last)) = self.entries {
            let (term, data) = self.entry(replica, index)?;
            self.entries = index.checked_add(1).filter(|&next| next <= last).map(|next| (next, last));
            return Ok(Some(Item::Entry { replica, index, term, data }));
        }
        let next = self.group()?;
        self.at += 1;
        Ok(next)
    }

    fn progress(&self) -> (u64, u64) {
        // In bytes, as if all groups were of equal size.
        let share = self.at as f64 / self.ids.len().max(1) as f64;
        ((self.used as f64 * share) as u64, self.used)
    }
}

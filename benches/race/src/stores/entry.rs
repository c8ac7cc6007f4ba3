//! An entry as raft has it when it is to be persisted: a message that exists already and borrows its data.

use std::any::Any;
use std::borrow::Cow;

use protobuf::reflect::MessageDescriptor;
use protobuf::rt::{bytes_size, value_size};
use protobuf::wire_format::WireTypeVarint;
use protobuf::{Clear, CodedInputStream, CodedOutputStream, Message, ProtobufResult, UnknownFields};

const INDEX: u32 = 1;
const DATA: u32 = 2;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    pub index: u64,
    pub data: Cow<'static, [u8]>,
    unknown: UnknownFields,
}

impl Entry {
    pub fn new(index: u64, data: &'static [u8]) -> Self {
        Self { index, data: Cow::Borrowed(data), ..Self::default() }
    }
}

impl Clear for Entry {
    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Message for Entry {
    fn descriptor(&self) -> &'static MessageDescriptor {
        unreachable!("no field is missing, and nobody prints it")
    }
    fn is_initialized(&self) -> bool {
        true
    }
    fn merge_from(&mut self, is: &mut CodedInputStream<'_>) -> ProtobufResult<()> {
        while !is.eof()? {
            match is.read_tag_unpack()? {
                (INDEX, _) => self.index = is.read_uint64()?,
                (DATA, _) => self.data = Cow::Owned(is.read_bytes()?),
                (_, wire) => is.skip_field(wire)?,
            }
        }
        Ok(())
    }
    fn write_to_with_cached_sizes(&self, os: &mut CodedOutputStream<'_>) -> ProtobufResult<()> {
        os.write_uint64(INDEX, self.index)?;
        os.write_bytes(DATA, &self.data)
    }
    fn compute_size(&self) -> u32 {
        value_size(INDEX, self.index, WireTypeVarint) + bytes_size(DATA, &self.data)
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
        unreachable!("nobody asks for what is in no entry")
    }
}

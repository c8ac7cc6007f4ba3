//! `decode`: every decoder alone, on any bytes, and on bytes whose checksum was repaired. What decodes encodes to the same again.

use strandlog::format::frame::{FRAME_HEADER_BYTES, FrameHeader, LEAST_PARTICIPANT_BYTES, Participants};
use strandlog::format::piece::{PIECE_HEADER_BYTES, PieceDesc, PieceHeader};
use strandlog::format::record::{self, Body, Record, Records, RunKind};
use strandlog::format::superblock::{SUPERBLOCK_BYTES, Superblock};
use strandlog::format::{BLOCK_BYTES, Reader, Seed, varint};

/// Blocks in the pool: extents beyond them are refused.
const POOL_BLOCKS: u32 = 1 << 20;
const SEGMENT: u64 = 4 << 20;

/// Runs one input.
///
/// # Panics
/// When a decoder does, or when what it decoded does not encode to the same.
pub fn run(bytes: &[u8]) {
    let Some((&what, bytes)) = bytes.split_first() else { return };
    match what % 6 {
        0 => superblock(bytes, what & 0x80 != 0),
        1 => header(bytes, what & 0x80 != 0),
        2 => table(bytes),
        3 => descriptor(bytes),
        4 => piece(bytes, what & 0x80 != 0),
        _ => number(bytes),
    }
}

/// The bytes, cut or padded with zeros to `len`.
fn sized(bytes: &[u8], len: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(len, 0);
    bytes
}

fn superblock(bytes: &[u8], repair: bool) {
    let mut bytes = sized(bytes, SUPERBLOCK_BYTES);
    if repair {
        let crc = crc32c::crc32c(&bytes[..SUPERBLOCK_BYTES - 4]).to_le_bytes();
        bytes[SUPERBLOCK_BYTES - 4..].copy_from_slice(&crc);
    }
    for file in [0, 1 << 20, u64::MAX] {
        if let Ok(sb) = Superblock::decode(&bytes, file) {
            assert_eq!(Superblock::decode(&sb.encode(), file), Ok(sb));
        }
    }
}

fn header(bytes: &[u8], repair: bool) {
    let seed = Seed::new(&[7; 16]);
    let mut bytes = sized(bytes, FRAME_HEADER_BYTES);
    let at = FRAME_HEADER_BYTES - 4;
    if repair {
        let lsn = Reader::new(&bytes[8..16]).u64().expect("eight bytes");
        let crc = seed.crc(lsn, &bytes[..at]).to_le_bytes();
        bytes[at..].copy_from_slice(&crc);
    }
    let lsn = Reader::new(&bytes[8..16]).u64().expect("eight bytes");
    if let Some(header) = FrameHeader::decode(seed, lsn % SEGMENT, SEGMENT, &bytes) {
        assert!(header.end() > header.lsn && header.bytes() <= SEGMENT - lsn % SEGMENT);
        assert!(header.table_range().end as u64 <= header.bytes());
        let mut again = vec![0; FRAME_HEADER_BYTES];
        header.encode(seed, &mut again);
        assert_eq!(FrameHeader::decode(seed, lsn % SEGMENT, SEGMENT, &again), Some(header));
    }
}

fn table(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    if let Some(Participants::These(ids)) = Participants::decode(&mut reader, LEAST_PARTICIPANT_BYTES) {
        assert!(ids.len() <= bytes.len() && ids.is_sorted());
    }
    for record in Records::new(reader, POOL_BLOCKS).map_while(Result::ok) {
        let mut again = Vec::new();
        encode(&record, &mut again);
        let mut records = Records::new(Reader::new(&again), POOL_BLOCKS);
        let second = records.next().expect("one").expect("it was decoded once");
        assert!(records.next().is_none());
        let mut third = Vec::new();
        encode(&second, &mut third);
        assert_eq!(again, third, "{record:?}");
    }
}

fn encode(record: &Record<'_>, out: &mut Vec<u8>) {
    let (id, seq) = (record.replica, record.seq);
    match &record.body {
        Body::Core(core) => record::encode_core(out, id, seq, core),
        Body::Append { first, term, lens } => {
            record::encode_run(out, RunKind::Append, id, seq, (*first, *term), Vec::from_iter(lens.iter()).into_iter());
        }
        Body::Carried { first, term, lens } => {
            record::encode_run(
                out,
                RunKind::Carried,
                id,
                seq,
                (*first, *term),
                Vec::from_iter(lens.iter()).into_iter(),
            );
        }
        Body::Placed(pieces) => record::encode_pieces(out, RunKind::Append, id, seq, pieces),
        Body::Settled(pieces) => record::encode_pieces(out, RunKind::Carried, id, seq, pieces),
        Body::Put { key, value } => record::encode_put(out, id, seq, key, value),
        Body::PutOut { key, piece } => record::encode_put_out(out, id, seq, key, piece),
        Body::KeptOut { key, piece } => record::encode_kept_out(out, id, seq, key, piece),
        Body::Delete { key } => record::encode_delete(out, id, seq, key),
        Body::Truncate { first, prev_term } => record::encode_truncate(out, id, seq, *first, *prev_term),
        Body::Cut { first } => record::encode_cut(out, id, seq, *first),
        Body::Reset { first, prev_term } => record::encode_reset(out, id, seq, *first, *prev_term),
        Body::Remove => record::encode_remove(out, id, seq),
    }
}

fn descriptor(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    if let Some(desc) = PieceDesc::decode(&mut reader, POOL_BLOCKS) {
        assert!(
            desc.extents.iter().all(|e| e.blocks > 0 && u64::from(e.block) + u64::from(e.blocks) <= POOL_BLOCKS.into())
        );
        assert!(desc.count <= desc.slots && desc.last() >= desc.first || desc.count == 0);
        let mut again = Vec::new();
        desc.encode(&mut again);
        assert_eq!(PieceDesc::decode(&mut Reader::new(&again), POOL_BLOCKS), Some(desc));
    }
}

fn piece(bytes: &[u8], repair: bool) {
    let seed = Seed::new(&[7; 16]);
    let mut bytes = sized(bytes, bytes.len().clamp(PIECE_HEADER_BYTES, BLOCK_BYTES as usize));
    if repair {
        // The header's own checksum; what it says of the table may still be wrong.
        let id = Reader::new(&bytes[8..16]).u64().expect("eight bytes");
        let crc = seed.crc(id, &bytes[..PIECE_HEADER_BYTES - 4]).to_le_bytes();
        bytes[PIECE_HEADER_BYTES - 4..PIECE_HEADER_BYTES].copy_from_slice(&crc);
    }
    if let Some((header, _)) = PieceHeader::decode(seed, &bytes) {
        let room = bytes.len().saturating_sub(PIECE_HEADER_BYTES) / 8;
        assert!(header.slots as usize <= room, "a table longer than the bytes that hold it");
    }
}

fn number(bytes: &[u8]) {
    if let Some((value, used)) = varint::decode(bytes) {
        assert!(used <= bytes.len() && varint::len(value) <= used);
        let mut again = Vec::new();
        varint::encode(value, &mut again);
        assert_eq!(varint::decode(&again), Some((value, varint::len(value))));
    }
}

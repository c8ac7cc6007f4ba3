//! Frames with lies in them: the fuzzer chooses the lies, and every checksum over them holds.

use strandlog::format::frame::{FRAME_HEADER_BYTES, FrameHeader, Participants};
use strandlog::format::piece::{Extent, PieceDesc};
use strandlog::format::record::{self, Core, RunKind};
use strandlog::format::{BLOCK_BYTES, EntryId, Seed};

use super::input::Input;

/// A table under construction, and the payload that its records speak of.
struct Crafted {
    seed: Seed,
    table: Vec<u8>,
    payload: Vec<u8>,
    lsn: u64,
    digest: u32,
}

/// Writes a frame over whatever lies at the front of `room`; answers its header. What does not fit is cut off, checksums and all.
pub fn frame(input: &mut Input<'_>, mut header: FrameHeader, seed: Seed, room: &mut [u8]) -> FrameHeader {
    let lsn = header.lsn.wrapping_add(FRAME_HEADER_BYTES as u64);
    let mut it = Crafted { seed, table: Vec::new(), payload: Vec::new(), lsn, digest: 0 };
    let mut ids: Vec<u64> = (0..input.below(4)).map(|_| input.number(1)).collect();
    Participants::encode(&mut ids, 1 << 10, &mut it.table);
    for _ in 0..input.below(8) {
        it.record(input);
    }
    let fits = |bytes: usize, room: usize| bytes.min(room);
    it.payload.truncate(fits(it.payload.len(), room.len() - FRAME_HEADER_BYTES));
    it.table.truncate(fits(it.table.len(), room.len() - FRAME_HEADER_BYTES - it.payload.len()));
    header.payload_bytes = it.payload.len() as u32;
    header.payload_digest = it.digest;
    header.blocks = ((FRAME_HEADER_BYTES + it.payload.len() + it.table.len()) as u64).div_ceil(BLOCK_BYTES) as u32;
    room[FRAME_HEADER_BYTES..][..it.payload.len()].copy_from_slice(&it.payload);
    set_table(&mut header, seed, room, &it.table);
    header
}

/// Puts `table` into the frame at the front of `room`, and its checksum into the header.
pub fn set_table(header: &mut FrameHeader, seed: Seed, room: &mut [u8], table: &[u8]) {
    header.table_bytes = table.len() as u32;
    header.table_crc = seed.crc(header.lsn, table);
    if let Some(place) = room.get_mut(header.table_range()) {
        place.copy_from_slice(table);
    }
    header.encode(seed, room);
}

impl Crafted {
    fn record(&mut self, input: &mut Input<'_>) {
        let (replica, seq) = (input.number(1), input.u16());
        let t = &mut self.table;
        match input.u8() % 12 {
            0 => {
                let core = Core {
                    incarnation: input.number(1),
                    first: input.number(1),
                    prev_term: input.number(1),
                    last: input.number(3),
                    fresh: input.bool(),
                    state_suspect: input.bool(),
                    damaged: (0..input.below(20)).map(|_| (input.number(1), input.number(1))).collect(),
                };
                record::encode_core(t, replica, seq, &core);
            }
            1 => self.run(RunKind::Append, replica, seq, input),
            2 => self.run(RunKind::Carried, replica, seq, input),
            3 => pieces(t, RunKind::Append, replica, seq, input),
            4 => pieces(t, RunKind::Carried, replica, seq, input),
            5 => record::encode_put(t, replica, seq, b"state", input.take(9)),
            // Which of the two is chosen costs no byte of the input: older corpora still say the same.
            6 if seq % 2 == 0 => record::encode_put_out(t, replica, seq, b"large", &desc(input)),
            6 => record::encode_kept_out(t, replica, seq, b"large", &desc(input)),
            7 if seq % 2 == 0 => record::encode_delete(t, replica, seq, b"state"),
            7 => record::encode_cut(t, replica, seq, u64::from(seq >> 1)),
            8 => {
                let (first, term) = (input.number(1), input.number(1));
                record::encode_truncate(t, replica, seq, first, (term > 0).then_some(term));
            }
            9 => record::encode_reset(t, replica, seq, input.number(1), input.number(1)),
            10 => record::encode_remove(t, replica, seq),
            _ => {
                let n = input.below(40);
                t.extend_from_slice(input.take(n));
            }
        }
    }

    /// Entries whose payload is really there, unless the fuzzer says otherwise.
    fn run(&mut self, kind: RunKind, replica: u64, seq: u16, input: &mut Input<'_>) {
        let (first, term) = (input.number(1), input.number(1));
        let honest = input.u8() != 0;
        let many = input.below(16);
        let lens: Vec<u32> =
            (0..many).map(|_| if honest { u32::from(input.u8()) } else { input.number(1) as u32 }).collect();
        record::encode_run(&mut self.table, kind, replica, seq, (first, term), lens.iter().copied());
        for (index, &len) in (0..).map(|i| first.wrapping_add(i)).zip(lens.iter().filter(|_| honest)) {
            let payload = vec![index as u8; len as usize];
            let id = EntryId { replica, index, term, len };
            let crc = self.seed.entry_crc(crc32c::crc32c(&payload), self.lsn, id).to_le_bytes();
            self.digest = crc32c::crc32c_append(self.digest, &crc);
            self.payload.extend_from_slice(&crc);
            self.payload.extend_from_slice(&payload);
            self.lsn = self.lsn.wrapping_add(4 + u64::from(len));
        }
    }
}

fn pieces(t: &mut Vec<u8>, kind: RunKind, replica: u64, seq: u16, input: &mut Input<'_>) {
    let list: Vec<PieceDesc> = (0..input.below(4)).map(|_| desc(input)).collect();
    record::encode_pieces(t, kind, replica, seq, &list);
}

fn desc(input: &mut Input<'_>) -> PieceDesc {
    let count = input.number(1) as u32;
    let slots = input.number(count.into()) as u32;
    let extents: Vec<_> = (0..1 + input.below(6))
        .map(|_| Extent { block: input.number(96) as u32, blocks: input.number(1) as u32 })
        .collect();
    let terms = if input.bool() { vec![(count, 1)] } else { vec![(input.number(1) as u32, 1), (input.u8().into(), 2)] };
    PieceDesc {
        id: input.number(1),
        first: input.number(1),
        count,
        slots,
        // Zero slots mean bare.
        bare: slots == 0,
        bytes: input.number(100) as u32,
        crc: 0,
        terms: terms.into(),
        extents: extents.into(),
    }
}

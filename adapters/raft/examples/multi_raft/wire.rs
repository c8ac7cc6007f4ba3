//! The protocol between two processes: frames on a stream, length first.

use std::io::{self, Read, Write};

use protobuf::Message as _;
use raft::eraftpb::Message;

use crate::Result;
use crate::net::{Envelope, Outcome, Proposal};
use crate::store::{Opened, Usage};

/// The largest length that is accepted.
const LIMIT: usize = 1 << 30;

/// The progress of one store, for the board of the other process.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub applied_entries: u64,
    pub snapshots: u64,
    /// Applied index and whether it leads, group by group.
    pub groups: Vec<(u64, bool)>,
    pub failure: Option<String>,
}

#[derive(Clone, Debug)]
pub enum Frame {
    Raft {
        store: u64,
        lane: u64,
        batch: Vec<Envelope>,
    },
    Propose(Vec<Proposal>),
    Outcomes(Vec<Outcome>),
    Status(Status),
    /// The child's store is open.
    Hello(Opened),
    Campaign,
    /// Close the log and end.
    Finish,
    /// The log is closed.
    Bye(Usage),
}

pub fn write(stream: &mut impl Write, frame: &Frame) -> Result<()> {
    let body = encode(frame)?;
    stream.write_all(&u32::try_from(body.len())?.to_le_bytes())?;
    stream.write_all(&body)?;
    Ok(())
}

/// The next frame; `None` if the other side is gone.
pub fn read(stream: &mut impl Read) -> Result<Option<Frame>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > LIMIT {
        return Err(format!("a frame of {length} bytes").into());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    decode(Body(&body)).map(Some)
}

fn encode(frame: &Frame) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let words = |out: &mut Vec<u8>, words: &[u64]| words.iter().for_each(|w| out.extend_from_slice(&w.to_le_bytes()));
    let bytes = |out: &mut Vec<u8>, bytes: &[u8]| {
        out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    match frame {
        Frame::Raft { store, lane, batch } => {
            words(&mut out, &[0, *store, *lane, batch.len() as u64]);
            for (group, message) in batch {
                words(&mut out, &[*group]);
                bytes(&mut out, &message.write_to_bytes()?);
            }
        }
        Frame::Propose(proposals) => {
            words(&mut out, &[1, proposals.len() as u64]);
            for proposal in proposals {
                words(&mut out, &[proposal.id, proposal.group]);
                bytes(&mut out, &proposal.payload);
            }
        }
        Frame::Outcomes(outcomes) => {
            words(&mut out, &[2, outcomes.len() as u64]);
            for outcome in outcomes {
                match outcome {
                    Outcome::Applied(id) => words(&mut out, &[0, *id]),
                    Outcome::NotLeader(id) => words(&mut out, &[1, *id]),
                }
            }
        }
        Frame::Status(status) => {
            words(&mut out, &[3, status.applied_entries, status.snapshots, status.groups.len() as u64]);
            for (applied, leads) in &status.groups {
                words(&mut out, &[applied << 1 | u64::from(*leads)]);
            }
            bytes(&mut out, status.failure.as_deref().unwrap_or_default().as_bytes());
        }
        Frame::Hello(opened) => words(&mut out, &[[4].as_slice(), &opened.words()].concat()),
        Frame::Campaign => words(&mut out, &[5]),
        Frame::Finish => words(&mut out, &[6]),
        Frame::Bye(usage) => words(&mut out, &[[7].as_slice(), &usage.words()].concat()),
    }
    Ok(out)
}

fn decode(mut body: Body<'_>) -> Result<Frame> {
    Ok(match body.word()? {
        0 => {
            let (store, lane, count) = (body.word()?, body.word()?, body.word()?);
            let mut batch = Vec::new();
            for _ in 0..count {
                batch.push((body.word()?, Message::parse_from_bytes(body.bytes()?)?));
            }
            Frame::Raft { store, lane, batch }
        }
        1 => {
            let mut proposals = Vec::new();
            for _ in 0..body.word()? {
                let (id, group) = (body.word()?, body.word()?);
                proposals.push(Proposal { id, group, payload: body.bytes()?.to_vec() });
            }
            Frame::Propose(proposals)
        }
        2 => {
            let mut outcomes = Vec::new();
            for _ in 0..body.word()? {
                let make = if body.word()? == 0 { Outcome::Applied } else { Outcome::NotLeader };
                outcomes.push(make(body.word()?));
            }
            Frame::Outcomes(outcomes)
        }
        3 => {
            let (applied_entries, snapshots, count) = (body.word()?, body.word()?, body.word()?);
            let mut groups = Vec::new();
            for _ in 0..count {
                let word = body.word()?;
                groups.push((word >> 1, word & 1 == 1));
            }
            let failure = String::from_utf8_lossy(body.bytes()?).into_owned();
            let failure = (!failure.is_empty()).then_some(failure);
            Frame::Status(Status { applied_entries, snapshots, groups, failure })
        }
        4 => Frame::Hello(Opened::from_words(body.words()?)),
        5 => Frame::Campaign,
        6 => Frame::Finish,
        7 => Frame::Bye(Usage::from_words(body.words()?)),
        kind => return Err(format!("a frame of unknown kind {kind}").into()),
    })
}

struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length).ok_or("a frame ends early")?;
        self.0 = tail;
        Ok(head)
    }

    fn word(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into()?))
    }

    fn words<const N: usize>(&mut self) -> Result<[u64; N]> {
        let mut words = [0; N];
        for word in &mut words {
            *word = self.word()?;
        }
        Ok(words)
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.word()?)?;
        self.take(length)
    }
}

//! The protocol of a connection: frames of a length, a number and a message, of all groups mixed.
//!
//! ```text
//! | length u32 | number u64 | message, postcard ... |      the length is of what follows it
//! ```

use std::io;

use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::type_config::alias::{SnapshotMetaOf, VoteOf};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::types::{Put, Types, Versioned};

/// The largest message: a length above this is invalid.
const MAX_FRAME: usize = 64 << 20;
const NUMBER_BYTES: usize = 8;

/// A request to a node: the first four come from another node, the others from clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    Append {
        group: u64,
        rpc: AppendEntriesRequest<Types>,
    },
    Vote {
        group: u64,
        rpc: VoteRequest<Types>,
    },
    PreVote {
        group: u64,
        rpc: VoteRequest<Types>,
    },
    Snapshot {
        group: u64,
        vote: VoteOf<Types>,
        meta: SnapshotMetaOf<Types>,
        data: Vec<u8>,
    },
    /// Form the groups of which this node is to be the first leader.
    Form,
    Put {
        group: u64,
        put: Put,
    },
    /// The leader's value, after it made sure that it is still the leader.
    Get {
        group: u64,
        key: String,
    },
    /// What this node has applied.
    Held {
        group: u64,
    },
    Digests,
    Status,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    Snapshot(SnapshotResponse<Types>),
    Done,
    Value(Option<Versioned>),
    Held(Vec<(String, Versioned)>),
    Digests(Vec<(u64, u64)>),
    Status(Status),
    /// Another node leads, named if known.
    NotLeader(Option<u64>),
    Failed(String),
}

/// The status of a node.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Groups that it leads.
    pub leads: u64,
    /// Groups of which it knows a leader.
    pub led: u64,
    /// Frames, batches and entries written to its log since it was opened.
    pub frames: u64,
    pub batches: u64,
    pub entries: u64,
    /// How long opening the log took, in microseconds, and opening all groups on it.
    pub recovery_micros: u64,
    pub open_micros: u64,
    /// Entries it found in the log when it was opened.
    pub found: u64,
    /// Snapshots that came from other nodes.
    pub snapshots: u64,
}

/// Appends a frame to `out`.
pub fn put_frame<T: Serialize>(number: u64, message: &T, mut out: Vec<u8>) -> io::Result<Vec<u8>> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&number.to_le_bytes());
    let mut out = postcard::to_extend(message, out).map_err(io::Error::other)?;
    let length = out.len() - start - 4;
    let length = u32::try_from(length).ok().filter(|&length| length as usize <= MAX_FRAME);
    let length = length.ok_or_else(|| io::Error::other("a message is too large"))?;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(out)
}

/// Reads the next frame. `body` is reused from frame to frame.
pub async fn take_frame<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
    body: &mut Vec<u8>,
) -> io::Result<(u64, T)> {
    let length = from.read_u32_le().await? as usize;
    if !(NUMBER_BYTES..=MAX_FRAME).contains(&length) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    body.resize(length, 0);
    from.read_exact(body).await?;
    let (number, message) = body.split_first_chunk::<NUMBER_BYTES>().ok_or(io::ErrorKind::InvalidData)?;
    let message = postcard::from_bytes(message).map_err(io::Error::other)?;
    Ok((u64::from_le_bytes(*number), message))
}

//! What raft says and does not mean.

use raft::eraftpb::{Message, MessageType};

/// Takes out messages that a receiver would misunderstand: to it and to raft they are lost, and raft sends again what was in them.
///
/// With `Config::batch_append` raft 0.7 puts entries into a message that waits for the same replica. If that one is empty, it does not look whether they follow
/// where it says (a commit index at the end of the log, and then entries from further back, as the replica refused those it was sent). The receiver counts them from there,
/// and acknowledges as many behind its end as it never had.
pub(crate) fn drop_misplaced(messages: &mut Vec<Message>) {
    messages.retain(|message| {
        let first = message.get_entries().first().map(|entry| entry.index);
        message.get_msg_type() != MessageType::MsgAppend
            || first.is_none_or(|first| Some(first) == message.index.checked_add(1))
    });
}

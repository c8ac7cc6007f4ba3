//! Messages that raft should not have made.

use raft::eraftpb::{Message, MessageType};

/// Drops messages that a receiver would misunderstand: to raft they are lost on the network, and it sends their content again.
///
/// With `Config::batch_append` raft 0.7 adds entries to a message that still waits for the same replica. If that message has no entries yet,
/// raft does not check that they follow the position it names (as when it brought a commit index at the end of the log, and then the
/// replica rejected what it was sent, so that the entries start further back). The receiver counts them from that position, and
/// acknowledges that many entries after its end, which it never had.
pub(crate) fn drop_misplaced(messages: &mut Vec<Message>) {
    messages.retain(|message| {
        let first = message.get_entries().first().map(|entry| entry.index);
        message.get_msg_type() != MessageType::MsgAppend
            || first.is_none_or(|first| Some(first) == message.index.checked_add(1))
    });
}

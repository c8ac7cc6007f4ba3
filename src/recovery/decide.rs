//! The decision table: what recovery makes of a frame. Every case meets exactly one row; DESIGN.md shows the same table.
//!
//! | frame | below the watermark | valid frames behind it | decision |
//! |---|---|---|---|
//! | intact | yes | any | apply; payloads are checked when they are read |
//! | intact, payload good | no | any | apply |
//! | payload or placed piece bad | no | fewer than may be in flight | the log ends before it |
//! | payload or placed piece bad | no | as many, or more | impossible: refuse |
//! | unreadable | yes | any | damage: those listed by the next frame, and all that show a gap |
//! | unreadable | no | fewer than may be in flight | the log ends before it |
//! | unreadable | no | as many, or more | impossible: refuse |
//!
//! Why impossible: a frame is sealed only while fewer than that many are in flight, so its watermark covers all frames but those.

use crate::format::frame::MAX_IN_FLIGHT;

/// What can be said of the bytes at a frame's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Header and table are whole; so is the payload, where it was looked at.
    Intact,
    /// Header and table are whole, but a payload or a piece placed beside the frame is not.
    PayloadBad,
    /// No frame can be read there.
    Unreadable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Apply,
    Damage,
    EndOfLog,
    Refuse,
}

/// Decides. `followers` counts valid frames behind this one.
pub(super) fn decide(condition: Condition, below_watermark: bool, followers: usize) -> Decision {
    match (condition, below_watermark) {
        (Condition::Intact, _) => Decision::Apply,
        // Below the watermark the frame was durable with all it describes: a bad entry is that entry's damage, found when it is read.
        (Condition::PayloadBad, true) => Decision::Apply,
        (Condition::Unreadable, true) => Decision::Damage,
        (_, false) if followers < MAX_IN_FLIGHT as usize => Decision::EndOfLog,
        (_, false) => Decision::Refuse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the table above, as predicates; a case must match exactly one.
    #[test]
    fn the_table_is_total_and_unambiguous() {
        type Row = (fn(Condition, bool, usize) -> bool, Decision);
        let rows: [Row; 6] = [
            (|c, _, _| c == Condition::Intact, Decision::Apply),
            (|c, below, _| c == Condition::PayloadBad && below, Decision::Apply),
            (|c, below, n| c == Condition::PayloadBad && !below && n < 2, Decision::EndOfLog),
            (|c, below, _| c == Condition::Unreadable && below, Decision::Damage),
            (|c, below, n| c == Condition::Unreadable && !below && n < 2, Decision::EndOfLog),
            (|c, below, n| c != Condition::Intact && !below && n >= 2, Decision::Refuse),
        ];
        for condition in [Condition::Intact, Condition::PayloadBad, Condition::Unreadable] {
            for below in [false, true] {
                for followers in [0, 1, 2, 3, 1000] {
                    let hits: Vec<_> = rows.iter().filter(|(row, _)| row(condition, below, followers)).collect();
                    assert_eq!(hits.len(), 1, "{condition:?} {below} {followers}");
                    assert_eq!(decide(condition, below, followers), hits[0].1, "{condition:?} {below} {followers}");
                }
            }
        }
    }
}

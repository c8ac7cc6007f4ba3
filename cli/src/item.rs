//! The neutral form of a log: what `export` writes and `import` reads, whatever the source.
//!
//! As JSON lines, in this order; bytes are base64:
//! ```text
//! {"strandlog":1,"replicas":2,"capacity":..,"chunk_size":..,"segment_size":..,"journal_cap":..}
//! {"replica":7,"first":3,"last":4,"term_before_first":1}
//! {"replica":7,"key":"dm90ZQ==","value":"AQ=="}
//! {"replica":7,"index":3,"term":1,"data":"Zmlyc3Q="}
//! {"replica":7,"index":4,"term":2,"data":""}
//! {"replica":9, ..., "applied":12}
//! {"end":true,"replicas":2,"entries":..,"keys":..}
//! ```
//! `applied` is what the replica's state machine was reported to hold durably, if it reports.
//! In place of what an export could not read stands `{"replica":7,"lost":[3,3]}` or `{"replica":7,"lost":"state"}`.

use std::hash::{DefaultHasher, Hash, Hasher};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

/// Version of the layout of the lines.
pub const FORMAT: u64 = 1;

/// A part of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A replica begins: its keys follow, then its entries, ascending.
    Replica(Head),
    Key {
        replica: u64,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Entry {
        replica: u64,
        index: u64,
        term: u64,
        data: Vec<u8>,
    },
}

/// The bounds of a replica, and what its state machine reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Head {
    pub replica: u64,
    pub first: u64,
    pub last: u64,
    pub term_before_first: u64,
    /// What its state machine was reported to hold durably, if it reports.
    pub applied: Option<u64>,
}

/// The totals in the last line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub replicas: u64,
    pub entries: u64,
    pub keys: u64,
}

/// A parsed line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The first line, with the shape of the exported log.
    Begin {
        replicas: u64,
        shape: Shape,
    },
    Item(Item),
    /// What could not be exported, in words.
    Lost(String),
    End(Sums),
}

/// The shape of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    pub capacity: u64,
    pub chunk_size: u64,
    pub segment_size: u64,
    pub journal_cap: u64,
}

/// Bytes as they are written in a line.
pub fn encoded(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Reads a line.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse(line: &[u8]) -> Result<Line, String> {
    let json: Value = serde_json::from_slice(line).map_err(|e| format!("not JSON ({e})"))?;
    let number = |name: &str| json[name].as_u64().ok_or_else(|| format!("`{name}` is missing, or no number"));
    let bytes = |name: &str| {
        let text = json[name].as_str().ok_or_else(|| format!("`{name}` is missing, or no text"))?;
        BASE64.decode(text).map_err(|e| format!("`{name}` is no base64 ({e})"))
    };
    let has = |name: &str| json.get(name).is_some();
    if has("strandlog") {
        return match number("strandlog")? {
            FORMAT => Ok(Line::Begin {
                replicas: number("replicas")?,
                shape: Shape {
                    capacity: number("capacity")?,
                    chunk_size: number("chunk_size")?,
                    segment_size: number("segment_size")?,
                    journal_cap: number("journal_cap")?,
                },
            }),
            other => Err(format!("exported in layout {other}, which this version does not know: use a newer one")),
        };
    }
    if has("end") {
        return Ok(Line::End(Sums {
            replicas: number("replicas")?,
            entries: number("entries")?,
            keys: number("keys")?,
        }));
    }
    let replica = number("replica")?;
    let item = if has("index") {
        Item::Entry { replica, index: number("index")?, term: number("term")?, data: bytes("data")? }
    } else if has("key") {
        Item::Key { replica, key: bytes("key")?, value: bytes("value")? }
    } else if has("lost") {
        return Ok(Line::Lost(match json["lost"].as_array().map(Vec::as_slice) {
            Some([first, last]) => format!("entries {first}..={last} of replica {replica}"),
            _ => format!("the keyed state of replica {replica}"),
        }));
    } else {
        let (first, last, term_before_first) = (number("first")?, number("last")?, number("term_before_first")?);
        if first == 0 || last < first - 1 {
            return Err(format!("replica {replica} cannot hold {first}..={last}"));
        }
        let applied = if has("applied") { Some(number("applied")?) } else { None };
        Item::Replica(Head { replica, first, last, term_before_first, applied })
    };
    Ok(Line::Item(item))
}

/// A hash of everything in one replica, by which two copies are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    head: u64,
    entries: u64,
    /// Independent of their order.
    keys: u64,
}

impl Digest {
    pub fn head(&mut self, head: &Head) {
        self.head = hash(head);
    }

    pub fn entry(&mut self, index: u64, term: u64, data: &[u8]) {
        self.entries = hash(&(self.entries, index, term, data));
    }

    pub fn key(&mut self, key: &[u8], value: &[u8]) {
        self.keys = self.keys.wrapping_add(hash(&(key, value)));
    }
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood_or_said_to_be_wrong() {
        let head = br#"{"replica":7,"first":3,"last":2,"term_before_first":1}"#;
        let expected = Head { replica: 7, first: 3, last: 2, term_before_first: 1, applied: None };
        assert_eq!(parse(head), Ok(Line::Item(Item::Replica(expected))));
        let head = br#"{"replica":7,"first":3,"last":2,"term_before_first":1,"applied":2}"#;
        let expected = Head { applied: Some(2), ..expected };
        assert_eq!(parse(head), Ok(Line::Item(Item::Replica(expected))));
        let entry = br#"{"replica":7,"index":3,"term":1,"data":"Zmlyc3Q="}"#;
        let expected = Item::Entry { replica: 7, index: 3, term: 1, data: b"first".to_vec() };
        assert_eq!(parse(entry), Ok(Line::Item(expected)));
        assert_eq!(parse(br#"{"replica":7,"lost":[3,5]}"#), Ok(Line::Lost("entries 3..=5 of replica 7".into())));
        for (bad, why) in [
            (&b"nonsense"[..], "not JSON"),
            (b"{}", "`replica` is missing"),
            (b"[1]", "`replica` is missing"),
            (br#"{"strandlog":2}"#, "layout 2"),
            (br#"{"replica":7,"first":0,"last":9,"term_before_first":1}"#, "cannot hold"),
            (br#"{"replica":7,"first":9,"last":7,"term_before_first":1}"#, "cannot hold"),
            (br#"{"replica":7,"index":1,"term":1,"data":"%"}"#, "no base64"),
            (br#"{"replica":7,"first":3,"last":2,"term_before_first":1,"applied":"2"}"#, "`applied`"),
            (br#"{"replica":7,"index":-1,"term":1,"data":""}"#, "`index`"),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_digest_tells_every_difference_and_no_order_of_keys() {
        let of = |keys: &[(&str, &str)], entries: &[(u64, u64, &str)]| {
            let mut digest = Digest::default();
            digest.head(&Head { replica: 1, first: 1, last: 9, term_before_first: 0, applied: None });
            keys.iter().for_each(|(k, v)| digest.key(k.as_bytes(), v.as_bytes()));
            entries.iter().for_each(|(i, t, d)| digest.entry(*i, *t, d.as_bytes()));
            digest
        };
        let one = of(&[("a", "1"), ("b", "2")], &[(1, 1, "x"), (2, 1, "y")]);
        assert_eq!(one, of(&[("b", "2"), ("a", "1")], &[(1, 1, "x"), (2, 1, "y")]));
        for other in [
            of(&[("a", "2"), ("b", "1")], &[(1, 1, "x"), (2, 1, "y")]),
            of(&[("a", "1"), ("b", "2")], &[(2, 1, "y"), (1, 1, "x")]),
            of(&[("a", "1"), ("b", "2")], &[(1, 1, "x"), (2, 2, "y")]),
            of(&[("a", "1"), ("b", "2")], &[(1, 1, "x")]),
        ] {
            assert_ne!(one, other);
        }
    }
}

//! `strandlog dump`

use serde_json::json;
use strandlog::{Bytes, Entry, Error, Replica};

use crate::args::Dump;
use crate::failure::{Failure, Result};
use crate::open;
use crate::output::{Output, Style, hex};
use crate::size::count;

/// Bytes of payload read at a time.
const STEP_BYTES: usize = 1 << 20;
/// Bytes of a payload that are shown without --hex.
const PREVIEW: usize = 32;
/// Prefix, in JSON, of a key that is not printable text.
const HEX: &str = "hex:";

/// Shows replicas, one after the other.
pub fn run(args: &Dump, out: &mut Output) -> Result<()> {
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from > to
    {
        return Err(Failure::Request(format!("--from {from} --to {to}: the range ends before it begins")));
    }
    let (wal, refusal) = open::even_if_refused(&args.path, out.is_json())?;
    if let Some(refusal) = &refusal {
        out.not_all_is_well();
        open::tell_refusal(&args.path, refusal);
    }
    let ids = if args.replica.is_empty() { wal.replicas() } else { args.replica.clone() };
    for id in ids {
        let replica = wal.replica(id);
        if !replica.exists() {
            let left = if refusal.is_some() { "what is left of " } else { "" };
            return Err(Failure::Request(format!("there is no replica {id} in {left}{}", args.path.display())));
        }
        head(&replica, args, out)?;
        if args.entries || args.hex || args.from.is_some() || args.to.is_some() {
            entries(&replica, args, out)?;
        }
    }
    Ok(())
}

fn head(replica: &Replica, args: &Dump, out: &mut Output) -> Result<()> {
    let (first, last) = replica.bounds();
    let mut keys = replica.keys();
    keys.sort_unstable();
    let state: Vec<_> = keys.iter().map(|key| (key, replica.get(key))).collect();
    let damage: Vec<String> = replica.damage().iter().map(ToString::to_string).collect();
    if !damage.is_empty() || state.iter().any(|(_, value)| value.is_err()) {
        out.not_all_is_well();
    }
    if out.is_json() {
        let value = |value| match value {
            Ok(value) => json!(Option::map(value, |v: Bytes| hex(&v))),
            Err(error) => json!({ "error": Error::to_string(&error) }),
        };
        let state: serde_json::Map<_, _> = state.into_iter().map(|(key, read)| (name(key), value(read))).collect();
        return out.json(&json!({
            "replica": replica.id(), "first": first, "last": last,
            "term_before_first": replica.term(first - 1).ok(), "last_term": replica.term(last).ok(),
            "state": state, "damage": damage,
        }));
    }
    let title = out.styled(Style::Bold, format_args!("replica {}", replica.id()));
    let terms = match (replica.term(first), replica.term(last)) {
        (Ok(a), Ok(b)) if last >= first => format!(", terms {a} to {b}"),
        _ => String::new(),
    };
    let entries = last.wrapping_add(1).wrapping_sub(first);
    out.line(format_args!("{title}: {} entries, {first}..={last}{terms}", count(entries)))?;
    for (key, value) in state {
        let value = match value {
            Ok(Some(value)) => shown(&value, args.hex),
            Ok(None) => continue,
            Err(error) => out.styled(Style::Bad, error),
        };
        out.line(format_args!("  {} = {value}", text(key)))?;
    }
    for line in damage {
        let line = out.styled(Style::Bad, line);
        out.line(format_args!("  {line}"))?;
    }
    Ok(())
}

/// Shows every entry asked for. One that cannot be read is reported, and skipped.
fn entries(replica: &Replica, args: &Dump, out: &mut Output) -> Result<()> {
    let (first, held) = replica.bounds();
    let last = args.to.map_or(held, |to| to.min(held));
    let from = args.from.map_or(first, |from| from.max(first));
    if from > last && (args.from.is_some() || args.to.is_some()) {
        return none(replica, args, out);
    }
    let mut next = Some(from);
    while let Some(from) = next.filter(|&i| i <= last) {
        match replica.entries_through(from, last, STEP_BYTES) {
            Ok(some) => {
                for e in &some {
                    entry(replica.id(), e, args, out)?;
                }
                next = from.checked_add(some.len().max(1) as u64);
            }
            Err(Error::Damaged(damage)) => {
                let upto = match damage.lost {
                    strandlog::Lost::Entries { last: upto, .. } => upto.clamp(from, last),
                    _ => from,
                };
                lost(replica.id(), from, upto, out)?;
                next = upto.checked_add(1);
            }
            // A bad sector: it may hold another entry that was read together with this one.
            Err(Error::Io { .. }) => {
                match replica.entry(from) {
                    Ok(e) => entry(replica.id(), &e, args, out)?,
                    Err(Error::Damaged(_)) => lost(replica.id(), from, from, out)?,
                    Err(error @ Error::Io { .. }) => unread(replica.id(), from, &error, out)?,
                    Err(error) => return Err(error.into()),
                }
                next = from.checked_add(1);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Says that none of the entries asked for exists, and which do.
fn none(replica: &Replica, args: &Dump, out: &mut Output) -> Result<()> {
    if out.is_json() {
        let range = json!({ "from": args.from, "to": args.to });
        return out.json(&json!({ "replica": replica.id(), "no_entries": range }));
    }
    let range = match (args.from, args.to) {
        (Some(from), Some(to)) => format!("in {from}..={to}"),
        (Some(from), None) => format!("from {from} on"),
        (None, to) => format!("up to {}", to.unwrap_or(u64::MAX)),
    };
    let held = match replica.bounds() {
        (first, last) if first <= last => format!("there are {first}..={last}"),
        _ => "there is none".to_owned(),
    };
    out.line(format_args!("  no entry {range}, {held}"))
}

fn entry(id: u64, e: &Entry, args: &Dump, out: &mut Output) -> Result<()> {
    if out.is_json() {
        let data = if args.hex { hex(&e.data) } else { hex(&e.data[..e.data.len().min(PREVIEW)]) };
        return out.json(&json!({
            "replica": id, "index": e.index, "term": e.term, "len": e.data.len(), "data": data,
            "whole": args.hex || e.data.len() <= PREVIEW,
        }));
    }
    let data = shown(&e.data, args.hex);
    out.line(format_args!("  {:>12}  term {:<6} {:>8} bytes  {data}", e.index, e.term, e.data.len()))
}

fn lost(id: u64, first: u64, last: u64, out: &mut Output) -> Result<()> {
    out.not_all_is_well();
    if out.is_json() {
        return out.json(&json!({ "replica": id, "damaged": { "first": first, "last": last } }));
    }
    let what = out.styled(Style::Bad, format_args!("{first:>12}..={last} damaged"));
    out.line(format_args!("  {what}"))
}

fn unread(id: u64, index: u64, error: &Error, out: &mut Output) -> Result<()> {
    out.not_all_is_well();
    if out.is_json() {
        return out.json(&json!({ "replica": id, "index": index, "unread": error.to_string() }));
    }
    let what = out.styled(Style::Bad, format_args!("{index:>12}  {error}"));
    out.line(format_args!("  {what}"))
}

/// Bytes for people: whole in hexadecimal, or else only the beginning, as text if it is printable.
fn shown(bytes: &[u8], whole: bool) -> String {
    if whole {
        return hex(bytes);
    }
    let head = &bytes[..bytes.len().min(PREVIEW)];
    let more = if head.len() < bytes.len() { "..." } else { "" };
    format!("{}{more}", text(head))
}

/// Quoted text if it is printable, hexadecimal if not.
fn text(bytes: &[u8]) -> String {
    printable(bytes).map_or_else(|| hex(bytes), |text| format!("{text:?}"))
}

/// A key as a name in JSON: itself if it is printable text, [`HEX`] and hexadecimal if not. Text that itself begins with [`HEX`] is written in
/// hexadecimal, too, so that no two keys have the same name.
fn name(key: &[u8]) -> String {
    printable(key).filter(|text| !text.starts_with(HEX)).map_or_else(|| format!("{HEX}{}", hex(key)), Into::into)
}

fn printable(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.chars().all(|c| !c.is_control()))
}

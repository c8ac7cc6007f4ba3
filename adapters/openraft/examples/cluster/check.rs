//! The final check: all nodes hold the same, and every acknowledged write is in it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};

use crate::client::Client;
use crate::load::{Written, text};
use crate::types::Versioned;
use crate::wire::{Answer, Ask};

const AT_ONCE: usize = 64;
/// The number of differences that are printed.
const EXAMPLES: usize = 5;

/// Waits until all nodes have applied the same entries with the same result. Returns how long it took.
pub async fn agreement(client: &Client, at_most: Duration) -> Result<Duration, String> {
    let began = Instant::now();
    loop {
        let mut digests = Vec::new();
        for node in 0..client.nodes() {
            match client.of(node, Ask::Digests).await {
                Ok(Answer::Digests(of_groups)) => digests.push(of_groups),
                _ => break,
            }
        }
        let all = digests.len() == client.nodes();
        if all && digests.windows(2).all(|pair| pair[0] == pair[1]) {
            return Ok(began.elapsed());
        }
        if began.elapsed() > at_most {
            let groups = (0..client.groups() as usize)
                .filter(|&group| digests.windows(2).any(|pair| pair[0].get(group) != pair[1].get(group)));
            return Err(format!(
                "{} of {} nodes answer, and differ in {} groups",
                digests.len(),
                client.nodes(),
                groups.count()
            ));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Compares what was acknowledged with what each node has applied, and with what the leaders return.
pub async fn writes(client: &Client, written: &[Written], bytes: usize) -> Result<String, String> {
    let mut wrong = Vec::new();
    let mut nodes = Vec::new();
    for node in 0..client.nodes() {
        nodes.push(held(client, node).await?);
    }
    let majority = client.nodes() / 2 + 1;
    for one in written {
        let there = nodes.iter().filter(|held| fits(one, held.get(&one.key), bytes)).count();
        if there < majority {
            wrong.push(format!("{}: version {} was acknowledged, and is on {there} nodes", one.key, one.acknowledged));
        }
    }
    let until = Instant::now() + Duration::from_secs(60);
    let reads = stream::iter(written).map(|one| async move { (one, client.get(&one.key, until).await) });
    let reads: Vec<_> = reads.buffer_unordered(AT_ONCE).collect().await;
    for (one, read) in reads {
        match read {
            Ok(value) if fits(one, value.as_ref(), bytes) => {}
            other => wrong
                .push(format!("{}: version {} was acknowledged, and read was {other:?}", one.key, one.acknowledged)),
        }
    }
    if wrong.is_empty() {
        return Ok(format!("{} keys on {} nodes and read from their leaders", written.len(), client.nodes()));
    }
    Err(format!(
        "{} of {} keys are wrong:\n  {}",
        wrong.len(),
        written.len(),
        wrong[..wrong.len().min(EXAMPLES)].join("\n  ")
    ))
}

/// At least what was acknowledged, at most what was requested, and not a byte else.
fn fits(one: &Written, value: Option<&Versioned>, bytes: usize) -> bool {
    match value {
        None => one.acknowledged == 0,
        Some(value) => {
            (one.acknowledged..=one.asked).contains(&value.version)
                && value.text == text(&one.key, value.version, bytes)
        }
    }
}

async fn held(client: &Client, node: usize) -> Result<HashMap<String, Versioned>, String> {
    let groups = stream::iter(0..client.groups()).map(|group| client.of(node, Ask::Held { group }));
    let groups: Vec<_> = groups.buffer_unordered(AT_ONCE).collect().await;
    let mut held = HashMap::new();
    for answer in groups {
        match answer {
            Ok(Answer::Held(pairs)) => held.extend(pairs),
            other => return Err(format!("node {node} does not say what it holds: {other:?}")),
        }
    }
    Ok(held)
}

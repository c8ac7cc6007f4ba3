//! One connection to a node, for all groups and all callers: requests go out in one stream, and each answer finds its caller.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use crate::wire::{Answer, Ask, put_frame, take_frame};

/// At most this many messages go out in one write.
const MESSAGES_A_WRITE: usize = 256;
const RECONNECT: Duration = Duration::from_millis(100);

type Asked = (Ask, oneshot::Sender<Answer>);
type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

#[derive(Clone, Debug)]
pub struct Link {
    asks: mpsc::UnboundedSender<Asked>,
}

/// There is no connection, it broke, or the time was up: the request may have been carried out or not.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no answer")]
pub struct NoAnswer;

impl Link {
    /// A link that connects, and reconnects, for as long as a caller holds it.
    pub fn to(addr: SocketAddr) -> Self {
        let (asks, asked) = mpsc::unbounded_channel();
        tokio::spawn(run(addr, asked));
        Self { asks }
    }

    /// Sends a request, and waits at most this long for the answer. Fails at once while there is no connection.
    pub async fn ask(&self, ask: Ask, at_most: Duration) -> Result<Answer, NoAnswer> {
        let (answer, answered) = oneshot::channel();
        self.asks.send((ask, answer)).map_err(|_| NoAnswer)?;
        match tokio::time::timeout(at_most, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err(NoAnswer),
        }
    }
}

async fn run(addr: SocketAddr, mut asked: mpsc::UnboundedReceiver<Asked>) {
    while let Some(stream) = connect(addr, &mut asked).await {
        let _ = stream.set_nodelay(true);
        let (read, write) = stream.into_split();
        let waiting = Waiting::default();
        let reading = tokio::spawn(hear(read, Arc::clone(&waiting)));
        let gone = send(write, &mut asked, &waiting, &reading).await;
        reading.abort();
        if gone {
            return;
        }
    }
}

/// Nobody waits for a connection: callers that ask meanwhile are told that there is none. `None` when no callers are left.
async fn connect(addr: SocketAddr, asked: &mut mpsc::UnboundedReceiver<Asked>) -> Option<TcpStream> {
    loop {
        let connecting = async {
            match TcpStream::connect(addr).await {
                Ok(stream) => Some(stream),
                Err(_) => {
                    tokio::time::sleep(RECONNECT).await;
                    None
                }
            }
        };
        tokio::pin!(connecting);
        loop {
            tokio::select! {
                connected = &mut connecting => match connected {
                    Some(stream) => return Some(stream),
                    None => break,
                },
                ask = asked.recv() => drop(ask?),
            }
        }
    }
}

/// Sends until the connection breaks, or no callers are left (true).
async fn send(
    mut to: OwnedWriteHalf,
    asked: &mut mpsc::UnboundedReceiver<Asked>,
    waiting: &Waiting,
    reading: &tokio::task::JoinHandle<io::Result<()>>,
) -> bool {
    let (mut number, mut bytes, mut some) = (0_u64, Vec::new(), Vec::new());
    loop {
        let received = tokio::time::timeout(RECONNECT, asked.recv_many(&mut some, MESSAGES_A_WRITE)).await;
        if reading.is_finished() {
            return false;
        }
        match received {
            Ok(0) => return true,
            Ok(_) => {}
            // Only to notice that the other half has ended.
            Err(_) => continue,
        }
        for (ask, answer) in some.drain(..) {
            number += 1;
            waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, answer);
            bytes = match put_frame(number, &ask, bytes) {
                Ok(bytes) => bytes,
                Err(_) => return false,
            };
        }
        if to.write_all(&bytes).await.is_err() {
            return false;
        }
        bytes.clear();
    }
}

/// Hands out answers until the connection breaks; callers that still wait then learn it from a dropped sender.
async fn hear(from: OwnedReadHalf, waiting: Waiting) -> io::Result<()> {
    let (mut from, mut body) = (BufReader::with_capacity(64 << 10, from), Vec::new());
    loop {
        let (number, answer) = match take_frame(&mut from, &mut body).await {
            Ok(frame) => frame,
            Err(error) => {
                waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
                return Err(error);
            }
        };
        let asker = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        // The caller may have given up: that is no error.
        let _ = asker.map(|asker| asker.send(answer));
    }
}

//! One event after another: what each does to the medium, and what goes wrong with it.

use super::{
    super::bounds::{check_read, check_write, not_writable},
    EventInfo, EventKind, Fault, ReadHook, SECTOR,
    fault::Plan,
    medium::Medium,
};
use std::{io, ops::Range};

#[derive(Clone)]
pub(super) struct State {
    pub(super) medium: Medium,
    pub(super) plan: Plan,
    pub(super) log: Vec<EventInfo>,
    pub(super) syncs: u64,
    pub(super) bytes_read: u64,
    pub(super) failing_reads: Vec<(Range<u64>, i32)>,
    pub(super) read_hook: Option<ReadHook>,
    pub(super) released: bool,
    pub(super) cut: bool,
    /// How many writes issued after the cut may still have reached the medium.
    pub(super) in_flight_at_cut: u32,
}

impl State {
    pub(super) fn new(medium: Medium) -> Self {
        Self {
            medium,
            plan: Plan::default(),
            log: Vec::new(),
            syncs: 0,
            bytes_read: 0,
            failing_reads: Vec::new(),
            read_hook: None,
            released: false,
            cut: false,
            in_flight_at_cut: 0,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.medium.live().len()
    }

    pub(super) fn read(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.cut {
            return Err(power_is_off());
        }
        check_read(self.len(), offset, buf.len())?;
        let end = offset + buf.len() as u64;
        for (range, errno) in &self.failing_reads {
            if range.start < end && offset < range.end {
                return Err(io::Error::from_raw_os_error(*errno));
            }
        }
        self.medium.live().read(offset, buf);
        self.bytes_read += buf.len() as u64;
        self.read_hook.as_ref().map_or(Ok(()), |hook| hook(offset, buf))
    }

    pub(super) fn write(&mut self, kind: EventKind, offset: u64, bytes: &[u8]) -> io::Result<()> {
        check_write(self.len(), offset, bytes)?;
        if self.released {
            return Err(not_writable());
        }
        if self.cut {
            if self.in_flight_at_cut > 0 {
                self.in_flight_at_cut -= 1;
                self.medium.write_failed(offset, bytes, false);
            }
            return Err(power_is_off());
        }
        let (fault, sync_ignored) = self.record(kind, offset, bytes.len());
        let durable = kind.is_sync() && !sync_ignored;
        let land = |medium: &mut Medium, at| match durable {
            true => medium.write_synced(at, bytes),
            false => medium.write(at, bytes),
        };
        match fault {
            None => land(&mut self.medium, offset),
            Some(Fault::Cut) => {
                self.cut = true;
                self.medium.write_failed(offset, bytes, false);
                return Err(power_is_off());
            }
            Some(Fault::Error(errno)) => {
                self.medium.write_failed(offset, bytes, kind.is_sync());
                return Err(io::Error::from_raw_os_error(errno));
            }
            Some(Fault::ShortThenError { kept, errno }) => {
                let kept = kept.min(bytes.len()) / SECTOR * SECTOR;
                self.medium.write(offset, &bytes[..kept]);
                return Err(io::Error::from_raw_os_error(errno));
            }
            Some(Fault::Lost) => {}
            Some(Fault::Misdirected { to }) => {
                if check_write(self.len(), to, bytes).is_ok() {
                    land(&mut self.medium, to);
                }
            }
        }
        Ok(())
    }

    /// A write that was begun together with one that failed.
    pub(super) fn write_in_flight(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if !self.cut {
            return self.write(EventKind::Write, offset, bytes);
        }
        check_write(self.len(), offset, bytes)?;
        self.medium.write_failed(offset, bytes, false);
        Err(power_is_off())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.released {
            return Err(not_writable());
        }
        if self.cut {
            return Err(power_is_off());
        }
        match self.record(EventKind::Flush, 0, 0) {
            (None, false) => self.medium.sync(),
            (None, true) | (Some(Fault::Lost | Fault::Misdirected { .. }), _) => {}
            (Some(Fault::Cut), _) => {
                self.cut = true;
                return Err(power_is_off());
            }
            (Some(Fault::Error(errno) | Fault::ShortThenError { errno, .. }), _) => {
                self.medium.abandon();
                return Err(io::Error::from_raw_os_error(errno));
            }
        }
        Ok(())
    }

    /// Numbers an event; says what goes wrong with it, and whether its sync is to be ignored.
    fn record(&mut self, kind: EventKind, offset: u64, len: usize) -> (Option<Fault>, bool) {
        let number = self.log.len() as u64;
        let sync = kind.is_sync().then_some(self.syncs);
        self.syncs += u64::from(kind.is_sync());
        let mut event = EventInfo { number, kind, offset, len: len as u64, fault: None };
        event.fault = self.plan.fault(&event, sync);
        self.log.push(event);
        (event.fault, self.plan.ignores(sync))
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("the power was cut (simulated)")
}

//! A store, in this process or in one of its own.

use crate::Result;
use crate::remote::Remote;
use crate::store::{Opened, Store, Usage, World};

pub enum Member {
    Local(Store),
    Remote(Remote),
}

impl Member {
    pub fn open(world: &World, id: u64, apart: bool) -> Result<(Member, Opened)> {
        Ok(if apart {
            let (remote, opened) = Remote::open(world, id)?;
            (Member::Remote(remote), opened)
        } else {
            let (store, opened) = Store::open(world, id)?;
            (Member::Local(store), opened)
        })
    }

    /// Stops it abruptly. A killed process returns no figures.
    pub fn cut(self) -> Result<Option<Usage>> {
        match self {
            Member::Local(store) => store.cut().map(Some),
            Member::Remote(remote) => remote.kill().map(|()| None),
        }
    }

    pub fn close(self) -> Result<Usage> {
        match self {
            Member::Local(store) => store.close(),
            Member::Remote(remote) => remote.close(),
        }
    }

    pub fn has_died(&mut self) -> bool {
        match self {
            Member::Local(store) => store.has_died(),
            Member::Remote(remote) => remote.has_ended(),
        }
    }
}

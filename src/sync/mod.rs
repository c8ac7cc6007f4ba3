//! The one switch between what ships and what is modelled: code that shares memory imports from here, never from `std::sync` or
//! `parking_lot`.
//!
//! The types have the same small interface everywhere, so that a model runs the very code that ships.

#[cfg(any(loom, shuttle))]
mod futex_model;
mod help;
#[cfg(loom)]
mod loom;
#[cfg(not(any(loom, shuttle)))]
mod real;
#[cfg(shuttle)]
mod shuttle;

#[cfg(any(loom, shuttle))]
pub use self::futex_model::Futex;
pub use self::help::helped;
#[cfg(not(any(loom, shuttle)))]
pub use self::help::helper;
#[cfg(loom)]
pub use self::loom::*;
#[cfg(not(any(loom, shuttle)))]
pub use self::real::*;
#[cfg(shuttle)]
pub use self::shuttle::*;

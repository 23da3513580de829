//! Signals: what is pending and blocked, what a process does about it, and the frames that
//! handlers run on.

pub mod action;
pub mod calls;
pub mod deliver;
pub mod exception;
pub mod frame;
pub mod info;
pub mod pending;
pub mod send;
pub mod set;
pub mod sigreturn;
pub mod terminal;

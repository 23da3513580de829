//! The whole server against a scripted world.

mod fake;
mod frames;
mod hostile;
mod processes;
mod rights;
mod senders;
mod signals;
mod threads;
mod time;
mod trace;
mod waits;

//! Serves a stopped laboratory machine to gdb.
//!
//! Every process of the guest is a thread, with its saved registers and its address space; the
//! vCPU as it stands (at a point: the kernel) is one thread more. The machine moves from point
//! to point, by the laboratory's own stops, which are exact on every host; each move can be
//! taken back.

mod monitor;
mod registers;
mod session;
mod target;

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::{Context, Result, anyhow};
use gdbstub::common::Signal;
use gdbstub::stub::state_machine::GdbStubStateMachine as State;
use gdbstub::stub::{DisconnectReason, GdbStub, MultiThreadStopReason};

use crate::explore::run::{Ended, Player};
use crate::inject::{Applied, Fault, Plan};
use crate::log::complain;
use session::{Moved, Session};

/// Longest packet.
const PACKET: usize = 16 << 10;

/// How a run under gdb went on.
#[derive(Clone, Debug)]
pub struct Served {
    /// What each fault did.
    pub applied: Vec<(Fault, Applied)>,
    /// How it ended.
    pub ended: Ended,
}

/// A port for gdb, on this host only; 0 takes one that is free.
pub fn listen(port: u16) -> Result<TcpListener> {
    let address = (Ipv4Addr::LOCALHOST, port);
    TcpListener::bind(address).with_context(|| format!("port {port} for gdb"))
}

/// Runs `player`, which has been started ([`Player::start`]), up to the first point of the
/// plan's faults (without one it stays where it is) and serves it there, before the fault is
/// applied. Clients may come and go; `None` when one kills the run. `continue` stops at the next point with
/// a fault, then goes to the end; after `detach` the run goes to the end, too.
pub fn serve(player: &mut Player, plan: &Plan, listener: &TcpListener) -> Result<Option<Served>> {
    let mut session = Session::new(player, plan)?;
    let port = listener.local_addr().context("the port for gdb")?.port();
    complain(&format!(
        "absentia: {}\nabsentia: waiting for gdb: target remote 127.0.0.1:{port}",
        session.place()
    ));
    loop {
        let (stream, _) = listener.accept().context("waiting for gdb")?;
        match converse(&mut session, stream) {
            Ok(Some(DisconnectReason::Kill)) => return Ok(None),
            Ok(Some(_)) => return session.go_on().map(Some),
            Ok(None) => complain("absentia: gdb is gone without a word; waiting for another"),
            Err(error) => {
                if let Some(failure) = session.failure.take() {
                    return Err(failure);
                }
                complain(&format!(
                    "absentia: gdb's connection: {error:#}; waiting for another"
                ));
            }
        }
    }
}

/// One connection; `None` when it just ends.
fn converse(session: &mut Session<'_>, stream: TcpStream) -> Result<Option<DisconnectReason>> {
    let mut input = std::io::BufReader::new(stream.try_clone().context("the connection")?);
    let mut byte = || -> Result<Option<u8>> {
        let mut byte = [0];
        Ok((input.read(&mut byte)? == 1).then_some(byte[0]))
    };
    let stub = GdbStub::builder(stream)
        .packet_buffer_size(PACKET)
        .build()
        .map_err(|error| anyhow!("{error}"))?;
    let stop = |signal| MultiThreadStopReason::SignalWithThread {
        tid: target::KERNEL,
        signal,
    };
    let mut state = stub
        .run_state_machine(session)
        .map_err(|error| anyhow!("{error}"))?;
    loop {
        state = match state {
            State::Idle(idle) => match byte()? {
                Some(byte) => idle.incoming_data(session, byte),
                None => return Ok(None),
            },
            State::Disconnected(gone) => return Ok(Some(gone.get_reason())),
            // It ends loops of steps: the next one stops at once.
            State::CtrlCInterrupt(gdb) => {
                gdb.interrupt_handled(session, Some(stop(Signal::SIGINT)))
            }
            State::Running(gdb) => {
                let moved = session.resume().inspect_err(|error| {
                    session.failure = Some(anyhow!("{error:#}"));
                });
                match moved? {
                    Moved::Stopped => gdb.report_stop(session, stop(Signal::SIGTRAP)),
                    // No point lies ahead, or none behind: not what a step ends with.
                    Moved::Not(why) => {
                        complain(&format!("absentia: {why}"));
                        gdb.report_stop(session, stop(Signal::SIGSTOP))
                    }
                    Moved::Ended(status) => {
                        gdb.report_stop(session, MultiThreadStopReason::Exited(status))
                    }
                }
            }
        }
        .map_err(|error| anyhow!("{error}"))?;
    }
}

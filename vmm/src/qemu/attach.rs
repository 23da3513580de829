//! The host link to a machine that somebody else started: any VMM that has a virtio console on its
//! standard streams.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};

use super::{deliver, receive};
use crate::control::{Reason, Stop, spawn};
use crate::ending::{Ended, Ending, conclude, supervise};
use crate::hostlink::input::Input;
use crate::hostlink::{Link, Streams};

/// Starts `command`, whose standard input and output are the guest's host link, and connects the
/// program in the guest with `streams`. How it ended.
pub fn attach(command: &[OsString], streams: Streams) -> Result<Ending> {
    let (name, arguments) = command.split_first().context("no command")?;
    let (here, there) = UnixStream::pair().context("socket for the host link")?;
    let input_there: OwnedFd = there.try_clone().context("host link")?.into();
    let mut child = Command::new(name)
        .args(arguments)
        .stdin(Stdio::from(input_there))
        .stdout(Stdio::from(OwnedFd::from(there)))
        // A ^C at the terminal is for us to handle.
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {}", name.display()))?;

    let stop = Stop::new()?;
    let input = Input::new()?;
    let ended = Arc::new(Ended::new()?);
    let link = Link::new(streams.stdout, streams.stderr, input.clone(), stop.clone());
    let link = Arc::new(Mutex::new(link));
    let output_thread = {
        let (link, ended) = (link.clone(), ended.clone());
        let stream = here.try_clone().context("host link")?;
        spawn("hostlink", move || {
            receive(stream, &link);
            ended.set();
        })?
    };
    let input_thread = {
        let (input, stop, stdin) = (input.clone(), stop.clone(), streams.stdin);
        spawn("stdin", move || {
            input.pump(stdin, &stop, || deliver(&input, &here));
        })?
    };
    let exited = || link.try_lock().ok()?.exit().map(|exit| exit.at);
    let signals = streams.signals.as_ref();
    let ordered = supervise(&stop, &ended, signals, None, &input, exited, || true, || ());
    let reason = stop.reason();
    if reason.is_some() {
        // It may have ended meanwhile.
        let _ = child.kill();
    }
    let status = child.wait().context("waiting for the machine")?;
    stop.request(Reason::Lingering);
    for thread in [output_thread, input_thread] {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))?;
    }
    let exit = link.lock().unwrap_or_else(|e| e.into_inner()).exit();
    let end = format!("{}: {status}, without the program's status", name.display());
    Ok(conclude(exit, ordered, reason, end))
}

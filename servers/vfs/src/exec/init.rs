//! The first program, from the run specification.

use super::arguments::Strings;
use super::{Program, run};
use crate::context::Ids;
use crate::device::Driver;
use crate::fd::FdTable;
use crate::file::{Kind, OpenFile};
use crate::namei::{Follow, path_of};
use crate::process::{Directories, Process};
use crate::state::{Caller, Vfs};
use abi::boot::{RunSpec, run_flags};
use abi::proto::device::numbers;
use abi::proto::pm;
use abi::{Endpoint, Errno};
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use linux_raw_sys::general as linux;

/// Starts PROGRAM in `who`, a new process.
pub async fn exec_init(vfs: Rc<Vfs>, who: Endpoint, pid: u32) {
    if let Err(errno) = start(&vfs, who, pid).await {
        vfs.base
            .machine
            .log(format_args!("the program cannot be run: {errno}"));
        let failed = pm::ExecFailed {
            who,
            status: -i64::from(errno.0),
        };
        crate::machine::post(&*vfs.base.machine, Endpoint::PM, failed);
    }
}

async fn start(vfs: &Rc<Vfs>, who: Endpoint, pid: u32) -> Result<(), Errno> {
    let bytes = vfs.base.machine.run_specification()?;
    let spec = RunSpec::parse(&bytes)?;
    let root = vfs.root_mount()?.root()?;
    let ids = Ids::of(spec.header.uid, spec.header.gid);
    let at = Directories {
        cwd: root.clone(),
        root: root.clone(),
        umask: 0o022,
    };
    let files = FdTable::new(vfs.base.counters.unique(), &vfs.base.accounts.work);
    let process = Process::new(who, pid, ids, files, at);
    let old = vfs.processes.borrow_mut().insert(process)?;
    drop(old);
    let process = vfs.process(who).ok_or(Errno::ESRCH)?;
    let c = Caller {
        vfs: vfs.clone(),
        process,
    };
    standard_descriptors(&c, spec.header.flags).await?;
    let cwd = match c.lookup(&root, spec.cwd(), Follow::Yes).await {
        Ok(cwd) if cwd.is_directory() => cwd,
        found => {
            let name = String::from_utf8_lossy(spec.cwd());
            let errno = found.err().unwrap_or(Errno::ENOTDIR);
            vfs.base
                .machine
                .log(format_args!("the working directory {name}: {errno}"));
            return Err(errno);
        }
    };
    c.process.change(|d| d.cwd = cwd);
    let path = spec.args().next().ok_or(Errno::EINVAL)?.to_vec();
    let path = search(&c, &spec, path).await;
    let start = c.start(linux::AT_FDCWD as u64, &path)?;
    let found = c.walk(&start, &path, Follow::Yes).await?;
    let program = Program {
        vnode: found.existing()?.vnode()?,
        place: found.place(),
        path,
        by_descriptor: false,
        path_closes: false,
        arguments: Strings::new(spec.args()),
        environment: Strings::new(spec.env()),
    };
    run(&c, program).await
}

/// A PROGRAM without a slash is looked for along PATH, as a shell does.
async fn search(c: &Caller, spec: &RunSpec<'_>, program: Vec<u8>) -> Vec<u8> {
    if program.contains(&b'/') {
        return program;
    }
    let path = spec
        .env()
        .find_map(|entry| entry.strip_prefix(b"PATH="))
        .unwrap_or(b"/bin:/usr/bin:/sbin:/usr/sbin");
    let root = c.process.root();
    for directory in path.split(|&b| b == b':') {
        let mut candidate = directory.to_vec();
        candidate.push(b'/');
        candidate.extend_from_slice(&program);
        if let Ok(vnode) = c.lookup(&root, &candidate, Follow::Yes).await
            && vnode.is_regular()
            && vnode.mode() & 0o111 != 0
        {
            return candidate;
        }
    }
    let mut here = path_of(&c.process.cwd(), &root).unwrap_or_default();
    here.push(b'/');
    here.extend_from_slice(&program);
    here
}

/// 0, 1 and 2: the terminal where the host's is one, else the host's streams. The devices
/// are opened by number, so that a root without /dev works too; the terminal gets its node
/// where there is one, so that ttyname(3) recognises it.
async fn standard_descriptors(c: &Caller, flags: u32) -> Result<(), Errno> {
    let root = c.process.root();
    let node = c.lookup(&root, b"/dev/console", Follow::Yes).await.ok();
    let node = node.filter(|node| node.kind() == linux::S_IFCHR);
    let files = c.process.files();
    let driver =
        |major: u32| -> Result<Rc<Driver>, Errno> { c.vfs.driver(major).ok_or(Errno::ENXIO) };
    let mut terminal: Option<Rc<OpenFile>> = None;
    let terminals = [
        run_flags::STDIN_TTY,
        run_flags::STDOUT_TTY,
        run_flags::STDERR_TTY,
    ];
    let streams = [
        (numbers::STDIN_MINOR, linux::O_RDONLY),
        (numbers::STDOUT_MINOR, linux::O_WRONLY),
        (numbers::STDERR_MINOR, linux::O_WRONLY),
    ];
    for (fd, (flag, (minor, access))) in terminals.into_iter().zip(streams).enumerate() {
        let file = match (flags & flag != 0, &terminal) {
            (true, Some(file)) => file.clone(),
            (true, None) => {
                let driver = driver(numbers::TTY_MAJOR)?;
                let minor = driver
                    .open(c.context(), numbers::CONSOLE_MINOR, linux::O_RDWR)
                    .await?;
                let kind = Kind::Device(driver, minor);
                let file = OpenFile::new(
                    c.context(),
                    kind,
                    node.clone(),
                    None,
                    linux::O_RDWR | linux::O_LARGEFILE,
                )?;
                terminal = Some(file.clone());
                file
            }
            (false, _) => {
                let kind = Kind::Device(driver(numbers::STREAM_MAJOR)?, minor);
                OpenFile::new(c.context(), kind, None, None, access)?
            }
        };
        files.set(fd, file, false, c.payer())?;
    }
    Ok(())
}

//! exec: the caller's arguments, the file, libexec's plan, and the steps that replace the
//! program. VM knows nothing of it.
//!
//! Everything that can be refused is refused before `load` clears the process. After that
//! a failure kills it: the old program is gone.

mod arguments;
mod backend;
mod batch;
mod buffer;
mod init;
mod interpreter;
mod load;

pub use init::exec_init;

use crate::access::{Credentials, EXECUTE, READ};
use crate::arguments::{Args, fd};
use crate::contents::{read_and_share, read_vnode};
use crate::memory::Memory;
use crate::namei::{Follow, Node};
use crate::stages::Stage;
use crate::state::Caller;
use crate::user::{Pages, zeroed};
use crate::vnode::{Executing, Place, Vnode};
use abi::Errno;
use abi::exec::ExecBackend;
use abi::fs::Attributes;
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use arguments::Strings;
use libexec::layout::{Layout, STACK_SIZE};
use libexec::stack::{self, Auxiliary, Frame};
use libexec::{Plan, script};
use linux_raw_sys::general as linux;

/// Scripts that are interpreted by scripts.
const SCRIPTS_MAX: usize = 5;

/// What is to run.
pub struct Program {
    vnode: Rc<Vnode>,
    place: Option<Place>,
    /// As the caller named it (AT_EXECFN), or how a program gets at what it named by descriptor.
    path: Vec<u8>,
    /// It was named by a descriptor alone.
    by_descriptor: bool,
    /// That descriptor closes with the exec: no interpreter will find the file.
    path_closes: bool,
    arguments: Strings,
    environment: Strings,
}

/// As whom a program runs.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Effective user and group.
    pub adopted: (u32, u32),
    /// Its file asks for ids that are not its caller's own (AT_SECURE).
    pub secure: bool,
    /// Its caller may read it.
    pub readable: bool,
}

/// execve(2), execveat(2). `Ok`: the caller is gone and must not be answered.
pub async fn execve(c: &Caller, number: u32, a: Args) -> Result<(), Errno> {
    let (dirfd, path, argv, envp, flags) = if number == linux::__NR_execveat {
        (a[0], a[1], a[2], a[3], a[4])
    } else {
        (linux::AT_FDCWD as u64, a[0], a[1], a[2], 0)
    };
    if flags & !u64::from(linux::AT_EMPTY_PATH | linux::AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    let trace = &c.vfs.exec.trace;
    trace.begin(&*c.vfs.base.machine);
    c.exec_step()?;
    load::check_crowd(c).await?;
    let path = c.path(path).await?;
    let mut pages = Pages::new(c.memory());
    let mut budget = stack::Budget::new(STACK_SIZE);
    c.exec_step()?;
    // Given back when the frame is in the new program.
    let payer = c.payer();
    let mut charge = c.vfs.base.accounts.arguments.nothing(payer.user);
    let arguments = Strings::read(&mut pages, argv, &mut budget, &mut charge, payer).await?;
    c.exec_step()?;
    let environment = Strings::read(&mut pages, envp, &mut budget, &mut charge, payer).await?;
    drop(pages);
    c.exec_step()?;

    let by_descriptor = path.is_empty() && flags & u64::from(linux::AT_EMPTY_PATH) != 0;
    let (vnode, place) = if by_descriptor && fd(dirfd) != linux::AT_FDCWD {
        let file = c.file(dirfd)?;
        (file.vnode.clone().ok_or(Errno::EACCES)?, file.place.clone())
    } else if by_descriptor {
        return Err(Errno::EACCES);
    } else {
        let follow = if flags & u64::from(linux::AT_SYMLINK_NOFOLLOW) != 0 {
            Follow::No
        } else {
            Follow::Yes
        };
        let start = c.start(dirfd, &path)?;
        let found = c.walk(&start, &path, follow).await?;
        let place = match found.existing()? {
            Node::Open(file) => file.place.clone(),
            Node::File(_) => found.place(),
        };
        let vnode = found.existing()?.vnode().map_err(|_| Errno::EACCES)?;
        if vnode.is_link() {
            return Err(Errno::ELOOP);
        }
        (vnode, place)
    };
    let mut path_closes = false;
    let path = if fd(dirfd) == linux::AT_FDCWD || path.starts_with(b"/") {
        path
    } else {
        let descriptor = c.process.files().descriptor(fd(dirfd))?;
        path_closes = descriptor.close_on_exec;
        let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
        let directory = format!("/dev/fd/{}", fd(dirfd));
        [directory.as_bytes(), separator, &path].concat()
    };
    let program = Program {
        vnode,
        place,
        path,
        by_descriptor,
        path_closes,
        arguments,
        environment,
    };
    trace.enter(&*c.vfs.base.machine, Stage::Plan);
    let result = run(c, program).await;
    drop(charge);
    result
}

/// Runs a program in the caller's process.
pub async fn run(c: &Caller, mut program: Program) -> Result<(), Errno> {
    let mut set_id = true;
    // The path of the script that is looked at.
    let mut script = program.path.clone();
    for _ in 0..=SCRIPTS_MAX {
        c.exec_step()?;
        let attributes = check(c, &program.vnode).await?;
        c.exec_step()?;
        let header = header(c, &program.vnode, attributes.size).await?;
        let Some(line) = script::parse(&header) else {
            let executing = Executing::start(&program.vnode)?;
            return run_image(c, program, &header, &attributes, set_id, executing).await;
        };
        c.exec_step()?;
        let line = line?;
        if program.path_closes {
            return Err(Errno::ENOENT);
        }
        // The interpreter gets its argument and the script's path instead of argv[0].
        let mut front: Vec<&[u8]> = Vec::with_capacity(3);
        front.push(line.interpreter);
        front.extend(line.argument);
        front.push(&script);
        program.arguments.replace_first(&front);
        let start = c.start(linux::AT_FDCWD as u64, line.interpreter)?;
        let found = c.walk(&start, line.interpreter, Follow::Yes).await?;
        program.vnode = found.existing()?.vnode().map_err(|_| Errno::EACCES)?;
        program.place = found.place();
        script = line.interpreter.to_vec();
        // A script's set-id bits are never honoured, nor its interpreter's.
        set_id = false;
    }
    Err(Errno::ELOOP)
}

/// Whether the caller may run the file. Of its attributes mode, owner and size count.
async fn check(c: &Caller, vnode: &Vnode) -> Result<Attributes, Errno> {
    if !vnode.is_regular() || !vnode.mount.may_execute() {
        return Err(Errno::EACCES);
    }
    Credentials::effective(&c.process).check(vnode, EXECUTE)?;
    // The vnode knows what an exec needs to know, but for a size that is in doubt.
    let Some(size) = vnode.exact_size() else {
        return c.attributes(vnode).await;
    };
    let (uid, gid) = vnode.owner();
    Ok(Attributes {
        ino: vnode.ino,
        mode: vnode.mode(),
        uid,
        gid,
        size,
        ..Attributes::default()
    })
}

async fn header(c: &Caller, vnode: &Vnode, size: u64) -> Result<Vec<u8>, Errno> {
    let mut header = zeroed(size.min(Plan::HEADER as u64) as usize)?;
    let memory = Memory::own_mut(&mut header);
    let share = c.vfs.exec.backend.get() == ExecBackend::Map;
    let n = read_and_share(c, vnode, memory, 0, share).await?;
    header.truncate(n as usize);
    Ok(header)
}

/// The program in a file, of which `header` is the beginning. `ENOEXEC`.
async fn plan(c: &Caller, vnode: &Vnode, header: &[u8], size: u64) -> Result<Plan, Errno> {
    let Some(range) = Plan::far_table(header)? else {
        return Plan::parse(header, size);
    };
    // At most 64 KiB.
    let mut table = zeroed(range.len as usize)?;
    let memory = Memory::own_mut(&mut table);
    let n = read_vnode(c, vnode, memory, range.offset).await?;
    table.truncate(n as usize);
    Plan::parse_with(header, &table, size)
}

async fn run_image(
    c: &Caller,
    program: Program,
    header: &[u8],
    attributes: &Attributes,
    set_id: bool,
    executing: Executing,
) -> Result<(), Errno> {
    c.exec_step()?;
    let plan = plan(c, &program.vnode, header, attributes.size).await?;
    c.exec_step()?;
    let interpreter = interpreter::find(c, &program.vnode, &plan, header).await?;
    let ids = c.process.subject.ids.get();
    let mut adopted = (ids.euid, ids.egid);
    let readable = Credentials::effective(&c.process)
        .check(&program.vnode, READ)
        .is_ok();
    if set_id && program.vnode.mount.honours_set_id() {
        if attributes.mode & linux::S_ISUID != 0 {
            adopted.0 = attributes.uid;
        }
        if attributes.mode & linux::S_ISGID != 0 && attributes.mode & linux::S_IXGRP != 0 {
            adopted.1 = attributes.gid;
        }
    }
    if let Some(place) = &program.place {
        program.vnode.set_place(place.clone());
    }
    let secure = adopted != (ids.uid, ids.gid);
    if secure && !load::may_set_id(c).await {
        // As on Linux: no more than the one who traces it may see, and not trusted either.
        adopted = (ids.uid, ids.gid);
    }
    let identity = Identity {
        adopted,
        secure,
        readable,
    };
    let result = replace(c, program, &plan, interpreter, identity, executing).await;
    if secure && result.is_err() {
        load::set_id_over(c);
    }
    result
}

/// Replaces the caller's program: everything that can be wrong with the file has been found.
async fn replace(
    c: &Caller,
    program: Program,
    plan: &Plan,
    interpreter: Option<interpreter::Interpreter>,
    identity: Identity,
    executing: Executing,
) -> Result<(), Errno> {
    let ids = c.process.subject.ids.get();
    let Identity {
        adopted, secure, ..
    } = identity;
    // A program with other ids than its caller's cannot be made predictable.
    let layout = if c.vfs.randomize && (secure || !c.process.fixed_layout.get()) {
        Layout::random(c.vfs.random.borrow_mut().words())
    } else {
        Layout::FIXED
    };
    c.exec_step()?;
    let image = plan.place_in(&layout)?;
    let linker = match &interpreter {
        Some(interpreter) => Some(interpreter.plan.place_interpreter(&image, &layout)?),
        None => None,
    };
    let processor = c.vfs.base.machine.processor();
    let auxiliary = Auxiliary {
        uid: ids.uid,
        euid: adopted.0,
        gid: ids.gid,
        egid: adopted.1,
        secure,
        random: c.vfs.random.borrow_mut().bytes(),
        hwcap: processor.hwcap,
        min_signal_stack: processor.min_signal_stack,
        base: linker.map_or(0, |linker| linker.bias()),
        ..Auxiliary::of(&image)
    };
    c.exec_step()?;
    let frame: Frame = stack::build(
        layout.stack_top,
        STACK_SIZE,
        program.arguments.iter(),
        program.environment.iter(),
        &program.path,
        &auxiliary,
    )?;
    let mut images = Vec::with_capacity(2);
    images.push((&program.vnode, image));
    if let (Some(interpreter), Some(linker)) = (&interpreter, linker) {
        images.push((&interpreter.vnode, linker));
    }
    // After this nothing may fail any more.
    c.unshare_files()?;
    if load::replace(c, &images, &frame, &layout).await? {
        let entry = linker.unwrap_or(image).entry();
        c.vfs.exec.trace.enter(&*c.vfs.base.machine, Stage::Finish);
        let old = c.process.executing.replace(Some(Rc::new(executing)));
        drop(old);
        load::finish(c, &program, entry, &frame, identity);
    }
    c.vfs.exec.trace.end(&*c.vfs.base.machine);
    Ok(())
}

impl Caller {
    /// Before a step of an exec: the failure that is wanted here, if one is.
    pub fn exec_step(&self) -> Result<(), Errno> {
        self.process.exec_fault.step()
    }
}

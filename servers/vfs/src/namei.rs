//! Paths: from a string to a vnode.

use crate::access::{Credentials, EXECUTE};
use crate::file::OpenFile;
use crate::state::Caller;
use crate::user::zeroed;
use crate::vnode::mount::Mount;
use crate::vnode::{Cached, Place, Vnode};
use abi::Errno;
use abi::fs::{NAME_MAX, PATH_MAX};
use abi::proto::fs;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use rt::room;

/// Symbolic links one path may go through.
pub const LINKS_MAX: usize = 40;

/// What a path names.
#[derive(Clone)]
pub enum Node {
    /// A file.
    File(Rc<Vnode>),
    /// An open file that has no path: a pipe behind /proc/PID/fd.
    Open(Rc<OpenFile>),
}

impl Node {
    /// The vnode; `ENOENT` for what has none.
    pub fn vnode(self) -> Result<Rc<Vnode>, Errno> {
        match self {
            Node::File(vnode) => Ok(vnode),
            Node::Open(file) => file.vnode.clone().ok_or(Errno::ENOENT),
        }
    }
}

/// What the last component was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Last {
    /// A name.
    Name,
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// There was none: "/".
    Root,
    /// A jump through /proc/PID/fd.
    Jump,
}

/// Where a path led.
pub struct Found {
    /// The directory of the last component (the directory itself unless [`Last::Name`]).
    pub directory: Rc<Vnode>,
    /// The last component.
    pub name: Box<[u8]>,
    /// What kind of component that was.
    pub last: Last,
    /// What it names; `None` when it does not exist.
    pub node: Option<Node>,
    /// Slashes followed it: only a directory will do (with [`Follow::Never`] the caller
    /// checks that).
    pub trailing_slash: bool,
}

impl Found {
    fn at(directory: Rc<Vnode>, last: Last) -> Found {
        Found {
            node: Some(Node::File(directory.clone())),
            directory,
            name: Box::default(),
            last,
            trailing_slash: false,
        }
    }

    /// The node; `ENOENT`.
    pub fn existing(&self) -> Result<Node, Errno> {
        self.node.clone().ok_or(Errno::ENOENT)
    }

    /// Where the file stands, if by a name.
    pub fn place(&self) -> Option<Place> {
        match self.last {
            Last::Name => Some(Place {
                parent: self.directory.clone(),
                name: self.name.clone(),
            }),
            _ => None,
        }
    }
}

/// How to walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Follow {
    /// Through a symbolic link at the end as well.
    Yes,
    /// The last component is meant itself, unless slashes follow it.
    No,
    /// The last component is meant itself whatever follows it: calls that change names.
    Never,
}

impl Caller {
    /// Walks `path` from `start` (or the root) with effective ids.
    pub fn walk(
        &self,
        start: &Rc<Vnode>,
        path: &[u8],
        follow: Follow,
    ) -> impl Future<Output = Result<Found, Errno>> {
        self.walk_as(start, path, follow, false)
    }

    /// [`Caller::walk`], optionally with the real ids (access(2)).
    pub async fn walk_as(
        &self,
        start: &Rc<Vnode>,
        path: &[u8],
        follow: Follow,
        real_ids: bool,
    ) -> Result<Found, Errno> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        self.uses_path(path);
        let credentials = if real_ids {
            Credentials::real(&self.process)
        } else {
            Credentials::effective(&self.process)
        };
        let root = self.process.root();
        // What a link led to and what came after it.
        let mut spliced: Vec<u8>;
        let mut rest = path;
        let mut directory = start.clone();
        let mut last = Last::Dot;
        let mut links = 0;
        if rest.starts_with(b"/") {
            directory = root.clone();
            last = Last::Root;
        }
        loop {
            rest = &rest[count(rest, |b| b == b'/')..];
            if rest.is_empty() {
                return Ok(Found::at(directory, last));
            }
            let (name, after) = rest.split_at(count(rest, |b| b != b'/'));
            let slashes = count(after, |b| b == b'/');
            let is_last = slashes == after.len();
            rest = after;

            if !directory.is_directory() {
                return Err(Errno::ENOTDIR);
            }
            if !self.own_descriptors(&directory) {
                credentials.check(&directory, EXECUTE)?;
            }
            if name == b"." {
                last = Last::Dot;
                continue;
            }
            if name == b".." {
                last = Last::DotDot;
                directory = above(&directory, &root);
                continue;
            }
            if name.len() > NAME_MAX {
                return Err(Errno::ENAMETOOLONG);
            }

            let found = |directory: &Rc<Vnode>, node, last| Found {
                directory: directory.clone(),
                name: name.into(),
                last,
                node,
                trailing_slash: slashes > 0,
            };
            let child = match known_child(&directory, name)? {
                Some(Cached::Present(child)) => Some(child),
                Some(Cached::Absent) => None,
                None => self.ask_child(&directory, name).await?,
            };
            let Some(child) = child else {
                if follow != Follow::Never {
                    self.missed(start, path);
                }
                return if is_last {
                    Ok(found(&directory, None, Last::Name))
                } else {
                    Err(Errno::ENOENT)
                };
            };
            let through = child.is_link()
                && match follow {
                    Follow::Yes => true,
                    Follow::No => !is_last || slashes > 0,
                    Follow::Never => !is_last,
                };
            if !through {
                if is_last {
                    if slashes > 0 && !child.is_directory() && follow != Follow::Never {
                        return Err(Errno::ENOTDIR);
                    }
                    self.found_file(&child);
                    return Ok(found(&directory, Some(Node::File(child)), Last::Name));
                }
                directory = child;
                last = Last::Name;
                continue;
            }

            links += 1;
            if links > LINKS_MAX {
                return Err(Errno::ELOOP);
            }
            if is_last {
                let protections = &self.vfs.protections;
                protections.may_follow_link(&credentials, &directory, &child)?;
            }
            if let Some(file) = self.descriptor_link(&directory, name)? {
                // /proc says who may look.
                self.read_link(&child).await?;
                match (&file.vnode, is_last) {
                    (Some(vnode), _) if vnode.is_directory() => {
                        directory = vnode.clone();
                        last = Last::Jump;
                        continue;
                    }
                    (_, true) if slashes == 0 => {
                        return Ok(found(&directory, Some(Node::Open(file)), Last::Jump));
                    }
                    _ => return Err(Errno::ENOTDIR),
                }
            }
            let target = self.read_link(&child).await?;
            if target.is_empty() {
                return Err(Errno::ENOENT);
            }
            let next = [&target, rest].concat();
            if next.len() >= 2 * PATH_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            spliced = next;
            rest = &spliced;
            last = Last::Dot;
            if rest.starts_with(b"/") {
                directory = root.clone();
                last = Last::Root;
            }
        }
    }

    /// There is nothing at a path.
    fn missed(&self, start: &Rc<Vnode>, path: &[u8]) {
        if let Some(absent) = &self.vfs.absent
            && let Ok(whole) = self.whole(start, path)
        {
            absent.note(&whole);
        }
    }

    /// A path was found missing and then made.
    pub fn made(&self, start: &Rc<Vnode>, path: &[u8]) {
        if let Some(absent) = &self.vfs.absent {
            // Without memory to name it, it is not known to be missing any more, like all others.
            match self.whole(start, path) {
                Ok(whole) => absent.forget(&whole),
                Err(_) => absent.forget_all(),
            }
        }
    }

    /// A path from the root.
    fn whole(&self, start: &Rc<Vnode>, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut whole = Vec::new();
        if !path.starts_with(b"/") {
            whole = path_of(start, &self.process.root())?;
            room::push(&mut whole, b'/')?;
        }
        room::extend(&mut whole, path)?;
        Ok(whole)
    }

    /// The file that a path names; `ENOENT`.
    pub async fn lookup(
        &self,
        start: &Rc<Vnode>,
        path: &[u8],
        follow: Follow,
    ) -> Result<Rc<Vnode>, Errno> {
        self.walk(start, path, follow).await?.existing()?.vnode()
    }

    /// One name in a directory that [`known_child`] does not know.
    async fn ask_child(
        &self,
        directory: &Rc<Vnode>,
        name: &[u8],
    ) -> Result<Option<Rc<Vnode>>, Errno> {
        let mount = &directory.mount;
        let charge = self.vnode()?;
        let changes = directory.changes();
        let grant = mount.peer.lend(name)?;
        let answer = mount
            .peer
            .ask(fs::Lookup {
                dir: directory.ino,
                grant: grant.to(),
                len: name.len() as u64,
                who: self.who(),
            })
            .await;
        drop(grant);
        let unchanged = directory.changes() == changes;
        match answer {
            Ok(node) => {
                let vnode = mount.adopt(node, Some(charge));
                place(directory, name, &vnode);
                if unchanged {
                    directory.remember(name, Cached::Present(vnode.clone()));
                }
                Ok(Some(vnode))
            }
            Err(Errno::ENOENT) => {
                if unchanged {
                    directory.remember(name, Cached::Absent);
                }
                Ok(None)
            }
            Err(errno) => Err(errno),
        }
    }

    /// The target of a symbolic link.
    pub async fn read_link(&self, vnode: &Rc<Vnode>) -> Result<Rc<[u8]>, Errno> {
        if let Some(target) = vnode.link() {
            return Ok(target);
        }
        let mut buffer = zeroed(PATH_MAX)?;
        let peer = &vnode.mount.peer;
        let grant = peer.lend_mut(&mut buffer)?;
        let target = peer
            .ask(fs::Readlink {
                ino: vnode.ino,
                grant: grant.to(),
                len: PATH_MAX as u64,
                who: self.who(),
            })
            .await?;
        drop(grant);
        buffer.truncate((target.bytes as usize).min(PATH_MAX));
        let target: Rc<[u8]> = buffer.into();
        vnode.set_link(target.clone());
        Ok(target)
    }

    /// When `name` in `directory` is /proc/PID/fd/N: the open file itself, because its path
    /// may not lead to it (a pipe, an unlinked file).
    fn descriptor_link(
        &self,
        directory: &Rc<Vnode>,
        name: &[u8],
    ) -> Result<Option<Rc<OpenFile>>, Errno> {
        let (Some(pid), Some(number)) = (descriptors_of(directory), decimal(name)) else {
            return Ok(None);
        };
        let process = self.vfs.processes.borrow().by_pid(pid);
        let process = process.ok_or(Errno::ENOENT)?;
        let file = process.files().get(number as i32);
        file.map(Some).map_err(|_| Errno::ENOENT)
    }
}

impl Caller {
    /// Whether a directory is the caller's own /proc/PID/fd, which is open to it even when its
    /// files are root's because nobody may look at it.
    pub fn own_descriptors(&self, directory: &Vnode) -> bool {
        descriptors_of(directory) == Some(self.process.subject.pid)
    }
}

/// Whose /proc/PID/fd a directory is.
fn descriptors_of(directory: &Vnode) -> Option<u32> {
    if !directory.mount.is_proc() {
        return None;
    }
    let Place { parent, name } = directory.place()?;
    let pid = decimal(&parent.place()?.name)?;
    (*name == *b"fd").then_some(pid)
}

/// One name in a directory, if what is mounted there or the name cache knows of it.
fn known_child(directory: &Vnode, name: &[u8]) -> Result<Option<Cached>, Errno> {
    if let Some(mount) = directory.mounted(name) {
        return mount.root().map(|root| Some(Cached::Present(root)));
    }
    directory.mount.peer.check_alive()?;
    Ok(directory.cached(name))
}

/// Remembers where a directory hangs, or a mapped file that moved.
pub fn place(directory: &Rc<Vnode>, name: &[u8], vnode: &Rc<Vnode>) {
    let kept = vnode.is_directory() || vnode.place().is_some();
    if kept && !Rc::ptr_eq(directory, vnode) {
        vnode.set_place(Place {
            parent: directory.clone(),
            name: name.into(),
        });
    }
}

/// `..`: not above the process's root, and through mount points.
pub fn above(directory: &Rc<Vnode>, root: &Rc<Vnode>) -> Rc<Vnode> {
    if Rc::ptr_eq(directory, root) {
        return directory.clone();
    }
    if let Some(place) = directory.place() {
        return place.parent;
    }
    match directory.mount.on() {
        Some(place) => place.parent,
        None => directory.clone(),
    }
}

/// The path of a directory as seen from `root`. `ENOMEM`: directories can be nested deeper than
/// memory goes.
pub fn path_of(directory: &Rc<Vnode>, root: &Rc<Vnode>) -> Result<Vec<u8>, Errno> {
    let above = |at: &Rc<Vnode>| match Rc::ptr_eq(at, root) {
        true => None,
        false => at.place().or_else(|| at.mount.on()),
    };
    let mut len = 0;
    let mut at = directory.clone();
    while let Some(place) = above(&at) {
        len += 1 + place.name.len();
        at = place.parent;
    }
    if len == 0 {
        return Ok(Vec::from(b"/"));
    }
    let mut path = zeroed(len)?;
    at = directory.clone();
    while let Some(place) = above(&at) {
        let start = len - place.name.len();
        path[start..len].copy_from_slice(&place.name);
        len = start - 1;
        path[len] = b'/';
        at = place.parent;
    }
    Ok(path)
}

/// The path of a file at a place. `ENOMEM`.
pub fn path_of_place(place: &Place, root: &Rc<Vnode>) -> Result<Vec<u8>, Errno> {
    let mut path = path_of(&place.parent, root)?;
    if !path.ends_with(b"/") {
        room::push(&mut path, b'/')?;
    }
    room::extend(&mut path, &place.name)?;
    Ok(path)
}

/// Whether something is mounted on a name.
pub fn is_mount_point(found: &Found) -> Option<Rc<Mount>> {
    found.directory.mounted(&found.name)
}

/// A decimal number.
pub fn decimal(text: &[u8]) -> Option<u32> {
    core::str::from_utf8(text).ok()?.parse().ok()
}

fn count(bytes: &[u8], wanted: impl Fn(u8) -> bool) -> usize {
    bytes
        .iter()
        .position(|&b| !wanted(b))
        .unwrap_or(bytes.len())
}

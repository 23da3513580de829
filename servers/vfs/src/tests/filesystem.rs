//! A file system in memory that speaks the protocol and counts references.

use super::world::Fake;
use abi::fs::{Attributes, SetAttributes, SetMask, Statistics};
use abi::grant::ToRead;
use abi::message::request::{Ask, Asker};
use abi::message::{Handled, transaction};
use abi::proto::fs;
use abi::{Class, Endpoint, Errno, Message, Request};
use linux_raw_sys::general as linux;
use std::collections::BTreeMap;
use std::vec::Vec;
use zerocopy::IntoBytes;

#[derive(Clone, Default)]
pub struct Inode {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub rdev: u64,
    pub data: Vec<u8>,
    pub names: BTreeMap<Vec<u8>, u64>,
    pub references: i64,
}

pub struct MemoryFs {
    pub inodes: BTreeMap<u64, Inode>,
    next: u64,
    pub lookups: u64,
    pub requests: Vec<u64>,
    pub mappable: bool,
    /// A read reports what it moved although a copy failed (the mark must be believed, not
    /// the status).
    pub hides_faults: bool,
}

/// The answer, if one is wanted.
type Said = Result<Option<Message>, Errno>;

/// What is said to who asked `R`.
fn said<R: Request<How = Ask>>(message: &Message, reply: R::Reply) -> Said {
    Ok(Asker::of::<R>(Endpoint::VFS, transaction(message)).answer(Ok(reply)))
}

/// Bytes of the largest file that there can be.
const LARGEST_FILE: u64 = 1 << 20;

impl MemoryFs {
    pub fn new() -> MemoryFs {
        let mut fs = MemoryFs {
            inodes: BTreeMap::new(),
            next: 2,
            lookups: 0,
            requests: Vec::new(),
            mappable: true,
            hides_faults: false,
        };
        let root = Inode {
            mode: linux::S_IFDIR | 0o755,
            nlink: 2,
            ..Inode::default()
        };
        fs.inodes.insert(1, root);
        fs
    }

    pub fn add(&mut self, dir: u64, name: &str, mode: u32, data: &[u8]) -> u64 {
        self.add_named(dir, name.as_bytes(), mode, data)
    }

    fn add_named(&mut self, dir: u64, name: &[u8], mode: u32, data: &[u8]) -> u64 {
        let ino = self.next;
        self.next += 1;
        let inode = Inode {
            mode,
            nlink: 1,
            data: data.to_vec(),
            ..Inode::default()
        };
        self.inodes.insert(ino, inode);
        self.dir(dir).insert(name.to_vec(), ino);
        ino
    }

    fn dir(&mut self, dir: u64) -> &mut BTreeMap<Vec<u8>, u64> {
        &mut self.inodes.get_mut(&dir).unwrap().names
    }

    pub fn inode(&self, ino: u64) -> &Inode {
        &self.inodes[&ino]
    }

    fn get(&mut self, ino: u64) -> Result<&mut Inode, Errno> {
        self.inodes.get_mut(&ino).ok_or(Errno::ENOENT)
    }

    fn node(&mut self, ino: u64, reference: bool) -> Result<fs::Node, Errno> {
        let inode = self.get(ino)?;
        inode.references += i64::from(reference);
        Ok(fs::Node {
            ino,
            mode: inode.mode,
            nlink: inode.nlink,
            uid: inode.uid,
            gid: inode.gid,
            size: inode.data.len() as u64,
            rdev: inode.rdev,
        })
    }

    fn free_unused(&mut self, ino: u64) {
        if self.inodes[&ino].nlink == 0 && self.inodes[&ino].references == 0 {
            self.inodes.remove(&ino);
            // The number is used again, to catch stale caches.
            self.next = ino;
        }
    }

    pub fn handle(&mut self, fake: &Fake, me: Endpoint, message: &Message) -> Option<Message> {
        self.requests.push(message.kind - fs::BASE);
        self.answer(fake, me, message)
            .unwrap_or_else(|errno| Handled::failed(Class::Post, message, errno).answer)
    }

    fn answer(&mut self, fake: &Fake, me: Endpoint, message: &Message) -> Said {
        let name = |grant: ToRead, len: u64| {
            let mut name = std::vec![0; len as usize];
            fake.copy_from_grant(me, grant, 0, &mut name).unwrap();
            name
        };
        match message.kind {
            fs::ReadSuper::KIND => {
                let root = self.node(1, true)?;
                said::<fs::ReadSuper>(message, root.into())
            }
            fs::Unmount::KIND => said::<fs::Unmount>(message, ()),
            fs::Remount::KIND => said::<fs::Remount>(message, ()),
            fs::Lookup::KIND => {
                let r = fs::Lookup::decode(message).unwrap();
                self.lookups += 1;
                let name = name(r.grant, r.len);
                let ino = *self.get(r.dir)?.names.get(&name).ok_or(Errno::ENOENT)?;
                said::<fs::Lookup>(message, self.node(ino, true)?)
            }
            fs::Put::KIND => {
                let r = fs::Put::decode(message).unwrap();
                let inode = self.inodes.get_mut(&r.ino).expect("put of a live inode");
                inode.references -= r.count as i64;
                assert!(inode.references >= 0, "more references put than given");
                self.free_unused(r.ino);
                Ok(None)
            }
            fs::Read::KIND => {
                let r = fs::Read::decode(message).unwrap();
                let hides = self.hides_faults;
                let data = &self.get(r.ino)?.data;
                let start = (r.offset as usize).min(data.len());
                let end = (start + r.len as usize).min(data.len());
                let mut done = 0;
                // Page by page, so that a fault in the middle leaves a part done.
                for piece in data[start..end].chunks(4096) {
                    match fake.copy_to_grant(me, r.grant, done as u64, piece) {
                        Ok(()) => done += piece.len(),
                        Err(_) if hides => break,
                        Err(errno) => return Err(errno),
                    }
                }
                let bytes = done as u64;
                said::<fs::Read>(message, fs::Moved { bytes })
            }
            fs::Write::KIND => {
                let r = fs::Write::decode(message).unwrap();
                let inode = self.get(r.ino)?;
                let at = if r.append {
                    inode.data.len()
                } else {
                    r.offset as usize
                };
                if r.len > LARGEST_FILE || at as u64 > LARGEST_FILE {
                    return Err(Errno::EFBIG);
                }
                let mut data = std::vec![0; r.len as usize];
                fake.copy_from_grant(me, r.grant, 0, &mut data)?;
                let end = at + data.len();
                if inode.data.len() < end {
                    inode.data.resize(end, 0);
                }
                inode.data[at..end].copy_from_slice(&data);
                let written = fs::Written {
                    bytes: data.len() as u64,
                    size: inode.data.len() as u64,
                    position: at as u64,
                };
                said::<fs::Write>(message, written)
            }
            fs::Readlink::KIND => {
                let r = fs::Readlink::decode(message).unwrap();
                let target = self.get(r.ino)?.data.clone();
                let n = target.len().min(r.len as usize);
                fake.copy_to_grant(me, r.grant, 0, &target[..n])?;
                let bytes = n as u64;
                said::<fs::Readlink>(message, fs::Moved { bytes })
            }
            fs::Create::KIND => {
                let r = fs::Create::decode(message).unwrap();
                let name = name(r.grant, r.len);
                if self.get(r.dir)?.names.contains_key(&name) {
                    return Err(Errno::EEXIST);
                }
                let ino = self.add_named(r.dir, &name, r.mode, &[]);
                let inode = self.get(ino)?;
                (inode.uid, inode.gid, inode.rdev) = (r.ids.0, r.ids.1, r.rdev);
                said::<fs::Create>(message, self.node(ino, true)?)
            }
            fs::Symlink::KIND => {
                let r = fs::Symlink::decode(message).unwrap();
                let link = name(r.name, u64::from(r.lens.0));
                let target = name(r.target, u64::from(r.lens.1));
                let ino = self.add_named(r.dir, &link, linux::S_IFLNK | 0o777, &target);
                said::<fs::Symlink>(message, self.node(ino, true)?)
            }
            fs::Link::KIND => {
                let r = fs::Link::decode(message).unwrap();
                let name = name(r.grant, r.len);
                self.dir(r.dir).insert(name, r.ino);
                self.get(r.ino)?.nlink += 1;
                said::<fs::Link>(message, ())
            }
            fs::Unlink::KIND => {
                let r = fs::Unlink::decode(message).unwrap();
                let name = name(r.grant, r.len);
                let ino = *self.get(r.dir)?.names.get(&name).ok_or(Errno::ENOENT)?;
                if r.directory && !self.inodes[&ino].names.is_empty() {
                    return Err(Errno::ENOTEMPTY);
                }
                self.dir(r.dir).remove(&name);
                self.get(ino)?.nlink -= 1;
                self.free_unused(ino);
                said::<fs::Unlink>(message, fs::Unlinked { ino })
            }
            fs::Rename::KIND => {
                let r = fs::Rename::decode(message).unwrap();
                let names = name(r.grant, u64::from(r.lens.0 + r.lens.1));
                let (old, new) = names.split_at(r.lens.0 as usize);
                let ino = self.dir(r.old_dir).remove(old).ok_or(Errno::ENOENT)?;
                if let Some(replaced) = self.dir(r.new_dir).insert(new.to_vec(), ino) {
                    self.get(replaced)?.nlink -= 1;
                    self.free_unused(replaced);
                }
                said::<fs::Rename>(message, ())
            }
            fs::SetAttr::KIND => {
                let r = fs::SetAttr::decode(message).unwrap();
                let mut set = SetAttributes::default();
                let bytes = set.as_mut_bytes();
                fake.copy_from_grant(me, r.grant, 0, bytes)?;
                let mask = SetMask::from_bits(set.mask).unwrap();
                let inode = self.get(r.ino)?;
                if mask.contains(SetMask::SIZE) && set.size > LARGEST_FILE {
                    return Err(Errno::EFBIG);
                }
                if mask.contains(SetMask::SIZE) {
                    inode.data.resize(set.size as usize, 0);
                }
                if mask.contains(SetMask::MODE) {
                    inode.mode = inode.mode & !0o7777 | set.mode;
                }
                if mask.contains(SetMask::UID) {
                    inode.uid = set.uid;
                }
                said::<fs::SetAttr>(message, self.node(r.ino, false)?)
            }
            fs::GetAttr::KIND => {
                let r = fs::GetAttr::decode(message).unwrap();
                let inode = self.get(r.ino)?;
                let attributes = Attributes {
                    ino: r.ino,
                    size: inode.data.len() as u64,
                    mode: inode.mode,
                    nlink: inode.nlink,
                    uid: inode.uid,
                    gid: inode.gid,
                    ..Attributes::default()
                };
                fake.copy_to_grant(me, r.grant, 0, attributes.as_bytes())?;
                said::<fs::GetAttr>(message, ())
            }
            fs::Statfs::KIND => {
                let r = fs::Statfs::decode(message).unwrap();
                let figures = Statistics::default();
                fake.copy_to_grant(me, r.grant, 0, figures.as_bytes())?;
                said::<fs::Statfs>(message, ())
            }
            fs::Peek::KIND if self.mappable => said::<fs::Peek>(message, ()),
            fs::Sync::KIND => said::<fs::Sync>(message, ()),
            _ => Err(Errno::ENOSYS),
        }
    }
}

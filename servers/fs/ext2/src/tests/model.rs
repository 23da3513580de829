//! Random operations against a model, judged by `e2fsck`.

use std::collections::BTreeMap;
use std::prelude::v1::*;
use std::vec;

use abi::fs::{SetAttributes, SetMask};
use proptest::prelude::*;

use super::image::{Image, contents, format_image, fsck};
use crate::{Errno, MemoryDisk, New, Options, ROOT, Volume};

#[derive(Clone, Debug)]
enum Op {
    Create(u8, u8),
    Mkdir(u8, u8),
    Symlink(u8, u8, usize),
    Write(u8, u8, u32, u16),
    Truncate(u8, u8, u32),
    Punch(u8, u8, u32, u32),
    Reserve(u8, u8, u32, u16),
    Link((u8, u8), (u8, u8)),
    Unlink(u8, u8),
    Rmdir(u8, u8),
    Rename((u8, u8), (u8, u8), u32),
    Sync,
    Remount,
}

fn op() -> impl Strategy<Value = Op> {
    let at = || (0u8..4, 0u8..5);
    prop_oneof![
        4 => at().prop_map(|(d, n)| Op::Create(d, n)),
        3 => at().prop_map(|(d, n)| Op::Mkdir(d, n)),
        1 => (at(), 1usize..200).prop_map(|((d, n), len)| Op::Symlink(d, n, len)),
        8 => (at(), 0u32..400_000, 1u16..20_000).prop_map(|((d, n), o, l)| Op::Write(d, n, o, l)),
        3 => (at(), 0u32..400_000).prop_map(|((d, n), s)| Op::Truncate(d, n, s)),
        3 => (at(), 0u32..400_000, 1u32..100_000).prop_map(|((d, n), o, l)| Op::Punch(d, n, o, l)),
        2 => (at(), 0u32..400_000, 1u16..20_000).prop_map(|((d, n), o, l)| Op::Reserve(d, n, o, l)),
        2 => (at(), at()).prop_map(|(a, b)| Op::Link(a, b)),
        3 => at().prop_map(|(d, n)| Op::Unlink(d, n)),
        2 => at().prop_map(|(d, n)| Op::Rmdir(d, n)),
        6 => (at(), at(), 0u32..3).prop_map(|(a, b, f)| Op::Rename(a, b, f)),
        1 => Just(Op::Sync),
        1 => Just(Op::Remount),
    ]
}

#[derive(Clone, Debug)]
enum Node {
    File(Vec<u8>),
    Dir(BTreeMap<Vec<u8>, usize>, usize),
    Link(Vec<u8>),
}

/// What the volume must look like. A node is known by its place in `nodes`.
struct Model {
    nodes: Vec<(u32, Node)>,
}

impl Model {
    /// The `n`th directory that still exists.
    fn dir(&self, n: u8) -> usize {
        let mut dirs = vec![0];
        let mut i = 0;
        while i < dirs.len() {
            if let Node::Dir(entries, _) = &self.nodes[dirs[i]].1 {
                let subs = entries.values().copied();
                dirs.extend(subs.filter(|&s| matches!(self.nodes[s].1, Node::Dir(..))));
            }
            i += 1;
        }
        dirs[n as usize % dirs.len()]
    }

    fn entries(&mut self, dir: usize) -> &mut BTreeMap<Vec<u8>, usize> {
        match &mut self.nodes[dir].1 {
            Node::Dir(entries, _) => entries,
            _ => unreachable!(),
        }
    }

    fn get(&self, dir: usize, name: &[u8]) -> Option<usize> {
        match &self.nodes[dir].1 {
            Node::Dir(entries, _) => entries.get(name).copied(),
            _ => None,
        }
    }

    fn ino(&self, node: usize) -> u32 {
        self.nodes[node].0
    }

    fn is_dir(&self, node: usize) -> bool {
        matches!(self.nodes[node].1, Node::Dir(..))
    }

    fn is_empty(&self, node: usize) -> bool {
        matches!(&self.nodes[node].1, Node::Dir(entries, _) if entries.is_empty())
    }

    fn below(&self, mut dir: usize, ancestor: usize) -> bool {
        loop {
            if dir == ancestor {
                return true;
            }
            match self.nodes[dir].1 {
                Node::Dir(_, parent) if parent != dir => dir = parent,
                _ => return false,
            }
        }
    }

    /// What rename must say.
    fn rename(
        &mut self,
        (od, on): (usize, &[u8]),
        (nd, nn): (usize, &[u8]),
        flags: u32,
    ) -> Result<(), Errno> {
        let source = self.get(od, on).ok_or(Errno::ENOENT)?;
        if self.is_dir(source) && od != nd && self.below(nd, source) {
            return Err(Errno::EINVAL);
        }
        let target = self.get(nd, nn);
        match (target, flags) {
            (None, 2) => return Err(Errno::ENOENT),
            (Some(_), 1) => return Err(Errno::EEXIST),
            (Some(t), _) if t == source => return Ok(()),
            (Some(t), 2) => {
                if self.is_dir(t) && od != nd && self.below(od, t) {
                    return Err(Errno::EINVAL);
                }
                self.entries(od).insert(on.into(), t);
                self.reparent(t, od);
            }
            (Some(t), _) => match (self.is_dir(source), self.is_dir(t)) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                (true, true) if !self.is_empty(t) => return Err(Errno::ENOTEMPTY),
                _ => {
                    self.entries(od).remove(on);
                }
            },
            (None, _) => {
                self.entries(od).remove(on);
            }
        }
        self.entries(nd).insert(nn.into(), source);
        self.reparent(source, nd);
        Ok(())
    }

    fn reparent(&mut self, node: usize, dir: usize) {
        if let Node::Dir(_, parent) = &mut self.nodes[node].1 {
            *parent = dir;
        }
    }
}

/// Names of very different lengths, so that entries split and merge.
fn name(n: u8) -> Vec<u8> {
    vec![b'a' + n; [1, 5, 60, 140, 255][n as usize % 5]]
}

fn compare(v: &mut Volume<MemoryDisk>, model: &Model, node: usize) {
    let (ino, expected) = &model.nodes[node];
    match expected {
        Node::File(data) => {
            let mut back = vec![0; data.len() + 1];
            assert_eq!(v.read(*ino, 0, &mut back).unwrap(), data.len());
            assert!(back[..data.len()] == data[..]);
        }
        Node::Link(target) => {
            let mut back = vec![0; 1024];
            let len = v.readlink(*ino, &mut back).unwrap();
            assert!(back[..len] == target[..]);
        }
        Node::Dir(entries, _) => {
            let mut seen = BTreeMap::new();
            v.read_dir(*ino, 0, &mut |e| {
                if !matches!(e.name, b"." | b".." | b"lost+found") {
                    assert!(seen.insert(e.name.to_vec(), e.ino).is_none());
                }
                true
            })
            .unwrap();
            let wanted = entries.iter().map(|(n, &i)| (n.clone(), model.ino(i)));
            assert_eq!(seen, wanted.collect());
            let subs = entries.values().filter(|&&i| model.is_dir(i)).count();
            let extra = if *ino == ROOT { 3 } else { 2 };
            let links = v.attributes(*ino).unwrap().nlink as usize;
            assert_eq!(links, subs + extra);
            for &child in entries.values() {
                compare(v, model, child);
            }
        }
    }
}

fn run(block_size: usize, ops: &[Op]) {
    let image = format_image(5 << 20, block_size, 128);
    // A cache so small that pages come and go.
    let options = Options {
        cache_pages: 64,
        ..Default::default()
    };
    let mut v = Volume::mount(image.disk(), options).unwrap();
    let mut m = Model {
        nodes: vec![(ROOT, Node::Dir(BTreeMap::new(), 0))],
    };
    for (i, op) in ops.iter().enumerate() {
        match *op {
            Op::Create(d, n) | Op::Mkdir(d, n) | Op::Symlink(d, n, _) => {
                let (d, n) = (m.dir(d), name(n));
                let new = |mode| New {
                    mode,
                    ..New::default()
                };
                let (made, node) = match *op {
                    Op::Mkdir(..) => (
                        v.create(m.ino(d), &n, new(0o040755)),
                        Node::Dir(BTreeMap::new(), d),
                    ),
                    Op::Symlink(.., len) => {
                        let target = vec![b'/'; len];
                        (v.symlink(m.ino(d), &n, &target, new(0)), Node::Link(target))
                    }
                    _ => (v.create(m.ino(d), &n, new(0o100644)), Node::File(vec![])),
                };
                if m.get(d, &n).is_some() {
                    assert_eq!(made, Err(Errno::EEXIST));
                } else {
                    m.nodes.push((made.unwrap(), node));
                    let id = m.nodes.len() - 1;
                    m.entries(d).insert(n, id);
                }
            }
            Op::Write(d, n, offset, len) => {
                let d = m.dir(d);
                let Some(f) = m.get(d, &name(n)) else {
                    continue;
                };
                let data = contents(len as usize, i as u64);
                let done = v.write(m.ino(f), offset as u64, &data);
                match &mut m.nodes[f].1 {
                    Node::File(old) => {
                        assert_eq!(done, Ok(data.len()));
                        let end = offset as usize + data.len();
                        old.resize(old.len().max(end), 0);
                        old[offset as usize..end].copy_from_slice(&data);
                    }
                    Node::Dir(..) => assert_eq!(done, Err(Errno::EISDIR)),
                    Node::Link(_) => assert_eq!(done, Err(Errno::EINVAL)),
                }
            }
            Op::Truncate(d, n, size) => {
                let d = m.dir(d);
                let Some(f) = m.get(d, &name(n)) else {
                    continue;
                };
                let set = SetAttributes {
                    mask: SetMask::SIZE.bits(),
                    size: size as u64,
                    ..Default::default()
                };
                let done = v.set_attributes(m.ino(f), &set);
                match &mut m.nodes[f].1 {
                    Node::File(old) => {
                        done.unwrap();
                        old.resize(size as usize, 0);
                    }
                    _ => assert!(done.is_err()),
                }
            }
            Op::Punch(d, n, offset, len) => {
                let d = m.dir(d);
                let Some(f) = m.get(d, &name(n)) else {
                    continue;
                };
                let (ino, offset, len) = (m.ino(f), u64::from(offset), u64::from(len));
                let done = v.punch(ino, offset, len);
                let Node::File(old) = &mut m.nodes[f].1 else {
                    assert!(done.is_err());
                    continue;
                };
                done.unwrap();
                let size = old.len();
                old[size.min(offset as usize)..size.min((offset + len) as usize)].fill(0);
                // What is a hole reads as zero, and what is not one is not said to be.
                let mut at = 0;
                while let Ok(data) = v.seek(ino, at, false) {
                    assert!(old[at as usize..data as usize].iter().all(|&b| b == 0));
                    at = v.seek(ino, data, true).unwrap();
                    assert!(data < at && at <= size as u64);
                    if at == size as u64 {
                        break;
                    }
                }
            }
            Op::Reserve(d, n, offset, len) => {
                let d = m.dir(d);
                let Some(f) = m.get(d, &name(n)) else {
                    continue;
                };
                let (ino, offset, len) = (m.ino(f), u64::from(offset), u64::from(len));
                let done = v.reserve(ino, offset, len, false);
                match &mut m.nodes[f].1 {
                    Node::File(old) => {
                        let end = (offset + done.unwrap()) as usize;
                        if old.len() < end {
                            old.resize(end, 0);
                        }
                        let hole = v.seek(ino, offset, true).unwrap();
                        assert!(hole >= end as u64, "{hole} {end}");
                    }
                    _ => assert!(done.is_err()),
                }
            }
            Op::Link((d, n), (e, k)) => {
                let (d, e) = (m.dir(d), m.dir(e));
                let Some(f) = m.get(d, &name(n)) else {
                    continue;
                };
                let done = v.link(m.ino(f), m.ino(e), &name(k));
                if m.get(e, &name(k)).is_some() {
                    assert_eq!(done, Err(Errno::EEXIST));
                } else if m.is_dir(f) {
                    assert_eq!(done, Err(Errno::EPERM));
                } else {
                    done.unwrap();
                    m.entries(e).insert(name(k), f);
                }
            }
            Op::Unlink(d, n) | Op::Rmdir(d, n) => {
                let rmdir = matches!(op, Op::Rmdir(..));
                let d = m.dir(d);
                let done = v.unlink(m.ino(d), &name(n), rmdir);
                let wanted = match m.get(d, &name(n)) {
                    None => Err(Errno::ENOENT),
                    Some(t) if rmdir && !m.is_dir(t) => Err(Errno::ENOTDIR),
                    Some(t) if !rmdir && m.is_dir(t) => Err(Errno::EISDIR),
                    Some(t) if rmdir && !m.is_empty(t) => Err(Errno::ENOTEMPTY),
                    Some(t) => Ok(m.ino(t)),
                };
                assert_eq!(done, wanted);
                if done.is_ok() {
                    m.entries(d).remove(&name(n));
                }
            }
            Op::Rename((d, n), (e, k), flags) => {
                let (d, e) = (m.dir(d), m.dir(e));
                let done = v.rename(m.ino(d), &name(n), m.ino(e), &name(k), flags);
                let wanted = m.rename((d, &name(n)), (e, &name(k)), flags);
                assert_eq!(done, wanted, "{op:?}");
            }
            Op::Sync => {
                v.sync().unwrap();
                fsck(&Image::new(v.device().clone()));
            }
            Op::Remount => v = Volume::mount(v.unmount().unwrap(), options).unwrap(),
        }
    }
    compare(&mut v, &m, 0);
    let disk = v.unmount().unwrap();
    let mut v = Volume::mount(disk, options).unwrap();
    compare(&mut v, &m, 0);
    fsck(&Image::new(v.unmount().unwrap()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn small_blocks(ops in proptest::collection::vec(op(), 1..80)) {
        run(1024, &ops);
    }

    #[test]
    fn large_blocks(ops in proptest::collection::vec(op(), 1..80)) {
        run(4096, &ops);
    }
}

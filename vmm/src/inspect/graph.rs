//! Who waits for whom, and the circle in it.

use std::collections::{HashMap, VecDeque};

use abi::kernel::rts;
use abi::proto::{block, fs, vfs};
use abi::routes::{PM_CALLS, VFS_CALLS, VM_CALLS};
use abi::{Class, Endpoint, Message, PAGE, Request};

use super::table::{Process, Snapshot};

/// One process waits for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Who waits.
    pub from: Endpoint,
    /// For whom.
    pub to: Endpoint,
    /// Why, for a person.
    pub why: String,
}

/// Edges of a graph: more than there are processes in a guest that is not forged.
const EDGES_MAX: usize = 2048;

/// The wait-for graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    names: HashMap<u32, String>,
    /// Edges that there was no room for.
    pub left_out: usize,
    /// Its edges.
    pub edges: Vec<Edge>,
}

impl Graph {
    /// The graph of a moment.
    pub fn new(snapshot: &Snapshot) -> Graph {
        let mut graph = Graph {
            names: snapshot
                .processes
                .iter()
                .map(|p| (p.endpoint.0, p.name.clone()))
                .collect(),
            left_out: 0,
            edges: Vec::new(),
        };
        for process in &snapshot.processes {
            graph.add(process);
        }
        // VM answers at once or asks VFS, and never waits for anybody else: if somebody waits
        // for it while it has nothing to do, a page has to come from VFS.
        let vm = Endpoint::VM;
        let asked = graph.edges.iter().any(|edge| edge.from == vm);
        let waited_for = graph.edges.iter().any(|edge| edge.to == vm);
        if waited_for
            && !asked
            && snapshot
                .find(vm)
                .is_some_and(|p| p.flags & rts::RECEIVING != 0)
        {
            graph.edge(vm, Endpoint::VFS, page_in_under_way(snapshot));
            graph.serving(snapshot);
        }
        graph
    }

    /// VFS waits for a page that a file system has been asked for. A request that is in no
    /// queue any more has been received: by a file system that waits for its disk meanwhile,
    /// since it serves nobody but VFS.
    fn serving(&mut self, snapshot: &Snapshot) {
        let disk = [block::Read::KIND, block::Write::KIND, block::Flush::KIND];
        let calls = snapshot.processes.iter().filter(|process| {
            process.flags & (rts::SENDING | rts::AWAIT_REPLY) != 0
                && process.class == Some(Class::Call)
                && disk.contains(&process.message.kind)
        });
        for process in calls {
            let why = "a request received, not answered yet".into();
            self.edge(Endpoint::VFS, process.endpoint, why);
        }
    }

    fn edge(&mut self, from: Endpoint, to: Endpoint, why: String) {
        if self.edges.len() >= EDGES_MAX {
            self.left_out += 1;
            return;
        }
        self.edges.push(Edge { from, to, why });
    }

    fn add(&mut self, process: &Process) {
        let me = process.endpoint;
        if let Some(wanted) = process.wanted {
            let whose = if wanted.target == me {
                "its own".into()
            } else {
                format!("{}'s", self.name(wanted.target))
            };
            let how = if wanted.write { "write" } else { "read" };
            let why = format!(
                "its copy is to {how} {} bytes of {whose} memory at {:#x}",
                wanted.len, wanted.address
            );
            self.edge(me, Endpoint::VM, why);
        } else if process.faults() {
            let page = process.fault - process.fault % PAGE;
            let why = format!("page fault at {:#x}, page {page:#x}", process.fault);
            self.edge(me, Endpoint::VM, why);
        } else if process.flags & (rts::SENDING | rts::AWAIT_REPLY) != 0 {
            let verb = if process.flags & rts::SENDING != 0 {
                "not received yet"
            } else {
                "not answered yet"
            };
            let why = format!("{}, {verb}", call(process));
            self.edge(me, process.peer, why);
        } else if process.flags & rts::RECEIVING != 0 && process.filter.is_process() {
            self.edge(me, process.filter, "receives only from it".into());
        }
        for queued in &process.queue {
            let why = format!("{}, not received yet", request(&queued.message));
            self.edge(queued.source, me, why);
        }
    }

    /// A process's name, with its number where that says more.
    pub fn name(&self, who: Endpoint) -> String {
        match self.names.get(&who.0) {
            Some(name) if who.slot() < 32 => name.clone(),
            Some(name) => format!("{name} ({})", who.slot()),
            None => format!("process {}", who.0),
        }
    }

    /// The shortest circle, from the process that comes first in the table.
    pub fn cycle(&self) -> Option<Vec<&Edge>> {
        let mut starts: Vec<Endpoint> = self.edges.iter().map(|edge| edge.from).collect();
        starts.sort_by_key(|who| who.slot());
        starts.dedup();
        let mut from: HashMap<u32, Vec<&Edge>> = HashMap::new();
        for edge in &self.edges {
            let known = from.entry(edge.from.0).or_default();
            if known.iter().all(|other| other.to != edge.to) {
                known.push(edge);
            }
        }
        starts
            .into_iter()
            .filter_map(|start| way_back(&from, start))
            .min_by_key(Vec::len)
    }

    /// The edges of the circle from its first process on, and the others.
    pub fn in_order(&self) -> (Vec<&Edge>, Vec<&Edge>) {
        let cycle = self.cycle().unwrap_or_default();
        let others = self.edges.iter().filter(|edge| !cycle.contains(edge));
        let others = others.collect();
        (cycle, others)
    }
}

/// The shortest way from a process to itself.
fn way_back<'a>(from: &HashMap<u32, Vec<&'a Edge>>, start: Endpoint) -> Option<Vec<&'a Edge>> {
    let mut came: HashMap<u32, &Edge> = HashMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for &edge in from.get(&at.0).into_iter().flatten() {
            if came.contains_key(&edge.to.0) {
                continue;
            }
            came.insert(edge.to.0, edge);
            if edge.to == start {
                let mut way = vec![edge];
                while way[way.len() - 1].from != start {
                    way.push(came[&way[way.len() - 1].from.0]);
                }
                way.reverse();
                return Some(way);
            }
            queue.push_back(edge.to);
        }
    }
    None
}

/// What a blocked process asked for.
fn call(process: &Process) -> String {
    let message = &process.message;
    match process.class {
        Some(Class::Linux) => {
            let number = message.kind;
            let name = [VFS_CALLS, PM_CALLS, VM_CALLS]
                .into_iter()
                .flatten()
                .find(|call| u64::from(call.number) == number)
                .map_or("unknown", |call| call.name());
            let [a, b, c, ..] = message.words;
            format!("Linux call {name}({a:#x}, {b:#x}, {c:#x})")
        }
        Some(Class::Exception) => "exception".into(),
        _ => match abi::proto::name(message.kind) {
            Some(name) => format!("call {name}"),
            None => format!("call {:#x}", message.kind),
        },
    }
}

/// What a posted message asks for.
fn request(message: &Message) -> String {
    if let Some(page) = page_of(message) {
        return page;
    }
    match abi::proto::name(message.kind) {
        Some(name) => format!("message {name}"),
        None => format!("message {:#x}", message.kind),
    }
}

fn page_of(message: &Message) -> Option<String> {
    if message.kind == vfs::PageIn::KIND {
        let r = vfs::PageIn::decode(message)?;
        let (dev, ino, page) = (r.dev, r.ino, r.offset / PAGE);
        return Some(format!(
            "PageIn of page {page} of inode {ino} on device {dev:#x}"
        ));
    }
    if message.kind == fs::Peek::KIND {
        let r = fs::Peek::decode(message)?;
        return Some(format!(
            "Peek at page {} of inode {}",
            r.offset / PAGE,
            r.ino
        ));
    }
    None
}

/// What VM has asked VFS for, as far as its traces in the queues tell.
fn page_in_under_way(snapshot: &Snapshot) -> String {
    snapshot
        .processes
        .iter()
        .flat_map(|process| &process.queue)
        .filter(|queued| queued.message.kind == fs::Peek::KIND)
        .find_map(|queued| fs::Peek::decode(&queued.message))
        .map_or("page-in, not answered yet".into(), |r| {
            let page = r.offset / PAGE;
            format!(
                "page-in of page {page} of inode {}, not answered yet",
                r.ino
            )
        })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::inspect::table::{Queued, Wanted};

    pub fn process(endpoint: Endpoint, name: &str, flags: u32) -> Process {
        Process {
            endpoint,
            name: name.into(),
            registers: abi::kernel::Registers::default(),
            registers_at: 0,
            flags,
            peer: Endpoint::NONE,
            filter: Endpoint::ANY,
            class: Some(Class::Call),
            message: Message::default(),
            fault: 0,
            ticks: 7,
            cr3: 0,
            wanted: None,
            queue: Vec::new(),
        }
    }

    const FS: Endpoint = Endpoint(9);
    const USER: Endpoint = Endpoint(40);

    /// A file system that copies from a page that only it can bring.
    pub fn deadlocked() -> Snapshot {
        let mut user = process(USER, "writer", rts::AWAIT_REPLY);
        (user.peer, user.class) = (Endpoint::VFS, Some(Class::Linux));
        user.message.kind = 1;
        let mut fs = process(FS, "ext2", rts::MEMREQ);
        fs.wanted = Some(Wanted {
            target: USER,
            address: 0x5000,
            len: 4096,
            write: false,
        });
        fs.queue.push(Queued {
            source: Endpoint::VFS,
            message: fs::Peek {
                ino: 12,
                offset: 0x2000,
                before: 0,
                after: 0,
            }
            .ask(3),
        });
        Snapshot {
            idle: true,
            progress: (10, 20),
            processes: vec![
                process(Endpoint::VM, "vm", rts::RECEIVING),
                process(Endpoint::VFS, "vfs", rts::RECEIVING),
                fs,
                user,
            ],
        }
    }

    #[test]
    fn the_circle_of_a_file_system_that_waits_for_itself() {
        let graph = Graph::new(&deadlocked());
        let cycle = graph.cycle().expect("a circle");
        let ways: Vec<_> = cycle.iter().map(|e| (e.from, e.to)).collect();
        assert_eq!(
            ways,
            [
                (Endpoint::VM, Endpoint::VFS),
                (Endpoint::VFS, FS),
                (FS, Endpoint::VM)
            ]
        );
        assert!(cycle[0].why.contains("page 2 of inode 12"), "{cycle:?}");
        assert!(
            cycle[2]
                .why
                .contains("read 4096 bytes of writer (40)'s memory")
        );
        let user = graph.edges.iter().find(|e| e.from == USER).unwrap();
        assert!(user.why.starts_with("Linux call write("), "{}", user.why);
    }

    /// A disk's driver copies into a page that its own file system must bring, and is bringing.
    #[test]
    fn the_circle_through_a_disk() {
        const DISK: Endpoint = Endpoint(8);
        let mut snapshot = deadlocked();
        let fs = &mut snapshot.processes[2];
        fs.queue.clear();
        let mut disk = process(DISK, "virtio-blk", rts::MEMREQ);
        disk.wanted = fs.wanted.take();
        (fs.flags, fs.peer) = (rts::SENDING, DISK);
        fs.message.kind = block::Read::KIND;
        snapshot.processes.push(disk);
        let graph = Graph::new(&snapshot);
        let cycle = graph.cycle().expect("a circle");
        let ways: Vec<_> = cycle.iter().map(|e| (e.from, e.to)).collect();
        let (vm, vfs) = (Endpoint::VM, Endpoint::VFS);
        assert_eq!(ways, [(vm, vfs), (vfs, FS), (FS, DISK), (DISK, vm)]);
    }

    #[test]
    fn waiting_is_no_circle() {
        let mut snapshot = deadlocked();
        snapshot.processes.retain(|p| p.endpoint != FS);
        assert_eq!(Graph::new(&snapshot).cycle(), None);
    }
}

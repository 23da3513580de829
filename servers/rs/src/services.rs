//! Every service as data: image, priority, privileges, arguments. Default deny: what does
//! not stand here is refused by the kernel.

use abi::boot::names;
use abi::kernel::{Kcall, PRIV_COPY_ANY, PRIV_LINUX, PRIV_MAGIC, Privileges};
use abi::role::Role;
use abi::{Endpoint, proto::device::numbers};

/// A service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Id {
    /// Process manager.
    Pm,
    /// Virtual file system.
    Vfs,
    /// Disk driver.
    Disk,
    /// Console driver.
    Console,
    /// Memory devices.
    Memory,
    /// The root file system.
    Root,
    /// /dev.
    Dev,
    /// /proc.
    Proc,
    /// /tmp.
    Tmp,
    /// A driver to start from.
    Hello,
}

/// Whom a service may call, post to and notify.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// VM.
    Vm,
    /// RS.
    Rs,
    /// Another service.
    Service(Id),
}

/// An argument of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Argument {
    /// As it stands.
    Text(&'static str),
    /// `KEY=<endpoint of the service>`.
    EndpointOf(&'static str, Id),
    /// Where the service's device is, and its interrupt line: `mmio=<address> irq=<line>`, for example.
    Device,
    /// `cache=<pages>`: the most that the disk cache may have.
    Cache,
}

/// When a service is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// At boot: there is no system without it.
    Always,
    /// At boot; the system runs without it when the boot archive has no such image.
    IfThere,
    /// At boot when the kernel command line asks for it ([`abi::boot::CMDLINE_START`]).
    IfAsked,
}

/// How to start a service.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Which.
    pub id: Id,
    /// What it is to others, for as long as there is such a service: who takes a message from it
    /// goes by this.
    pub role: Role,
    /// Archive entry.
    pub image: &'static str,
    /// Process name.
    pub name: &'static str,
    /// Scheduling priority.
    pub priority: u64,
    /// Stack, bytes.
    pub stack: u64,
    /// Kernel calls beside [`EVERY`].
    pub kcalls: &'static [Kcall],
    /// Peers beside VM and RS.
    pub peers: &'static [Peer],
    /// `PRIV_` flags.
    pub flags: u32,
    /// The virtio device it drives.
    pub device: Option<Device>,
    /// Whether the system can be without it.
    pub start: Start,
    /// The system ends with it. The others' deaths are errors to those who need them.
    pub core: bool,
    /// Arguments after the name.
    pub arguments: &'static [Argument],
}

/// Devices that have a driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Device {
    /// virtio-blk.
    Block,
    /// virtio-console.
    Console,
}

/// Kernel calls of every service: time, a timer, the log, reading the boot archive (the
/// wall clock at boot stands in the run specification), and the laboratory.
const EVERY: &[Kcall] = &[
    Kcall::Time,
    Kcall::SetTimer,
    Kcall::Log,
    Kcall::ModuleRead,
    Kcall::ModuleInfo,
    Kcall::BootInfo,
    // What it does, and what it allocates: a laboratory looks.
    Kcall::LabServing,
    Kcall::LabStage,
    Kcall::LabAllocates,
    Kcall::LabAllocation,
];

/// Priorities. VM runs at 0 and programs at 6. A driver only moves data that others wait
/// for. Below it VFS and PM, which decide; a file system computes longest of all. RS, at 4,
/// has nothing urgent but must run when a program loops.
mod priority {
    pub const DRIVER: u64 = 1;
    pub const CORE: u64 = 2;
    pub const FILE_SYSTEM: u64 = 3;
}

/// RS's own priority.
pub const OWN_PRIORITY: u64 = 4;

const LARGE: u64 = 128 << 10;
const SMALL: u64 = 64 << 10;

const DRIVER_KCALLS: &[Kcall] = &[
    Kcall::SafeCopy,
    Kcall::SafeCopyVector,
    Kcall::SafeMemset,
    Kcall::Umap,
    Kcall::IrqBind,
];
const FILE_SYSTEM_KCALLS: &[Kcall] = &[
    Kcall::SafeCopy,
    Kcall::SafeCopyVector,
    Kcall::SafeMemset,
    Kcall::SetGrants,
];
const TO_VFS: &[Peer] = &[Peer::Service(Id::Vfs)];

/// All services, in the order of their process slots: PM and VFS have fixed ones.
pub const SERVICES: [Service; 10] = [
    Service {
        id: Id::Pm,
        role: Role::Pm,
        image: names::PM,
        name: "pm",
        priority: priority::CORE,
        stack: LARGE,
        kcalls: &[
            Kcall::ProcCreate,
            Kcall::ProcFork,
            Kcall::ProcExit,
            Kcall::ProcStart,
            Kcall::ProcStop,
            Kcall::ProcResume,
            Kcall::ProcGetRegs,
            Kcall::ProcSetRegs,
            Kcall::ProcGetFpu,
            Kcall::ProcSetFpu,
            Kcall::ProcInfo,
            Kcall::GetStopped,
            Kcall::ProcPriority,
            Kcall::ProcName,
            Kcall::SafeCopy,
            Kcall::VirCopy,
            Kcall::Memset,
            Kcall::SetGrants,
            Kcall::SetInbox,
            Kcall::SetLinuxRoutes,
            Kcall::Counters,
            Kcall::PowerOff,
        ],
        peers: &[Peer::Service(Id::Vfs), Peer::Service(Id::Console)],
        flags: PRIV_COPY_ANY | PRIV_LINUX,
        device: None,
        start: Start::Always,
        core: true,
        arguments: &[Argument::EndpointOf("console", Id::Console)],
    },
    Service {
        id: Id::Vfs,
        role: Role::Vfs,
        image: names::VFS,
        name: "vfs",
        priority: priority::CORE,
        stack: LARGE,
        kcalls: &[
            Kcall::SafeCopy,
            Kcall::SafeCopyVector,
            Kcall::SafeMemset,
            Kcall::VirCopy,
            Kcall::Memset,
            Kcall::SetGrants,
            Kcall::SetInbox,
            Kcall::ProcInfo,
            Kcall::Counters,
            // Which task goes on, in explored runs.
            Kcall::Decide,
        ],
        peers: &[
            Peer::Service(Id::Pm),
            Peer::Service(Id::Disk),
            Peer::Service(Id::Console),
            Peer::Service(Id::Memory),
            Peer::Service(Id::Root),
            Peer::Service(Id::Dev),
            Peer::Service(Id::Proc),
            Peer::Service(Id::Tmp),
            Peer::Service(Id::Hello),
        ],
        flags: PRIV_MAGIC | PRIV_COPY_ANY | PRIV_LINUX,
        device: None,
        start: Start::Always,
        core: true,
        arguments: &[],
    },
    Service {
        id: Id::Disk,
        role: Role::Disk,
        image: names::VIRTIO_BLK,
        name: "virtio-blk",
        priority: priority::DRIVER,
        stack: SMALL,
        kcalls: DRIVER_KCALLS,
        // It answers its file system, which calls.
        peers: TO_VFS,
        flags: 0,
        device: Some(Device::Block),
        start: Start::Always,
        core: false,
        arguments: &[Argument::Device],
    },
    Service {
        id: Id::Console,
        role: Role::Console,
        image: names::CONSOLE,
        name: "console",
        priority: priority::DRIVER,
        stack: SMALL,
        kcalls: DRIVER_KCALLS,
        peers: &[Peer::Service(Id::Vfs), Peer::Service(Id::Pm)],
        flags: 0,
        device: Some(Device::Console),
        start: Start::Always,
        core: true,
        arguments: &[Argument::Device],
    },
    Service {
        id: Id::Memory,
        role: Role::Memory,
        image: names::MEM,
        name: "mem",
        priority: priority::DRIVER,
        stack: SMALL,
        kcalls: &[Kcall::SafeCopy, Kcall::SafeCopyVector, Kcall::SafeMemset],
        peers: TO_VFS,
        flags: 0,
        device: None,
        start: Start::Always,
        core: false,
        arguments: &[],
    },
    Service {
        id: Id::Root,
        role: Role::FileSystem,
        image: names::EXT2,
        name: "ext2",
        priority: priority::FILE_SYSTEM,
        stack: LARGE,
        kcalls: FILE_SYSTEM_KCALLS,
        peers: &[Peer::Service(Id::Vfs), Peer::Service(Id::Disk)],
        flags: 0,
        device: None,
        start: Start::Always,
        core: false,
        arguments: &[Argument::EndpointOf("driver", Id::Disk), Argument::Cache],
    },
    Service {
        id: Id::Dev,
        role: Role::FileSystem,
        image: names::TMPFS,
        name: "devfs",
        priority: priority::FILE_SYSTEM,
        stack: SMALL,
        kcalls: FILE_SYSTEM_KCALLS,
        peers: TO_VFS,
        flags: 0,
        device: None,
        start: Start::IfThere,
        core: false,
        arguments: &[Argument::Text("nodes=dev")],
    },
    Service {
        id: Id::Proc,
        role: Role::Proc,
        image: names::PROC,
        name: "proc",
        priority: priority::FILE_SYSTEM,
        stack: SMALL,
        kcalls: &[
            Kcall::SafeCopy,
            Kcall::SafeCopyVector,
            Kcall::SafeMemset,
            Kcall::SetGrants,
            // The arguments and environment of processes.
            Kcall::VirCopy,
            Kcall::ProcInfo,
            Kcall::Counters,
            Kcall::CommandLine,
        ],
        peers: &[
            Peer::Service(Id::Vfs),
            Peer::Service(Id::Pm),
            // Whose terminal is which.
            Peer::Service(Id::Console),
        ],
        flags: PRIV_COPY_ANY,
        device: None,
        start: Start::IfThere,
        core: false,
        arguments: &[Argument::EndpointOf("console", Id::Console)],
    },
    Service {
        id: Id::Tmp,
        role: Role::FileSystem,
        image: names::TMPFS,
        name: "tmpfs",
        priority: priority::FILE_SYSTEM,
        stack: SMALL,
        kcalls: FILE_SYSTEM_KCALLS,
        peers: TO_VFS,
        flags: 0,
        device: None,
        start: Start::IfThere,
        core: false,
        arguments: &[],
    },
    Service {
        id: Id::Hello,
        role: Role::Memory,
        image: names::HELLO,
        name: "hello",
        priority: priority::DRIVER,
        stack: SMALL,
        kcalls: &[Kcall::SafeCopy],
        peers: TO_VFS,
        flags: 0,
        device: None,
        start: Start::IfAsked,
        core: false,
        arguments: &[],
    },
];

/// Endpoints of [`SERVICES`], in its order; [`Endpoint::NONE`] of what is not started.
pub type Endpoints = [Endpoint; SERVICES.len()];

impl Service {
    /// What the service may do. `irq` is the interrupt line of its device.
    pub fn privileges(&self, endpoints: &Endpoints, irq: Option<u32>) -> Privileges {
        let mut privileges = Privileges {
            flags: self.flags,
            ..Privileges::default()
        };
        for call in EVERY.iter().chain(self.kcalls) {
            privileges.kcalls |= call.bit();
        }
        for peer in [Peer::Vm, Peer::Rs].iter().chain(self.peers) {
            let endpoint = match *peer {
                Peer::Vm => Endpoint::VM,
                Peer::Rs => Endpoint::RS,
                Peer::Service(id) => endpoints[id as usize],
            };
            // It is not started.
            if endpoint == Endpoint::NONE {
                continue;
            }
            let slot = endpoint.slot();
            if let Some(word) = privileges.peers.get_mut(slot / 64) {
                *word |= 1 << (slot % 64);
            }
        }
        if let Some(line) = irq {
            privileges.irqs = 1u32.checked_shl(line).unwrap_or(0);
        }
        privileges
    }
}

/// Devices: major number, whether it is one of block devices, who serves it.
pub const DRIVERS: [(u32, bool, Id); 6] = [
    (numbers::MEM_MAJOR, false, Id::Memory),
    (numbers::TTY_MAJOR, false, Id::Console),
    (numbers::PTS_MAJOR, false, Id::Console),
    (numbers::STREAM_MAJOR, false, Id::Console),
    (numbers::DISK_MAJOR, true, Id::Disk),
    (numbers::HELLO_MAJOR, false, Id::Hello),
];

/// A file system in the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mount {
    /// Path, at most 16 bytes.
    pub path: &'static str,
    /// Its server.
    pub id: Id,
    /// Type as /proc/mounts shows it, at most 8 bytes.
    pub kind: &'static str,
}

/// What is mounted where, in order.
pub const MOUNTS: [Mount; 5] = [
    Mount {
        path: "/",
        id: Id::Root,
        kind: "ext2",
    },
    Mount {
        path: "/dev",
        id: Id::Dev,
        kind: "devtmpfs",
    },
    Mount {
        path: "/dev/pts",
        id: Id::Console,
        kind: "devpts",
    },
    Mount {
        path: "/proc",
        id: Id::Proc,
        kind: "proc",
    },
    Mount {
        path: "/tmp",
        id: Id::Tmp,
        kind: "tmpfs",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use abi::boot::IMAGES;

    fn endpoints() -> Endpoints {
        core::array::from_fn(|i| Endpoint::service(SERVICES[i].role, 3 + i, 0))
    }

    #[test]
    fn the_table_is_in_order_of_ids() {
        for (i, service) in SERVICES.iter().enumerate() {
            assert_eq!(service.id as usize, i);
            assert!(service.name.len() <= 16 && service.image.len() <= 16);
            // What is started at boot is in every archive.
            let image = IMAGES.iter().find(|image| image.name == service.image);
            let stored_if_asked = image.expect("its image").asked;
            assert!(!stored_if_asked || service.start == Start::IfAsked);
            assert!(service.priority < OWN_PRIORITY);
        }
        assert_eq!(endpoints()[Id::Pm as usize], Endpoint::PM);
        assert_eq!(endpoints()[Id::Vfs as usize], Endpoint::VFS);
        for mount in MOUNTS {
            assert!(mount.path.len() <= 16 && mount.kind.len() <= 8);
        }
    }

    #[test]
    fn only_vfs_issues_magic_grants_and_only_drivers_bind_interrupts() {
        for service in SERVICES {
            let irq = service.device.map(|_| 5);
            let privileges = service.privileges(&endpoints(), irq);
            let may = |call: Kcall| privileges.kcalls & call.bit() != 0;
            assert_eq!(privileges.flags & PRIV_MAGIC != 0, service.id == Id::Vfs);
            assert_eq!(may(Kcall::IrqBind), service.device.is_some());
            assert_eq!(
                privileges.irqs,
                if service.device.is_some() { 32 } else { 0 }
            );
            assert_eq!(may(Kcall::ProcCreate), service.id == Id::Pm);
            assert!(!may(Kcall::ProcPriv));
            assert!(!may(Kcall::SetAddressSpace));
            let copies = may(Kcall::VirCopy);
            assert_eq!(copies, privileges.flags & PRIV_COPY_ANY != 0);
            // VM and RS.
            assert_eq!(privileges.peers[0] & 0b111, 0b110);
        }
    }

    #[test]
    fn a_line_beyond_the_mask_is_no_line() {
        let disk = SERVICES[Id::Disk as usize];
        assert_eq!(disk.privileges(&endpoints(), Some(32)).irqs, 0);
    }
}

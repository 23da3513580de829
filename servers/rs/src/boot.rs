//! From nothing to PROGRAM.

use abi::boot::{CMDLINE_FAIL, CMDLINE_START};
use abi::command_line::texts;
use abi::proto::vm::VmCounters;
use abi::proto::{pm, vfs};
use abi::{Endpoint, PAGE};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use rt::{ipc, kernel};

use crate::devices::{self, Devices, Place};
use crate::load::{Failure, Loader, Order, System};
use crate::mishap::Mishaps;
use crate::services::{
    Argument, DRIVERS, Device, Endpoints, Id, MOUNTS, Mount, OWN_PRIORITY, SERVICES, Service, Start,
};
use crate::watch::Watch;
use crate::{fail, refuse};

/// A disk cache may have this many pages at least.
const CACHE_MIN: u64 = 64;
/// Longest kernel command line that is looked at.
const COMMAND_LINE: usize = 2048;

/// RS.
pub fn main() -> ! {
    if let Err(errno) = kernel::proc_priority(Endpoint::RS, OWN_PRIORITY) {
        rt::log!("own priority: {errno}");
    }
    let command_line = command_line();
    let mishaps = match Mishaps::of(&command_line) {
        Ok(mishaps) => mishaps,
        Err(word) => refuse!("{CMDLINE_FAIL}{word}: not SERVICE:REQUEST:N:HOW"),
    };
    let devices = devices::probe(&command_line);
    if devices.place(Device::Block).is_none() {
        refuse!("no disk: the kernel command line names no place with a virtio block device");
    }
    if devices.place(Device::Console).is_none() {
        refuse!("no console: the kernel command line names no place with a virtio console device");
    }

    let asked =
        |service: &Service| texts(&command_line, CMDLINE_START).any(|name| name == service.name);
    let unknown = texts(&command_line, CMDLINE_START)
        .find(|name| SERVICES.iter().all(|service| service.name != *name));
    if let Some(name) = unknown {
        refuse!("{CMDLINE_START}{name}: there is no such service");
    }
    let endpoints = create(asked);
    let mut watch = Watch::new(&endpoints, &devices);
    let running = start_all(&endpoints, &devices, &mishaps, &mut watch);
    watch.wait();
    register_drivers(&endpoints, &running);
    mount_all(&endpoints, &running, &mut watch);
    if let Err(errno) = ipc::call(Endpoint::PM, pm::StartInit {}) {
        fail!("PM does not start the program: {errno}");
    }
    watch.watch()
}

fn command_line() -> String {
    let mut buffer = alloc::vec![0; COMMAND_LINE];
    match kernel::command_line(&mut buffer) {
        Ok(len) => buffer.truncate(len),
        Err(errno) => fail!("reading the kernel command line: {errno}"),
    }
    // It stays in that buffer: what RS does later does not depend on the line's length.
    String::from_utf8(buffer)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// All processes, none started. The first two are PM and VFS by number.
fn create(asked: impl Fn(&Service) -> bool) -> Endpoints {
    let mut endpoints = [Endpoint::NONE; SERVICES.len()];
    for (service, endpoint) in SERVICES.iter().zip(&mut endpoints) {
        if service.start == Start::IfAsked && !asked(service) {
            continue;
        }
        match kernel::proc_create(service.name, service.role) {
            Ok(who) => *endpoint = who,
            Err(errno) => fail!("creating service {}: {errno}", service.name),
        }
    }
    let core = [endpoints[Id::Pm as usize], endpoints[Id::Vfs as usize]];
    if core != [Endpoint::PM, Endpoint::VFS] {
        fail!("PM and VFS are {core:?}");
    }
    endpoints
}

/// Starts the services; which of them there are.
fn start_all(
    endpoints: &Endpoints,
    devices: &Devices,
    mishaps: &Mishaps<'_>,
    watch: &mut Watch<'_>,
) -> [bool; SERVICES.len()] {
    let mut loader = Loader::new(System::new());
    let cache = cache_pages();
    let mut running = [true; SERVICES.len()];
    for (index, service) in SERVICES.iter().enumerate() {
        if endpoints[index] == Endpoint::NONE {
            running[index] = false;
            continue;
        }
        let optional = service.start != Start::Always;
        match start(service, endpoints, devices, mishaps, cache, &mut loader) {
            Ok(()) => {
                watch.started(index);
                continue;
            }
            Err(failure) if optional && failure.is_missing() => {
                rt::log!("there is no service {} in the boot archive", service.image);
            }
            Err(failure) if optional => {
                rt::log!("going on without service {}: {failure}", service.name);
            }
            Err(failure) => fail!("starting service {}: {failure}", service.name),
        }
        running[index] = false;
    }
    running
}

/// How many pages a disk cache may have: all there are. It takes them as it needs them, and gives them back.
fn cache_pages() -> u64 {
    match ipc::call(Endpoint::VM, VmCounters {}) {
        Ok(figures) => (figures.total / PAGE).max(CACHE_MIN),
        Err(errno) => {
            rt::log!("memory size: {errno}");
            CACHE_MIN
        }
    }
}

fn start(
    service: &Service,
    endpoints: &Endpoints,
    devices: &Devices,
    mishaps: &Mishaps<'_>,
    cache: u64,
    loader: &mut Loader<System>,
) -> Result<(), Failure> {
    let place = service.device.and_then(|device| devices.place(device));
    let mut arguments: Vec<String> = Vec::new();
    arguments.push(service.name.into());
    for argument in service.arguments {
        match *argument {
            Argument::Text(text) => arguments.push(text.into()),
            Argument::EndpointOf(key, id) => {
                arguments.push(format!("{key}={}", endpoints[id as usize].0));
            }
            Argument::Device => {
                // Without it the boot has ended before this.
                arguments.extend(place.iter().flat_map(Place::arguments));
                if devices.polled {
                    arguments.push("poll=1".into());
                }
            }
            Argument::Cache => arguments.push(format!("cache={cache}")),
        }
    }
    arguments.extend(mishaps.argument(service.name));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let order = Order {
        who: endpoints[service.id as usize],
        image: service.image,
        stack: service.stack,
        arguments: &arguments,
        privileges: service.privileges(endpoints, place.map(|place| place.irq())),
        priority: service.priority,
        window: place.map(|place| place.pages()),
    };
    loader.exec(&order, mishaps.exec(service.name))
}

fn register_drivers(endpoints: &Endpoints, running: &[bool]) {
    for (major, block, id) in DRIVERS {
        if !running[id as usize] {
            continue;
        }
        let request = vfs::Driver {
            major,
            block,
            driver: endpoints[id as usize],
        };
        if let Err(errno) = ipc::call(Endpoint::VFS, request) {
            fail!("VFS does not take the driver of major {major}: {errno}");
        }
    }
}

fn mount_all(endpoints: &Endpoints, running: &[bool], watch: &mut Watch<'_>) {
    for mount in MOUNTS {
        let Mount { path, id, kind } = mount;
        if !running[id as usize] {
            continue;
        }
        let request = vfs::Mount {
            fs: endpoints[id as usize],
            path: kernel::name(path),
            flags: 0,
            kind: kernel::name(kind),
        };
        match watch.mount(request) {
            Ok(()) => {}
            // Without a root there is nothing to run.
            Err(errno) if path == "/" => refuse!("mounting the root disk: {errno}"),
            // A program may do without the others, and the user may not have made the
            // directory.
            Err(errno) => rt::log!("mounting {kind} on {path}: {errno}"),
        }
    }
}

//! What this server tells the laboratory of itself: whom each task serves, with which call, and
//! with which file ([`abi::trace::Serving`]). Without a laboratory nobody asks.

use crate::file::{Kind, OpenFile};
use crate::machine::Machine;
use crate::state::{Caller, Vfs};
use crate::vnode::Vnode;
use abi::Endpoint;
use abi::trace::{SERVING_NAME, Serving, Stage};
use alloc::boxed::Box;
use alloc::rc::Rc;
use core::future::poll_fn;
use core::pin::Pin;
use libexec::Step;

impl Vfs {
    /// Starts a task that serves `client`: `call` is a Linux call's number or the kind of a message,
    /// `file` what [`Serving::file`] makes.
    pub fn spawn_for(
        &self,
        client: Endpoint,
        call: u64,
        file: u64,
        task: impl Future<Output = ()> + 'static,
    ) {
        if self.base.machine.serving().is_none() {
            return self.base.spawner.spawn(task);
        }
        let serving = serving(client, call as u32, file);
        let task = told(self.base.machine.clone(), serving, Box::pin(task));
        self.base.spawner.spawn(task);
    }

    /// What `answer` answers at once, told like a task.
    pub fn serve_at_once<T>(&self, c: &Caller, number: u32, answer: impl FnOnce() -> T) -> T {
        let Some(now) = self.base.machine.serving() else {
            return answer();
        };
        now.set(serving(c.who(), number, 0));
        let answered = answer();
        now.set(Serving::NOBODY);
        answered
    }
}

fn serving(client: Endpoint, call: u32, file: u64) -> Serving {
    Serving {
        client: client.0,
        call,
        file,
        ..Serving::NOBODY
    }
}

/// Runs `task`; while it runs the server says what it does.
async fn told(
    machine: Rc<dyn Machine>,
    mut serving: Serving,
    mut task: Pin<Box<impl Future<Output = ()>>>,
) {
    poll_fn(|context| {
        let Some(now) = machine.serving() else {
            return task.as_mut().poll(context);
        };
        now.set(serving);
        let polled = task.as_mut().poll(context);
        // The task may have said more.
        serving = now.replace(Serving::NOBODY);
        polled
    })
    .await;
}

impl Caller {
    fn say(&self, file: u64, name: &[u8]) {
        if let Some(now) = self.vfs.base.machine.serving() {
            let mut cut = [0; SERVING_NAME];
            let len = name.len().min(SERVING_NAME);
            cut[..len].copy_from_slice(&name[..len]);
            let said = Serving {
                file,
                name: cut,
                ..now.get()
            };
            now.set(said);
        }
    }

    /// The task works with an open file.
    pub fn uses_file(&self, file: &OpenFile) {
        let name = match (&file.place, &file.kind) {
            (Some(place), _) => &place.name[..],
            (None, Kind::Pipe(_)) => b"pipe",
            (None, Kind::Event(_)) => b"eventfd",
            (None, _) => b"",
        };
        self.say(file.vnode.as_deref().map_or(0, number), name);
    }

    /// The task looks for a path.
    pub fn uses_path(&self, path: &[u8]) {
        let mut names = path.split(|&b| b == b'/').filter(|name| !name.is_empty());
        self.say(0, names.next_back().unwrap_or(b"/"));
    }

    /// What it looked for is this.
    pub fn found_file(&self, vnode: &Vnode) {
        if let Some(now) = self.vfs.base.machine.serving() {
            let file = number(vnode);
            now.set(Serving { file, ..now.get() });
        }
    }

    /// A step of an exec of the caller's begins.
    pub fn stage(&self, stage: Stage, address: u64, len: u64) {
        self.vfs.base.machine.stage(self.who(), stage, address, len);
    }

    /// A step of libexec's begins.
    pub fn stage_of(&self, step: &Step) {
        let (stage, address, len) = step.stage();
        self.stage(stage, address, len);
    }
}

fn number(vnode: &Vnode) -> u64 {
    Serving::file(vnode.mount.dev, vnode.ino)
}

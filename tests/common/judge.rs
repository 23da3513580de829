//! What Linux did, kept in a directory: there it is compared with Linux of another machine, whose own is older, or has a
//! processor that is emulated itself (`tests/hardware.rs`).

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use super::{Finished, Run};

/// The variable of the environment that names the directory.
pub const VARIABLE: &str = "ABSENTIA_JUDGE";

/// What one run did.
pub struct Judgement(PathBuf);

/// The judgement of such a run, where there is such a directory.
pub fn of(run: &Run) -> Option<Judgement> {
    let directory = PathBuf::from(std::env::var_os(VARIABLE)?);
    let mut hasher = DefaultHasher::new();
    (&run.args, &run.env, &run.cwd, &run.stdin).hash(&mut hasher);
    let name = run.args[0].replace('/', "-");
    Some(Judgement(
        directory.join(format!("{:016x}{name}", hasher.finish())),
    ))
}

impl Judgement {
    fn part(&self, name: &str) -> PathBuf {
        self.0.with_extension(name)
    }

    /// What is kept, or what `run` finds, which is kept from now on.
    pub fn read_or(&self, run: impl FnOnce() -> Finished) -> Finished {
        let read = |name| fs::read(self.part(name)).ok();
        let kept = || {
            let code = String::from_utf8(read("code")?).ok()?.parse().ok()?;
            Some(Finished {
                code,
                stdout: read("stdout")?,
                stderr: read("stderr")?,
                outcome: None,
            })
        };
        kept().unwrap_or_else(|| {
            let finished = run();
            let code = finished.code.to_string();
            for (name, bytes) in [
                ("stdout", &finished.stdout[..]),
                ("stderr", &finished.stderr[..]),
                // Last: with it all of it is there.
                ("code", code.as_bytes()),
            ] {
                fs::write(self.part(name), bytes).expect("a judgement");
            }
            finished
        })
    }
}

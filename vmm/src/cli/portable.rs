//! `absentia images` and `absentia attach`: the guest's images for other VMMs.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::control::Signals;
use crate::hostlink::input::Source;
use crate::hostlink::output::Sink;
use crate::log::complain;
use crate::machine::Ending;
use crate::program::{Program, Streams};
use crate::qemu;

#[derive(Debug, Args)]
pub struct Images {
    /// Where kernel, archive, root.img and command-line go; it is made if need be
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Take a file or directory of the host along onto the root; may be given several times
    #[arg(long, value_name = "PATH")]
    pub with: Vec<PathBuf>,
    /// The program and its arguments [default: the embedded root's own]
    #[arg(value_name = "PROGRAM", last = true)]
    pub program: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Attach {
    /// The command and its arguments; its standard streams are the virtio console's
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true
    )]
    pub command: Vec<OsString>,
}

impl Images {
    pub fn execute(self) -> Result<u8> {
        let mut program = Program::new(self.program);
        program.with = self.with;
        let images = program.images()?;
        let directory = &self.directory;
        let named = |path: &Path| format!("writing {}", path.display());
        fs::create_dir_all(directory).with_context(|| named(directory))?;
        let make = |name: &str| -> Result<File> {
            let path = directory.join(name);
            File::create(&path).with_context(|| named(&path))
        };
        let (kernel, archive) = (make("kernel")?, make("archive")?);
        (&kernel)
            .write_all(&images.kernel)
            .context("writing the kernel")?;
        archive
            .set_len(images.archive.len())
            .context("writing the archive")?;
        images.archive.write(|offset, bytes| {
            archive
                .write_all_at(bytes, offset)
                .context("writing the archive")
        })?;
        let (mut from, mut to) = (&images.disk.file, make("root.img")?);
        std::io::Seek::rewind(&mut from).context("the root disk")?;
        std::io::copy(&mut from, &mut to).context("writing the root disk")?;
        let line = format!("{}\n", images.cmdline);
        make("command-line")?
            .write_all(line.as_bytes())
            .context("writing the command line")?;
        Ok(0)
    }
}

impl Attach {
    pub fn execute(self) -> Result<u8> {
        let streams = Streams {
            stdin: Source::Host,
            stdout: Sink::stdout(),
            stderr: Sink::stderr(),
            terminals: 0,
            window: None,
            signals: Some(Signals::install()?),
        };
        let ending = qemu::attach::attach(&self.command, streams)?;
        if let Ending::Guest(what) = &ending {
            complain(&format!("absentia: {what}"));
        }
        Ok(ending.code())
    }
}

//! Builds what the `absentia` binary carries: the guest's kernel and servers, the program of the
//! embedded root, the scenarios and the benchmark's programs.
//!
//! `ABSENTIA_SKIP_IMAGES` leaves images out: `all`, or names separated by commas. A binary
//! without them boots only what `ABSENTIA_IMAGES` names at run time; `all` leaves the programs of
//! scenarios and benchmark out, too.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

#[path = "build/bench.rs"]
mod bench;
#[path = "src/images/flatten.rs"]
mod flatten;
#[path = "src/images/gate_check.rs"]
mod gate_check;
#[allow(dead_code)]
#[path = "../abi/src/images.rs"]
mod images;
#[path = "build/scenarios.rs"]
mod scenarios;

use images::{IMAGES, Image};

const KERNEL: &str = "guest-kernel";
/// The image of `absentia bench ipc`, which boots in VM's place.
const BENCH: Image = Image {
    name: "ipc-bench",
    asked: false,
    flat: true,
};
/// Used when the toolchain has it; the host's triple serves as well.
const BARE_TARGET: &str = "x86_64-unknown-none";

/// The kernel runs where there is no FPU state it could use.
const KERNEL_FLAGS: &[&str] = &[
    "-Crelocation-model=static",
    "-Ccode-model=kernel",
    "-Cno-redzone=yes",
    "-Ctarget-feature=-sse,-sse2,+soft-float",
    // The entries never return, so they need not save what the callee would.
    "-Cforce-unwind-tables=no",
    "-Cpanic=abort",
    "--cfg=guest_image",
];
const SERVER_FLAGS: &[&str] = &[
    "-Crelocation-model=static",
    "-Cpanic=abort",
    "--cfg=guest_image",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-static",
    "-Clink-arg=-no-pie",
    "-Clink-arg=-Wl,--build-id=none",
    "-Clink-arg=-Wl,-z,max-page-size=4096",
    "-Clink-arg=-Wl,-z,norelro",
];
/// The bare target links with rust-lld by itself; the link arguments are a C compiler's.
const BARE_FLAGS: &[&str] = &["-Clinker=cc", "-Clinker-flavor=gcc"];

/// What ends up in the binary.
struct Built {
    name: &'static str,
    data: Vec<u8>,
    flat: Option<(u64, u64, u64)>,
    /// The file with symbols and line tables.
    file: PathBuf,
}

fn main() {
    if let Err(error) = build() {
        eprintln!("{error:#}");
        std::process::exit(1);
    }
}

fn build() -> Result<()> {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let manifest = manifest.canonicalize().context("CARGO_MANIFEST_DIR")?;
    let root = manifest.parent().context("the workspace")?.to_path_buf();
    let out = PathBuf::from(variable("OUT_DIR")?);

    println!("cargo:rerun-if-env-changed=ABSENTIA_SKIP_IMAGES");
    println!("cargo:rerun-if-changed=build.rs");
    for path in [
        "src/images/flatten.rs",
        "src/images/gate_check.rs",
        "src/explore/scenario/compiler.rs",
        "src/bench/exec/guest",
        "build",
        "server.ld",
        "programs",
    ] {
        println!("cargo:rerun-if-changed={path}");
    }
    for path in [
        "abi",
        "guest-kernel",
        "libexec",
        "servers",
        "tests/guest/ipc-bench",
        "tests/scenarios",
        "Cargo.toml",
        "Cargo.lock",
    ] {
        println!("cargo:rerun-if-changed={}", root.join(path).display());
    }

    let skip = env::var("ABSENTIA_SKIP_IMAGES").unwrap_or_default();
    let programs = skip != "all";
    scenarios::generate(&root.join("tests/scenarios"), &out, programs)?;
    bench::generate(&manifest.join("src/bench/exec/guest"), &out, programs)?;
    let wanted = |name: &str| skip != "all" && !skip.split(',').any(|s| s.trim() == name);
    let target = Target::choose()?;
    let mut images = Vec::new();
    if wanted(KERNEL) {
        let flags = target.flags(KERNEL_FLAGS);
        cargo_build(&root, &out.join("kernel"), &target, &flags, &[KERNEL])?;
        let path = target.binary(&out.join("kernel"), KERNEL);
        let file = read(&path)?;
        gate_check::check(&file).context("guest image guest-kernel")?;
        images.push(Built {
            name: KERNEL,
            data: flatten::strip(&file)?,
            flat: None,
            file: path,
        });
    }
    let servers: Vec<Image> = IMAGES
        .into_iter()
        .chain([BENCH])
        .filter(|image| wanted(image.name))
        .collect();
    if !servers.is_empty() {
        let mut flags = target.flags(SERVER_FLAGS);
        flags.push(format!(
            "-Clink-arg=-T{}",
            manifest.join("server.ld").display()
        ));
        let names: Vec<&str> = servers.iter().map(|image| image.name).collect();
        cargo_build(&root, &out.join("servers"), &target, &flags, &names)?;
    }
    for image in servers {
        let path = target.binary(&out.join("servers"), image.name);
        images.push(server(image, path).with_context(|| format!("guest image {}", image.name))?);
    }
    let program = if skip == "all" {
        None
    } else {
        welcome(&manifest, &out)?
    };
    generate(&out, &images, program.as_deref())
}

fn server(Image { name, flat, .. }: Image, path: PathBuf) -> Result<Built> {
    let file = &read(&path)?;
    if !flat {
        return Ok(Built {
            name,
            data: flatten::strip(file)?,
            flat: None,
            file: path,
        });
    }
    let flatten::Flat {
        bytes,
        address,
        memory_len,
        entry,
    } = flatten::flatten(file)?;
    Ok(Built {
        name,
        data: bytes,
        flat: Some((address, memory_len, entry)),
        file: path,
    })
}

/// What the images are compiled for.
struct Target {
    triple: String,
    bare: bool,
}

impl Target {
    fn choose() -> Result<Target> {
        let rustc = variable("RUSTC")?;
        let sysroot = Command::new(&rustc)
            .args(["--print", "sysroot"])
            .output()
            .with_context(|| format!("running {rustc}"))?;
        let sysroot = String::from_utf8(sysroot.stdout).context("the sysroot's path")?;
        let installed = Path::new(sysroot.trim())
            .join("lib/rustlib")
            .join(BARE_TARGET)
            .is_dir();
        let triple = if installed {
            BARE_TARGET.into()
        } else {
            variable("HOST")?
        };
        ensure!(
            triple.starts_with("x86_64-"),
            "guest images need an x86-64 host, not {triple}"
        );
        Ok(Target {
            triple,
            bare: installed,
        })
    }

    fn flags(&self, base: &[&str]) -> Vec<String> {
        let more = if self.bare { BARE_FLAGS } else { &[] };
        base.iter()
            .chain(more)
            .map(|flag| flag.to_string())
            .collect()
    }

    fn binary(&self, target_dir: &Path, name: &str) -> PathBuf {
        target_dir.join(&self.triple).join("guest").join(name)
    }
}

/// Builds binaries of this workspace with flags of their own.
fn cargo_build(
    root: &Path,
    target_dir: &Path,
    target: &Target,
    flags: &[String],
    packages: &[&str],
) -> Result<()> {
    let mut cargo = Command::new(variable("CARGO")?);
    // What cargo and its wrappers set for this script would confuse the cargo started here.
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let of_cargo = name.starts_with("CARGO") && !name.starts_with("CARGO_HOME");
        let settings = [
            "CARGO_HTTP_",
            "CARGO_NET_",
            "CARGO_REGISTR",
            "CARGO_SOURCE_",
        ];
        let of_cargo = of_cargo && !settings.iter().any(|s| name.starts_with(s));
        let of_rustc =
            name.starts_with("RUSTC") || name.starts_with("RUSTDOC") || name == "RUSTFLAGS";
        let of_script = [
            "TARGET",
            "HOST",
            "OUT_DIR",
            "PROFILE",
            "OPT_LEVEL",
            "DEBUG",
            "NUM_JOBS",
            "MAKEFLAGS",
        ];
        if of_cargo || of_rustc || of_script.contains(&name) || name.starts_with("DEP_") {
            cargo.env_remove(name);
        }
    }
    cargo
        .current_dir(root)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .args([
            "build",
            "--quiet",
            "--profile",
            "guest",
            "--target",
            &target.triple,
            "--target-dir",
        ])
        .arg(target_dir);
    for package in packages {
        cargo.args(["--package", package, "--bin", package]);
    }
    let output = cargo
        .output()
        .context("running cargo for the guest images")?;
    if !output.status.success() {
        bail!(
            "building the guest images {} failed:\n{}",
            packages.join(", "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// Compiles the embedded root's program for Linux, statically linked. A host without a static
/// C library gets a binary without it.
fn welcome(manifest: &Path, out: &Path) -> Result<Option<PathBuf>> {
    let binary = out.join("welcome");
    let output = Command::new(variable("RUSTC")?)
        .arg(manifest.join("programs/welcome.rs"))
        .args([
            "--edition",
            "2024",
            "-Copt-level=s",
            "-Cpanic=abort",
            "-Cstrip=symbols",
        ])
        .args([
            "-Ctarget-feature=+crt-static",
            "-Crelocation-model=static",
            "-Clto=fat",
        ])
        .args(["--target", &variable("HOST")?, "-o"])
        .arg(&binary)
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .output()
        .context("running rustc for the embedded root's program")?;
    if output.status.success() {
        return Ok(Some(binary));
    }
    for line in String::from_utf8_lossy(&output.stderr).lines().take(20) {
        println!("cargo:warning=embedded root's program: {line}");
    }
    Ok(None)
}

/// Writes the images and the table of them that the library includes.
fn generate(out: &Path, images: &[Built], program: Option<&Path>) -> Result<()> {
    let dir = out.join("images");
    fs::create_dir_all(&dir).context("OUT_DIR")?;
    let mut source = String::from(
        "/// Name, data, and for flat images address, length in memory and entry point.\n\
         pub type Embedded = (&'static str, &'static [u8], Option<(u64, u64, u64)>);\n\
         /// The guest's images.\n\
         pub static IMAGES: &[Embedded] = &[\n",
    );
    for image in images {
        let path = dir.join(image.name);
        fs::write(&path, &image.data).with_context(|| path.display().to_string())?;
        writeln!(
            source,
            "({:?}, include_bytes!({path:?}), {:?}),",
            image.name, image.flat
        )?;
    }
    source += "];\n/// The images' files with symbols and line tables, where the build left them.\n\
               pub static SYMBOLS: &[(&str, &str)] = &[\n";
    for image in images {
        writeln!(source, "({:?}, {:?}),", image.name, image.file)?;
    }
    source += "];\n/// Programs of the embedded root: path and content.\n\
               pub static PROGRAMS: &[(&str, &[u8])] = &[\n";
    if let Some(program) = program {
        writeln!(source, "(\"/bin/welcome\", include_bytes!({program:?})),")?;
    }
    source += "];\n";
    fs::write(out.join("images.rs"), source).context("images.rs")
}

/// Deflated, as `packed::unpack` reads it.
fn pack(content: &[u8]) -> Vec<u8> {
    miniz_oxide::deflate::compress_to_vec(content, 8)
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("cargo did not set {name}"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

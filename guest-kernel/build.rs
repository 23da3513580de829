//! Linker arguments of the kernel image.

fn main() {
    let dir = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    println!("cargo:rerun-if-changed=kernel.ld");
    if std::env::var_os("CARGO_CFG_GUEST_IMAGE").is_none() {
        // For `cargo build --workspace`, which must not fail: nobody runs the kernel as a program of the host. Its code
        // is not position independent, and names addresses of the linker script.
        for arg in ["-no-pie", "-Wl,--noinhibit-exec"] {
            println!("cargo:rustc-link-arg-bins={arg}");
        }
        return;
    }
    println!("cargo:rustc-link-arg-bins=-T{dir}/kernel.ld");
    for arg in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-Wl,--build-id=none",
        "-Wl,-z,max-page-size=4096",
        "-Wl,-n",
    ] {
        println!("cargo:rustc-link-arg-bins={arg}");
    }
}

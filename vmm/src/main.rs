//! The `absentia` command.

fn main() -> std::process::ExitCode {
    absentia_vmm::cli::main()
}

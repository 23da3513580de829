//! Host tests: every defect, real programs, a second parser, and a loader that executes the
//! steps on a model of a process.

mod damaged;
mod elf_file;
mod plans;
mod process;
mod scripts;
mod stacks;
mod steps;

//! A C project to build: always the same, many files, real enough to keep a compiler busy.
//!
//! Each module mixes a number through functions of a few random operations. The generator
//! does the same sums, so that the program that comes out can say whether it was built right.

use std::fmt::Write;

/// Modules, a C file each; `main.c` comes on top.
pub const MODULES: usize = 64;
/// Functions of a module.
const FUNCTIONS: usize = 10;
/// Operations of a function.
const OPERATIONS: usize = 6;

/// Files by name.
pub struct Project {
    /// Name and content, in the project's directory.
    pub files: Vec<(String, String)>,
}

/// xorshift64: the same numbers every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }
}

/// What a function does to `x`, `state->turns` being how often one was called.
enum Operation {
    Add(u32),
    Xor(u32),
    Multiply(u32),
    Rotate(u32),
    /// Adds the number of turns so many times.
    Turns(u32),
}

impl Operation {
    fn random(numbers: &mut Numbers) -> Operation {
        let value = numbers.next();
        match numbers.next() % 5 {
            0 => Operation::Add(value),
            1 => Operation::Xor(value),
            2 => Operation::Multiply(value | 1),
            3 => Operation::Rotate(value % 31 + 1),
            _ => Operation::Turns(value % 7 + 1),
        }
    }

    fn c(&self) -> String {
        match self {
            Operation::Add(n) => format!("    x += {n}u;\n"),
            Operation::Xor(n) => format!("    x ^= {n}u;\n"),
            Operation::Multiply(n) => format!("    x *= {n}u;\n"),
            Operation::Rotate(n) => format!("    x = rotate(x, {n});\n"),
            Operation::Turns(n) => {
                format!("    for (int i = 0; i < {n}; i++)\n        x += state->turns;\n")
            }
        }
    }

    fn apply(&self, x: u32, turns: u32) -> u32 {
        match *self {
            Operation::Add(n) => x.wrapping_add(n),
            Operation::Xor(n) => x ^ n,
            Operation::Multiply(n) => x.wrapping_mul(n),
            Operation::Rotate(n) => x.rotate_left(n),
            Operation::Turns(n) => x.wrapping_add(turns.wrapping_mul(n)),
        }
    }
}

const COMMON: &str = "\
#ifndef COMMON_H
#define COMMON_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct state {
    uint32_t turns;
    char last[32];
};

static inline uint32_t rotate(uint32_t x, int by) {
    return x << by | x >> (32 - by);
}

static inline void turn(struct state *state, const char *name) {
    state->turns++;
    strncpy(state->last, name, sizeof state->last - 1);
}
#endif
";

/// The project, to be built by `make` with the compiler that `CC` names.
pub fn generate() -> Project {
    let mut numbers = Numbers(0x5eed_5eed_5eed_5eed);
    let mut files = vec![("common.h".to_string(), COMMON.to_string())];
    let (mut value, mut turns) = (1u32, 0u32);
    let (mut includes, mut calls) = (String::new(), String::new());
    for module in 0..MODULES {
        let mut text = format!("#include \"common.h\"\n#include \"m{module}.h\"\n\n");
        for function in 0..FUNCTIONS {
            let _ = writeln!(
                text,
                "static uint32_t f{function}(struct state *state, uint32_t x) {{\n    \
                 turn(state, \"m{module}.f{function}\");"
            );
            turns += 1;
            for _ in 0..OPERATIONS {
                let operation = Operation::random(&mut numbers);
                text += &operation.c();
                value = operation.apply(value, turns);
            }
            text += "    return x;\n}\n\n";
        }
        let _ = writeln!(
            text,
            "static uint32_t (*const functions[])(struct state *, uint32_t) = {{"
        );
        for function in 0..FUNCTIONS {
            let _ = writeln!(text, "    f{function},");
        }
        let _ = write!(
            text,
            "}};\n\nuint32_t m{module}(struct state *state, uint32_t x) {{\n    \
             for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)\n        \
             x = functions[i](state, x);\n    return x;\n}}\n"
        );
        files.push((format!("m{module}.c"), text));
        let header = format!(
            "#ifndef M{module}_H\n#define M{module}_H\n#include \"common.h\"\n\
             uint32_t m{module}(struct state *state, uint32_t x);\n#endif\n"
        );
        files.push((format!("m{module}.h"), header));
        let _ = writeln!(includes, "#include \"m{module}.h\"");
        let _ = writeln!(calls, "    x = m{module}(&state, x);");
    }
    let last = format!("m{}.f{}", MODULES - 1, FUNCTIONS - 1);
    let main = format!(
        "{includes}\nint main(void) {{\n    struct state state = {{0}};\n    uint32_t x = 1;\n\
         {calls}    if (x == {value}u && !strcmp(state.last, \"{last}\"))\n        return 0;\n    \
         printf(\"built wrong: %u\\n\", x);\n    return 1;\n}}\n"
    );
    files.push(("main.c".to_string(), main));
    files.push(("Makefile".to_string(), makefile()));
    Project { files }
}

fn makefile() -> String {
    let mut objects = String::from("main.o");
    for module in 0..MODULES {
        let _ = write!(objects, " m{module}.o");
    }
    // No recipe needs a shell: make starts the compiler itself.
    format!(
        "OBJECTS = {objects}\n\nprogram: $(OBJECTS)\n\t$(CC) -o $@ $(OBJECTS)\n\n\
         %.o: %.c %.h common.h\n\t$(CC) -c -o $@ $<\n\nmain.o: main.c\n\t$(CC) -c -o $@ $<\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_project_builds_and_is_right() {
        let project = generate();
        let sources = project
            .files
            .iter()
            .filter(|(name, _)| name.ends_with(".c"));
        assert!(sources.count() > 60);
        assert_eq!(project.files, generate().files, "the same every time");
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in &project.files {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let run = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            let status = command.args(arguments).current_dir(dir.path()).status();
            status.expect("make and cc").success()
        };
        assert!(run("make", &["-s", "CC=cc"]));
        assert!(run("./program", &[]));
    }
}

//! The measurements as a table for a person and as JSON for a program.

use std::fmt::Write;

use abi::exec::ExecBackend::{self, Buffer, Copy, Map};

use super::figures::{Spread, Traced, Workload};
use super::{BUILD, Report, title};
use crate::machine::Accelerator;

/// The ratios: what they are called, and of which to which.
pub const RATIOS: [(&str, ExecBackend, ExecBackend); 3] = [
    ("(1)/(3)", Map, Buffer),
    ("(2)/(3)", Copy, Buffer),
    ("(1)/(2)", Map, Copy),
];

/// The counts: what they are called, and the counter.
pub const COUNTS: [(&str, &str); 5] = [
    ("kernel visits", "kernel.visits"),
    ("messages", "kernel.messages"),
    ("page faults", "kernel.page_faults"),
    ("copies", "kernel.copies"),
    ("bytes copied", "kernel.copied_bytes"),
];

/// What the backends are called in tables.
pub const fn way(backend: ExecBackend) -> &'static str {
    match backend {
        Map => "(1) map",
        Copy => "(2) copy",
        Buffer => "(3) buffer",
    }
}

/// A part of an exec.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Ticks.
    pub ticks: f64,
    /// Ticks of it by service, where VFS looked.
    pub services: Vec<(String, f64)>,
}

impl Workload {
    /// Its name for a person.
    pub fn title(&self) -> String {
        let heat = if self.cold { "cold" } else { "warm" };
        format!("{}, {heat}", title(&self.name))
    }
}

/// A number with its digits in groups of three.
pub fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::from(if number <= -0.5 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Report {
    /// What a tick is.
    pub fn unit(&self) -> &'static str {
        match self.accelerator {
            Accelerator::Kvm => "cycles",
            Accelerator::Qemu => "instructions",
        }
    }

    /// How it was measured.
    pub fn conditions(&self) -> String {
        let counting = match self.accelerator {
            Accelerator::Kvm => "KVM; time in cycles of the time stamp counter",
            Accelerator::Qemu => "QEMU with -icount shift=0; time in guest instructions",
        };
        let gate = format!("{:?}", self.gate).to_lowercase();
        format!("{counting}; {gate} gate; {} rounds", self.rounds)
    }

    /// A program's exec from vfork to the end of wait, in parts: those that VFS went through
    /// as it traced them, the others as the driver saw them without a trace.
    pub fn parts(&self, traced: &Traced, backend: ExecBackend) -> Vec<Part> {
        let warm = |w: &&Workload| w.name == traced.name && !w.cold;
        let Some(workload) = self.figures.workloads.iter().find(warm) else {
            return Vec::new();
        };
        let outside = |name: &str, ticks: f64| Part {
            name: name.to_string(),
            ticks,
            services: Vec::new(),
        };
        let mut parts = vec![outside("vfork", workload.median(backend, "fork"))];
        for (name, _) in &traced.stages[backend as usize] {
            let mut values = traced.stage(backend, name).into_iter();
            let time = values.next().map_or(0.0, |(_, ns)| self.figures.ticks(ns));
            let services = values
                .filter(|(_, ns)| *ns >= 0.5)
                .map(|(name, ns)| (name, self.figures.ticks(ns)))
                .collect();
            parts.push(Part {
                name: name.clone(),
                ticks: time,
                services,
            });
        }
        let inside: f64 = parts[1..].iter().map(|part| part.ticks).sum();
        let start = workload.median(backend, "exec") - inside;
        parts.push(outside("start", start.max(0.0)));
        parts.push(outside("run", workload.median(backend, "run")));
        parts.push(outside("exit, wait", workload.median(backend, "exit")));
        parts
    }

    /// As tables for a person.
    pub fn table(&self) -> String {
        let mut text = format!(
            "exec (1) mapped from the file, (2) copied straight into the process, (3) through a \
             buffer as before\n{}\n\n\
             From vfork to the end of wait, how the times relate: median (quartiles)\n{:<36}",
            self.conditions(),
            "program"
        );
        for (name, ..) in RATIOS {
            let _ = write!(text, " {name:<22}");
        }
        for workload in &self.figures.workloads {
            let _ = write!(text, "\n{:<36}", workload.title());
            for (_, of, to) in RATIOS {
                let ratio = workload.ratio(of, to).map_or("-".into(), |r| {
                    format!("{:.3} ({:.3}-{:.3})", r.median, r.low, r.high)
                });
                let _ = write!(text, " {ratio:<22}");
            }
        }
        let _ = write!(
            text,
            "\n\nCounts of one, median\n{:<36} {:<11}",
            "program", "way"
        );
        for (name, _) in COUNTS {
            let _ = write!(text, " {name:>13}");
        }
        let _ = write!(text, " {:>14}", self.unit());
        for workload in &self.figures.workloads {
            for backend in ExecBackend::ALL {
                let _ = write!(text, "\n{:<36} {:<11}", workload.title(), way(backend));
                for (_, counter) in COUNTS {
                    let count = grouped(workload.median(backend, counter));
                    let _ = write!(text, " {count:>13}");
                }
                let total = grouped(workload.median(backend, "total"));
                let _ = write!(text, " {total:>14}");
            }
        }
        let _ = write!(text, "\n\nWhere one exec's {} go (warm)", self.unit());
        for traced in &self.figures.traced {
            for (i, backend) in ExecBackend::ALL.into_iter().enumerate() {
                let parts = self.parts(traced, backend);
                if i == 0 {
                    let _ = write!(text, "\n{:<36} {:<11}", "program", "way");
                    for part in &parts {
                        let _ = write!(text, " {:>10}", part.name);
                    }
                }
                let _ = write!(text, "\n{:<36} {:<11}", title(&traced.name), way(backend));
                for part in &parts {
                    let _ = write!(text, " {:>10}", grouped(part.ticks));
                }
            }
        }
        text
    }

    /// As JSON.
    pub fn json(&self) -> String {
        let figures = &self.figures;
        let workloads: Vec<String> = figures.workloads.iter().map(workload_json).collect();
        let stages: Vec<String> = figures
            .traced
            .iter()
            .flat_map(|traced| ExecBackend::ALL.map(|backend| (traced, backend)))
            .map(|(traced, backend)| {
                let parts: Vec<String> =
                    self.parts(traced, backend).iter().map(part_json).collect();
                format!(
                    "    {{\"program\": {:?}, \"backend\": {:?}, \"stages\": [\n{}\n    ]}}",
                    traced.name,
                    backend.name(),
                    parts.join(",\n")
                )
            })
            .collect();
        format!(
            "{{\n  \"accelerator\": {:?},\n  \"gate\": {:?},\n  \"unit\": {:?},\n  \
             \"rounds\": {},\n  \"ticks_per_ms\": {},\n  \"workloads\": [\n{}\n  ],\n  \
             \"stages\": [\n{}\n  ]\n}}\n",
            format!("{:?}", self.accelerator).to_lowercase(),
            format!("{:?}", self.gate).to_lowercase(),
            self.unit(),
            self.rounds,
            figures.ticks_per_ms,
            workloads.join(",\n"),
            stages.join(",\n")
        )
    }

    /// The build, if it was measured.
    pub fn build(&self) -> Option<&Workload> {
        self.figures.workloads.iter().find(|w| w.name == BUILD)
    }
}

fn spread_json(spread: Option<Spread>) -> String {
    spread.map_or("null".into(), |s| {
        format!(
            "{{\"low\": {:.4}, \"median\": {:.4}, \"high\": {:.4}}}",
            s.low, s.median, s.high
        )
    })
}

fn workload_json(workload: &Workload) -> String {
    let ratios = RATIOS.map(|(_, of, to)| {
        format!(
            "\"{}/{}\": {}",
            of.name(),
            to.name(),
            spread_json(workload.ratio(of, to))
        )
    });
    let backends = ExecBackend::ALL.map(|backend| {
        let runs = &workload.runs[backend as usize];
        let names = runs.first().into_iter().flatten();
        let values: Vec<String> = names
            .map(|(name, _)| format!("{name:?}: {}", spread_json(workload.value(backend, name))))
            .collect();
        format!(
            "      {:?}: {{\"runs\": {}, {}}}",
            backend.name(),
            runs.len(),
            values.join(", ")
        )
    });
    format!(
        "    {{\"program\": {:?}, \"cold\": {}, \"ratios\": {{{}}}, \"backends\": {{\n{}\n    }}}}",
        workload.name,
        workload.cold,
        ratios.join(", "),
        backends.join(",\n")
    )
}

fn part_json(part: &Part) -> String {
    let services: Vec<String> = part
        .services
        .iter()
        .map(|(name, ticks)| format!("{name:?}: {ticks:.0}"))
        .collect();
    format!(
        "      {{\"stage\": {:?}, \"ticks\": {:.0}, \"services\": {{{}}}}}",
        part.name,
        part.ticks,
        services.join(", ")
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::exec::figures::Figures;
    use crate::kvm::gate::Gate;

    /// A report of one program and a build.
    pub fn report() -> Report {
        let mut figures = Figures::default();
        for line in [
            "clock 1000000",
            "exec dynamic warm 0 map total=100 fork=10 exec=60 run=20 exit=10 kernel.visits=1234",
            "exec dynamic warm 0 copy total=150 fork=10 exec=110 run=20 exit=10 kernel.visits=7",
            "exec dynamic warm 0 buffer total=200 fork=10 exec=160 run=20 exit=10 cpu.vm=50",
            "stage dynamic 0 map lookup time=15 vm=5 vfs=10",
            "stage dynamic 0 map fill time=25 vm=25 vfs=0",
            "exec make warm 0 map total=300",
            "exec make warm 0 copy total=310",
            "exec make warm 0 buffer total=320",
        ] {
            figures.line(line).unwrap();
        }
        Report {
            accelerator: Accelerator::Qemu,
            gate: Gate::Direct,
            rounds: 1,
            figures,
        }
    }

    #[test]
    fn the_parts_are_the_whole() {
        let report = report();
        let parts = report.parts(&report.figures.traced[0], Map);
        let names: Vec<&str> = parts.iter().map(|part| &*part.name).collect();
        let expected = ["vfork", "lookup", "fill", "start", "run", "exit, wait"];
        assert_eq!(names, expected);
        assert_eq!(parts.iter().map(|part| part.ticks).sum::<f64>(), 100.0);
        assert_eq!(parts[2].services, [("vm".to_string(), 25.0)]);
    }

    #[test]
    fn tables_and_json_have_the_figures() {
        let report = report();
        let table = report.table();
        assert!(table.contains("0.500 (0.500-0.500)"), "{table}");
        assert!(table.contains("1,234"), "{table}");
        assert!(table.contains("make, 65 C files"), "{table}");
        let json = report.json();
        assert!(json.contains("\"map/buffer\": {\"low\": 0.5000"), "{json}");
        assert!(
            json.contains("{\"stage\": \"start\", \"ticks\": 20"),
            "{json}"
        );
        let opened = json.matches(['{', '[']).count();
        assert_eq!(opened, json.matches(['}', ']']).count());
    }

    #[test]
    fn numbers_are_grouped() {
        let all = [0.0, 999.4, 1000.0, 1234567.0, -4321.0].map(grouped);
        assert_eq!(all, ["0", "999", "1,000", "1,234,567", "-4,321"]);
    }
}

//! The measurements as one page of HTML with nothing from elsewhere: ratios and stages as
//! pictures, counts as a table.

use abi::exec::ExecBackend;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::figures::{Spread, Workload};
use super::report::{COUNTS, Part, RATIOS, grouped, way};
use super::{Report, title};

const STYLE: &str = include_str!("page.css");
/// Units of the pictures' width; they scale with the page.
const WIDTH: f64 = 960.0;
/// Where bars begin, right of their names.
const LEFT: f64 = 250.0;
/// Room right of the longest bar, for its number.
const RIGHT: f64 = 110.0;
/// Width of the longest bar.
const SPAN: f64 = WIDTH - LEFT - RIGHT;
/// Height of a row.
const ROW: f64 = 24.0;

impl Report {
    /// The page.
    pub fn page(&self) -> String {
        let build = self.build();
        let build = build.and_then(|build| build.ratio(RATIOS[0].1, RATIOS[0].2));
        let markup = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { "What exec costs" }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    main {
                        h1 { "What exec costs" }
                        p.about {
                            "One guest, three ways in turn: " b { "(1)" } " pages mapped from the file, "
                            b { "(2)" } " segments copied by the file system straight into the process, "
                            b { "(3)" } " text through a buffer of the exec server, as before. "
                            (self.conditions()) "."
                        }
                        @if let Some(ratio) = build {
                            p.headline {
                                b { (format!("{:+.1} %", (ratio.median - 1.0) * 100.0)) }
                                " for the whole of a " code { "make" }
                                " of 65 C files with tcc, (1) against (3)"
                            }
                        }
                        (self.ratios())
                        (self.stages())
                        (self.services())
                        (self.counts())
                    }
                }
            }
        };
        markup.into_string()
    }

    /// A dot with its quartiles for each program and ratio.
    fn ratios(&self) -> Markup {
        let workloads = &self.figures.workloads;
        let all = workloads
            .iter()
            .flat_map(|w| RATIOS.map(|(_, of, to)| w.ratio(of, to)))
            .flatten();
        let most = all.map(|r| r.high).fold(1.0, f64::max) * 1.05;
        let x = |ratio: f64| LEFT + ratio / most * (WIDTH - LEFT - 30.0);
        let height = ROW * workloads.len() as f64;
        // Every quarter.
        let marks = (0..)
            .map(|n| f64::from(n) * 0.25)
            .take_while(|mark| *mark <= most);
        let rows = (0..).map(|n| (f64::from(n) + 0.5) * ROW).zip(workloads);
        let content = html! {
            @for mark in marks {
                @let (at, class) = (tenths(x(mark)), if mark == 1.0 { "one" } else { "grid" });
                line class=(class) x1=(at) x2=(at) y1="0" y2=(height) {}
                text.mark x=(at) y=(tenths(height + 16.0)) { (format!("{mark:.2}")) }
            }
            @for (y, workload) in rows {
                (label(&workload.title(), y))
                @for (n, (name, of, to)) in RATIOS.into_iter().enumerate() {
                    @if let Some(ratio) = workload.ratio(of, to) {
                        (dot(name, n, ratio, y + (n as f64 - 1.0) * 6.0, &x))
                    }
                }
            }
        };
        html! {
            h2 { "Time from vfork to the end of wait" }
            p {
                "Left of 1 is better for the first named. Dots are medians of the rounds\u{2019} ratios, lines \
                 reach from quartile to quartile."
            }
            p.legend {
                @for (n, (name, of, to)) in RATIOS.into_iter().enumerate() {
                    span class={ "key r" (n) } { (name) ": " (of.name()) " to " (to.name()) } " "
                }
            }
            (picture(height + 24.0, &content))
        }
    }

    /// A bar of stages for each program and backend.
    fn stages(&self) -> Markup {
        let mut names: Vec<String> = Vec::new();
        let bars: Vec<(&str, Vec<Vec<Part>>)> = self
            .figures
            .traced
            .iter()
            .map(|traced| {
                let parts = ExecBackend::ALL.map(|backend| self.parts(traced, backend));
                learn(&mut names, &parts);
                (title(&traced.name), parts.to_vec())
            })
            .collect();
        html! {
            h2 { "Where the " (self.unit()) " go: stages (warm)" }
            p {
                "Point at a bar\u{2019}s part to see its figure, and the services\u{2019} shares where the exec server \
                 looked. " i { "run" } " has the page faults of a program that uses its pages."
            }
            (legend(&names))
            (bar_chart(&bars, &names))
        }
    }

    /// A bar of services for each program and backend.
    fn services(&self) -> Markup {
        let mut names: Vec<String> = Vec::new();
        let bars: Vec<(&str, Vec<Vec<Part>>)> = self
            .figures
            .workloads
            .iter()
            .filter(|workload| !workload.cold)
            .map(|workload| {
                let parts = ExecBackend::ALL.map(|backend| self.shares(workload, backend));
                learn(&mut names, &parts);
                (title(&workload.name), parts.to_vec())
            })
            .filter(|(name, _)| *name != title(super::BUILD))
            .collect();
        html! {
            h2 { "Whose they are: services (warm)" }
            p {
                "Each with the kernel\u{2019}s work for it; " i { "programs" } " are the measured one and the one that \
                 starts it."
            }
            (legend(&names))
            (bar_chart(&bars, &names))
        }
    }

    /// The services' and the programs' shares of a workload; the smallest as one.
    fn shares(&self, workload: &Workload, backend: ExecBackend) -> Vec<Part> {
        let part = |name: &str, ticks: f64| Part {
            name: name.to_string(),
            ticks: ticks.max(0.0),
            services: Vec::new(),
        };
        let total = workload.median(backend, "total");
        let (mut parts, mut rest, mut others) = (Vec::new(), total, 0.0);
        for (name, ns) in workload.services(backend) {
            let ticks = self.figures.ticks(ns);
            rest -= ticks;
            match name {
                "vm" | "vfs" | "pm" | "ext2" => parts.push(part(name, ticks)),
                _ => others += ticks,
            }
        }
        let idle = self
            .figures
            .ticks(workload.median(backend, "kernel.idle_ns"));
        parts.push(part("others, idle", others + idle));
        parts.push(part("programs", rest - idle));
        parts
    }

    fn counts(&self) -> Markup {
        let heads = COUNTS.iter().map(|(name, _)| *name).chain([self.unit()]);
        let counters = || COUNTS.iter().map(|(_, counter)| *counter).chain(["total"]);
        html! {
            h2 { "Counts of one" }
            p { "From vfork to the end of wait, medians; for the build, of all of it." }
            div.wide {
                table {
                    thead {
                        tr {
                            th { "program" }
                            th { "way" }
                            @for name in heads { th.number { (name) } }
                        }
                    }
                    tbody {
                        @for workload in &self.figures.workloads {
                            @for backend in ExecBackend::ALL {
                                tr {
                                    @if backend == ExecBackend::Map {
                                        th rowspan="3" { (workload.title()) }
                                    }
                                    td { (way(backend)) }
                                    @for counter in counters() {
                                        td.number { (grouped(workload.median(backend, counter))) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Adds the names of parts that are not known yet.
fn learn(names: &mut Vec<String>, parts: &[Vec<Part>]) {
    for part in parts.iter().flatten() {
        if !names.contains(&part.name) {
            names.push(part.name.clone());
        }
    }
}

/// A coordinate.
fn tenths(value: f64) -> String {
    format!("{value:.1}")
}

fn picture(height: f64, content: &Markup) -> Markup {
    html! {
        div.wide {
            svg viewBox={ "0 0 " (WIDTH) " " (format!("{height:.0}")) } role="img" { (content) }
        }
    }
}

fn label(text: &str, y: f64) -> Markup {
    html! { text.label x=(LEFT - 12.0) y=(tenths(y + 4.0)) { (text) } }
}

fn dot(name: &str, class: usize, ratio: Spread, y: f64, x: &impl Fn(f64) -> f64) -> Markup {
    let Spread { median, low, high } = ratio;
    let [y, x1, x2, cx] = [y, x(low), x(high), x(median)].map(tenths);
    html! {
        g class={ "r" (class) } {
            title { (format!("{name} {median:.3} ({low:.3} to {high:.3})")) }
            line x1=(x1) x2=(x2) y1=(y) y2=(y) {}
            circle cx=(cx) cy=(y) r="4" {}
        }
    }
}

fn legend(names: &[String]) -> Markup {
    html! {
        p.legend {
            @for (n, name) in names.iter().enumerate() {
                span class={ "key s" (n) } { (name) } " "
            }
        }
    }
}

/// Groups of bars made of parts, all of a group by the same scale. A part's colour goes by the place of its name.
fn bar_chart(groups: &[(&str, Vec<Vec<Part>>)], names: &[String]) -> Markup {
    let total = |bar: &Vec<Part>| bar.iter().map(|part| part.ticks).sum::<f64>();
    let mut y = 0.0;
    let groups: Vec<Markup> = groups
        .iter()
        .map(|(name, bars)| {
            let most = bars.iter().map(total).fold(1.0, f64::max);
            y += ROW * 0.8;
            let top = y;
            y += ROW * bars.len() as f64;
            let ys = (0..).map(|n| top + f64::from(n) * ROW);
            html! {
                text.group x="0" y=(tenths(top + 14.0)) { (name) }
                @for ((bar, backend), y) in bars.iter().zip(ExecBackend::ALL).zip(ys) {
                    (label(way(backend), y + 10.0))
                    (parts_of(bar, most, y, names))
                    text.sum x=(tenths(LEFT + total(bar) / most * SPAN + 8.0)) y=(tenths(y + 14.0)) {
                        (grouped(total(bar)))
                    }
                }
            }
        })
        .collect();
    picture(y + 4.0, &html! { @for group in &groups { (group) } })
}

/// The parts of a bar, one beside the other.
fn parts_of(bar: &[Part], most: f64, y: f64, names: &[String]) -> Markup {
    let mut end = LEFT;
    let placed = bar.iter().filter_map(|part| {
        let width = part.ticks / most * SPAN;
        let colour = names.iter().position(|name| *name == part.name)?;
        let x = end;
        end += width;
        (width > 0.0).then_some((part, colour, x, width))
    });
    html! {
        @for (part, colour, x, width) in placed {
            rect class={ "s" (colour) } x=(format!("{x:.2}")) y=(tenths(y)) width=(format!("{width:.2}")) height="18" {
                title {
                    (part.name) ": " (grouped(part.ticks))
                    @for (service, ticks) in &part.services { "\n" (service) ": " (grouped(*ticks)) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::bench::exec::report::tests::report;

    #[test]
    fn the_page_stands_alone() {
        let page = report().page();
        for needed in [
            "<svg",
            "-6.2 %",
            "prefers-color-scheme",
            "class=\"s1\"",
            "vm: 25",
        ] {
            assert!(page.contains(needed), "{needed} in {page}");
        }
        for unwanted in ["<script", "http://", "https://", "NaN", "inf\""] {
            assert!(!page.contains(unwanted), "{unwanted}");
        }
        for tag in ["svg", "table", "p", "text", "g", "rect", "h2"] {
            let opened = page.matches(&format!("<{tag} ")).count()
                + page.matches(&format!("<{tag}>")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}

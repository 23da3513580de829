//! The measurements as one page of HTML with nothing from elsewhere: ratios and stages as
//! pictures, counts as a table.

use std::fmt::Write;

use abi::exec::ExecBackend;

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
/// Height of a row.
const ROW: f64 = 24.0;

/// Text as HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

impl Report {
    /// The page.
    pub fn page(&self) -> String {
        let mut body = format!(
            "<h1>What exec costs</h1>\n<p class=\"about\">One guest, three ways in turn: \
             <b>(1)</b> pages mapped from the file, <b>(2)</b> segments copied by the file system \
             straight into the process, <b>(3)</b> text through a buffer of the exec server, as \
             before. {}.</p>\n",
            escaped(&self.conditions())
        );
        if let Some(ratio) = self
            .build()
            .and_then(|build| build.ratio(RATIOS[0].1, RATIOS[0].2))
        {
            let _ = writeln!(
                body,
                "<p class=\"headline\"><b>{:+.1} %</b> for the whole of a <code>make</code> of 65 \
                 C files with tcc, (1) against (3)</p>",
                (ratio.median - 1.0) * 100.0
            );
        }
        body += &self.ratios();
        body += &self.stages();
        body += &self.services();
        body += &self.counts();
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>What exec costs</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
             {body}</main>\n</body>\n</html>\n"
        )
    }

    /// A dot with its quartiles for each program and ratio.
    fn ratios(&self) -> String {
        let workloads = &self.figures.workloads;
        let all = workloads
            .iter()
            .flat_map(|w| RATIOS.map(|(_, of, to)| w.ratio(of, to)))
            .flatten();
        let most = all.map(|r| r.high).fold(1.0, f64::max) * 1.05;
        let x = |ratio: f64| LEFT + ratio / most * (WIDTH - LEFT - 30.0);
        let mut rows = String::new();
        let height = ROW * workloads.len() as f64;
        let mut mark = 0.0;
        while mark <= most {
            let class = if mark == 1.0 { "one" } else { "grid" };
            let at = x(mark);
            let _ = write!(
                rows,
                "<line class=\"{class}\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"0\" y2=\"{height}\"/>\
                 <text class=\"mark\" x=\"{at:.1}\" y=\"{:.1}\">{mark:.2}</text>",
                height + 16.0
            );
            mark += 0.25;
        }
        for (i, workload) in workloads.iter().enumerate() {
            let y = (i as f64 + 0.5) * ROW;
            rows += &label(&workload.title(), y);
            for (n, (name, of, to)) in RATIOS.into_iter().enumerate() {
                if let Some(ratio) = workload.ratio(of, to) {
                    rows += &dot(name, n, ratio, y + (n as f64 - 1.0) * 6.0, &x);
                }
            }
        }
        let names: Vec<String> = RATIOS
            .into_iter()
            .enumerate()
            .map(|(n, (name, of, to))| {
                format!(
                    "<span class=\"key r{n}\">{name}: {} to {}</span>",
                    of.name(),
                    to.name()
                )
            })
            .collect();
        format!(
            "<h2>Time from vfork to the end of wait</h2>\n<p>Left of 1 is better for the first \
             named. Dots are medians of the rounds' ratios, lines reach from quartile to \
             quartile.</p>\n<p class=\"legend\">{}</p>\n{}",
            names.join(" "),
            picture(height + 24.0, &rows)
        )
    }

    /// A bar of stages for each program and backend.
    fn stages(&self) -> String {
        let mut names: Vec<String> = Vec::new();
        let bars: Vec<(&str, Vec<Vec<Part>>)> = self
            .figures
            .traced
            .iter()
            .map(|traced| {
                let parts = ExecBackend::ALL.map(|backend| self.parts(traced, backend));
                for part in parts.iter().flatten() {
                    if !names.contains(&part.name) {
                        names.push(part.name.clone());
                    }
                }
                (title(&traced.name), parts.to_vec())
            })
            .collect();
        let class = |part: &Part| names.iter().position(|name| *name == part.name);
        format!(
            "<h2>Where the {unit} go: stages (warm)</h2>\n<p>Point at a bar's part to see its \
             figure, and the services' shares where the exec server looked. <i>run</i> has the \
             page faults of a program that uses its pages.</p>\n{}{}",
            legend(&names),
            bar_chart(&bars, class),
            unit = self.unit()
        )
    }

    /// A bar of services for each program and backend.
    fn services(&self) -> String {
        let mut names: Vec<String> = Vec::new();
        let bars: Vec<(&str, Vec<Vec<Part>>)> = self
            .figures
            .workloads
            .iter()
            .filter(|workload| !workload.cold)
            .map(|workload| {
                let parts = ExecBackend::ALL.map(|backend| self.shares(workload, backend));
                for part in parts.iter().flatten() {
                    if !names.contains(&part.name) {
                        names.push(part.name.clone());
                    }
                }
                (title(&workload.name), parts.to_vec())
            })
            .filter(|(name, _)| *name != title(super::BUILD))
            .collect();
        let class = |part: &Part| names.iter().position(|name| *name == part.name);
        format!(
            "<h2>Whose they are: services (warm)</h2>\n<p>Each with the kernel's work for it; \
             <i>programs</i> are the measured one and the one that starts it.</p>\n{}{}",
            legend(&names),
            bar_chart(&bars, class)
        )
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

    fn counts(&self) -> String {
        let mut rows = String::new();
        for workload in &self.figures.workloads {
            for backend in ExecBackend::ALL {
                let name = match backend {
                    ExecBackend::Map => {
                        format!("<th rowspan=\"3\">{}</th>", escaped(&workload.title()))
                    }
                    _ => String::new(),
                };
                let _ = write!(rows, "<tr>{name}<td>{}</td>", way(backend));
                let counts = COUNTS.iter().map(|(_, counter)| *counter);
                for counter in counts.chain(["total"]) {
                    let count = grouped(workload.median(backend, counter));
                    let _ = write!(rows, "<td class=\"number\">{count}</td>");
                }
                rows += "</tr>\n";
            }
        }
        let heads = COUNTS.iter().map(|(name, _)| *name);
        let heads: String = heads
            .chain([self.unit()])
            .map(|name| format!("<th class=\"number\">{name}</th>"))
            .collect();
        format!(
            "<h2>Counts of one</h2>\n<p>From vfork to the end of wait, medians; for the build, of \
             all of it.</p>\n<div class=\"wide\"><table>\n<thead><tr><th>program</th><th>way</th>\
             {heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
        )
    }
}

fn picture(height: f64, content: &str) -> String {
    format!(
        "<div class=\"wide\"><svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\">{content}</svg>\
         </div>\n"
    )
}

fn label(text: &str, y: f64) -> String {
    format!(
        "<text class=\"label\" x=\"{}\" y=\"{:.1}\">{}</text>",
        LEFT - 12.0,
        y + 4.0,
        escaped(text)
    )
}

fn dot(name: &str, class: usize, ratio: Spread, y: f64, x: &impl Fn(f64) -> f64) -> String {
    format!(
        "<g class=\"r{class}\"><title>{name} {:.3} ({:.3} to {:.3})</title>\
         <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
         <circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4\"/></g>",
        ratio.median,
        ratio.low,
        ratio.high,
        x(ratio.low),
        x(ratio.high),
        x(ratio.median)
    )
}

fn legend(names: &[String]) -> String {
    let keys: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(n, name)| format!("<span class=\"key s{n}\">{}</span>", escaped(name)))
        .collect();
    format!("<p class=\"legend\">{}</p>\n", keys.join(" "))
}

/// Groups of bars made of parts, all of a group by the same scale.
fn bar_chart(groups: &[(&str, Vec<Vec<Part>>)], class: impl Fn(&Part) -> Option<usize>) -> String {
    let (mut content, mut y) = (String::new(), 0.0);
    for (name, bars) in groups {
        let total = |bar: &Vec<Part>| bar.iter().map(|part| part.ticks).sum::<f64>();
        let most = bars.iter().map(total).fold(1.0, f64::max);
        y += ROW * 0.8;
        let _ = write!(
            content,
            "<text class=\"group\" x=\"0\" y=\"{:.1}\">{}</text>",
            y + 14.0,
            escaped(name)
        );
        for (bar, backend) in bars.iter().zip(ExecBackend::ALL) {
            content += &label(way(backend), y + 10.0);
            let mut x = LEFT;
            for part in bar {
                let width = part.ticks / most * (WIDTH - LEFT - RIGHT);
                let Some(n) = class(part).filter(|_| width > 0.0) else {
                    continue;
                };
                let mut hint = format!("{}: {}", escaped(&part.name), grouped(part.ticks));
                for (service, ticks) in &part.services {
                    let _ = write!(hint, "\n{}: {}", escaped(service), grouped(*ticks));
                }
                let _ = write!(
                    content,
                    "<rect class=\"s{n}\" x=\"{x:.2}\" y=\"{y:.1}\" width=\"{width:.2}\" \
                     height=\"18\"><title>{hint}</title></rect>"
                );
                x += width;
            }
            let _ = write!(
                content,
                "<text class=\"sum\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x + 8.0,
                y + 14.0,
                grouped(total(bar))
            );
            y += ROW;
        }
    }
    picture(y + 4.0, &content)
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

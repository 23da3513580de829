//! The page of a campaign: one file without scripts and without anything from elsewhere.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::card::{badge, card, excerpt};
use super::groups;
use super::strip::Axis;
use super::style;
use crate::explore::campaign::{Campaign, Summary};
use crate::explore::row::{Header, Named, Row, Verdict};

/// Cards of one scenario.
const CARDS: usize = 40;

/// The page, as HTML.
pub fn page(campaign: &Campaign) -> String {
    let summary = Summary::of(&campaign.rows);
    let scenarios = campaign.scenarios();
    let title = match scenarios.as_slice() {
        [one] => format!("What absence does to {one}"),
        many => format!("What absence does to {} scenarios", many.len()),
    };
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Absentia" }
                style { (PreEscaped(style::sheet())) }
            }
            body {
                header.top {
                    p.eyebrow { "Absentia · absence report" }
                    h1 { (title) }
                    p.lead { (headline(&summary)) }
                    (figures(campaign, &summary))
                    @if scenarios.len() > 1 { (contents(campaign, &scenarios)) }
                    (notes(campaign))
                }
                main { @for name in &scenarios { (scenario(campaign, name)) } }
                (footer(campaign))
            }
        }
    };
    markup.into_string()
}

/// What came out, in a sentence.
fn headline(summary: &Summary) -> String {
    let runs = summary.total();
    let bad = summary.violations();
    if runs == 0 {
        return "No run has been made yet.".into();
    }
    let each =
        "In every run one page was made absent at one moment, and the run went on to its end";
    match (bad, summary.verdict(Verdict::ErrorSurfaced)) {
        (0, 0) => format!("{each}. All {runs} runs came to the right result."),
        (0, told) => format!(
            "{each}. Nothing went wrong in {runs} runs; in {told} of them the program was told of an error that it has to expect."
        ),
        (bad, _) => format!("{each}. In {bad} of {runs} runs the system did what it must not."),
    }
}

fn figures(campaign: &Campaign, summary: &Summary) -> Markup {
    let one = |header: &Header| {
        let summary = Summary::of(campaign.rows_of(header));
        (header.policy.clone(), summary)
    };
    let mut policies: Vec<(String, Summary)> = Vec::new();
    for (policy, more) in campaign.headers.iter().map(one) {
        match policies.iter_mut().find(|(known, _)| *known == policy) {
            Some((_, summary)) => summary.merge(&more),
            None => policies.push((policy, more)),
        }
    }
    let micros: u64 = campaign.rows.iter().map(|row| row.micros).sum();
    html! {
        ul.figures {
            @for (policy, summary) in &policies {
                li.bad[summary.violations() > 0] {
                    span.policy { "policy " (policy) }
                    b { (summary.violations()) }
                    span.soft { "violations in " (summary.total()) " runs" }
                }
            }
            li {
                span.soft { "Work" }
                b { (duration(micros)) }
                span.soft { @if summary.total() > 0 { "in the guest, " (duration(micros / summary.total())) " a run" } }
            }
        }
    }
}

fn contents(campaign: &Campaign, scenarios: &[&str]) -> Markup {
    html! {
        nav aria-label="Scenarios" {
            div.scroll { table {
                caption { "Scenarios" }
                thead { tr { th scope="col" { "scenario" } th scope="col" { "policy" } th scope="col" { "points" } th scope="col" { "runs" } th scope="col" { "violations" } } }
                tbody {
                    @for name in scenarios {
                        @for header in campaign.headers.iter().filter(|h| h.scenario == **name) {
                            @let summary = Summary::of(campaign.rows_of(header));
                            tr {
                                th scope="row" { a href={ "#" (name) } { (name) } }
                                td { (header.policy) }
                                td { (header.baseline.points) }
                                td { (summary.total()) }
                                td { (summary.violations()) }
                            }
                        }
                    }
                }
            } }
        }
    }
}

fn notes(campaign: &Campaign) -> Markup {
    let mut notes = campaign.notes.clone();
    for header in &campaign.headers {
        let done = campaign.rows_of(header).count() as u64;
        if header.runs > done {
            notes.push(format!(
                "{} under {}: {done} of {} runs are here",
                header.scenario, header.policy, header.runs
            ));
        }
    }
    html! {
        @if !notes.is_empty() {
            div.notes role="note" { ul { @for note in &notes { li { (note) } } } }
        }
    }
}

fn scenario(campaign: &Campaign, name: &str) -> Markup {
    let headers: Vec<&Header> = campaign
        .headers
        .iter()
        .filter(|h| h.scenario == name)
        .collect();
    let rows: Vec<&Row> = campaign
        .rows
        .iter()
        .filter(|row| row.scenario == name)
        .collect();
    let baseline = |policy: &str| {
        headers
            .iter()
            .find(|h| h.policy == policy)
            .map(|h| &h.baseline)
    };
    let groups = groups::violations(rows.iter().copied());
    let told = groups::surfaced(rows.iter().copied());
    html! {
        section id=(name) aria-labelledby={ (name) "-title" } {
            h2 id={ (name) "-title" } { (name) }
            @if let Some(header) = headers.first() {
                p.lead { (header.description) }
                (fault_free(&headers))
            }
            h3 { "Every point, in order" }
            (strips(campaign, &headers, &rows))
            h3 { "What came of it" }
            div.tables {
                @for header in &headers { (table(header, &Summary::of(campaign.rows_of(header)))) }
                @if headers.len() > 1 { (comparison(campaign, &headers)) }
            }
            h3 { @if groups.is_empty() { "No violations" } @else { "Violations" } }
            @if groups.is_empty() { p { "Whatever page was taken away, the system did what it should." } }
            @for group in groups.iter().take(CARDS) { (card(campaign, group, baseline(&group.first().policy))) }
            @if groups.len() > CARDS { p.soft { (groups.len() - CARDS) " more ways to fail are in the file of rows." } }
            @if !told.is_empty() {
                h3 { "Errors that the program was told" }
                ul {
                    @for group in &told {
                        @if let Some(surfaced) = &group.first().surfaced {
                            li { b { (surfaced.error) } ", " (group.rows.len()) " runs: " code { (surfaced.who) } " " span.soft { "as in " code { (group.first().token) } } }
                        }
                    }
                }
            }
        }
    }
}

fn fault_free(headers: &[&Header]) -> Markup {
    let Some(first) = headers.first() else {
        return html! {};
    };
    let run = &first.baseline;
    html! {
        dl {
            dt { "Without a fault" }
            dd {
                p {
                    "exit status " (run.status)
                    @if run.stdout.trim().is_empty() { ", no output" } @else { "; " code { (excerpt(&run.stdout)) } }
                }
            }
            dt { "Points" }
            dd { @for (i, header) in headers.iter().enumerate() { @if i > 0 { ", " } (header.baseline.points) " under " (header.policy) } }
            dt { "On" }
            dd { (first.platform) ", build " code { (first.build) } }
        }
    }
}

fn strips(campaign: &Campaign, headers: &[&Header], rows: &[&Row]) -> Markup {
    let axis = Axis::of(rows.iter().copied());
    if axis.len() == 0 {
        return html! { p.soft { "No points." } };
    }
    let seen = Summary::of(rows.iter().copied()).verdicts();
    html! {
        div.strips {
            @for header in headers {
                @let summary = Summary::of(campaign.rows_of(header));
                figure.strip {
                    figcaption {
                        span.policy { "policy " (header.policy) }
                        span.soft { (summary.total()) " runs at " (Axis::of(campaign.rows_of(header)).len()) " points, " (summary.violations()) " violations" }
                    }
                    (PreEscaped(axis.draw(
                        &format!("Points of {} under {}, coloured by verdict", header.scenario, header.policy),
                        campaign.rows_of(header),
                    )))
                }
            }
        }
        ul.legend aria-label="Colours" { @for verdict in seen { li { (badge(verdict)) } } }
    }
}

fn table(header: &Header, summary: &Summary) -> Markup {
    let verdicts = summary.verdicts();
    let cell = |count: u64, verdict: Verdict| {
        let class = match (count, verdict) {
            (0, _) => "zero".to_string(),
            (_, Verdict::Ok) => String::new(),
            _ => format!("hit {}", style::class(verdict)),
        };
        html! { td class=[(!class.is_empty()).then_some(class)] { (count) } }
    };
    html! {
        div.scroll { table {
            caption { "Runs under " span.policy { "policy " (header.policy) } " by kind of point and verdict" }
            thead { tr {
                th scope="col" { "before each" }
                @for &verdict in &verdicts { th scope="col" { (badge(verdict)) } }
                th scope="col" { "all" }
            } }
            tbody {
                @for kind in summary.kinds() {
                    tr {
                        th scope="row" { (kind.map_or("schedule only", Named::name)) }
                        @for &verdict in &verdicts { (cell(summary.count(kind, verdict), verdict)) }
                        td { (verdicts.iter().map(|&v| summary.count(kind, v)).sum::<u64>()) }
                    }
                }
                tr.sum {
                    th scope="row" { "all" }
                    @for &verdict in &verdicts { td { (summary.verdict(verdict)) } }
                    td { (summary.total()) }
                }
            }
        } }
    }
}

/// The same experiments under the first policy and each of the others.
fn comparison(campaign: &Campaign, headers: &[&Header]) -> Markup {
    let (Some((first, others)), true) = (headers.split_first(), headers.len() > 1) else {
        return html! {};
    };
    html! {
        @for other in others {
            @let pairs = pairs(campaign, first, other);
            @if !pairs.is_empty() {
                @let (left, right) = (sides(&pairs, |p| p.0), sides(&pairs, |p| p.1));
                div.scroll { table {
                    caption { "The same fault at the same point: " (first.policy) " (down) against " (other.policy) " (across)" }
                    thead { tr {
                        th scope="col" { (first.policy) }
                        @for &verdict in &right { th scope="col" { (badge(verdict)) } }
                    } }
                    tbody {
                        @for &down in &left {
                            tr {
                                th scope="row" { (badge(down)) }
                                @for &across in &right {
                                    @let count = pairs.iter().filter(|p| **p == (down, across)).count();
                                    td.zero[count == 0] { (count) }
                                }
                            }
                        }
                    }
                } }
            }
        }
    }
}

fn pairs(campaign: &Campaign, first: &Header, other: &Header) -> Vec<(Verdict, Verdict)> {
    let experiments: std::collections::HashMap<String, Verdict> = campaign
        .rows_of(other)
        .map(|row| (row.experiment(), row.verdict))
        .collect();
    let pair = |row: &Row| Some((row.verdict, *experiments.get(&row.experiment())?));
    campaign.rows_of(first).filter_map(pair).collect()
}

fn sides(
    pairs: &[(Verdict, Verdict)],
    side: impl Fn(&(Verdict, Verdict)) -> Verdict,
) -> Vec<Verdict> {
    let all = Verdict::ALL.iter().copied();
    all.filter(|verdict| pairs.iter().any(|pair| side(pair) == *verdict))
        .collect()
}

fn footer(campaign: &Campaign) -> Markup {
    html! {
        footer {
            p { "A point is a moment before a copy, a fill, a page fault or a message between the memory server and others. Each run is the run without a fault up to its point, where one page is made absent; " code { "absentia replay TOKEN" } " makes it again, step by step the same." }
            @if let Some(header) = campaign.headers.first() { p { "Build " code { (header.build) } ", trace of the run without a fault " code { (header.baseline.records) } "." } }
        }
    }
}

/// Microseconds in words.
fn duration(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        1_000_000..120_000_000 => format!("{:.1} s", micros as f64 / 1e6),
        _ => format!("{:.0} min", micros as f64 / 60e6),
    }
}

#[cfg(test)]
mod tests;

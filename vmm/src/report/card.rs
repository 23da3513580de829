//! One way to fail, on a card: what was done where, what the run without it did, what this one
//! did, who waits for whom, how to see it again.

use maud::{Markup, html};

use super::groups::Group;
use super::style;
use crate::explore::build;
use crate::explore::campaign::Campaign;
use crate::explore::row::{Baseline, Row, Verdict};

/// Tokens that are listed on a card beside the first.
const LISTED: usize = 60;

/// A verdict's name with its colour.
pub fn badge(verdict: Verdict) -> Markup {
    html! { span class={ "badge " (style::class(verdict)) } { (verdict) } }
}

/// The row's token with the build of its campaign.
fn signed(campaign: &Campaign, row: &Row) -> String {
    match campaign.headers.first() {
        Some(header) => build::signed(&row.token, &header.build),
        None => row.token.clone(),
    }
}

/// The card of a group.
pub fn card(campaign: &Campaign, group: &Group<'_>, baseline: Option<&Baseline>) -> Markup {
    let row = group.first();
    let count = group.rows.len();
    html! {
        article class={ "card " (style::class(row.verdict)) } {
            header {
                (badge(row.verdict))
                span.policy { "policy " (row.policy) }
                @if count > 1 { span.soft { (count) " runs end like this" } }
            }
            h4 { (title(row)) }
            dl {
                dt { "Injected" }
                dd { (injected(row)) }
                dt { "Without it" }
                dd { (without(baseline)) }
                dt { "With it" }
                dd { p { (with(row)) } @if !row.detail.is_empty() { p { (row.detail) } } }
                @for other in others(campaign, row) {
                    dt { "Under " (other.policy) }
                    dd { (badge(other.verdict)) @if other.retries > 0 { span.soft { " after " (times(other.retries)) } } }
                }
                dt { "See it again" }
                dd {
                    code.replay { "absentia replay " (signed(campaign, row)) }
                    @if !row.portable.is_empty() {
                        p { span.soft { "in another build: " } code { (row.portable) } }
                    }
                }
            }
            @if !row.cycle.is_empty() || !row.picture.is_empty() {
                div.wait {
                    @if !row.picture.is_empty() {
                        img.picture src=(data_uri(&row.picture)) alt=(alternative(row));
                    }
                    @if !row.cycle.is_empty() {
                        (reasons(&row.cycle))
                    }
                }
            }
            @if count > 1 {
                details {
                    summary { (count - 1) " more with the same end" }
                    ul {
                        @for row in group.rows.iter().skip(1).take(LISTED) { li { code { (row.token) } } }
                    }
                    @if count > LISTED + 1 { p.soft { "and " (count - 1 - LISTED) " more, in the file of rows" } }
                }
            }
        }
    }
}

fn title(row: &Row) -> String {
    match row.faults.first() {
        Some(fault) => fault.point.what.clone(),
        None => format!("no page is absent; decisions by schedule {}", row.schedule),
    }
}

/// Which fault, where.
fn injected(row: &Row) -> Markup {
    let schedule = (row.schedule != "first").then_some(&row.schedule);
    html! {
        @if row.faults.is_empty() { p { "no fault" } }
        @for fault in &row.faults {
            p { (capital(&fault.describe())) "." @if row.faults.len() > 1 { " " span.soft { (fault.point.what) } } }
        }
        @if let Some(schedule) = schedule { p { "Decisions by schedule " code { (schedule) } "." } }
    }
}

fn without(baseline: Option<&Baseline>) -> Markup {
    html! {
        @match baseline {
            Some(run) => {
                p {
                    "exit status " (run.status)
                    @if run.stdout.trim().is_empty() { ", no output" } @else { "; " code { (excerpt(&run.stdout)) } }
                }
            }
            None => p.soft { "not known" }
        }
    }
}

fn with(row: &Row) -> &'static str {
    match row.verdict {
        Verdict::Ok => "the same",
        Verdict::ErrorSurfaced => "the program was told an error that the scenario allows",
        Verdict::WrongData => "the program ran to its end with a wrong result",
        Verdict::Leak => "the result is right, and something is left over that must not be",
        Verdict::Hang => "it did not end in time",
        Verdict::Livelock => "it goes on for ever without getting anywhere",
        Verdict::Deadlock => "the system stands still for ever",
        Verdict::ServerCrash => "a server died",
        Verdict::KernelCrash => "the kernel died",
    }
}

/// The same experiment under other policies.
fn others<'a>(campaign: &'a Campaign, row: &Row) -> Vec<&'a Row> {
    let experiment = row.experiment();
    let is = |other: &&Row| {
        other.policy != row.policy
            && other.scenario == row.scenario
            && other.experiment() == experiment
    };
    campaign.rows.iter().filter(is).collect()
}

fn times(retries: u64) -> String {
    match retries {
        1 => "1 copy that was tried again".into(),
        n => format!("{n} copies that were tried again"),
    }
}

fn alternative(row: &Row) -> String {
    let ring = row.cycle.lines().take_while(|line| line.starts_with(' '));
    let waits: Vec<&str> = ring
        .filter_map(|line| line.trim().split(": ").next())
        .collect();
    if waits.is_empty() {
        "drawing of who waits for whom".into()
    } else {
        waits.join("; ")
    }
}

/// Who waits for whom, with the numbers of the picture's arrows.
fn reasons(cycle: &str) -> Markup {
    let (edges, headings): (Vec<&str>, Vec<&str>) =
        cycle.lines().partition(|line| line.starts_with(' '));
    // The circle's edges stand before the heading of the others.
    let circle = cycle
        .lines()
        .take_while(|line| line.starts_with(' '))
        .count();
    let (circle, others) = edges.split_at(circle);
    html! {
        div aria-label="who waits for whom" {
            ol { @for edge in circle { li { (edge.trim()) } } }
            @if !others.is_empty() {
                @for heading in headings { p { (heading) } }
                ol start=(circle.len() + 1) { @for edge in others { li { (edge.trim()) } } }
            }
        }
    }
}

/// The beginning of an output.
pub fn excerpt(text: &str) -> String {
    const MOST: usize = 160;
    let line = text.trim().replace('\n', " ⏎ ");
    if line.chars().count() <= MOST {
        line
    } else {
        line.chars().take(MOST).chain(['…']).collect()
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

/// An SVG as the address of an image: nothing in it can act on the page.
fn data_uri(svg: &str) -> String {
    let mut uri = String::from("data:image/svg+xml,");
    for byte in svg.bytes() {
        match byte {
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b' '
            | b'-'
            | b'_'
            | b'.'
            | b'/'
            | b':'
            | b'='
            | b','
            | b';'
            | b'('
            | b')' => {
                uri.push(byte as char);
            }
            _ => uri += &format!("%{byte:02X}"),
        }
    }
    uri
}

use super::*;
use crate::explore::campaign::tests::header;
use crate::explore::row::tests::row;
use crate::explore::row::{PointKind, Side, Surfaced};
use crate::inspect::graph::Graph;
use crate::inspect::graph::tests::deadlocked;
use crate::inspect::{drawing, render};

/// A campaign as `d1-read` could have had it.
fn campaign() -> Campaign {
    let graph = Graph::new(&deadlocked());
    let mut rows = Vec::new();
    for policy in ["transparent", "try"] {
        for number in 180..240u64 {
            let side = if number % 3 == 0 {
                Side::Source
            } else {
                Side::Target
            };
            let mut row = row(policy, number, side, (number % 2) as u32, Verdict::Ok);
            row.faults[0].point.kind = PointKind::ALL[(number % 7 % 4) as usize];
            row.retries = number % 2;
            if policy == "transparent" && number % 5 == 1 {
                row.verdict = Verdict::Deadlock;
                row.cycle = render::text(&graph);
                row.picture = drawing::svg(&graph);
            }
            if policy == "transparent" && number == 207 {
                row.verdict = Verdict::WrongData;
                row.detail =
                    "standard output differs in line 1: \"<b>\" instead of \"all & right\"".into();
            }
            if policy == "try" && number == 212 {
                row.verdict = Verdict::ErrorSurfaced;
                row.surfaced = Some(Surfaced {
                    error: "EIO".into(),
                    who: "d1-read: read: error 5".into(),
                });
            }
            rows.push(row);
        }
    }
    let headers = ["transparent", "try"].map(|policy| {
        let mut header = header(policy);
        header.runs = 60;
        header
    });
    Campaign::new(headers.to_vec(), rows)
}

/// Every element that opens closes, in order.
fn check(html: &str) {
    const VOID: [&str; 3] = ["meta", "img", "!DOCTYPE"];
    let mut open: Vec<String> = Vec::new();
    for piece in html.split('<').skip(1) {
        let (tag, _) = piece.split_once('>').expect("a tag ends");
        let name: String = tag
            .trim_start_matches('/')
            .chars()
            .take_while(|c| !c.is_whitespace() && *c != '/')
            .collect();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(closed.trim()), "near <{tag}>");
        } else if !VOID.contains(&name.as_str()) && !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_page_tells_it_all() {
    let campaign = campaign();
    let html = page(&campaign);
    // To be looked at.
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp/report");
    super::super::write(&directory, &campaign).unwrap();
    check(&html);
    for text in [
        "In 13 of 120 runs the system did what it must not",
        "absentia replay d1-read@transparent+181.t1.pte~first",
        "Before point 181, page 2 of the target is taken out of the page table",
        "11 more with the same end",
        "vfs waits for ext2",
        "data:image/svg+xml,",
        "Under try",
        "The same fault at the same point: transparent (down) against try (across)",
        "&lt;b&gt;",
        "all &amp; right",
        "d1-read: read: error 5",
        "prefers-color-scheme:dark",
    ] {
        assert!(html.contains(text), "{text:?} is missing");
    }
    // A name, not an address.
    let html = html.replace("http://www.w3.org/2000/svg", "");
    assert!(!html.contains("<script") && !html.contains("http://") && !html.contains("https://"));
}

#[test]
fn what_is_empty_or_incomplete_is_said() {
    let html = page(&Campaign::default());
    check(&html);
    assert!(html.contains("No run has been made yet"));
    let mut part = campaign();
    part.rows.retain(|row| row.policy == "try");
    part.headers.retain(|header| header.policy == "try");
    part.headers[0].runs = 1000;
    let html = page(&part);
    check(&html);
    assert!(html.contains("60 of 1000 runs are here"));
    assert!(html.contains("Nothing went wrong in 60 runs; in 1 of them"));
    assert!(html.contains("No violations"));
}

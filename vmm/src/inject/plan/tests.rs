//! Tokens are read as they are written.

use proptest::prelude::*;

use super::super::name::{Part, PointName};
use super::super::target::{ProcessName, Who};
use super::*;
use crate::inject::terms::PointKind;

#[test]
fn tokens_are_read_as_they_are_written() {
    for token in [
        "d1-read@try~first",
        "d1-read@transparent+412.t0.pte~first",
        "exec-cold@try+1.s3.slot.never+7.t0.slot.3~r:99",
        "x@file-only+5.r12.read-only~p:1",
        "x@try~r:7:100-250",
        "x@try+5.i0.pte+5.d0.pte~l:4=1,17=2",
        "x@try+5.g0.pte+6.p1a2b.slot.50us+7.v/ext2:7f001000.slot.2ms~first",
        "x@try+5.v/a%2Eb:ff000.pte+5.v/#12:0.read-only~first",
    ] {
        let plan: Plan = token.parse().unwrap();
        assert_eq!(plan.to_string(), token);
    }
    let plan: Plan = "x@try+9.s0.pte+3.t1.slot.asked".parse().unwrap();
    assert_eq!(plan.to_string(), "x@try+3.t1.slot+9.s0.pte~first");
}

#[test]
fn what_is_wrong_is_said() {
    for (token, what) in [
        ("", "@POLICY"),
        ("@try", "scenario"),
        ("x@maybe", "copy policy"),
        ("x@try+a.t0.pte", "point"),
        ("x@try+1.q0.pte", "side"),
        ("x@try+1.tx.pte", "page"),
        ("x@try+1.t0.disk", "layer"),
        ("x@try+1.t0", "layer"),
        ("x@try+1.t0.pte.never", "slot"),
        ("x@try+1.t0.slot.0", "number"),
        ("x@try+1.t0.slot.5m", "number"),
        ("x@try+1.t0.slot.0us", "number"),
        ("x@try+1.p.slot", "frame"),
        ("x@try+1.p+1.slot", "frame"),
        ("x@try+1.v/x.slot", "v/PROCESS:ADDRESS"),
        ("x@try+1.v/x:y.slot", "address"),
        ("x@try+1.v/:0.slot", "process"),
        ("x@try+1.v/a-name-that-is-too-long:0.slot", "process"),
        ("x@try+1.v/#a:0.slot", "slot"),
        ("x@try+copy/a/b/c/1.t0.pte", "number of a point"),
        ("x@try~z", "schedule"),
        ("x@try~r:z", "seed"),
        ("x@try~l:1", "choice"),
        ("x@try~r:1:9", "window"),
        ("x@try+1.é0.pte", "side"),
    ] {
        let error = token.parse::<Plan>().unwrap_err().to_string();
        assert!(error.contains(what), "{token}: {error}");
    }
}

#[test]
fn a_schedule_fills_its_part() {
    let mut control = Control::OFF;
    Schedule::List(vec![(3, 1), (9, 2)]).fill(&mut control);
    assert_eq!((control.mode, control.choice_count), (Mode::List as u64, 2));
    assert_eq!(control.choices[1], 9 | 2 << 32);
    Schedule::Random(7, Window::ALL).fill(&mut control);
    assert_eq!(
        (control.mode, control.seed, control.choice_count),
        (Mode::Random as u64, 7, 0)
    );
}

#[test]
fn a_window_may_have_no_end() {
    let open = Schedule::Priorities(
        7,
        Window {
            start: 31,
            end: u64::MAX,
        },
    );
    assert_eq!(open.to_string(), "p:7:31-");
    for (text, end) in [("p:7:31-", u64::MAX), ("p:7:31-40", 40)] {
        let window = Window { start: 31, end };
        assert_eq!(text.parse(), Ok(Schedule::Priorities(7, window)));
    }
    assert!("p:7:-40".parse::<Schedule>().is_err());
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        Just(Part::Any),
        Just(Part::Unknown),
        any::<String>()
            .prop_filter("an empty part matches anything", |text| !text.is_empty())
            .prop_map(Part::Is),
        Just(Part::Is("-".into())),
        Just(Part::Is("a.b+c~d@e/f%".into())),
    ]
}

fn place() -> impl Strategy<Value = Place> {
    let kind = prop::option::of(prop::sample::select(PointKind::ALL));
    let name = (kind, part(), part(), part(), prop::option::of(1u64..));
    let name = name.prop_map(|(kind, actor, call, file, ordinal)| PointName {
        kind,
        actor,
        call,
        file,
        ordinal,
    });
    prop_oneof![
        any::<u64>().prop_map(Place::Number),
        name.prop_map(Place::Name)
    ]
}

fn target() -> impl Strategy<Value = Target> {
    let name = any::<String>().prop_filter_map("names have 16 bytes", |text| {
        ProcessName::new(&text).map(Who::Name)
    });
    let who = prop_oneof![name, any::<u32>().prop_map(Who::Slot)];
    prop_oneof![
        (prop::sample::select(&Side::ALL[..]), any::<u32>()).prop_map(|(s, n)| Target::Side(s, n)),
        any::<u64>().prop_map(Target::Frame),
        (who, any::<u64>()).prop_map(|(who, at)| Target::Page(who, abi::page_down(at))),
    ]
}

fn fault() -> impl Strategy<Value = Fault<Place>> {
    let layer = prop::sample::select(Layer::ALL);
    let give = prop_oneof![
        Just(Give::Asked),
        (1u32..).prop_map(Give::After),
        (1u64..).prop_map(Give::Later),
        (1u64..1_000_000).prop_map(|us| Give::Later(us * 1_000)),
        Just(Give::Never),
    ];
    (place(), target(), layer, give).prop_map(|(point, target, layer, give)| Fault {
        point,
        target,
        layer,
        give: if layer == Layer::Slot {
            give
        } else {
            Give::Asked
        },
    })
}

proptest! {
    #[test]
    fn whatever_is_written_is_read(faults in prop::collection::vec(fault(), 0..4)) {
        let token = Token { faults, ..named() };
        let text = token.to_string();
        prop_assert!(text.is_ascii() && !text.contains(' '), "{text}");
        prop_assert_eq!(text.parse::<Token>().unwrap(), token);
    }

    #[test]
    fn garbage_is_refused_and_nothing_worse(text in ".*") {
        let _ = text.parse::<Token>();
        let _ = format!("x@try+{text}").parse::<Token>();
        let _ = format!("x@try+1.{text}").parse::<Plan>();
    }
}

fn named() -> Token {
    "x@try".parse().unwrap()
}

#[test]
fn names_are_written_like_this() {
    for token in [
        "d1-read@try+copy/ext2/read/data.bin/2.t0.pte~first",
        "x@try+//read//.s1.slot.50us+412.v/ext2:1000.pte~r:9",
        "x@try+request/vfs/HandleMemory/-/1.r0.pte~first",
    ] {
        assert_eq!(token.parse::<Token>().unwrap().to_string(), token);
        assert!(token.parse::<Plan>().is_err());
    }
}

//! A wait-for graph as a drawing: the circle in the middle, who else waits around it.

use std::collections::HashMap;
use std::f64::consts::TAU;
use std::fmt::Write as _;

use super::graph::{Edge, Graph};
use crate::xml::escaped;

/// Size of the drawing, units of SVG.
const SIZE: (f64, f64) = (720.0, 400.0);
const CENTRE: (f64, f64) = (SIZE.0 / 2.0, SIZE.1 / 2.0);
/// Radii of the circle's processes, and of the others.
const INNER: (f64, f64) = (130.0, 105.0);
const OUTER: (f64, f64) = (305.0, 180.0);
/// Half a box.
const BOX: (f64, f64) = (52.0, 17.0);
/// Height of a line of the list.
const LINE: f64 = 20.0;

/// The drawing alone: boxes, and arrows numbered in the order of [`Graph::in_order`].
pub fn svg(graph: &Graph) -> String {
    draw(graph, false)
}

/// The drawing with the reason for each arrow in a list below.
pub fn with_reasons(graph: &Graph) -> String {
    draw(graph, true)
}

fn draw(graph: &Graph, reasons: bool) -> String {
    let (cycle, others) = graph.in_order();
    let places = places(graph, &cycle, &others);
    let lines = if reasons { graph.edges.len() } else { 0 };
    let height = SIZE.1 + LINE * lines as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {height}\" width=\"{0}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"8\" \
         markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0L10 5L0 10z\"/></marker></defs>\n",
        SIZE.0
    );
    let red = cycle.iter().map(|edge| (edge, "#c00"));
    let grey = others.iter().map(|edge| (edge, "#777"));
    for (number, (edge, color)) in (1..).zip(red.chain(grey)) {
        let (from, to) = (graph.name(edge.from), graph.name(edge.to));
        arrow(&mut svg, places[&from], places[&to], number, color);
        if reasons {
            let _ = writeln!(
                svg,
                "<text x=\"20\" y=\"{:.0}\" fill=\"{color}\">{number}. {} waits for {}: {}</text>",
                SIZE.1 + LINE * (f64::from(number) - 0.5),
                escaped(&from),
                escaped(&to),
                escaped(&edge.why)
            );
        }
    }
    let mut boxes: Vec<_> = places.into_iter().collect();
    boxes.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, (x, y)) in boxes {
        let _ = writeln!(
            svg,
            "<rect x=\"{:.0}\" y=\"{:.0}\" width=\"{:.0}\" height=\"{:.0}\" rx=\"6\" \
             fill=\"#eef\" stroke=\"#336\"/>\n\
             <text x=\"{x:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            x - BOX.0,
            y - BOX.1,
            2.0 * BOX.0,
            2.0 * BOX.1,
            y + 4.5,
            escaped(&name)
        );
    }
    svg + "</svg>\n"
}

/// Where each process's box has its centre. One that waits for somebody in the circle stands
/// outside of him; without a circle all stand around.
fn places(graph: &Graph, cycle: &[&Edge], others: &[&Edge]) -> HashMap<String, (f64, f64)> {
    let at = |radius: (f64, f64), angle: f64| {
        (
            CENTRE.0 + radius.0 * angle.sin(),
            CENTRE.1 - radius.1 * angle.cos(),
        )
    };
    let mut angles: HashMap<String, f64> = HashMap::new();
    let mut places = HashMap::new();
    let sector = TAU / cycle.len().max(1) as f64;
    for (i, edge) in cycle.iter().enumerate() {
        let (name, angle) = (graph.name(edge.from), sector * i as f64);
        places.insert(name.clone(), at(INNER, angle));
        angles.insert(name, angle);
    }
    // Outside of whom each other process stands, found from the circle outwards.
    let mut around: Vec<(f64, Vec<String>)> = Vec::new();
    let mut waiting: Vec<&&Edge> = others.iter().collect();
    while !waiting.is_empty() {
        let before = waiting.len();
        waiting.retain(|edge| {
            let (name, target) = (graph.name(edge.from), graph.name(edge.to));
            if angles.contains_key(&name) {
                return false;
            }
            let Some(&angle) = angles.get(&target) else {
                return true;
            };
            angles.insert(name.clone(), angle);
            match around.iter_mut().find(|(there, _)| *there == angle) {
                Some((_, names)) => names.push(name),
                None => around.push((angle, vec![name])),
            }
            false
        });
        if waiting.len() == before {
            break;
        }
    }
    for (angle, names) in around {
        let step = (sector / names.len() as f64).min(0.45);
        let first = angle - step * (names.len() - 1) as f64 / 2.0;
        for (i, name) in names.into_iter().enumerate() {
            places.insert(name, at(OUTER, first + step * i as f64));
        }
    }
    // Who does not lead to the circle.
    let mut rest: Vec<String> = Vec::new();
    for name in others
        .iter()
        .flat_map(|edge| [graph.name(edge.from), graph.name(edge.to)])
    {
        if !places.contains_key(&name) && !rest.contains(&name) {
            rest.push(name);
        }
    }
    let step = TAU / rest.len().max(1) as f64;
    // Beside those of the circle, if there are some.
    let start = if cycle.is_empty() { 0.0 } else { sector / 2.0 };
    for (i, name) in rest.into_iter().enumerate() {
        places.insert(name, at(OUTER, start + step * i as f64));
    }
    places
}

/// An arrow from the border of one box to that of another, with its number in the middle.
fn arrow(svg: &mut String, from: (f64, f64), to: (f64, f64), number: i32, color: &str) {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let border = (BOX.0 / dx.abs().max(1e-6))
        .min(BOX.1 / dy.abs().max(1e-6))
        .min(0.45);
    let (x1, y1) = (from.0 + dx * border, from.1 + dy * border);
    let (x2, y2) = (to.0 - dx * border, to.1 - dy * border);
    let (x, y) = ((x1 + x2) / 2.0, (y1 + y2) / 2.0);
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.0}\" y1=\"{y1:.0}\" x2=\"{x2:.0}\" y2=\"{y2:.0}\" stroke=\"{color}\" \
         stroke-width=\"2\" marker-end=\"url(#tip)\"/>\n\
         <circle cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"10\" fill=\"white\" stroke=\"{color}\"/>\n\
         <text x=\"{x:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{number}</text>",
        y + 4.5
    );
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::deadlocked;
    use super::*;

    #[test]
    fn boxes_stand_apart_and_arrows_are_numbered() {
        let graph = Graph::new(&deadlocked());
        let svg = svg(&graph);
        assert_eq!(svg.matches("<line").count(), 4);
        assert_eq!(svg.matches("rx=\"6\"").count(), 4);
        assert_eq!(svg.matches("stroke=\"#c00\" stroke-width").count(), 3);
        assert!(!svg.contains("waits for"), "{svg}");
        let alone = with_reasons(&graph);
        assert!(alone.contains("4. writer (40) waits for vfs"), "{alone}");
        let (cycle, others) = graph.in_order();
        let places: Vec<_> = places(&graph, &cycle, &others).into_values().collect();
        for (i, a) in places.iter().enumerate() {
            for b in &places[i + 1..] {
                let apart = (a.0 - b.0).abs() > 2.0 * BOX.0 || (a.1 - b.1).abs() > 2.0 * BOX.1;
                assert!(apart, "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn without_a_circle_everybody_has_a_place() {
        let mut graph = Graph::new(&deadlocked());
        graph.edges.truncate(1);
        assert!(graph.cycle().is_none());
        assert_eq!(svg(&graph).matches("rx=\"6\"").count(), 2);
    }
}

//! A wait-for graph as text, DOT and SVG.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use super::graph::{Edge, Graph};

/// As text: the circle if there is one, then who else waits.
pub fn text(graph: &Graph) -> String {
    let cycle = graph.cycle().unwrap_or_default();
    let mut text = String::new();
    for edge in &cycle {
        line(&mut text, graph, edge);
    }
    let mut others = graph
        .edges
        .iter()
        .filter(|edge| !cycle.contains(edge))
        .peekable();
    if others.peek().is_some() {
        text += if cycle.is_empty() {
            "who waits:\n"
        } else {
            "who else waits:\n"
        };
    }
    for edge in others {
        line(&mut text, graph, edge);
    }
    text
}

fn line(text: &mut String, graph: &Graph, edge: &Edge) {
    let (from, to) = (graph.name(edge.from), graph.name(edge.to));
    let _ = writeln!(text, "  {from} waits for {to}: {}", edge.why);
}

/// The nodes' names, each once, the circle's first and in its order.
fn nodes(graph: &Graph) -> Vec<String> {
    let cycle = graph.cycle().unwrap_or_default();
    let mut nodes: Vec<String> = Vec::new();
    let ends = cycle.into_iter().chain(&graph.edges);
    for name in ends.flat_map(|edge| [graph.name(edge.from), graph.name(edge.to)]) {
        if !nodes.contains(&name) {
            nodes.push(name);
        }
    }
    nodes
}

/// As a DOT graph (graphviz).
pub fn dot(graph: &Graph) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let cycle = graph.cycle().unwrap_or_default();
    let mut dot = String::from("digraph waits {\n  node [shape=box];\n");
    for edge in &graph.edges {
        let color = if cycle.contains(&edge) { "red" } else { "gray" };
        let _ = writeln!(
            dot,
            "  {} -> {} [label={}, color={color}];",
            quoted(&graph.name(edge.from)),
            quoted(&graph.name(edge.to)),
            quoted(&edge.why)
        );
    }
    dot + "}\n"
}

/// As a drawing: the processes on a circle, an arrow for each wait, its reason in a list below.
pub fn svg(graph: &Graph) -> String {
    const WIDTH: f64 = 760.0;
    const CENTRE: (f64, f64) = (WIDTH / 2.0, 230.0);
    const RADIUS: (f64, f64) = (270.0, 170.0);
    /// Half a box.
    const BOX: (f64, f64) = (62.0, 18.0);
    let nodes = nodes(graph);
    let cycle = graph.cycle().unwrap_or_default();
    let place = |i: usize| {
        let angle = std::f64::consts::TAU * i as f64 / nodes.len().max(1) as f64;
        (
            CENTRE.0 + RADIUS.0 * angle.sin(),
            CENTRE.1 - RADIUS.1 * angle.cos(),
        )
    };
    let index = |name: String| nodes.iter().position(|node| *node == name).unwrap_or(0);
    let height = 460.0 + 20.0 * graph.edges.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" \
         fill=\"white\"/>\n<defs><marker id=\"tip\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" \
         markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0L10 5L0 10z\"/>\
         </marker></defs>\n"
    );
    for (number, edge) in graph.edges.iter().enumerate() {
        let color = if cycle.contains(&edge) {
            "#c00"
        } else {
            "#999"
        };
        let (from, to) = (
            place(index(graph.name(edge.from))),
            place(index(graph.name(edge.to))),
        );
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        // From border to border of the boxes.
        let scale = (BOX.0 / dx.abs().max(1e-6))
            .min(BOX.1 / dy.abs().max(1e-6))
            .min(0.45);
        let (x1, y1) = (from.0 + dx * scale, from.1 + dy * scale);
        let (x2, y2) = (to.0 - dx * scale, to.1 - dy * scale);
        let (mx, my) = ((x1 + x2) / 2.0, (y1 + y2) / 2.0);
        let _ = writeln!(
            svg,
            "<line x1=\"{x1:.0}\" y1=\"{y1:.0}\" x2=\"{x2:.0}\" y2=\"{y2:.0}\" stroke=\"{color}\" \
             stroke-width=\"2\" marker-end=\"url(#tip)\"/>\n<circle cx=\"{mx:.0}\" cy=\"{my:.0}\" \
             r=\"11\" fill=\"white\" stroke=\"{color}\"/>\n<text x=\"{mx:.0}\" y=\"{:.0}\" \
             text-anchor=\"middle\">{}</text>",
            my + 4.5,
            number + 1
        );
        let _ = writeln!(
            svg,
            "<text x=\"20\" y=\"{:.0}\" fill=\"{color}\">{}. {} waits for {}: {}</text>",
            455.0 + 20.0 * number as f64,
            number + 1,
            escaped(&graph.name(edge.from)),
            escaped(&graph.name(edge.to)),
            escaped(&edge.why)
        );
    }
    for (i, node) in nodes.iter().enumerate() {
        let (x, y) = place(i);
        let _ = writeln!(
            svg,
            "<rect x=\"{:.0}\" y=\"{:.0}\" width=\"{:.0}\" height=\"{:.0}\" rx=\"6\" \
             fill=\"#eef\" stroke=\"#336\"/>\n<text x=\"{x:.0}\" y=\"{:.0}\" \
             text-anchor=\"middle\">{}</text>",
            x - BOX.0,
            y - BOX.1,
            2.0 * BOX.0,
            2.0 * BOX.1,
            y + 4.5,
            escaped(node)
        );
    }
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Writes `NAME.txt`, `NAME.dot` and `NAME.svg` into a directory, which is made if need be.
pub fn write(directory: &Path, name: &str, graph: &Graph) -> Result<()> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("the report directory {}", directory.display()))?;
    for (kind, contents) in [
        ("txt", text(graph)),
        ("dot", dot(graph)),
        ("svg", svg(graph)),
    ] {
        let path = directory.join(format!("{name}.{kind}"));
        std::fs::write(&path, contents).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::deadlocked;
    use super::*;

    #[test]
    fn a_circle_in_three_forms() {
        let graph = Graph::new(&deadlocked());
        let text = text(&graph);
        assert!(
            text.contains("  vfs waits for ext2: Peek at page 2 of inode 12"),
            "{text}"
        );
        assert!(
            text.contains("who else waits:\n  writer (40) waits for vfs"),
            "{text}"
        );
        let dot = dot(&graph);
        assert_eq!(dot.matches("color=red").count(), 3, "{dot}");
        let svg = svg(&graph);
        assert_eq!(svg.matches("<line").count(), 4);
        assert_eq!(svg.matches("rx=\"6\"").count(), 4);
        let directory = tempfile::tempdir().unwrap();
        write(&directory.path().join("new"), "cycle", &graph).unwrap();
        assert!(directory.path().join("new/cycle.svg").is_file());
    }
}

//! A wait-for graph as text and DOT, and as files.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use super::drawing;
use super::graph::{Edge, Graph};

/// As text: the circle if there is one, then who else waits.
pub fn text(graph: &Graph) -> String {
    let (cycle, others) = graph.in_order();
    let mut text = String::new();
    for edge in &cycle {
        line(&mut text, graph, edge);
    }
    if !others.is_empty() {
        text += if cycle.is_empty() {
            "who waits:\n"
        } else {
            "who else waits:\n"
        };
    }
    for edge in others {
        line(&mut text, graph, edge);
    }
    if graph.left_out > 0 {
        let _ = writeln!(text, "  and {} more", graph.left_out);
    }
    text
}

fn line(text: &mut String, graph: &Graph, edge: &Edge) {
    let (from, to) = (graph.name(edge.from), graph.name(edge.to));
    let _ = writeln!(text, "  {from} waits for {to}: {}", edge.why);
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

/// Writes `NAME.txt`, `NAME.dot` and `NAME.svg` into a directory, which is made if need be.
pub fn write(directory: &Path, name: &str, graph: &Graph) -> Result<()> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("the report directory {}", directory.display()))?;
    for (kind, contents) in [
        ("txt", text(graph)),
        ("dot", dot(graph)),
        ("svg", drawing::with_reasons(graph)),
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
    fn a_circle_as_text_and_in_files() {
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
        let directory = tempfile::tempdir().unwrap();
        write(&directory.path().join("new"), "cycle", &graph).unwrap();
        assert!(directory.path().join("new/cycle.svg").is_file());
    }
}

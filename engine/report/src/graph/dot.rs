//! The graph for Graphviz.

use std::fmt::Write as _;

use crate::graph::value::{Graph, State};

/// Returns the graph in the DOT language, from left to right, with a legend.
pub fn dot(graph: &Graph) -> String {
    let mut out = String::from("digraph experiment {\n");
    let title = quoted(&graph.title);
    let font = "fontname=\"Helvetica,Arial,sans-serif\"";
    let _ = writeln!(out, "  graph [rankdir=LR, label={title}, labelloc=t, {font}];");
    let _ = writeln!(out, "  node [shape=box, style=\"rounded,filled\", {font}, fontsize=11];");
    let _ = writeln!(out, "  edge [color=\"#7b8494\", {font}, fontsize=9, arrowsize=0.7];");
    for (at, node) in graph.nodes.iter().enumerate() {
        let label = quoted(&format!("{}\n{}\n{}", node.name, node.subtitle(), node.state.word()));
        let _ = writeln!(out, "  n{at} [label={label}, {}];", colours(node.state));
    }
    for edge in graph.valid_edges() {
        let _ = writeln!(out, "  n{} -> n{} [label={}];", edge.from, edge.to, quoted(&edge.port));
    }
    let states = graph.states();
    if !states.is_empty() {
        out.push_str("  subgraph cluster_legend {\n    label=\"legend\"; color=\"#c5cad3\";\n");
        for state in states {
            let (class, word) = (state.class(), state.word());
            let _ = writeln!(out, "    legend_{class} [label=\"{word}\", {}];", colours(state));
        }
        out.push_str("  }\n");
    }
    out.push_str("}\n");
    out
}

fn colours(state: State) -> String {
    format!("fillcolor=\"{}\", color=\"{}\"", state.fill(), state.stroke())
}

/// Returns a string literal. Graphviz reads escapes and also HTML entities in it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '&' => out.push_str("&amp;"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::svg::tests::{graph, nasty};
    use insta::assert_snapshot;
    use proptest::prelude::*;

    #[test]
    fn a_chain_is_drawn() {
        assert_snapshot!(dot(&graph(2, &[(0, 1)])), @r##"
        digraph experiment {
          graph [rankdir=LR, label="A graph", labelloc=t, fontname="Helvetica,Arial,sans-serif"];
          node [shape=box, style="rounded,filled", fontname="Helvetica,Arial,sans-serif", fontsize=11];
          edge [color="#7b8494", fontname="Helvetica,Arial,sans-serif", fontsize=9, arrowsize=0.7];
          n0 [label="stage_0\nkind\ncached", fillcolor="#e6f4ea", color="#2f7d46"];
          n1 [label="stage_1\nkind ×2\nto run", fillcolor="#e3eefb", color="#2563b0"];
          n0 -> n1 [label="rows"];
          subgraph cluster_legend {
            label="legend"; color="#c5cad3";
            legend_hit [label="cached", fillcolor="#e6f4ea", color="#2f7d46"];
            legend_run [label="to run", fillcolor="#e3eefb", color="#2563b0"];
          }
        }
        "##);
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(quoted("a\"b\\N\n&lt;\0"), r#""a\"b\\N\n&amp;lt; ""#);
    }

    proptest! {
        #[test]
        fn quotes_are_balanced(nasty in nasty()) {
            for line in dot(&nasty).lines() {
                let bare = line.replace("\\\\", "").replace("\\\"", "");
                prop_assert_eq!(bare.matches('"').count() % 2, 0);
            }
        }
    }
}

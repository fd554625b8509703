//! The graph for Mermaid, which GitHub and many notebooks draw.

use std::fmt::Write as _;

use crate::graph::value::Graph;

/// Returns the graph as a Mermaid flowchart, from left to right.
pub fn mermaid(graph: &Graph) -> String {
    let mut out = String::new();
    if !graph.title.trim().is_empty() {
        let _ = writeln!(out, "---\ntitle: \"{}\"\n---", yaml(&graph.title));
    }
    out.push_str("flowchart LR\n");
    for (at, node) in graph.nodes.iter().enumerate() {
        let (name, subtitle) = (escaped(&node.name), escaped(&node.subtitle()));
        let (word, class) = (node.state.word(), node.state.class());
        let _ = writeln!(out, "  n{at}[\"{name}<br/>{subtitle}<br/>{word}\"]:::{class}");
    }
    for edge in graph.valid_edges() {
        // An empty label is a syntax error.
        let port = match edge.port.trim() {
            "" => String::new(),
            port => format!("|\"{}\"|", escaped(port)),
        };
        let _ = writeln!(out, "  n{} -->{port} n{}", edge.from, edge.to);
    }
    for state in graph.states() {
        let (class, fill, stroke) = (state.class(), state.fill(), state.stroke());
        let _ = writeln!(out, "  classDef {class} fill:{fill},stroke:{stroke},color:#1f2430");
    }
    out
}

/// Returns the text with every mark that Mermaid, Markdown or HTML could read as its own written
/// as a number.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\n' => out.push_str("<br/>"),
            c if c.is_control() => out.push(' '),
            c if c.is_alphanumeric() || !c.is_ascii() => out.push(c),
            ' ' | '_' | '-' | '/' | '=' | ',' | ':' => out.push(c),
            c => {
                let _ = write!(out, "#{};", u32::from(c));
            }
        }
    }
    out
}

/// Returns the inside of a YAML string in double quotes.
fn yaml(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
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
        assert_snapshot!(mermaid(&graph(2, &[(0, 1)])), @r#"
        ---
        title: "A graph"
        ---
        flowchart LR
          n0["stage_0<br/>kind<br/>cached"]:::hit
          n1["stage_1<br/>kind ×2<br/>to run"]:::run
          n0 -->|"rows"| n1
          classDef hit fill:#e6f4ea,stroke:#2f7d46,color:#1f2430
          classDef run fill:#e3eefb,stroke:#2563b0,color:#1f2430
        "#);
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(escaped("a\"<b>[c]\n#"), "a#34;#60;b#62;#91;c#93;<br/>#35;");
        assert_eq!(yaml("a\"\\\n"), "a\\\"\\\\ ");
    }

    proptest! {
        #[test]
        fn every_thing_is_one_line(nasty in nasty()) {
            let text = mermaid(&nasty);
            let nodes = text.lines().filter(|line| line.contains("]:::")).count();
            prop_assert_eq!(nodes, nasty.nodes.len());
            let edges = text.lines().filter(|line| line.contains(" -->")).count();
            prop_assert_eq!(edges, nasty.valid_edges().count());
        }
    }
}

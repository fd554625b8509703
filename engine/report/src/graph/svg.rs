//! The graph as a picture: one SVG without scripts, styles, fonts or links.
//!
//! Everything is said by attributes and shapes, so that the picture can stand in a page beside
//! others, and a state by a mark as well as a colour.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::graph::layout::geometry::{Direction, Layout, LayoutInput, Link, Point, Size};
use crate::graph::layout::place::place;
use crate::graph::value::{Graph, Node, State};

const MARGIN: f64 = 28.0;
const TITLE_HEIGHT: f64 = 34.0;
const LEGEND_HEIGHT: f64 = 40.0;
const NODE_HEIGHT: f64 = 48.0;
const MARK: f64 = 9.0;
const INK: &str = "#1f2430";
const PALE_INK: &str = "#5b6472";
const LINE: &str = "#8a93a3";
const FONT: &str = "Helvetica, Arial, 'DejaVu Sans', sans-serif";

/// Returns the graph as an SVG document in layers, with a legend.
pub fn svg(graph: &Graph) -> String {
    let boxes: Vec<NodeBox> = graph.nodes.iter().map(NodeBox::of).collect();
    let wires = Wires::of(graph);
    let input = LayoutInput {
        sizes: boxes.iter().map(|node_box| Size { width: node_box.width, height: NODE_HEIGHT }).collect(),
        links: wires.ports.keys().copied().collect(),
    };
    let layout = place(&input);
    let title = shortened(&graph.title, 120);
    let top = if title.is_empty() { MARGIN } else { MARGIN + TITLE_HEIGHT };
    let legend = legend(&graph.states());
    let inner = layout.size.width.max(text_width(&title, 16.0)).max(legend.width);
    let below = if legend.body.is_empty() { 0.0 } else { LEGEND_HEIGHT };
    let (width, height) = (inner + 2.0 * MARGIN, top + layout.size.height + below + MARGIN);

    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" \
         viewBox=\"0 0 {0} {1}\" role=\"img\" font-family=\"{FONT}\">",
        px(width),
        px(height),
    );
    let _ = writeln!(out, "<title>{}</title>", escaped(&graph.title));
    let _ = writeln!(out, "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>");
    if !title.is_empty() {
        let (x, y) = (px(MARGIN), px(MARGIN + 14.0));
        let style = format!("font-size=\"16\" font-weight=\"bold\" fill=\"{INK}\"");
        let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" {style}>{}</text>", escaped(&title));
    }
    let left = MARGIN + (inner - layout.size.width) / 2.0;
    let _ = writeln!(out, "<g transform=\"translate({} {})\">", px(left), px(top));
    edges(&mut out, graph, &wires, (&input, &layout));
    nodes(&mut out, graph, &boxes, &layout);
    out.push_str("</g>\n");
    if !legend.body.is_empty() {
        let y = top + layout.size.height + LEGEND_HEIGHT - 10.0;
        let _ = writeln!(out, "<g transform=\"translate({} {})\">", px(MARGIN), px(y));
        out.push_str(&legend.body);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

/// Holds the text in a node's box and the width that it takes.
struct NodeBox {
    name: String,
    kind: String,
    copies: String,
    width: f64,
}

impl NodeBox {
    fn of(node: &Node) -> Self {
        let name = shortened(&node.name, 30);
        let kind = shortened(&node.kind, 30);
        let copies = if node.copies > 1 { format!("×{}", node.copies) } else { String::new() };
        let badge = if copies.is_empty() { 0.0 } else { text_width(&copies, 12.0) + 12.0 };
        let text = (text_width(&name, 13.0) * 1.06).max(text_width(&kind, 11.0));
        Self { name, kind, copies, width: (36.0 + text + badge + 14.0).round().max(110.0) }
    }
}

/// Holds the ports of each pair of nodes; several artifacts between the same two share a line.
struct Wires<'a> {
    ports: BTreeMap<Link, Vec<&'a str>>,
    loops: BTreeMap<usize, Vec<&'a str>>,
}

impl<'a> Wires<'a> {
    fn of(graph: &'a Graph) -> Self {
        let mut wires = Self { ports: BTreeMap::new(), loops: BTreeMap::new() };
        for edge in graph.valid_edges() {
            let ports = if edge.from == edge.to {
                wires.loops.entry(edge.from).or_default()
            } else {
                wires.ports.entry(Link { from: edge.from, to: edge.to }).or_default()
            };
            ports.push(&edge.port);
        }
        wires
    }
}

fn edges(out: &mut String, graph: &Graph, wires: &Wires, (input, layout): (&LayoutInput, &Layout)) {
    let _ = writeln!(out, "<g stroke=\"{LINE}\" stroke-width=\"1.4\" fill=\"none\">");
    for ((link, ports), route) in wires.ports.iter().zip(&layout.routes) {
        let (from, to) = (&graph.nodes[link.from].name, &graph.nodes[link.to].name);
        wire(out, &format!("{from} → {to}: {}", ports.join(", ")), &curve(route, layout.direction));
    }
    for (&node, ports) in &wires.loops {
        let name = &graph.nodes[node].name;
        let path = ear(layout.centres[node], input.sizes[node]);
        wire(out, &format!("{name} → {name}: {}", ports.join(", ")), &path);
    }
    out.push_str("</g>\n");
}

fn wire(out: &mut String, title: &str, (line, head): &(String, String)) {
    let _ = writeln!(
        out,
        "<g><title>{}</title><path d=\"{line}\"/><path d=\"{head}\" fill=\"{LINE}\"/></g>",
        escaped(title),
    );
}

const HEAD: f64 = 8.0;

/// Returns the line and the arrow head of a route.
fn curve(route: &[Point], direction: Direction) -> (String, String) {
    let point = |along: f64, across: f64| xy(direction.point(along, across));
    let ((start, _), (end, side)) = (direction.split(route[0]), direction.split(route[route.len() - 1]));
    let way = if end >= start { 1.0 } else { -1.0 };
    // The line ends inside the head, or its square end would show beside the tip.
    let limit = end - way * (HEAD - 1.0);
    let mut line = format!("M{}", xy(route[0]));
    for (at, pair) in route.windows(2).enumerate() {
        let ((a, from), (b, to)) = (direction.split(pair[0]), direction.split(pair[1]));
        let b = if (b - limit) * way > 0.0 { limit } else { b };
        if at % 2 == 1 {
            let half = a + (b - a) / 2.0;
            let _ = write!(line, "C{} {} {}", point(half, from), point(half, to), point(b, to));
        } else if (b - a) * way > 0.0 {
            let _ = write!(line, "L{}", point(b, to));
        }
    }
    let (tip, back) = (point(end, side), end - way * HEAD);
    (line, format!("M{tip}L{}L{}Z", point(back, side - 4.0), point(back, side + 4.0)))
}

/// Returns the line and the arrow head of a node that reads itself, at its upper right corner.
fn ear(centre: Point, size: Size) -> (String, String) {
    let (right, top) = (centre.x + size.width / 2.0, centre.y - size.height / 2.0);
    let at = |x: f64, y: f64| xy(Point { x: right + x, y: top + y });
    let line = format!("M{}C{} {} {}", at(-34.0, 0.0), at(-34.0, -20.0), at(-12.0, -20.0), at(-12.0, -7.0));
    let head = format!("M{}L{}L{}Z", at(-12.0, 0.0), at(-16.0, -HEAD), at(-8.0, -HEAD));
    (line, head)
}

fn nodes(out: &mut String, graph: &Graph, boxes: &[NodeBox], layout: &Layout) {
    for ((node, node_box), centre) in graph.nodes.iter().zip(boxes).zip(&layout.centres) {
        let (x, y) = (centre.x - node_box.width / 2.0, centre.y - NODE_HEIGHT / 2.0);
        let hover = format!("{}: {}, {}", node.name, node.subtitle(), node.state.word());
        let corner = xy(Point { x, y });
        let _ = writeln!(out, "<g transform=\"translate({corner})\"><title>{}</title>", escaped(&hover));
        if node.copies > 1 {
            // A second card behind says that there are more.
            card(out, Point { x: 4.0, y: 4.0 }, node_box.width, node.state);
        }
        card(out, Point { x: 0.0, y: 0.0 }, node_box.width, node.state);
        mark(out, Point { x: 20.0, y: NODE_HEIGHT / 2.0 }, node.state);
        let (name, kind) = (escaped(&node_box.name), escaped(&node_box.kind));
        let bold = format!("font-weight=\"bold\" fill=\"{INK}\"");
        let _ = writeln!(out, "<text x=\"37\" y=\"21\" font-size=\"13\" {bold}>{name}</text>");
        let _ = writeln!(out, "<text x=\"37\" y=\"37\" font-size=\"11\" fill=\"{PALE_INK}\">{kind}</text>");
        if node.copies > 1 {
            let (x, copies) = (px(node_box.width - 12.0), &node_box.copies);
            let style = format!("font-size=\"12\" text-anchor=\"end\" {bold}");
            let _ = writeln!(out, "<text x=\"{x}\" y=\"28\" {style}>{copies}</text>");
        }
        out.push_str("</g>\n");
    }
}

fn card(out: &mut String, at: Point, width: f64, state: State) {
    let (fill, stroke) = (state.fill(), state.stroke());
    let (x, y, width) = (px(at.x), px(at.y), px(width));
    let _ = writeln!(
        out,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{NODE_HEIGHT}\" rx=\"9\" \
         fill=\"{fill}\" stroke=\"{stroke}\" {}/>",
        border(state),
    );
}

fn border(state: State) -> &'static str {
    match state {
        State::Hit | State::Run => "stroke-width=\"1.3\"",
        State::Maybe => "stroke-width=\"1.3\" stroke-dasharray=\"5 3\"",
        State::Failed => "stroke-width=\"2.4\"",
        State::Unknown => "stroke-width=\"1.3\" stroke-dasharray=\"1.5 3\"",
    }
}

/// Draws the mark of a state; as a shape, since fonts differ in the symbols they have.
fn mark(out: &mut String, at: Point, state: State) {
    let _ = write!(
        out,
        "<g transform=\"translate({})\"><circle r=\"{MARK}\" fill=\"{}\"/>",
        xy(at),
        state.stroke(),
    );
    let pen = "fill=\"none\" stroke=\"#ffffff\" stroke-width=\"1.9\" stroke-linecap=\"round\" \
               stroke-linejoin=\"round\"";
    let path = |d: &str| format!("<path d=\"{d}\" {pen}/>");
    let shape = match state {
        State::Hit => path("M-4 0.3L-1.2 3.2L4 -3"),
        State::Run => "<path d=\"M-2.8 -4.4L4.6 0L-2.8 4.4Z\" fill=\"#ffffff\"/>".to_owned(),
        State::Maybe => path("M-2.6 -2.2C-2.6 -6 3 -5.6 2.6 -2C2.4 -0.4 0 -0.2 0 1.6M0 4.6L0 4.7"),
        State::Failed => path("M-3.2 -3.2L3.2 3.2M-3.2 3.2L3.2 -3.2"),
        State::Unknown => path("M-3.6 0L3.6 0"),
    };
    out.push_str(&shape);
    out.push_str("</g>\n");
}

struct Legend {
    body: String,
    width: f64,
}

fn legend(states: &[State]) -> Legend {
    let mut legend = Legend { body: String::new(), width: 0.0 };
    for &state in states {
        mark(&mut legend.body, Point { x: legend.width + MARK, y: 0.0 }, state);
        let (x, word) = (px(legend.width + 2.0 * MARK + 6.0), state.word());
        let style = format!("font-size=\"12\" fill=\"{PALE_INK}\"");
        let _ = writeln!(legend.body, "<text x=\"{x}\" y=\"4\" {style}>{word}</text>");
        legend.width += 2.0 * MARK + 6.0 + text_width(word, 12.0) + 22.0;
    }
    legend
}

/// Returns the text on one line, cut where it is too long to show; the hover text has the rest.
fn shortened(text: &str, most: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = line.trim();
    if line.chars().count() <= most {
        return line.to_owned();
    }
    line.chars().take(most - 1).chain(['…']).collect()
}

/// Returns about how wide a text is in a common sans-serif face; rather too wide than too narrow.
fn text_width(text: &str, size: f64) -> f64 {
    let em = |c: char| match c {
        'i' | 'j' | 'l' | '\'' | '.' | ',' | ':' | ';' | '|' | '!' => 0.31,
        'f' | 't' | 'r' | ' ' | '(' | ')' | '[' | ']' | '/' | '-' => 0.40,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.96,
        'A'..='Z' => 0.73,
        c if u32::from(c) >= 0x2E80 => 1.05,
        _ => 0.62,
    };
    text.chars().map(em).sum::<f64>() * size
}

/// Returns the text for XML, which has no place for most control characters, however written.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            '\u{FFFE}' | '\u{FFFF}' => out.push('\u{FFFD}'),
            c if c.is_control() => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

fn xy(point: Point) -> String {
    format!("{} {}", px(point.x), px(point.y))
}

/// Returns a length to a tenth; finer would only make the file longer.
fn px(value: f64) -> String {
    let tenths = (value * 10.0).round() / 10.0;
    // Adding zero turns -0 into 0.
    format!("{}", tenths + 0.0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::graph::value::Edge;
    use proptest::prelude::*;

    pub(crate) fn graph(nodes: usize, edges: &[(usize, usize)]) -> Graph {
        let node = |at: usize| Node {
            name: format!("stage_{at}"),
            kind: "kind".into(),
            copies: 1 + at % 2,
            state: [State::Hit, State::Run, State::Maybe, State::Failed, State::Unknown][at % 5],
        };
        let edge = |&(from, to): &(usize, usize)| Edge { from, to, port: "rows".into() };
        Graph {
            title: "A graph".into(),
            nodes: (0..nodes).map(node).collect(),
            edges: edges.iter().map(edge).collect(),
        }
    }

    /// Makes drawings with any names and any edges: loops, cycles, and ends that do not exist.
    pub(crate) fn nasty() -> impl Strategy<Value = Graph> {
        let state = prop_oneof![
            Just(State::Hit),
            Just(State::Run),
            Just(State::Maybe),
            Just(State::Failed),
            Just(State::Unknown),
        ];
        let text = || prop_oneof![any::<String>(), "[\"\\\\<>&'\n\\]|#`;-]{0,6}"];
        let node = (text(), text(), 0..5_usize, state).prop_map(|(name, kind, copies, state)| Node {
            name,
            kind,
            copies,
            state,
        });
        let edge = (0..14_usize, 0..14_usize, text()).prop_map(|(from, to, port)| Edge { from, to, port });
        let nodes = proptest::collection::vec(node, 0..12);
        let edges = proptest::collection::vec(edge, 0..40);
        (text(), nodes, edges).prop_map(|(title, nodes, edges)| Graph { title, nodes, edges })
    }

    /// Checks that tags nest, that text holds nothing to escape, and that all numbers are finite.
    fn well_formed(svg: &str) -> Result<(), String> {
        let mut open = Vec::new();
        let mut rest = svg;
        while let Some((text, tail)) = rest.split_once('<') {
            if text.contains('>') {
                return Err(format!("stray `>` in {text:?}"));
            }
            let (tag, tail) = tail.split_once('>').ok_or("open tag")?;
            rest = tail;
            let name = tag.trim_matches('/').split(' ').next().unwrap_or_default();
            if tag.starts_with('/') {
                if open.pop() != Some(name) {
                    return Err(format!("`{name}` closes what is not open"));
                }
            } else if !tag.ends_with('/') {
                open.push(name);
            }
            if tag.matches('"').count() % 2 != 0 || tag.contains("NaN") || tag.contains("inf") {
                return Err(format!("odd tag {tag:?}"));
            }
        }
        if open.is_empty() { Ok(()) } else { Err(format!("left open: {open:?}")) }
    }

    #[test]
    fn a_graph_is_drawn() {
        let svg = svg(&graph(3, &[(0, 1), (1, 2), (0, 2)]));
        assert_eq!(well_formed(&svg), Ok(()));
        assert_eq!(svg.matches(" → ").count(), 3);
        assert!(svg.contains("<title>stage_1: kind ×2, to run</title>"));
    }

    #[test]
    fn nothing_is_drawn_too() {
        let empty = Graph { title: String::new(), nodes: Vec::new(), edges: Vec::new() };
        assert_eq!(well_formed(&svg(&empty)), Ok(()));
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(escaped("<a b=\"&'\">\u{0}"), "&lt;a b=&quot;&amp;&#39;&quot;&gt;\u{FFFD}");
        assert_eq!(shortened("abcdef", 4), "abc…");
    }

    #[test]
    fn parallel_edges_share_a_line() {
        let svg = svg(&graph(2, &[(0, 1), (0, 1)]));
        assert!(svg.contains("<title>stage_0 → stage_1: rows, rows</title>"));
    }

    #[test]
    fn large_graphs_are_drawn() {
        // A chain as deep as it is long, with edges across all of it.
        let count = 4000;
        let chain = (1..count).map(|at| (at - 1, at));
        let far = (0..count).map(|at| (at, (at * 7919 + 13) % count));
        let edges: Vec<(usize, usize)> = chain.chain(far).collect();
        assert_eq!(well_formed(&svg(&graph(count, &edges))), Ok(()));
    }

    proptest! {
        #[test]
        fn any_drawing_is_well_formed(nasty in nasty()) {
            let svg = svg(&nasty);
            prop_assert_eq!(well_formed(&svg), Ok(()));
            let illegal = |c: char| c != '\n' && c != '\t' && c.is_control();
            prop_assert!(!svg.contains(illegal));
        }

        #[test]
        fn boxes_never_overlap(edges in proptest::collection::vec((0..20_usize, 0..20_usize), 0..60)) {
            let sizes = vec![Size { width: 100.0, height: NODE_HEIGHT }; 20];
            let mut links: Vec<Link> = edges.iter()
                .filter(|(from, to)| from != to)
                .map(|&(from, to)| Link { from, to })
                .collect();
            links.sort();
            links.dedup();
            let layout = place(&LayoutInput { sizes, links });
            for (at, a) in layout.centres.iter().enumerate() {
                for b in &layout.centres[..at] {
                    prop_assert!((a.x - b.x).abs() >= 99.9 || (a.y - b.y).abs() >= NODE_HEIGHT - 0.1);
                }
            }
        }
    }
}

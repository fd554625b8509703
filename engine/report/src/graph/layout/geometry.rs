//! What a layout is made of, and what it says.

/// Holds what is to be placed.
pub(crate) struct LayoutInput {
    pub sizes: Vec<Size>,
    /// Lists the edges between different nodes, each pair once.
    pub links: Vec<Link>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Size {
    pub width: f64,
    pub height: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Link {
    pub from: usize,
    pub to: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    pub x: f64,
    pub y: f64,
}

/// Says where successors are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Right,
    Down,
}

impl Direction {
    /// Returns the point at a distance along the layers and one across them.
    pub(crate) fn point(self, along: f64, across: f64) -> Point {
        match self {
            Self::Right => Point { x: along, y: across },
            Self::Down => Point { x: across, y: along },
        }
    }

    /// Returns how far a point lies along the layers, and across them.
    pub(crate) fn split(self, point: Point) -> (f64, f64) {
        match self {
            Self::Right => (point.x, point.y),
            Self::Down => (point.y, point.x),
        }
    }
}

/// Holds the places.
pub(crate) struct Layout {
    pub direction: Direction,
    pub size: Size,
    /// Lists the centres of the nodes.
    pub centres: Vec<Point>,
    /// Lists the points of each link, from its source's border to its target's. It runs straight
    /// inside layers, from the first point to the second and so on, and crosses gaps between.
    pub routes: Vec<Vec<Point>>,
}

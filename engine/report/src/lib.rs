//! Tables and graphs, from plain values to what people and machines read.
//!
//! A [`table::Table`] becomes text, Markdown, CSV or JSON; a [`graph::Graph`] becomes DOT, Mermaid or
//! SVG. The crate refuses to know how its values came about: nothing of running, of caches or of
//! experiments is in here. Numbers come at full precision and are rounded here, once.
//!
//! ```
//! use report::table::{Cell, CellValue, Column, Row, RowOrigin, Table, text};
//!
//! let accuracy = Column { name: "accuracy".into(), label: "Accuracy".into(), digits: Some(2), better: None };
//! let value = CellValue::Number(0.4123);
//! let (published, provenance) = (Some(0.5), Vec::new());
//! let cell = Cell { value, published, provenance, definition: None, differs: None };
//! let row = Row { label: "ours".into(), origin: RowOrigin::Made { stage: "scores".into() }, cells: vec![cell] };
//! let table = Table {
//!     name: None,
//!     title: "A table".into(),
//!     columns: vec![accuracy],
//!     rows: vec![row],
//!     deltas: Vec::new(),
//!     notes: Vec::new(),
//! };
//! assert!(text(&table, None).contains("0.41"));
//! ```

pub mod graph;
pub mod table;

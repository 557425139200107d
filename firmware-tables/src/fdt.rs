//! Devicetree nodes and the flattened format (Devicetree Specification 0.4, chapter 5).

use platform::Range;
use vm_fdt::FdtWriter;

use crate::BuildError;

/// A node with its properties and children.
pub(crate) struct Node {
    name: String,
    properties: Vec<(&'static str, Value)>,
    children: Vec<Node>,
}

/// The value of a property.
enum Value {
    Cells(Vec<u32>),
    Texts(Vec<String>),
    Bytes(Vec<u8>),
}

#[cfg_attr(
    not(feature = "devicetree"),
    expect(dead_code, reason = "a devicetree of `/chosen` alone needs less")
)]
impl Node {
    /// The root node, whose name is empty.
    pub(crate) fn root() -> Self {
        Node::new("")
    }

    pub(crate) fn new(name: impl Into<String>) -> Self {
        Node { name: name.into(), properties: Vec::new(), children: Vec::new() }
    }

    /// A node with a unit address.
    pub(crate) fn at(name: &str, unit: u64) -> Self {
        Node::new(format!("{name}@{unit:x}"))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A property with an empty value.
    pub(crate) fn flag(self, name: &'static str) -> Self {
        self.bytes(name, &[])
    }

    pub(crate) fn cells(self, name: &'static str, cells: &[u32]) -> Self {
        self.property(name, Value::Cells(cells.to_vec()))
    }

    /// A 64-bit value in two cells, the high half first.
    pub(crate) fn wide(self, name: &'static str, value: u64) -> Self {
        self.cells(name, &halves(value))
    }

    pub(crate) fn text(self, name: &'static str, text: impl Into<String>) -> Self {
        self.property(name, Value::Texts(vec![text.into()]))
    }

    pub(crate) fn texts(self, name: &'static str, texts: &[impl ToString]) -> Self {
        self.property(name, Value::Texts(texts.iter().map(ToString::to_string).collect()))
    }

    pub(crate) fn bytes(self, name: &'static str, bytes: &[u8]) -> Self {
        self.property(name, Value::Bytes(bytes.to_vec()))
    }

    /// `reg`, for a parent whose addresses and sizes have two cells each.
    pub(crate) fn reg(self, ranges: &[Range]) -> Self {
        let cells: Vec<u32> =
            ranges.iter().flat_map(|range| [halves(range.start), halves(range.len)]).flatten().collect();
        self.cells("reg", &cells)
    }

    /// The number of cells in the `reg` of child nodes.
    pub(crate) fn cell_counts(self, address: u32, size: u32) -> Self {
        self.cells("#address-cells", &[address]).cells("#size-cells", &[size])
    }

    pub(crate) fn child(mut self, node: Node) -> Self {
        self.children.push(node);
        self
    }

    pub(crate) fn children(self, nodes: impl IntoIterator<Item = Node>) -> Self {
        nodes.into_iter().fold(self, Node::child)
    }

    fn property(mut self, name: &'static str, value: Value) -> Self {
        self.properties.push((name, value));
        self
    }

    /// The flattened tree with this node as the root.
    ///
    /// # Errors
    /// Returns an error if a name is invalid or occurs twice, or if a text contains a NUL.
    pub(crate) fn flattened(&self) -> Result<Vec<u8>, BuildError> {
        let mut writer = FdtWriter::new().map_err(|error| self.error(&error))?;
        self.write(&mut writer)?;
        writer.finish().map_err(|error| self.error(&error))
    }

    fn write(&self, writer: &mut FdtWriter) -> Result<(), BuildError> {
        if let Some(name) = duplicate(self.children.iter().map(|child| child.name.as_str()))
            .or_else(|| duplicate(self.properties.iter().map(|(name, _)| *name)))
        {
            return Err(self.error(&format!("duplicate name `{name}`")));
        }
        let open = writer.begin_node(&self.name).map_err(|error| self.error(&error))?;
        for (name, value) in &self.properties {
            match value {
                Value::Cells(cells) => writer.property_array_u32(name, cells),
                Value::Texts(texts) => writer.property_string_list(name, texts.clone()),
                Value::Bytes(bytes) => writer.property(name, bytes),
            }
            .map_err(|error| self.error(&format!("property `{name}`: {error}")))?;
        }
        for child in &self.children {
            child.write(writer)?;
        }
        writer.end_node(open).map_err(|error| self.error(&error))
    }

    fn error(&self, reason: &dyn std::fmt::Display) -> BuildError {
        let node = if self.name.is_empty() { "/" } else { &self.name };
        BuildError::Node { node: node.into(), reason: reason.to_string() }
    }
}

/// A 64-bit number as two cells.
pub(crate) const fn halves(value: u64) -> [u32; 2] {
    [(value >> 32) as u32, value as u32]
}

fn duplicate<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

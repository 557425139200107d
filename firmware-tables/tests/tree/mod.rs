//! A reader of flattened devicetrees (Devicetree Specification 0.4, chapter 5) that shares no code with the builder.
#![allow(dead_code, reason = "every test uses a part of it")]

use std::collections::BTreeMap;

/// A node. The root's name is empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) name: String,
    pub(crate) properties: BTreeMap<String, Vec<u8>>,
    pub(crate) children: Vec<Tree>,
}

impl Tree {
    /// Reads a whole blob.
    ///
    /// # Panics
    /// Panics if it is invalid.
    pub(crate) fn read(blob: &[u8]) -> Tree {
        assert_eq!(word(blob, 0), 0xd00d_feed);
        assert_eq!(word(blob, 4) as usize, blob.len());
        assert_eq!((word(blob, 20), word(blob, 24)), (17, 16), "version 17, compatible with 16");
        let strings = &blob[word(blob, 12) as usize..][..word(blob, 32) as usize];
        let mut rest = &blob[word(blob, 8) as usize..][..word(blob, 36) as usize];
        assert_eq!(token(&mut rest), 1, "the root");
        let root = node(&mut rest, strings);
        assert_eq!((token(&mut rest), rest.len()), (9, 0), "the end");
        root
    }

    /// The node at a path like `/cpus/cpu@0`.
    pub(crate) fn at(&self, path: &str) -> &Tree {
        path.split('/').filter(|part| !part.is_empty()).fold(self, |node, name| {
            node.children.iter().find(|child| child.name == name).unwrap_or_else(|| panic!("no {path}"))
        })
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.children.iter().map(|child| child.name.as_str()).collect()
    }

    pub(crate) fn has(&self, property: &str) -> bool {
        self.properties.contains_key(property)
    }

    pub(crate) fn bytes(&self, property: &str) -> &[u8] {
        self.properties.get(property).unwrap_or_else(|| panic!("no {property} in {}", self.name))
    }

    pub(crate) fn cells(&self, property: &str) -> Vec<u32> {
        self.bytes(property).chunks(4).map(|cell| word(cell, 0)).collect()
    }

    /// Pairs of cells as numbers.
    pub(crate) fn wide(&self, property: &str) -> Vec<u64> {
        let cells = self.cells(property);
        cells.chunks(2).map(|pair| u64::from(pair[0]) << 32 | u64::from(pair[1])).collect()
    }

    pub(crate) fn texts(&self, property: &str) -> Vec<&str> {
        let text = std::str::from_utf8(self.bytes(property)).unwrap();
        text.strip_suffix('\0').unwrap().split('\0').collect()
    }
}

fn node(rest: &mut &[u8], strings: &[u8]) -> Tree {
    let mut tree = Tree { name: string(rest), ..Tree::default() };
    take(rest, (tree.name.len() + 1).next_multiple_of(4));
    loop {
        match token(rest) {
            1 => tree.children.push(node(rest, strings)),
            2 => return tree,
            3 => {
                assert!(tree.children.is_empty(), "properties come first");
                let len = token(rest) as usize;
                let name = string(&strings[token(rest) as usize..]);
                let value = take(rest, len.next_multiple_of(4))[..len].to_vec();
                assert!(tree.properties.insert(name, value).is_none(), "a property twice");
            }
            other => panic!("token {other}"),
        }
    }
}

fn string(bytes: &[u8]) -> String {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap();
    String::from_utf8(bytes[..len].to_vec()).unwrap()
}

fn token(rest: &mut &[u8]) -> u32 {
    word(take(rest, 4), 0)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(len);
    *rest = left;
    taken
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

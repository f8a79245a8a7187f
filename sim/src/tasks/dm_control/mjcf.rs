//! A model file that a task changes before it is compiled.

use std::path::Path;

use xmltree::{Element, XMLNode};

use crate::SimError;
use crate::physics::Physics;

/// The tree of an MJCF file; the files that it names are looked for beside it.
pub(super) struct Mjcf(Element);

impl Mjcf {
    /// Reads a model file.
    pub(super) fn read(path: &Path) -> Result<Self, SimError> {
        let refused = |e: &dyn std::fmt::Display| SimError::Model(format!("{}: {e}", path.display()));
        let text = std::fs::read(path).map_err(|e| refused(&e))?;
        let mut root = Element::parse(text.as_slice()).map_err(|e| refused(&e))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let folder = folder.canonicalize().map_err(|e| refused(&e))?;
        for child in elements(&mut root) {
            let files: &[&str] = match child.name.as_str() {
                "include" => &["file"],
                "compiler" => &["meshdir", "texturedir"],
                _ => continue,
            };
            for file in files {
                if let Some(relative) = child.attributes.get_mut(*file) {
                    *relative = folder.join(&*relative).display().to_string();
                }
            }
        }
        Ok(Self(root))
    }

    /// The first element of a kind with a name.
    pub(super) fn find(&mut self, kind: &'static str, name: &str) -> Result<&mut Element, SimError> {
        find(&mut self.0, kind, name).ok_or_else(|| missing(kind, name))
    }

    /// Sets the size of a plane, m.
    pub(super) fn set_plane(&mut self, name: &str, size: [f64; 3]) -> Result<(), SimError> {
        let size = size.map(|size| size.to_string()).join(" ");
        self.find("geom", name)?.attributes.insert("size".into(), size);
        Ok(())
    }

    /// Removes the first element of a kind with a name, and all in it.
    pub(super) fn remove(&mut self, kind: &'static str, name: &str) -> Result<(), SimError> {
        if remove(&mut self.0, kind, name) {
            Ok(())
        } else {
            Err(missing(kind, name))
        }
    }

    /// Removes a kind of sensor.
    pub(super) fn remove_sensors(&mut self, kind: &str) {
        for section in elements(&mut self.0).filter(|section| section.name == "sensor") {
            let is_one = |node: &XMLNode| node.as_element().is_some_and(|sensor| sensor.name == kind);
            section.children.retain(|node| !is_one(node));
        }
    }

    /// Appends a section to the file.
    pub(super) fn push(&mut self, section: Element) {
        self.0.children.push(XMLNode::Element(section));
    }

    /// Compiles the model.
    pub(super) fn compile(&self) -> Result<Physics, SimError> {
        let mut text = Vec::new();
        self.0
            .write(&mut text)
            .map_err(|e| SimError::Model(e.to_string()))?;
        Physics::from_xml(&String::from_utf8_lossy(&text))
    }
}

/// An element of a kind with its attributes.
pub(super) fn element(kind: &str, attributes: &[(&str, &str)]) -> Element {
    let mut element = Element::new(kind);
    for (name, value) in attributes {
        element.attributes.insert((*name).into(), (*value).into());
    }
    element
}

/// The elements directly in another.
pub(super) fn elements(parent: &mut Element) -> impl Iterator<Item = &mut Element> {
    parent.children.iter_mut().filter_map(XMLNode::as_mut_element)
}

fn is(element: &Element, kind: &str, name: &str) -> bool {
    element.name == kind && element.attributes.get("name").is_some_and(|own| own == name)
}

fn find<'a>(parent: &'a mut Element, kind: &str, name: &str) -> Option<&'a mut Element> {
    elements(parent).find_map(|child| {
        if is(child, kind, name) {
            return Some(child);
        }
        find(child, kind, name)
    })
}

fn remove(parent: &mut Element, kind: &str, name: &str) -> bool {
    let is_it = |node: &XMLNode| node.as_element().is_some_and(|child| is(child, kind, name));
    if let Some(position) = parent.children.iter().position(is_it) {
        parent.children.remove(position);
        return true;
    }
    elements(parent).any(|child| remove(child, kind, name))
}

fn missing(kind: &'static str, name: &str) -> SimError {
    let name = name.to_owned();
    SimError::MissingElement { kind, name }
}

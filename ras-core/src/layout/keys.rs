//! The keys of an object, and which of them have been read.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use crate::description::{Description, Value};
use crate::encode_error::{EncodeError, EncodeProblem};

/// The keys of a description. Each is read once; those that nobody has read are unknown.
#[derive(Debug)]
pub(crate) struct Keys<'a> {
    description: &'a Description,
    path: String,
    used: Vec<Cell<bool>>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(description: &'a Description, path: String) -> Self {
        let used = description.fields().iter().map(|_| Cell::new(false)).collect();
        Keys { description, path, used, asked: RefCell::default() }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// Returns an error if it is there twice.
    pub(crate) fn take(&self, name: &'static str) -> Result<Option<&'a Value>, EncodeError> {
        if !self.asked.borrow().contains(&name) {
            self.asked.borrow_mut().push(name);
        }
        let fields = self.description.fields().iter().zip(&self.used);
        let mut found = fields.filter(|((key, _), _)| key == name);
        let Some(((_, value), used)) = found.next() else { return Ok(None) };
        if found.next().is_some() {
            return Err(self.error(name, EncodeProblem::Duplicate));
        }
        used.set(true);
        Ok(Some(value))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.description.fields().iter().any(|(key, _)| key == name)
    }

    /// The objects of a list. None: an empty one.
    pub(crate) fn list(&self, name: &'static str) -> Result<&'a [Description], EncodeError> {
        match self.take(name)? {
            None => Ok(&[]),
            Some(Value::List(items)) => Ok(items),
            Some(Value::Texts(texts)) if texts.is_empty() => Ok(&[]),
            Some(other) => Err(self.error(name, EncodeProblem::expected(other, "a list of objects"))),
        }
    }

    /// Reads the object of a key: all of its keys.
    pub(crate) fn group<T>(
        &self,
        name: &'static str,
        value: &Value,
        read: impl FnOnce(&Keys<'_>) -> Result<T, EncodeError>,
    ) -> Result<T, EncodeError> {
        match value {
            Value::Group(description) => Keys::new(description, self.path_of(name)).all(read),
            other => Err(self.error(name, EncodeProblem::expected(other, "an object"))),
        }
    }

    /// Reads an object of a list: all of its keys.
    pub(crate) fn item<T>(
        &self,
        name: &'static str,
        index: usize,
        description: &Description,
        read: impl FnOnce(&Keys<'_>) -> Result<T, EncodeError>,
    ) -> Result<T, EncodeError> {
        self.of_item(name, index, description).all(read)
    }

    /// The keys of an object of a list.
    pub(crate) fn of_item<'b>(
        &self,
        name: &'static str,
        index: usize,
        description: &'b Description,
    ) -> Keys<'b> {
        Keys::new(description, format!("{}[{index}]", self.path_of(name)))
    }

    /// Reads all of its keys.
    ///
    /// # Errors
    /// Returns an error if one is left.
    pub(crate) fn all<T>(
        &self,
        read: impl FnOnce(&Keys<'_>) -> Result<T, EncodeError>,
    ) -> Result<T, EncodeError> {
        let result = read(self)?;
        let mut fields = self.description.fields().iter().zip(&self.used);
        match fields.find(|(_, used)| !used.get()) {
            Some(((key, _), _)) => {
                let known = self.asked.borrow().clone();
                Err(self.error(key, EncodeProblem::UnknownKey { known }))
            }
            None => Ok(result),
        }
    }

    /// An error at a key.
    pub(crate) fn error(&self, name: &str, problem: EncodeProblem) -> EncodeError {
        EncodeError { path: self.path_of(name), problem }
    }

    /// An error of the object itself.
    pub(crate) fn own_error(&self, problem: EncodeProblem) -> EncodeError {
        EncodeError { path: self.path.clone(), problem }
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }
}

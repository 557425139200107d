//! Errors of the lab, as one line for the terminal.

use std::fmt;

/// A failure of the lab, not of a scenario.
#[derive(Debug)]
pub(crate) struct Error(String);

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Why a host cannot be assembled.
pub(crate) enum Missing {
    /// Packages could not be fetched, for example without a network.
    Packages(Error),
    /// The checkout does not build, or a package has unexpected contents.
    Part(Error),
}

impl From<Missing> for Error {
    fn from(missing: Missing) -> Self {
        let (Missing::Packages(error) | Missing::Part(error)) = missing;
        error
    }
}

/// Adds what failed to an error.
pub(crate) trait Context<T> {
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error(format!("{what}: {error}")))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.ok_or_else(|| Error(what.to_string()))
    }
}

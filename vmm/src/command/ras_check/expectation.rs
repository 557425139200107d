//! What a guest of some kernel version should do: data, in `expectations.toml`.

use std::path::Path;

use machine_profile::TableSet;
use platform::Arch;
use ras_core::Response;
use serde::Deserialize;

use super::super::input;
use super::case::{self, Case, Kind, Place};
use super::facts::{Facts, Verdict};

const BUILT_IN: &str = include_str!("expectations.toml");
/// The maximum length of a file of expectations, in bytes.
const MAX_LEN: u64 = 1 << 20;

/// The expectations, in the order of their file.
pub(super) struct Expectations(Vec<Expectation>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectationsFile {
    expect: Vec<ExpectationText>,
}

/// An expectation, as its file has it. An empty list is any value.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ExpectationText {
    #[serde(default)]
    arch: Vec<String>,
    #[serde(default)]
    tables: Vec<String>,
    #[serde(default)]
    kind: Vec<Kind>,
    #[serde(default)]
    response: Vec<String>,
    #[serde(default)]
    place: Vec<Place>,
    from: Option<String>,
    before: Option<String>,
    verdict: Verdict,
    action: Option<String>,
    process: Option<String>,
    why: String,
}

/// What a guest should do in some cases, and why.
#[derive(Debug)]
pub(super) struct Expectation {
    arch: Vec<Arch>,
    tables: Vec<TableSet>,
    kind: Vec<Kind>,
    response: Vec<Response>,
    place: Vec<Place>,
    /// The first version.
    from: Version,
    /// The first version that it is not for.
    before: Option<Version>,
    pub(super) verdict: Verdict,
    /// Results of memory_failure(). `None`: not judged.
    pub(super) action: Option<String>,
    /// What the process gets. `None`: not judged.
    pub(super) process: Option<String>,
    pub(super) why: String,
}

/// A kernel's version: 6.12.
pub(super) type Version = (u32, u32);

/// The version of a release: `6.1.0-49-arm64`, `7.3-rc1`.
pub(super) fn version(release: &str) -> Option<Version> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

impl Expectations {
    /// Those of a file, or the built-in ones.
    ///
    /// # Errors
    /// Returns what is wrong with the file.
    pub(super) fn load(path: Option<&Path>) -> Result<Self, String> {
        let Some(path) = path else { return Self::parse(BUILT_IN) };
        let text = input::read(path, MAX_LEN);
        let text = text.and_then(|text| String::from_utf8(text).map_err(|error| error.to_string()));
        text.and_then(|text| Self::parse(&text)).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: ExpectationsFile = toml::from_str(text).map_err(|error| error.to_string())?;
        file.expect.into_iter().map(Expectation::new).collect::<Result<_, _>>().map(Expectations)
    }

    /// The first one for a case. `None` if there is none.
    pub(super) fn find(&self, arch: Arch, case: &Case, version: Version) -> Option<&Expectation> {
        self.0.iter().find(|expectation| expectation.is_for(arch, case, version))
    }
}

impl Expectation {
    fn new(text: ExpectationText) -> Result<Self, String> {
        let why = text.why;
        let invalid = |what: &str, value: &str| format!("`{value}` is no {what} (expectation `{why}`)");
        let arch = |name: &String| {
            let known = [Arch::Aarch64, Arch::X86_64].into_iter().find(|arch| arch.name() == name);
            known.ok_or_else(|| invalid("architecture", name))
        };
        let tables = |name: &String| case::tables(name).map_err(|_| invalid("table set", name));
        let response = |name: &String| Response::from_name(name).ok_or_else(|| invalid("response", name));
        let number = |text: &String| version(text).ok_or_else(|| invalid("kernel version", text));
        let from = text.from.as_ref().map_or(Ok((0, 0)), number)?;
        let before = text.before.as_ref().map(number).transpose()?;
        if before.is_some_and(|before| before <= from) {
            return Err(invalid("version after `from`", text.before.as_deref().unwrap_or_default()));
        }
        Ok(Expectation {
            arch: text.arch.iter().map(arch).collect::<Result<_, _>>()?,
            tables: text.tables.iter().map(tables).collect::<Result<_, _>>()?,
            kind: text.kind,
            response: text.response.iter().map(response).collect::<Result<_, _>>()?,
            place: text.place,
            from,
            before,
            verdict: text.verdict,
            action: text.action,
            process: text.process,
            why,
        })
    }

    fn is_for(&self, arch: Arch, case: &Case, version: Version) -> bool {
        fn takes<T: PartialEq>(list: &[T], value: T) -> bool {
            list.is_empty() || list.contains(&value)
        }
        takes(&self.arch, arch)
            && takes(&self.tables, case.tables)
            && takes(&self.kind, case.kind)
            && takes(&self.response, case.response)
            && takes(&self.place, case.place)
            && self.from <= version
            && self.before.is_none_or(|before| version < before)
    }

    /// Whether the guest did what it should.
    pub(super) fn is_met(&self, facts: &Facts) -> bool {
        facts.verdict == Some(self.verdict)
            && self.action.as_ref().is_none_or(|action| *action == facts.action)
            && self.process.as_ref().is_none_or(|process| *process == facts.process)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_expectations_are_valid() {
        let expectations = Expectations::load(None).unwrap_or_else(|error| panic!("{error}"));
        assert!(!expectations.0.is_empty());
        assert!(expectations.0.iter().all(|expectation| !expectation.why.is_empty()));
    }

    #[test]
    fn versions_are_numbers() {
        assert_eq!(version("6.1.0-49-arm64"), Some((6, 1)));
        assert_eq!(version("7.3-rc1"), Some((7, 3)));
        assert!(version("6.12.73+deb13-amd64") > version("6.1"));
        assert_eq!(version("next"), None);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_reported() {
        for (text, reason) in [
            ("[[expect]]\nverdict = \"recovered\"\n", "why"),
            ("[[expect]]\nverdict = \"lost\"\nwhy = \"x\"\n", "unknown variant"),
            ("[[expect]]\nverdict = \"hung\"\nwhy = \"x\"\nresponse = [\"sae\"]\n", "`sae` is no response"),
            ("[[expect]]\nverdict = \"hung\"\nwhy = \"x\"\nfrom = \"6.12\"\nbefore = \"6.1\"\n", "`6.1`"),
        ] {
            let error = Expectations::parse(text).err().unwrap_or_default();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}

//! Finds Debian's archive among the machine's own apt sources, in either of the forms of sources.list(5).

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Context, Result};

/// Where the machine gets Debian from. The lab knows no mirror: all of this is taken from the machine's configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mirrors {
    pub(crate) archive: Source,
    /// Security updates; `None` if the machine has no such source.
    pub(crate) security: Option<Source>,
}

/// One package source.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Source {
    uri: String,
    components: Vec<String>,
    /// Fields that decide whether apt trusts the source, by their deb822 names, unchanged.
    trust: BTreeMap<String, String>,
}

const TRUST: &[&str] = &["Signed-By", "Trusted", "Check-Valid-Until", "Check-Date", "Allow-Insecure"];

impl Mirrors {
    /// Reads `/etc/apt`.
    pub(crate) fn of_this_machine() -> Result<Self> {
        let etc = Path::new("/etc/apt");
        let mut sources =
            one_line_sources(&std::fs::read_to_string(etc.join("sources.list")).unwrap_or_default());
        let parts = std::fs::read_dir(etc.join("sources.list.d")).into_iter().flatten().flatten();
        let mut paths: Vec<_> = parts.map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("list") => sources.extend(one_line_sources(&read(&path)?)),
                Some("sources") => sources.extend(deb822_sources(&read(&path)?)),
                _ => {}
            }
        }
        Self::among(&sources).context(
            "no Debian archive among the sources in /etc/apt: the lab fetches its packages from there",
        )
    }

    fn among(sources: &[Source]) -> Option<Self> {
        let find = |directory: &str| {
            let debian = |source: &&Source| {
                source.uri.split('/').any(|part| part == directory)
                    && source.components.iter().any(|component| component == "main")
            };
            sources.iter().find(debian).cloned()
        };
        Some(Self { archive: find("debian")?, security: find("debian-security") })
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).context(format_args!("cannot read {}", path.display()))
}

/// What is fetched: programs, or their sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Binary,
    Source,
}

impl Source {
    /// A deb822 stanza for other suites of the same place, package lists only.
    pub(crate) fn stanza(&self, kind: Kind, suites: &[&str]) -> String {
        let (types, lists) = match kind {
            Kind::Binary => ("deb", "Architectures: amd64 arm64\nTargets: Packages"),
            Kind::Source => ("deb-src", "Targets: Sources"),
        };
        let mut stanza = format!(
            "Types: {types}\nURIs: {}\nSuites: {}\nComponents: main\n{lists}\n",
            self.uri,
            suites.join(" ")
        );
        for (field, value) in &self.trust {
            stanza += &format!("{field}: {value}\n");
        }
        stanza
    }
}

/// `deb [option=value ...] uri suite component...`
fn one_line_sources(text: &str) -> Vec<Source> {
    text.lines().filter_map(one_line_source).collect()
}

fn one_line_source(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    let uri = words.next()?;
    let _suite = words.next()?;
    let known = |option: &str| TRUST.iter().find(|field| field.eq_ignore_ascii_case(option));
    let trust = options
        .split_whitespace()
        .filter_map(|option| option.split_once('='))
        .filter_map(|(name, value)| Some((known(name)?.to_string(), value.replace(',', " "))))
        .collect();
    Some(Source { uri, components: words.collect(), trust })
}

/// Stanzas of `Field: value`, separated by empty lines; lines that begin with a blank continue a value.
fn deb822_sources(text: &str) -> Vec<Source> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.split(|line| line.trim().is_empty()).filter_map(deb822_source).collect()
}

fn deb822_source(lines: &[&str]) -> Option<Source> {
    let mut fields = BTreeMap::<String, String>::new();
    let mut last = String::new();
    for line in lines {
        if line.starts_with([' ', '\t']) {
            let value = fields.get_mut(&last)?;
            value.push('\n');
            value.push_str(line);
        } else {
            let (name, value) = line.split_once(':')?;
            last = name.to_ascii_lowercase();
            fields.insert(last.clone(), value.trim().to_owned());
        }
    }
    let field = |name: &str| fields.get(&name.to_ascii_lowercase()).cloned();
    let words = |name: &str| -> Vec<String> {
        field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let types = words("Types");
    if !types.iter().any(|kind| kind == "deb") || field("Enabled").is_some_and(|value| value == "no") {
        return None;
    }
    let uri = field("URIs")?.split_whitespace().next()?.to_owned();
    let trust = TRUST.iter().filter_map(|name| Some((name.to_string(), field(name)?))).collect();
    Some(Source { uri, components: words("Components"), trust })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
# another
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security/
Suites: bookworm-security
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
";

    #[test]
    fn deb822_with_a_keyring_and_with_a_key_inside() {
        let mirrors = Mirrors::among(&deb822_sources(DEB822)).unwrap();
        assert_eq!(mirrors.archive.uri, "http://mirror.example/debian");
        let security = mirrors.security.unwrap();
        assert_eq!(
            security.stanza(Kind::Binary, &["trixie-security"]),
            "Types: deb\nURIs: http://mirror.example/debian-security/\nSuites: trixie-security\n\
             Components: main\nArchitectures: amd64 arm64\nTargets: Packages\n\
             Signed-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n"
        );
    }

    #[test]
    fn one_line_form_with_and_without_options() {
        let text = "# deb http://no.example/debian bookworm main\n\
                    deb-src http://no.example/debian bookworm main\n\
                    deb http://mirror.example/debian bookworm main contrib # ours\n\
                    deb [arch=amd64 signed-by=/a.gpg,/b.gpg] http://mirror.example/debian-security x main\n";
        let mirrors = Mirrors::among(&one_line_sources(text)).unwrap();
        assert_eq!(mirrors.archive.uri, "http://mirror.example/debian");
        assert_eq!(mirrors.archive.trust, BTreeMap::new());
        let trust = mirrors.security.unwrap().trust;
        assert_eq!(trust.get("Signed-By").map(String::as_str), Some("/a.gpg /b.gpg"));
        assert_eq!(trust.len(), 1);
    }

    #[test]
    fn third_party_and_disabled_sources_are_ignored() {
        let others = "deb http://packages.example/linux/debian bookworm stable\n\
                      deb http://apt.example bookworm main\n";
        assert_eq!(Mirrors::among(&one_line_sources(others)), None);
        let disabled = format!("Enabled: no\n{}", DEB822.split_once('\n').unwrap().1);
        let mirrors = Mirrors::among(&deb822_sources(&disabled));
        assert_eq!(mirrors, None);
    }

    #[test]
    fn security_updates_are_optional() {
        let mirrors = Mirrors::among(&one_line_sources("deb http://mirror.example/debian sid main")).unwrap();
        assert_eq!(mirrors.security, None);
    }
}

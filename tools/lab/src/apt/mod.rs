//! Debian packages without a change to the machine's apt: its own lists, sources and cache; nothing is installed.

mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use self::sources::{Kind, Mirrors};
use crate::architecture::Architecture;
use crate::error::{Context, Error, Result};
use crate::{process, setup};

/// A release of Debian, with its own package lists: apt selects the version within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Release {
    Bookworm,
    Trixie,
    /// Trixie with its backports.
    TrixieBackports,
}

impl Release {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::TrixieBackports => "trixie-backports",
        }
    }

    fn archive_suites(self) -> &'static [&'static str] {
        match self {
            Self::Bookworm => &["bookworm", "bookworm-updates"],
            Self::Trixie => &["trixie", "trixie-updates"],
            Self::TrixieBackports => &["trixie-backports", "trixie", "trixie-updates"],
        }
    }

    fn security_suites(self) -> &'static [&'static str] {
        match self {
            Self::Bookworm => &["bookworm-security"],
            Self::Trixie | Self::TrixieBackports => &["trixie-security"],
        }
    }
}

/// One package in the version that was fetched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) architecture: String,
    pub(crate) version: String,
}

/// Which dependencies of a package are fetched too.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Follow {
    /// Those whose names begin with one of these prefixes.
    Only(&'static [&'static str]),
    /// All except these, and except what only these depend on.
    AllBut(&'static [&'static str]),
}

impl Follow {
    fn takes(self, name: &str) -> bool {
        match self {
            Self::Only(prefixes) => prefixes.iter().any(|prefix| name.starts_with(prefix)),
            Self::AllBut(names) => !names.contains(&name),
        }
    }
}

/// apt, confined to a directory of the lab.
pub(crate) struct Apt {
    directory: PathBuf,
    release: Release,
}

impl Apt {
    /// Sets up `release` under `cache`; existing files are kept.
    pub(crate) fn new(cache: &Path, release: Release) -> Result<Self> {
        Self::set_up(cache.join("apt").join(release.name()), release, Kind::Binary)
    }

    /// The same for source packages.
    pub(crate) fn of_sources(cache: &Path, release: Release) -> Result<Self> {
        let directory = cache.join("apt").join(format!("{}-sources", release.name()));
        Self::set_up(directory, release, Kind::Source)
    }

    fn set_up(directory: PathBuf, release: Release, kind: Kind) -> Result<Self> {
        let apt = Self { directory, release };
        for part in ["sources", "lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(apt.directory.join(part)).context("cannot create apt's directories")?;
        }
        fs::write(apt.directory.join("status"), "").context("cannot write the empty package status")?;
        let mirrors = Mirrors::of_this_machine()?;
        let mut stanzas = mirrors.archive.stanza(kind, release.archive_suites());
        if let Some(security) = mirrors.security.filter(|_| !release.security_suites().is_empty()) {
            stanzas += &format!("\n{}", security.stanza(kind, release.security_suites()));
        }
        fs::write(apt.sources(), stanzas).context("cannot write apt's sources")?;
        Ok(apt)
    }

    /// Whether package lists have been fetched.
    pub(crate) fn has_lists(&self) -> bool {
        let lists = fs::read_dir(self.directory.join("lists")).into_iter().flatten().flatten();
        lists.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().contains("_Packages"))
    }

    /// The file with the package sources.
    pub(crate) fn sources(&self) -> PathBuf {
        self.directory.join("sources/lab.sources")
    }

    pub(crate) fn update(&self) -> Result<()> {
        eprintln!("fetching the package lists of {}", self.release.name());
        process::output(self.command("apt-get").args(["update", "--error-on=any"])).map(drop)
    }

    /// The version of a package that apt would select, and those of its dependencies.
    pub(crate) fn resolve(
        &self,
        name: &str,
        architecture: Architecture,
        follow: Follow,
    ) -> Result<Vec<Package>> {
        let architecture = architecture.debian();
        let mut found = BTreeMap::<String, Package>::new();
        let mut wanted = BTreeSet::from([name.to_owned()]);
        while !wanted.is_empty() {
            // apt takes a package for all architectures for one of this machine's.
            let exact = wanted.iter().flat_map(|name| [format!("{name}:{architecture}"), name.clone()]);
            let shown =
                process::text(self.command("apt-cache").args(["show", "--no-all-versions"]).args(exact))?;
            let records: Vec<Record> = shown.split("\n\n").filter_map(Record::parse).collect();
            let mut needed = BTreeSet::new();
            for name in wanted {
                let is_it = |record: &&Record| {
                    record.name == name && [architecture, "all"].contains(&record.architecture)
                };
                let release = self.release.name();
                let record = records.iter().find(is_it);
                let record =
                    record.context(format_args!("{release} has no package {name}:{architecture}"))?;
                let (architecture, version) = (record.architecture.to_owned(), record.version.to_owned());
                needed.extend(record.depends.iter().filter(|it| follow.takes(it)).map(|it| it.to_string()));
                found.insert(name.clone(), Package { name, architecture, version });
            }
            wanted = needed.into_iter().filter(|name| !found.contains_key(name)).collect();
        }
        Ok(found.into_values().collect())
    }

    /// Downloads packages and unpacks them into one tree.
    pub(crate) fn unpack(&self, packages: &[Package], root: &Path) -> Result<()> {
        let archives =
            tempfile::tempdir_in(&self.directory).context("cannot create a directory for archives")?;
        let exact = packages.iter().map(|it| format!("{}:{}={}", it.name, it.architecture, it.version));
        process::output(self.command("apt-get").arg("download").args(exact).current_dir(archives.path()))?;
        let fetched = fs::read_dir(archives.path()).context("cannot list the fetched archives")?;
        let fetched: Vec<PathBuf> = fetched.flatten().map(|entry| entry.path()).collect();
        if fetched.len() != packages.len() {
            return Err(Error::new(format!("apt fetched {} of {} packages", fetched.len(), packages.len())));
        }
        fs::create_dir_all(root).context(format_args!("cannot create {}", root.display()))?;
        for archive in fetched {
            process::output(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(root))?;
        }
        Ok(())
    }

    /// Downloads a source package and unpacks it, with Debian's patches, into a directory of its own in `parent`.
    pub(crate) fn unpack_source(&self, package: &str, parent: &Path) -> Result<PathBuf> {
        self.update()?;
        process::output(self.command("apt-get").args(["source", package]).current_dir(parent))?;
        let entries = fs::read_dir(parent).context("cannot list a source package")?;
        let mut directories = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
        directories.next().context(format_args!("apt unpacked no directory of {package}"))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").arg("-q");
        let path = |part: &str| self.directory.join(part).display().to_string();
        let mut option = |name: &str, value: &str| {
            command.arg("-o").arg(format!("{name}={value}"));
        };
        option("Dir::Etc::SourceList", "/dev/null");
        option("Dir::Etc::SourceParts", &path("sources"));
        option("Dir::State::Lists", &path("lists"));
        option("Dir::State::Status", &path("status"));
        option("Dir::Cache", &path("cache"));
        option("Dir::Cache::PkgCache", "pkgcache.bin");
        option("APT::Architectures::", "amd64");
        option("APT::Architectures::", "arm64");
        option("Acquire::Languages", "none");
        option("Acquire::Retries", "3");
        if self.release == Release::TrixieBackports {
            // Without it, apt prefers the packages of Trixie.
            option("APT::Default-Release", self.release.name());
        }
        if setup::is_root() {
            // apt's unprivileged user has no write permission in a checkout.
            option("APT::Sandbox::User", "root");
        }
        command
    }
}

/// Fields of `apt-cache show`.
struct Record<'a> {
    name: &'a str,
    architecture: &'a str,
    version: &'a str,
    /// Names only; the first of several alternatives.
    depends: Vec<&'a str>,
}

impl<'a> Record<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let lists = [field("Pre-Depends"), field("Depends")];
        let name_of = |dependency: &'a str| {
            let end = dependency.find([' ', '(', '|', ':', '[']).unwrap_or(dependency.len());
            dependency.get(..end).filter(|name| !name.is_empty())
        };
        let depends = lists.into_iter().flatten().flat_map(|list| list.split(',')).map(str::trim);
        Some(Self {
            name: field("Package")?,
            architecture: field("Architecture")?,
            version: field("Version")?,
            depends: depends.filter_map(name_of).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_its_dependencies_without_versions_and_alternatives() {
        let text = "Package: linux-image-6\nVersion: 6.1-1\nArchitecture: amd64\nPre-Depends: libc6:any\n\
                    Depends: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120) | dracut\nSize: 1\n";
        let record = Record::parse(text).unwrap();
        assert_eq!((record.name, record.version, record.architecture), ("linux-image-6", "6.1-1", "amd64"));
        assert_eq!(record.depends, ["libc6", "kmod", "linux-base", "initramfs-tools"]);
        assert!(Record::parse("Package: half\n").is_none());
    }

    #[test]
    fn dependencies_are_followed_by_prefix_or_by_exception() {
        assert!(Follow::Only(&["linux-image-"]).takes("linux-image-6.1"));
        assert!(!Follow::Only(&["linux-image-"]).takes("linux-base"));
        assert!(Follow::AllBut(&["gcc"]).takes("gcc-12-base"));
        assert!(!Follow::AllBut(&["gcc"]).takes("gcc"));
    }
}

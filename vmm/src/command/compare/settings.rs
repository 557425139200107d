//! The overrides of a profile with which the same guest gets the same errors under each table set.

use std::str::FromStr;

use compare::Change;
use machine_profile::{Diagnostic, Override, Profile, TableSet};
use platform::Arch;
use vmm::ras::inject::{InjectionSpec, InjectionSpecError, Trigger};

use super::super::{ProfileArgs, profiles};

/// The table sets that can describe a guest of an architecture.
pub(super) const fn table_sets(arch: Arch) -> [TableSet; 2] {
    match arch {
        Arch::Aarch64 => [TableSet::Acpi, TableSet::Devicetree],
        Arch::X86_64 => [TableSet::Acpi, TableSet::MpTable],
    }
}

/// An injection spec with its text.
#[derive(Clone, Debug)]
pub(super) struct GivenSpec {
    text: String,
    spec: InjectionSpec,
}

impl FromStr for GivenSpec {
    type Err = InjectionSpecError;

    fn from_str(text: &str) -> Result<Self, InjectionSpecError> {
        Ok(GivenSpec { text: text.to_owned(), spec: text.parse()? })
    }
}

/// Parameters of the built-in guest's command line that make it access pages or wait for errors.
const ERROR_PARAMETERS: [&str; 4] = ["probe.touch=", "probe.store=", "probe.fetch=", "probe.await-errors="];
/// Pages that the built-in guest's command line can name.
const MAX_TOUCHED_PAGES: usize = 8;

/// The injection specs that both guests get. If the guest is the built-in one and its command line says nothing about errors,
/// it also gets another command line, which makes it access each poisoned page, and the page is poisoned when it does. The
/// guest ends by itself whether or not it is notified.
pub(super) fn injections(specs: &[GivenSpec], builtin: bool, cmdline: &str) -> (Vec<String>, Option<String>) {
    let is_about_errors = |word: &str| ERROR_PARAMETERS.iter().any(|name| word.starts_with(name));
    if !builtin || specs.is_empty() || cmdline.split_whitespace().any(is_about_errors) {
        return (specs.iter().map(|given| given.text.clone()).collect(), None);
    }
    let mut words = vec![cmdline.to_owned()];
    let mut texts = Vec::new();
    for (number, GivenSpec { text, spec }) in specs.iter().enumerate() {
        if spec.address_pattern.is_some() || number >= MAX_TOUCHED_PAGES {
            texts.push(text.clone());
            continue;
        }
        // The guest reads an aligned word.
        let gpa = spec.request.gpa & !7;
        words.push(format!("probe.touch={gpa:#x}"));
        let has_no_trigger = spec.trigger == Trigger::After(std::time::Duration::ZERO);
        texts.push(if has_no_trigger {
            format!("{text},when=probe: touching {gpa:#x}")
        } else {
            text.clone()
        });
    }
    words.retain(|word| !word.is_empty());
    (texts, Some(words.join(" ")))
}

/// A profile for one table set.
pub(super) struct Settings {
    pub(super) profile: Profile,
    /// Arguments of `--set`.
    pub(super) set: Vec<String>,
    pub(super) changes: Vec<Change>,
}

/// Keys whose values a table set may not support, and what they become then.
const FALLBACKS: [(&str, &str); 7] = [
    ("ras.synchronous", "auto"),
    ("ras.asynchronous", "auto"),
    ("ras.corrected", "off"),
    ("ras.injection", "false"),
    ("ras.boot-record", "false"),
    // Removed.
    ("ras.persistent-store", ""),
    ("ras.on-budget", "report"),
];

impl Settings {
    /// Sets the table set, and what it does not support to its fallback.
    ///
    /// # Errors
    /// Returns the other problems of the profile.
    pub(super) fn new(args: &ProfileArgs, tables: &str, cmdline: Option<&str>) -> Result<Self, String> {
        let is_ours = |text: &&String| {
            let key = text.split('=').next().unwrap_or_default().trim();
            key == "machine.firmware" || (cmdline.is_some() && key == "boot.cmdline")
        };
        let mut set: Vec<String> = args.set.set.iter().filter(|text| !is_ours(text)).cloned().collect();
        set.push(format!("machine.firmware={tables}"));
        // A JSON string is a TOML string too.
        set.extend(cmdline.map(|cmdline| format!("boot.cmdline={}", serde_json::Value::from(cmdline))));
        let mut changes: Vec<Change> = Vec::new();
        loop {
            let problems = match load(args, &set) {
                Ok(profile) => return Ok(Settings { profile, set, changes }),
                Err(problems) => problems,
            };
            let change = |problem: &Diagnostic| {
                let (key, taken) = FALLBACKS.into_iter().find(|(key, _)| *key == problem.key)?;
                let asked = problem.value().trim_matches('"').to_owned();
                let is_new = !changes.iter().any(|it| it.key == key);
                is_new.then(|| Change { key: key.into(), asked, taken: taken.into() })
            };
            let Some(change) = problems.iter().find_map(change) else {
                let lines = problems.iter().map(|problem| format!("{}: {}", problem.key, problem.message));
                return Err(lines.collect::<Vec<_>>().join("; "));
            };
            set.retain(|text| !text.starts_with(&format!("{}=", change.key)));
            set.push(format!("{}={}", change.key, change.taken));
            changes.push(change);
        }
    }
}

fn load(args: &ProfileArgs, set: &[String]) -> Result<Profile, Vec<Diagnostic>> {
    let overrides: Result<Vec<_>, _> = set.iter().map(|text| Override::parse(text)).collect();
    overrides
        .map_err(|problem| vec![problem])
        .and_then(|it| profiles::load_one(&args.profile, &it, Arch::NATIVE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(texts: &[&str]) -> Vec<GivenSpec> {
        texts.iter().map(|text| text.parse().expect("a spec")).collect()
    }

    #[test]
    fn the_built_in_guest_accesses_each_poisoned_page() {
        let specs = given(&["ar@0x2000004", "ao@0x3000000,after=1s"]);
        let (texts, cmdline) = injections(&specs, true, "probe.timeout=100");
        assert_eq!(texts, ["ar@0x2000004,when=probe: touching 0x2000000", "ao@0x3000000,after=1s"]);
        assert_eq!(cmdline.as_deref(), Some("probe.timeout=100 probe.touch=0x2000000 probe.touch=0x3000000"));
    }

    #[test]
    fn an_explicit_command_line_is_not_changed() {
        let specs = given(&["ar@0x2000000"]);
        assert_eq!(injections(&specs, true, "probe.store=0x2000000"), (vec!["ar@0x2000000".into()], None));
        assert_eq!(injections(&specs, false, ""), (vec!["ar@0x2000000".into()], None));
        assert_eq!(injections(&[], true, ""), (vec![], None));
    }
}

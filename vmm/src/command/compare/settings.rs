//! What is set over a profile so that the same guest meets the same errors under either kind of tables.

use std::str::FromStr;

use compare::Change;
use machine_profile::{Diagnostic, Override, Profile, TableSet};
use platform::Arch;
use vmm::ras::inject::{Spec, SpecError, When};

use super::super::{ProfileArgs, profiles};

/// The kinds of tables that a guest of an architecture can be described by.
pub(super) const fn table_sets(arch: Arch) -> [TableSet; 2] {
    match arch {
        Arch::Aarch64 => [TableSet::Acpi, TableSet::Devicetree],
        Arch::X86_64 => [TableSet::Acpi, TableSet::MpTable],
    }
}

/// An order, and how it was written.
#[derive(Clone, Debug)]
pub(super) struct Ordered {
    text: String,
    spec: Spec,
}

impl FromStr for Ordered {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        Ok(Ordered { text: text.to_owned(), spec: text.parse()? })
    }
}

/// Words of the built-in guest's command line that say what it does about errors.
const ERROR_WORDS: [&str; 4] = ["probe.touch=", "probe.store=", "probe.fetch=", "probe.await-errors="];
/// Words that it takes to touch pages.
const MOST_WORDS: usize = 8;

/// The orders as both guests get them, and the command line where it has to be another one: a built-in guest that has no
/// words about errors touches what it is to lose, and loses it then. Both ways, whether it is told or not, it ends by itself.
pub(super) fn orders(orders: &[Ordered], builtin: bool, cmdline: &str) -> (Vec<String>, Option<String>) {
    let as_written = || orders.iter().map(|order| order.text.clone()).collect();
    let has_words = cmdline.split_whitespace().any(|word| ERROR_WORDS.iter().any(|it| word.starts_with(it)));
    if !builtin || orders.is_empty() || has_words {
        return (as_written(), None);
    }
    let mut words = vec![cmdline.to_owned()];
    let mut texts = Vec::new();
    for (number, Ordered { text, spec }) in orders.iter().enumerate() {
        if spec.shown.is_some() || number >= MOST_WORDS {
            texts.push(text.clone());
            continue;
        }
        let word = spec.order.gpa & !7;
        words.push(format!("probe.touch={word:#x}"));
        let at_once = spec.when == When::After(std::time::Duration::ZERO);
        texts.push(if at_once { format!("{text},when=probe: touching {word:#x}") } else { text.clone() });
    }
    words.retain(|word| !word.is_empty());
    (texts, Some(words.join(" ")))
}

/// A profile for one kind of tables.
pub(super) struct Settings {
    pub(super) profile: Profile,
    /// What is set, as `--set` takes it.
    pub(super) set: Vec<String>,
    pub(super) changes: Vec<Change>,
}

/// Answers that a kind of tables may be unable to carry: `auto` is taken instead.
const ANSWERS: [&str; 2] = ["ras.synchronous", "ras.asynchronous"];

impl Settings {
    /// Sets the tables, and what these cannot carry to `auto`.
    ///
    /// # Errors
    /// What is wrong with the profile beyond that.
    pub(super) fn new(args: &ProfileArgs, tables: &str, cmdline: Option<&str>) -> Result<Self, String> {
        let is_ours = |text: &&String| {
            let key = text.split('=').next().unwrap_or_default().trim();
            key == "machine.firmware" || (cmdline.is_some() && key == "boot.cmdline")
        };
        let mut set: Vec<String> = args.set.set.iter().filter(|text| !is_ours(text)).cloned().collect();
        set.push(format!("machine.firmware={tables}"));
        // A string of JSON is one of TOML: whatever is in the command line stays a string.
        set.extend(cmdline.map(|cmdline| format!("boot.cmdline={}", serde_json::Value::from(cmdline))));
        let mut changes: Vec<Change> = Vec::new();
        loop {
            let problems = match load(args, &set) {
                Ok(profile) => return Ok(Settings { profile, set, changes }),
                Err(problems) => problems,
            };
            let can_change = |problem: &&Diagnostic| {
                ANSWERS.contains(&problem.key.as_str()) && !changes.iter().any(|it| it.key == problem.key)
            };
            let Some(problem) = problems.iter().find(can_change) else {
                let told = problems.iter().map(|problem| format!("{}: {}", problem.key, problem.message));
                return Err(told.collect::<Vec<_>>().join("; "));
            };
            set.retain(|text| !text.starts_with(&format!("{}=", problem.key)));
            set.push(format!("{}=auto", problem.key));
            let asked = problem.value().trim_matches('"').to_owned();
            changes.push(Change { key: problem.key.clone(), asked, taken: "auto".into() });
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

    fn ordered(texts: &[&str]) -> Vec<Ordered> {
        texts.iter().map(|text| text.parse().expect("an order")).collect()
    }

    #[test]
    fn the_built_in_guest_touches_what_it_is_to_lose() {
        let given = ordered(&["ar@0x2000004", "ao@0x3000000,after=1s"]);
        let (texts, cmdline) = orders(&given, true, "probe.patience=100");
        assert_eq!(texts, ["ar@0x2000004,when=probe: touching 0x2000000", "ao@0x3000000,after=1s"]);
        assert_eq!(
            cmdline.as_deref(),
            Some("probe.patience=100 probe.touch=0x2000000 probe.touch=0x3000000")
        );
    }

    #[test]
    fn who_says_what_happens_is_left_alone() {
        let given = ordered(&["ar@0x2000000"]);
        assert_eq!(orders(&given, true, "probe.store=0x2000000"), (vec!["ar@0x2000000".into()], None));
        assert_eq!(orders(&given, false, ""), (vec!["ar@0x2000000".into()], None));
        assert_eq!(orders(&[], true, ""), (vec![], None));
    }
}

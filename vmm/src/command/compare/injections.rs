//! The errors that both guests get.

use std::str::FromStr;

use vmm::ras::inject::{InjectionSpec, InjectionSpecError, Trigger};

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

//! The reader of profiles: every input has a machine or diagnostics, which can be shown.

use std::path::Path;

use machine_profile::{Diagnostic, Override, Source, parse};
use platform::Arch;

/// Reads a profile for both architectures. Behind zero bytes, which are not TOML, follow the arguments of `--set`.
pub(crate) fn run(data: &[u8]) {
    let input = String::from_utf8_lossy(data);
    let mut parts = input.split('\0');
    let text = parts.next().unwrap_or_default();
    let mut overrides = Vec::new();
    for set in parts {
        match Override::parse(set) {
            Ok(over) => overrides.push(over),
            Err(problem) => check(&problem),
        }
    }
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let source = Source { name: "fuzz.toml".to_owned(), text: text.to_owned() };
        match parse(source, &overrides, arch, Path::new("base"), &devices::kinds()) {
            Ok(profile) => {
                check(&profile.problem("machine.vcpus", "", ""));
                let memory = &profile.machine.memory;
                assert!((1..=512).contains(&profile.machine.vcpus));
                assert!(memory.size.is_multiple_of(memory.page_size.bytes()));
            }
            Err(problems) => {
                assert!(!problems.is_empty(), "refused without a diagnostic");
                problems.iter().for_each(check);
            }
        }
    }
}

/// The text as it is.
pub(crate) fn show(data: &[u8]) -> String {
    String::from_utf8_lossy(data).replace('\0', "\n--set ")
}

fn check(diagnostic: &Diagnostic) {
    let related = diagnostic.related.iter().map(|label| &label.place);
    for place in std::iter::once(&diagnostic.place).chain(related) {
        let text = &place.source().text;
        let span = place.span();
        assert!(span.start <= span.end && span.end <= text.len(), "{span:?}");
        assert!(text.is_char_boundary(span.start) && text.is_char_boundary(span.end), "{span:?}");
        assert!(place.line() >= 1 && place.column() >= 1);
    }
    assert!(diagnostic.to_string().lines().count() >= 2);
}

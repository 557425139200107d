//! Every example of `config-examples` is a valid profile for its architecture, and the schema accepts it.

use std::fs;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use machine_profile::{Kernel, Machine, MemoryBacking, PageSize, Source, TableSet, load, parse, schema};
use platform::Arch;
use serde_json::Value;

#[test]
fn every_example_is_a_valid_profile() {
    for path in examples() {
        for &arch in architectures(&path) {
            if let Err(problems) = load(&path, &[], arch, &devices::kinds()) {
                panic!("{} for {arch}: {problems:#?}", path.display());
            }
        }
    }
}

#[test]
fn the_schema_accepts_every_example() {
    let validator = validator();
    let examples = examples();
    assert!(examples.len() >= 6, "{examples:?}");
    for path in examples {
        let errors: Vec<String> = validator
            .iter_errors(&json(&fs::read_to_string(&path).unwrap()))
            .map(|e| e.to_string())
            .collect();
        assert!(errors.is_empty(), "{}: {errors:?}", path.display());
    }
}

#[test]
fn examples_describe_the_machine_of_their_name() {
    let quickstart = machine("quickstart.toml", Arch::X86_64);
    assert_eq!((quickstart.vcpus, quickstart.memory.size), (2, 128 << 20));
    assert_eq!((quickstart.firmware, &quickstart.boot.kernel), (TableSet::Acpi, &Kernel::BuiltinProbe));
    assert_eq!(quickstart.name, "quickstart");

    assert_eq!(machine("x86_64-acpi.toml", Arch::X86_64).firmware, TableSet::Acpi);
    assert_eq!(machine("x86_64-mptable.toml", Arch::X86_64).firmware, TableSet::MpTable);
    assert_eq!(machine("arm64-acpi.toml", Arch::Aarch64).firmware, TableSet::Acpi);
    assert_eq!(machine("arm64-devicetree.toml", Arch::Aarch64).firmware, TableSet::Devicetree);
    let memory = machine("hugepages.toml", Arch::X86_64).memory;
    assert_eq!((memory.backing, memory.page_size), (MemoryBacking::Hugetlbfs, PageSize::Large));
}

#[test]
fn the_schema_is_a_valid_json_schema() {
    jsonschema::meta::validate(&schema(&devices::kinds())).unwrap();
}

#[test]
fn the_schema_accepts_serial_numbers_of_printable_characters_only() {
    let validator = validator();
    let is_accepted = |serial: char| {
        let text = format!(
            "[machine]\n[[device]]\ntype = \"virtio-block\"\npath = \"a\"\nserial = '''{serial}'''\n"
        );
        validator.is_valid(&json(&text))
    };
    for character in ' '..='~' {
        // One ends the string.
        assert!(character == '\'' || is_accepted(character), "{character}");
    }
    for character in ['\t', '\u{80}', 'ö', '\u{ffff}'] {
        assert!(!is_accepted(character), "{}", character.escape_unicode());
    }
}

/// Every ASCII character, and some others, as the name of a port.
#[test]
fn the_schema_accepts_the_names_of_ports_that_the_reader_accepts() {
    let validator = validator();
    let accepted = |character: char| {
        let name = format!("\"\\U{:08X}\"", u32::from(character));
        let text =
            format!("[machine]\n[[device]]\ntype = \"virtio-console\"\nports = {{ {name} = \"a\" }}\n");
        let is_valid = validator.is_valid(&json(&text));
        let source = Source { name: "ports.toml".into(), text };
        let is_read = parse(source, &[], Arch::X86_64, "/".as_ref(), &devices::kinds()).is_ok();
        assert_eq!(is_valid, is_read, "{}", character.escape_unicode());
        is_read
    };
    let names: String =
        ('\0'..='\u{7f}').chain(['\u{80}', 'ö', '\u{ffff}']).filter(|c| accepted(*c)).collect();
    let expected: String =
        ('\0'..='\u{7f}').filter(|c| c.is_ascii_alphanumeric() || "#+-.:=@_".contains(*c)).collect();
    assert_eq!(names, expected);
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    let validator = validator();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/profiles");
    for name in [
        "misspelt-key",
        "misspelt-section",
        "missing-machine",
        "unknown-word",
        "integer-in-quotes",
        "boolean-in-quotes",
        "vcpus-zero",
        "vcpus-too-many",
        "memory-without-unit",
        "memory-decimal-unit",
        "memory-fraction",
        "interval-unknown-unit",
        "name-empty",
        "name-with-slash",
        "name-with-control-character",
        "cmdline-too-long",
        "cmdline-with-newline",
        "kernel-builtin-unknown",
        "kernel-empty",
        "path-with-nul",
        "device-without-type",
        "device-unknown-type",
        "device-without-path",
        "device-unknown-key",
        "device-as-table",
        "disk-queues",
        "disk-rate-limit",
        "disk-serial",
        "section-as-list",
    ] {
        let text = fs::read_to_string(directory.join(name).with_extension("toml")).unwrap();
        assert!(!validator.is_valid(&json(&text)), "the schema accepts {name}");
    }
}

fn examples() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config-examples");
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|ending| ending == "toml")).collect()
}

/// By the file's name: a profile does not name its architecture.
fn architectures(path: &Path) -> &'static [Arch] {
    let name = path.file_name().unwrap().to_string_lossy();
    if name.starts_with("x86_64") {
        &[Arch::X86_64]
    } else if name.starts_with("arm64") {
        &[Arch::Aarch64]
    } else {
        &[Arch::X86_64, Arch::Aarch64]
    }
}

fn machine(name: &str, arch: Arch) -> Machine {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config-examples").join(name);
    load(&path, &[], arch, &devices::kinds()).unwrap().machine
}

fn validator() -> Validator {
    jsonschema::draft202012::new(&schema(&devices::kinds())).unwrap()
}

fn json(text: &str) -> Value {
    toml::from_str(text).unwrap()
}

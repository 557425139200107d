//! No input panics, every diagnostic can be shown, and the schema accepts every profile that the reader accepts.
//!
//! `PROPTEST_CASES` is the number of inputs of each test. One million in total, in a few minutes:
//!
//! ```sh
//! PROPTEST_CASES=250000 cargo test -p ghest-machine-profile --test never_panics
//! ```

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use jsonschema::Validator;
use machine_profile::{Diagnostic, Override, Source, parse, schema};
use platform::Arch;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Inputs of each test without `PROPTEST_CASES`: a few seconds.
const CASES: u32 = 20_000;

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn of_arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read(String::from_utf8_lossy(&bytes).into_owned(), &[]);
    }

    #[test]
    fn of_pieces_of_toml(pieces in prop::collection::vec(piece(), 0..40)) {
        read(pieces.concat(), &[]);
    }

    #[test]
    fn of_mutated_profiles(text in profile(), edits in prop::collection::vec(edit(), 1..6)) {
        read(edits.into_iter().fold(text, Edit::apply), &[]);
    }

    #[test]
    fn of_arbitrary_overrides(text in profile(), sets in prop::collection::vec(set(), 1..5)) {
        read(text, &sets);
    }
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES)
}

/// Parses for both architectures, and checks the result.
fn read(text: String, sets: &[String]) {
    let mut overrides = Vec::new();
    for set in sets {
        match Override::parse(set) {
            Ok(over) => overrides.push(over),
            Err(problem) => check(&problem),
        }
    }
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let source = Source { name: "fuzz.toml".to_owned(), text: text.clone() };
        match parse(source, &overrides, arch, Path::new("base"), &devices::kinds()) {
            Ok(profile) => {
                check(&profile.problem("machine.vcpus", "", ""));
                assert!((1..=512).contains(&profile.machine.vcpus));
                assert!(profile.machine.memory.size.is_multiple_of(profile.machine.memory.page_size.bytes()));
                // The schema applies to the text only, without overrides.
                if overrides.is_empty() {
                    let json = toml::from_str(&text).unwrap();
                    assert!(VALIDATOR.is_valid(&json), "the schema refuses {text:?}");
                }
            }
            Err(problems) => {
                assert!(!problems.is_empty(), "refused without a diagnostic: {text:?}");
                problems.iter().for_each(check);
            }
        }
    }
}

fn check(diagnostic: &Diagnostic) {
    for place in std::iter::once(&diagnostic.place).chain(diagnostic.related.iter().map(|label| &label.place))
    {
        let text = &place.source().text;
        let span = place.span();
        assert!(span.start <= span.end && span.end <= text.len(), "{span:?} in {text:?}");
        assert!(text.is_char_boundary(span.start) && text.is_char_boundary(span.end), "{span:?} in {text:?}");
        assert!(place.line() >= 1 && place.column() >= 1);
    }
    assert!(diagnostic.to_string().lines().count() >= 2);
}

static VALIDATOR: LazyLock<Validator> =
    LazyLock::new(|| jsonschema::draft202012::new(&schema(&devices::kinds())).unwrap());

/// Half of them valid, and half broken, because broken ones contain what valid ones do not.
fn profile() -> impl Strategy<Value = String> {
    prop_oneof![select(VALID.as_slice()), select(BROKEN.as_slice())]
}

static VALID: LazyLock<Vec<String>> = LazyLock::new(|| profiles_in("config-examples"));
static BROKEN: LazyLock<Vec<String>> = LazyLock::new(|| profiles_in("tests/profiles"));

fn profiles_in(directory: &str) -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(directory);
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect()
}

/// A change to a text. Positions are fractions of its length.
#[derive(Clone, Debug)]
enum Edit {
    Insert(Index, String),
    Remove(Index, usize),
    Repeat(Index, usize),
    Swap(Index, Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<Index>(), piece()).prop_map(|(at, piece)| Edit::Insert(at, piece)),
        (any::<Index>(), 1..30_usize).prop_map(|(at, len)| Edit::Remove(at, len)),
        (any::<Index>(), 1..60_usize).prop_map(|(at, len)| Edit::Repeat(at, len)),
        (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Edit::Swap(a, b)),
    ]
}

impl Edit {
    fn apply(text: String, edit: Edit) -> String {
        let mut chars: Vec<char> = text.chars().collect();
        let len = chars.len();
        if len == 0 {
            return text;
        }
        match edit {
            Edit::Insert(at, piece) => {
                let at = at.index(len);
                chars.splice(at..at, piece.chars());
            }
            Edit::Remove(at, count) => {
                let at = at.index(len);
                chars.drain(at..(at + count).min(len));
            }
            Edit::Repeat(at, count) => {
                let at = at.index(len);
                let piece: Vec<char> = chars[at..(at + count).min(len)].to_vec();
                chars.splice(at..at, piece);
            }
            Edit::Swap(a, b) => chars.swap(a.index(len), b.index(len)),
        }
        chars.into_iter().collect()
    }
}

/// Fragments of profiles, and fragments that break them.
fn piece() -> impl Strategy<Value = String> {
    let known = select(
        &[
            "[machine]\n",
            "[memory]\n",
            "[boot]\n",
            "[ras]\n",
            "[[device]]\n",
            "[control]\n",
            "[metrics]\n",
            "[[machine]]\n",
            "[device]\n",
            "[machine",
            "[a.b.c]\n",
            "vcpus",
            "memory",
            "machine.memory",
            "type = \"virtio-block\"\n",
            "path = \"x\"\n",
            "read-only = true\n",
            "page-size = \"2MiB\"\n",
            "backing = \"hugetlbfs\"\n",
            "firmware = \"mptable\"\n",
            "synchronous = \"sea\"\n",
            "socket = \"s\"\n",
            "interval = \"5s\"\n",
            " = ",
            "=",
            "\n",
            "\r\n",
            "\r",
            "\"",
            "\"\"\"",
            "'",
            "'''",
            "#",
            ".",
            ",",
            "{",
            "}",
            "[",
            "]",
            "[[",
            "]]",
            "\\u0000",
            "\\",
            "\u{feff}",
            "\u{0}",
            "\u{1b}",
            "é",
            "🦀",
            "\u{300}",
            "0",
            "-1",
            "0x",
            "1_000",
            "1e400",
            "nan",
            "true",
            "99999999999999999999999999999999999999999",
            "18446744073709551616TiB",
            "\"512MiB\"",
            "\"1s\"",
            "1979-05-27T07:32:00Z",
            "builtin:",
            "\t",
        ][..],
    );
    prop_oneof![4 => known.prop_map(str::to_owned), 1 => "\\PC{0,8}", 1 => any::<char>().prop_map(String::from)]
}

fn set() -> impl Strategy<Value = String> {
    let path = select(
        &[
            "machine.vcpus",
            "machine.memory",
            "machine.firmware",
            "machine.name",
            "boot.kernel",
            "boot.cmdline",
            "ras.synchronous",
            "ras.poll-interval",
            "device.0.path",
            "device.1.type",
            "device.9.path",
            "device.18446744073709551616.path",
            "device.path",
            "control.socket",
            "network.mac",
            "machine",
            "..",
            "",
        ][..],
    );
    prop_oneof![
        3 => (path, prop::collection::vec(piece(), 0..4)).prop_map(|(path, value)| format!("{path}={}", value.concat())),
        1 => prop::collection::vec(piece(), 0..6).prop_map(|pieces| pieces.concat()),
        1 => "\\PC{0,20}",
    ]
}

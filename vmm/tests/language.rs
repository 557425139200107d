//! The terms of the specifications and of Linux, and no others: words of an earlier vocabulary do not come back.
//!
//! Every text file of the repository is read. A line that quotes another project's own words is listed in [`QUOTATIONS`].

use std::fs;
use std::path::{Path, PathBuf};

/// A term that is not used, and the one in its place.
const TERMS: &[(&str, &str)] = &[
    ("lost page", "poisoned page"),
    ("lost pages", "poisoned pages"),
    ("lost memory", "poisoned memory"),
    ("lost for good", "permanently poisoned"),
    ("memory was lost", "memory was poisoned"),
    ("found lost", "detected"),
    ("told", "notified (an event), reported (a record)"),
    ("tells of", "reports"),
    ("tell of", "report"),
    ("gave up", "offlined, isolated"),
    ("given up", "offlined, isolated"),
    ("by order", "by an injection request"),
    ("on order", "on request"),
    ("left out", "omitted; of memory slots: a memslot hole"),
    ("finder", "AO listener"),
    ("last words", "fatal-signal report"),
    ("Wish", "RunState"),
    ("Hands", "ActionExecutor"),
    ("Lasting", "PreservedState"),
    ("Desk", "Channel"),
    ("Scene", "Context"),
    ("Moment", "Context"),
    ("Deed", "GuestAction"),
    ("Instead", "Fallback"),
    ("settle", "flush"),
    ("settled", "flushed"),
    ("attend", "poll"),
    ("Question", "ErrorClass"),
    ("Standing", "Preference"),
    ("MOST", "MAX_x"),
    ("ROOM", "x_CAPACITY"),
    ("PATIENCE", "x_TIMEOUT"),
    ("patience", "timeout"),
    ("TURN", "x_INTERVAL"),
    ("FAREWELL", "DRAIN_TIMEOUT"),
    ("can not", "cannot"),
    ("no word for", "cannot describe"),
    ("speaks of", "declares"),
    ("way out", "remedy, help"),
    ("way_out", "remedy, help"),
    ("none where", "`None` if"),
    ("None where", "`None` if"),
];

/// Lines that may use a term: part of a path, the term, and a part of the line. Those here are JSON keys, which scripts read.
const QUOTATIONS: &[(&str, &str, &str)] = &[
    ("crates/compare/", "told", "\"told"),
    ("tools/lab/src/compare/document.rs", "told", "values(\"error-1\", \"told\")"),
    ("ras-core/src/plan/response_plan.rs", "patience", "serde(rename = \"patience\")"),
];

#[test]
fn the_tree_uses_the_terms_of_the_field() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut uses = Vec::new();
    for path in text_files(&root) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let name = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
        for (line, number) in text.lines().zip(1..) {
            for (term, instead) in TERMS.iter().filter(|(term, _)| holds(line, term)) {
                if !is_quotation(&name, term, line) {
                    uses.push(format!("{name}:{number}: \"{term}\", write: {instead}"));
                }
            }
        }
    }
    assert!(uses.is_empty(), "{} uses:\n{}", uses.len(), uses.join("\n"));
}

#[test]
fn every_quotation_is_still_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = text_files(&root);
    for (path, term, part) in QUOTATIONS {
        let quoted = files.iter().filter(|file| file.to_string_lossy().contains(path)).any(|file| {
            let text = fs::read_to_string(file).unwrap_or_default();
            text.lines().any(|line| line.contains(part) && holds(line, term))
        });
        assert!(quoted, "{path} no longer quotes \"{part}\" with \"{term}\"");
    }
}

#[test]
fn terms_are_whole_words() {
    assert!(holds("a lost page.", "lost page") && !holds("glost page", "lost page"));
    assert!(holds("Wish::Run", "Wish") && !holds("Wishes", "Wish"));
    assert!(!holds("attendance", "attend") && holds("attend", "attend"));
}

fn is_quotation(name: &str, term: &str, line: &str) -> bool {
    QUOTATIONS.iter().any(|(path, of, part)| name.contains(path) && term == *of && line.contains(part))
}

/// Whether a line has the term as whole words.
fn holds(line: &str, term: &str) -> bool {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(term).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + term.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// The repository's own files that are text, without this one.
fn text_files(root: &Path) -> Vec<PathBuf> {
    const ENDINGS: [&str; 12] =
        ["rs", "md", "toml", "expected", "snap", "txt", "s", "sh", "html", "css", "jsonl", "dts"];
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if path.is_dir() {
                if name != "target" && !name.starts_with(".git") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
                && name != "language.rs"
                && name != "Cargo.lock"
            {
                files.push(path);
            }
        }
    }
    files
}

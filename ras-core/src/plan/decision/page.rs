//! The table as a page.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use super::ErrorClass::{self, Consumed, Detected};
use super::{ALWAYS, Always, rows};
use crate::request::{Arch, TableSet};
use crate::response::Response;

/// The table as people read it: Markdown, the text of this page.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(HEADING);
    for class in [Consumed, Detected] {
        for arch in Arch::ALL {
            for tables in TableSet::ALL {
                section(&mut page, class, arch, tables);
            }
        }
    }
    page.push_str("\n## Always\n\n| error | becomes | because | source |\n|---|---|---|---|\n");
    for always in ALWAYS {
        let Always { class, becomes, because, source } = always;
        line(&mut page, format_args!("| {} | {becomes} | {because} | {source} |", class.title()));
    }
    page
}

const HEADING: &str = "\
# The decision table

What each kind of memory error becomes. One table in the code; this page is printed from it.

The rows of a section stand best first. `auto` takes the first possible one marked *auto*. Where there is none, and where a response
asked for by name is not possible, `degrade` takes the first possible one marked *auto* or *degraded*, and `refuse` does not start.
*On request* means: only by its name. A response that has no row in the section of its guest is a mistake of the profile, and refused
on every host.

*Never acknowledged* is what happens once the guest has left a record unread for too long, *no progress* once a vCPU keeps touching a
page that the guest was told about. \"Morse 2018\" is James Morse's mail of 21 December 2018 to kvmarm and linux-kernel, \"Re: [RFC RESEND
PATCH] kvm: arm64: export memory error recovery capability to user space\".
";

fn section(page: &mut String, class: ErrorClass, arch: Arch, tables: TableSet) {
    let mut rows = rows(class, arch, tables).peekable();
    if rows.peek().is_none() {
        return;
    }
    line(page, format_args!("\n## {}, {arch}, {tables}\n", class.title()));
    page.push_str("| response | chosen | needs | never acknowledged | no progress | because | source |\n");
    page.push_str("|---|---|---|---|---|---|---|\n");
    for row in rows {
        let needs = row.needs.iter().map(|need| need.title()).collect::<Vec<_>>().join("; ");
        let word = |response: Option<Response>| response.map_or("", Response::word);
        line(
            page,
            format_args!(
                "| {} | {} | {needs} | {} | {} | {} | {} |",
                row.response,
                row.preference.title(),
                word(row.unacknowledged),
                word(row.stalled),
                row.because,
                row.source
            ),
        );
    }
}

fn line(page: &mut String, text: core::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(page, "{text}");
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    /// `BLESS=1 cargo test -p ras-core` writes the page anew.
    #[test]
    fn the_page_is_the_table() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/decision-table.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(page, markdown()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(page).unwrap(), markdown());
    }
}

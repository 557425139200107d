//! The table as a page.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use super::ErrorClass::{self, Consumed, Corrected, Detected};
use super::{EXCLUSIONS, Exclusion, FIXED, FixedRow, rows};
use crate::request::{Arch, TableSet};
use crate::response::Response;

/// The table in Markdown: the text of this page.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(HEADING);
    for class in [Consumed, Detected, Corrected] {
        for arch in Arch::ALL {
            for tables in TableSet::ALL {
                section(&mut page, class, arch, tables);
            }
        }
    }
    page.push_str("\n## Every guest\n\n| error | response | reason | reference |\n|---|---|---|---|\n");
    for FixedRow { class, response, reason, reference } in FIXED {
        let class = class.description();
        line(&mut page, format_args!("| {class} | {response} | {reason} | {reference} |"));
    }
    page.push_str("\n## Excluded\n\n| architecture | tables | responses | reason |\n|---|---|---|---|\n");
    for Exclusion { arch, tables, responses, reason } in EXCLUSIONS {
        let responses = responses.iter().map(|it| it.name()).collect::<Vec<_>>().join(", ");
        line(&mut page, format_args!("| {arch} | {tables} | {responses} | {reason} |"));
    }
    page
}

const HEADING: &str = "\
# The decision table

The response to each class of memory error. This page is generated from the one table in the code.

The rows of a section are sorted, best first. `auto` uses the first possible row marked *auto*. If there is none, or a response that
was requested by name is not possible, `degrade` uses the first possible row marked *auto* or *degraded*, and `refuse` does not start.
*On request* means: only by its name. A response without a row in the section of its guest is an error of the profile, and is refused
on every host.

*Unacknowledged* is the fallback if the guest leaves a record unread for too long, *no progress* the fallback if a vCPU keeps
accessing a page that was reported to the guest. \"Morse 2018\" is James Morse's mail of 21 December 2018 to kvmarm and linux-kernel,
\"Re: [RFC RESEND PATCH] kvm: arm64: export memory error recovery capability to user space\".
";

fn section(page: &mut String, class: ErrorClass, arch: Arch, tables: TableSet) {
    let mut rows = rows(class, arch, tables).peekable();
    if rows.peek().is_none() {
        return;
    }
    line(page, format_args!("\n## Errors {}, {arch}, {tables}\n", class.description()));
    page.push_str("| response | chosen | requires | unacknowledged | no progress | reason | reference |\n");
    page.push_str("|---|---|---|---|---|---|---|\n");
    for row in rows {
        let requires = row.requires.iter().map(|it| it.description()).collect::<Vec<_>>().join("; ");
        let name = |response: Option<Response>| response.map_or("", Response::name);
        line(
            page,
            format_args!(
                "| {} | {} | {requires} | {} | {} | {} | {} |",
                row.response,
                row.preference.description(),
                name(row.unacknowledged),
                name(row.stalled),
                row.reason,
                row.reference
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

    /// `BLESS=1 cargo test -p ghest-ras-core` writes the page.
    #[test]
    fn the_page_in_docs_is_generated_from_the_table() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/decision-table.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(page, markdown()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(page).unwrap(), markdown());
    }
}

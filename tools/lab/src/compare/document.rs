//! The page "ACPI and devicetree: what your guest loses", made of comparisons.

use std::fmt::Write as _;

use compare::{Comparison, Look, Row, Side, text};

const HEAD: &str = "\
# ACPI and devicetree: what your guest loses

One guest, one memory error, two descriptions of the same machine. Everything below was read from real runs: an unmodified
Debian kernel boots under `ghest` on an emulated host, the host's kernel poisons a page of one of its processes (`MADV_HWPOISON`), and
the process touches it.

**In a sentence:** on arm64 the guest gets the address of the poisoned page with ACPI only: it offlines that page, and the process
gets a SIGBUS with the address (`BUS_MCEERR_AR`); with a devicetree the same process dies of a SIGBUS without an address, and
the kernel continues to use the page. On x86_64 a consumed error is a machine check with either description; what an MP table guest
loses is the record of a detected error, and most of the other facts that ACPI describes. (In the runs below the host first reports
the error as detected. The ACPI guest gets a record of it, the other one a machine check, as for every error.)

The same without a Linux kernel, in a second on any machine with KVM:

```sh
ghest compare config-examples/quickstart.toml --inject ar@0x2000000
```

This page is generated; to change it, change `tools/lab/src/compare/document.rs` and run

```sh
cargo lab compare --document              # every host and kernel
cargo lab compare --document --no-run     # from the last successful runs
```
";

/// Sections whose differences are shown for the first kernel of an architecture, in this order.
const SHOWN: [&str; 5] = ["error-1", "end", "found", "plan", "tables"];

pub(super) fn page(comparisons: &[(String, Comparison)]) -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n## The error, on every kernel that was tried\n\n");
    page.push_str(&overview(comparisons));
    let mut shown = Vec::new();
    for (name, comparison) in comparisons {
        let architecture = &comparison.machine.architecture;
        let is_first = !shown.contains(architecture);
        let _ = write!(page, "\n## {architecture}, kernel {}\n\n", kernel(name));
        let _ =
            write!(page, "```sh\ncargo lab compare --host {architecture} --kernel {}\n```\n\n", kernel(name));
        for order in &comparison.orders {
            let _ = write!(page, "On the host, `ghest compare profile.toml --inject '{order}'`.\n\n");
        }
        if is_first {
            shown.push(architecture.clone());
            page.push_str(&differences(comparison));
        }
        let whole = text(comparison, Look { width: 118, colour: false, fold: false });
        let _ = write!(page, "<details><summary>All of it</summary>\n\n```text\n{whole}```\n\n</details>\n");
    }
    page.push_str("\n## What is not shown here\n\n");
    page.push_str(&missing(comparisons));
    page
}

fn kernel(name: &str) -> &str {
    name.split_once('-').map_or(name, |(_, kernel)| kernel)
}

fn overview(comparisons: &[(String, Comparison)]) -> String {
    let mut table = "| host and kernel | tables | the guest is notified by | record | acknowledged | the kernel | the process | offlined | the guest |\n\
                     |---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (name, comparison) in comparisons {
        for (number, side) in comparison.sides.iter().enumerate() {
            let values = |section: &str, key: &str| -> &[String] {
                comparison.row(section, key).and_then(|row| row.values.get(number)).map_or(&[], Vec::as_slice)
            };
            let guest = values("error-1", "guest");
            let line = |text: &str| guest.iter().rfind(|line| line.contains(text)).map(String::as_str);
            let recoveries = guest.iter().filter(|line| line.contains("recovery action"));
            let recovery: Vec<&str> = recoveries.filter_map(|line| line.rsplit(": ").next()).collect();
            let signal = line("process: SIGBUS").and_then(|line| line.strip_prefix("process: "));
            let corrupted = values("end", "corrupted").first().map_or("unknown", String::as_str);
            let cells = [
                if number == 0 { name.replace('-', ", ") } else { String::new() },
                side.tables.clone(),
                values("error-1", "told").join("; "),
                values("error-1", "record").join("; "),
                values("error-1", "acknowledged").join("; "),
                if recovery.is_empty() {
                    "says nothing".to_owned()
                } else {
                    format!("memory failure: {}", recovery.join(", then "))
                },
                signal.unwrap_or("no SIGBUS").to_owned(),
                corrupted.to_owned(),
                survived(side, values("end", "processes")),
            ];
            let _ = writeln!(table, "| {} |", cells.map(|cell| escape(&cell)).join(" | "));
        }
    }
    table
}

/// Whether the guest survived the error: another of its processes ended normally.
fn survived(side: &Side, processes: &[String]) -> String {
    let bystander = processes.iter().any(|process| process == "bystander: status 0");
    let ended = matches!(side.ending, compare::Ending::Exited { status: 0, .. });
    match (ended, bystander) {
        (true, true) => "continues, and so does its other process".into(),
        (true, false) => "ended".into(),
        (false, _) => "crashed".into(),
    }
}

/// What differs, a table for each section.
fn differences(comparison: &Comparison) -> String {
    let names: Vec<&str> = comparison.sides.iter().map(|side| side.tables.as_str()).collect();
    let mut text = String::new();
    for key in SHOWN {
        let Some(section) = comparison.sections.iter().find(|section| section.key == key) else { continue };
        let rows = named(&section.rows);
        if rows.is_empty() {
            continue;
        }
        let _ = write!(
            text,
            "### {}: what differs\n\n| | {} |\n|---|---|---|\n",
            section.title,
            names.join(" | ")
        );
        for (name, row) in rows {
            let cells = row.values.each_ref().map(|values| {
                let lines: Vec<String> = values.iter().map(|value| escape(value)).collect();
                if lines.is_empty() { "\u{2013}".to_owned() } else { lines.join("<br>") }
            });
            let _ = writeln!(text, "| {} | {} |", escape(&name), cells.join(" | "));
        }
        text.push('\n');
    }
    text
}

/// The rows that differ, each with a complete name: an indented row belongs to the row above.
fn named(rows: &[Row]) -> Vec<(String, &Row)> {
    let mut above = "";
    let mut named = Vec::new();
    for row in rows {
        let label = row.label.trim_start();
        let name = if label.len() < row.label.len() { format!("{above}: {label}") } else { label.to_owned() };
        if label.len() == row.label.len() {
            above = label;
        }
        if row.differs && !row.measured {
            named.push((name, row));
        }
    }
    named
}

fn missing(comparisons: &[(String, Comparison)]) -> String {
    let wanted = ["aarch64-6.1", "aarch64-6.12", "aarch64-7.3", "x86_64-6.1", "x86_64-6.12", "x86_64-7.3"];
    let missing: Vec<&str> =
        wanted.into_iter().filter(|name| !comparisons.iter().any(|(known, _)| known == name)).collect();
    let mut text = if missing.is_empty() {
        "- Every other combination of host and kernel that the lab has is above.\n".to_owned()
    } else {
        format!("- Not run for this page, or without a successful run: {}.\n", missing.join(", "))
    };
    text.push_str(
        "- The hosts are emulated: times are those of an emulator on a busy machine, and only their order is meaningful.\n\
         - `MADV_HWPOISON` replaces the memory controller. From the host kernel's `memory_failure()` on everything is as for a\n  \
           hardware error.\n\
         - A process consumes the error. If the guest's kernel consumes one itself, Linux on arm64 reads no record and\n  \
           crashes with either description.\n",
    );
    text
}

/// Text in a cell of a table, with markup escaped.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '|' | '*' | '`' | '\\' | '[' | ']' => {
                escaped.push('\\');
                escaped.push(character);
            }
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_document_lists_what_is_missing() {
        assert!(page(&[]).contains("without a successful run: aarch64-6.1, "));
    }

    #[test]
    fn the_guests_output_is_escaped() {
        assert_eq!(escape("a|b <script> *x* `y`"), "a\\|b &lt;script&gt; \\*x\\* \\`y\\`");
    }
}

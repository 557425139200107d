//! A comparison as a self-contained HTML page: no script, no external font, image or style.

use std::fmt::Write as _;

use crate::comparison::{Comparison, Row, Section};
use crate::escape::escape;
use crate::recording::{Answer, PlanSummary};
use crate::timeline::timeline;
use crate::units::{count, size};

/// Renders a comparison as a self-contained HTML page. All text in it is escaped.
#[must_use]
pub fn html(comparison: &Comparison) -> String {
    let machine = &comparison.machine;
    let names: Vec<String> = comparison.sides.iter().map(|side| escape(&side.tables)).collect();
    let title = format!("{}: {}", escape(&machine.name), names.join(" and "));
    let mut page = format!(
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n\
         <meta name=viewport content=\"width=device-width, initial-scale=1\">\n\
         <meta name=color-scheme content=\"light dark\">\n<title>{title}</title>\n<style>{}</style>\n<body>\n",
        include_str!("page.css")
    );
    let _ = write!(
        page,
        "<header><h1>{title}</h1><p>{}, {}, {}, {}; on a host with kernel {}</p>",
        escape(&machine.architecture),
        count(machine.vcpus as usize, "vCPU"),
        size(machine.memory),
        escape(&machine.kernel),
        escape(&comparison.host.kernel)
    );
    if !machine.cmdline.is_empty() {
        let _ = write!(page, "<p>Command line: <code>{}</code></p>", escape(&machine.cmdline));
    }
    for order in &comparison.orders {
        let _ = write!(page, "<p>Memory error: <code>{}</code></p>", escape(order));
    }
    page.push_str("</header>\n<h2>Time</h2>\n<p class=key><span><i class=set-up></i>ghest set-up</span><span><i class=guest></i>guest</span>\
                   <span><i class=after></i>ghest tear-down</span></p>\n");
    page.push_str(&timeline(comparison));
    page.push_str("\n<h2>The two plans</h2>\n<div class=plans>");
    for side in &comparison.sides {
        let _ = write!(page, "<section class=plan><h3>{}</h3>", escape(&side.tables));
        match &side.plan {
            Some(plan) => page.push_str(&card(plan)),
            None => page.push_str("<p>No plan.</p>"),
        }
        page.push_str("</section>");
    }
    page.push_str("</div>\n<h2>Side by side</h2>\n<input type=checkbox id=fold><label for=fold> only what differs</label>\n");
    page.push_str("<main>\n");
    // With injected errors, the sections about them come first.
    let is_about_errors = |section: &&Section| section.key.contains("error") || section.key == "end";
    let (stories, rest): (Vec<&Section>, Vec<&Section>) =
        comparison.sections.iter().partition(is_about_errors);
    let (first, last) = if comparison.orders.is_empty() { (rest, stories) } else { (stories, rest) };
    for section in first.into_iter().chain(last) {
        page.push_str(&table(section, &names));
    }
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn card(plan: &PlanSummary) -> String {
    let mut card = format!("<p>{}</p><dl>", escape(&plan.because));
    for answer in &plan.answers {
        let Answer { question, chosen, because, source, degraded, .. } = answer;
        let source = source.map_or_else(String::new, |source| format!(", record of source {source}"));
        let degraded = if *degraded { ", degraded" } else { "" };
        let _ = write!(
            card,
            "<dt>{}</dt><dd><b>{}</b>{source}{degraded}<br>{}</dd>",
            escape(Answer::class_label(question)),
            escape(chosen),
            escape(because)
        );
    }
    card.push_str("</dl>");
    for note in &plan.notes {
        let _ = write!(card, "<p class=note>{}</p>", escape(note));
    }
    card
}

fn table(section: &Section, names: &[String]) -> String {
    let differs = section.rows.iter().any(|row| row.differs || row.measured);
    let same = if differs { "" } else { " class=same" };
    let mut table = format!("<table{same}><caption>{}</caption><thead><tr><td>", escape(&section.title));
    for name in names {
        let _ = write!(table, "<th scope=col>{name}");
    }
    table.push_str("<tbody>\n");
    for row in &section.rows {
        table.push_str(&line(row, names));
    }
    table.push_str("</table>\n");
    table
}

fn line(row: &Row, names: &[String]) -> String {
    let (class, mark) = match (row.differs, row.measured) {
        (true, _) => ("differs", "<abbr title=\"differs\">\u{2260}</abbr> "),
        (false, true) => ("measured", ""),
        (false, false) => ("same", ""),
    };
    let indent = if row.label.starts_with(' ') { " class=inner" } else { "" };
    let mut line = format!("<tr class={class}><th scope=row{indent}>{mark}{}", escape(row.label.trim()));
    if class == "same" {
        let _ = write!(line, "<td colspan=2 data-side=both>{}", cell(&row.values[0]));
    } else {
        for (name, values) in names.iter().zip(&row.values) {
            let _ = write!(line, "<td data-side=\"{name}\">{}", cell(values));
        }
    }
    line.push('\n');
    line
}

fn cell(values: &[String]) -> String {
    match values {
        [] => "<span class=nothing>\u{2013}</span>".to_owned(),
        [value] => escape(value),
        values => {
            let items: String = values.iter().map(|value| format!("<li>{}", escape(value))).collect();
            format!("<ul>{items}</ul>")
        }
    }
}

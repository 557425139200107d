//! A comparison as text for a terminal or a pipe.
//!
//! A wide output has a column for each side; a narrow one has the sides below each other. Rows that differ are marked with `*`
//! and measured times with `~`, so that no information depends on colours.

use std::fmt::Write as _;

use crate::comparison::{Comparison, Row, Section};
use crate::units::{count, size};
use crate::wrap::wrap;

/// Layout of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Width in columns; limited to 24..=1000.
    pub width: usize,
    /// Whether to use ANSI colours.
    pub colour: bool,
    /// Whether to list rows that are the same on both sides by label only.
    pub fold: bool,
}

/// Minimum width for two sides beside each other.
const TWO_COLUMN_WIDTH: usize = 92;
const LABEL_WIDTH: usize = 26;
const MIN_WIDTH: usize = 24;
const MAX_WIDTH: usize = 1000;

/// Renders a comparison as text. No line is wider than [`Look::width`].
#[must_use]
pub fn text(comparison: &Comparison, look: Look) -> String {
    let look = Look { width: look.width.clamp(MIN_WIDTH, MAX_WIDTH), ..look };
    let mut page = Page { text: String::new(), look, names: names(comparison) };
    page.head(comparison);
    for section in &comparison.sections {
        page.section(section);
    }
    page.foot(comparison);
    page.text
}

fn names(comparison: &Comparison) -> [String; 2] {
    let name = |at: usize| comparison.sides.get(at).map(|side| side.tables.clone()).unwrap_or_default();
    [name(0), name(1)]
}

struct Page {
    text: String,
    look: Look,
    names: [String; 2],
}

#[derive(Clone, Copy)]
enum Style {
    Plain,
    Bold,
    Dim,
    Left,
    Right,
    Mark,
}

impl Page {
    fn head(&mut self, comparison: &Comparison) {
        let machine = &comparison.machine;
        let what = format!(
            "{} ({}, {}, {}), {}",
            machine.name,
            machine.architecture,
            count(machine.vcpus as usize, "vCPU"),
            size(machine.memory),
            machine.kernel
        );
        self.paragraph(&what, Style::Bold);
        self.paragraph(&format!("on a host with kernel {}", comparison.host.kernel), Style::Plain);
        for order in &comparison.orders {
            self.paragraph(&format!("memory error: {order}"), Style::Plain);
        }
        if self.is_wide() {
            let width = self.cell();
            let [left, right] = self.names.clone().map(|name| name.to_uppercase());
            let indent = " ".repeat(2 + LABEL_WIDTH + 1);
            let (left, right) =
                (self.paint(&pad(&left, width), Style::Left), self.paint(&right, Style::Right));
            let _ = writeln!(self.text, "\n{indent}{left}  {right}");
        }
    }

    fn section(&mut self, section: &Section) {
        self.text.push('\n');
        self.paragraph(&section.title, Style::Bold);
        let is_folded = |row: &&Row| self.look.fold && !row.differs && !row.measured;
        let folded: Vec<&str> = section.rows.iter().filter(is_folded).map(|row| row.label.trim()).collect();
        let rows: Vec<&Row> = section.rows.iter().filter(|row| !is_folded(row)).collect();
        for row in rows {
            if self.is_wide() { self.wide(row) } else { self.stacked(row) }
        }
        if !folded.is_empty() {
            let mut names = folded;
            names.dedup();
            let line = format!("= {} the same on both sides: {}", names.len(), names.join(", "));
            for (number, line) in wrap(&line, self.look.width - 4).into_iter().enumerate() {
                let indent = if number == 0 { "  " } else { "    " };
                let line = self.paint(&line, Style::Dim);
                let _ = writeln!(self.text, "{indent}{line}");
            }
        }
    }

    fn wide(&mut self, row: &Row) {
        let width = self.cell();
        let name = row.label.trim_start();
        let indent = " ".repeat(row.label.len() - name.len());
        let label: Vec<String> = wrap(name, LABEL_WIDTH - indent.len().min(LABEL_WIDTH))
            .into_iter()
            .map(|line| format!("{indent}{line}"))
            .collect();
        let same = !row.differs && !row.measured;
        let left = cell(&row.values[0], width);
        let right = if same { vec!["=".to_owned()] } else { cell(&row.values[1], width) };
        let (left_style, right_style) =
            if same { (Style::Plain, Style::Dim) } else { (Style::Left, Style::Right) };
        let lines = label.len().max(left.len()).max(right.len());
        let at = |lines: &[String], number: usize| lines.get(number).cloned().unwrap_or_default();
        for number in 0..lines {
            let mark = if number == 0 { mark(row) } else { " " };
            let (left, right) = (at(&left, number), at(&right, number));
            let mut line =
                format!("{} {} ", self.paint(mark, Style::Mark), pad(&at(&label, number), LABEL_WIDTH));
            let padding = if right.is_empty() { 0 } else { width + 2 - left.chars().count() };
            line.push_str(&self.paint(&left, left_style));
            line.push_str(&" ".repeat(padding));
            line.push_str(&self.paint(&right, right_style));
            let _ = writeln!(self.text, "{}", line.trim_end());
        }
    }

    fn stacked(&mut self, row: &Row) {
        let label = row.label.trim();
        let indent = &row.label[..row.label.len() - row.label.trim_start().len()];
        let title = wrap(label, self.look.width - 2 - indent.len());
        let same = !row.differs && !row.measured;
        for (number, line) in title.iter().enumerate() {
            let mark = if number == 0 { mark(row) } else { " " };
            let mark = self.paint(mark, Style::Mark);
            let _ = writeln!(self.text, "{mark} {indent}{line}");
        }
        let wanted = self.names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(4);
        let names = wanted.min(self.look.width / 3);
        let width = self.look.width - 4 - names - 1;
        let [left, right] = self.names.clone();
        let sides: &[(&str, usize, Style)] = if same {
            &[("both", 0, Style::Plain)]
        } else {
            &[(&left, 0, Style::Left), (&right, 1, Style::Right)]
        };
        for (name, side, style) in sides {
            for (number, line) in cell(&row.values[*side], width).iter().enumerate() {
                let name: String =
                    if number == 0 { name.chars().take(names).collect() } else { String::new() };
                let (name, line) = (self.paint(&pad(&name, names), *style), self.paint(line, *style));
                let _ = writeln!(self.text, "{}", format!("    {name} {line}").trim_end());
            }
        }
    }

    fn foot(&mut self, comparison: &Comparison) {
        let rows = || comparison.sections.iter().flat_map(|section| &section.rows);
        let differ = rows().filter(|row| row.differs).count();
        let same = rows().filter(|row| !row.differs && !row.measured).count();
        self.text.push('\n');
        let line =
            format!("{} differ (*), {same} are the same, times (~) vary between runs", count(differ, "row"));
        self.paragraph(&line, Style::Dim);
    }

    fn paragraph(&mut self, text: &str, style: Style) {
        for line in wrap(text, self.look.width) {
            let line = self.paint(&line, style);
            let _ = writeln!(self.text, "{line}");
        }
    }

    fn is_wide(&self) -> bool {
        self.look.width >= TWO_COLUMN_WIDTH
    }

    /// Width of a side in columns.
    fn cell(&self) -> usize {
        (self.look.width - 2 - LABEL_WIDTH - 1 - 2) / 2
    }

    fn paint(&self, text: &str, style: Style) -> String {
        let code = match style {
            Style::Plain => return text.to_owned(),
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Left => "36",
            Style::Right => "35",
            Style::Mark => "1;33",
        };
        if self.look.colour && !text.trim().is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

fn mark(row: &Row) -> &'static str {
    match (row.differs, row.measured) {
        (true, _) => "*",
        (false, true) => "~",
        (false, false) => " ",
    }
}

/// Wraps values into lines. With several values, continuation lines are indented.
fn cell(values: &[String], width: usize) -> Vec<String> {
    if values.is_empty() {
        return vec!["-".to_owned()];
    }
    let hang = if values.len() > 1 && width > 8 { 2 } else { 0 };
    let mut lines = Vec::new();
    for value in values {
        let mut wrapped = wrap(value, width - hang).into_iter();
        lines.extend(wrapped.next());
        lines.extend(wrapped.map(|line| " ".repeat(hang) + &line));
    }
    lines
}

fn pad(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(text.chars().count());
    format!("{text}{}", " ".repeat(missing))
}

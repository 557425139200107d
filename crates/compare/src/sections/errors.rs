//! Memory errors: what the host reported, how the guest was notified, how it reacted.

use crate::comparison::{Row, Section, Side};
use crate::story::{Seen, Story};
use crate::units::{size, time};

pub(super) fn errors(sides: [&Side; 2], orders: &[String]) -> Vec<Section> {
    let pairs = pairs(sides);
    let several = pairs.len() > 1;
    let mut sections = Vec::new();
    for (number, pair) in pairs.into_iter().enumerate() {
        let number = number + 1;
        let title = if several { format!("Memory error {number}") } else { "The memory error".to_owned() };
        sections.push(Section::new(format!("error-{number}"), title, story(pair)));
    }
    if sections.is_empty() && !orders.is_empty() {
        let values = sides.map(|_| vec![NO_ERROR.to_owned()]);
        let row = Row::new("page", "poisoned memory", values);
        sections.push(Section::new("error-1", "The memory error", vec![row]));
    }
    let other = Row::new("other", "not attributed", sides.map(|side| side.other_lines.clone()));
    sections.push(Section::new("other-errors", "Other console lines about errors", vec![other]));
    sections
}

/// Shown if a boot had no memory error.
const NO_ERROR: &str = "none: no memory error occurred";

/// Pairs the errors of both sides: those of the same page first, the remaining ones in order of occurrence.
fn pairs<'s>(sides: [&'s Side; 2]) -> Vec<[Option<&'s Story>; 2]> {
    let [left, right] = sides.map(|side| &side.errors);
    let mut taken = vec![false; right.len()];
    let mut pairs: Vec<[Option<&'s Story>; 2]> = Vec::new();
    for story in left {
        let same = right.iter().position(|other| (other.gpa, other.span) == (story.gpa, story.span));
        if let Some(at) = same
            && let Some(taken) = taken.get_mut(at)
        {
            *taken = true;
        }
        pairs.push([Some(story), same.and_then(|at| right.get(at))]);
    }
    let rest = right.iter().zip(taken).filter(|(_, taken)| !taken).map(|(story, _)| story);
    for story in rest {
        match pairs.iter_mut().find(|pair| pair[1].is_none()) {
            Some(pair) => pair[1] = Some(story),
            None => pairs.push([None, Some(story)]),
        }
    }
    pairs
}

fn story(pair: [Option<&Story>; 2]) -> Vec<Row> {
    let row = |key: &str, label: &str, what: &dyn Fn(&Story) -> Vec<String>| {
        Row::new(key, label, pair.map(|story| story.map(what).unwrap_or_default()))
    };
    let measured = |key: &str, label: &str, what: &dyn Fn(&Story) -> Option<u64>| {
        let shown = |story: Option<&Story>| story.and_then(what).map(time).into_iter().collect();
        Row::measured(key, label, pair.map(shown))
    };
    // If only one side had the error, the other side states that explicitly.
    let page =
        pair.map(|story| {
            vec![story.map_or_else(
                || NO_ERROR.to_owned(),
                |story| format!("{} at {:#x}", size(story.span), story.gpa),
            )]
        });
    vec![
        Row::new("page", "poisoned memory", page),
        row("seen", "reported by the host", &|story| distinct(story.seen.iter().map(seen))),
        row("answer", "planned response", &|story| distinct(story.seen.iter().map(|it| it.response.clone()))),
        row("record", "record written", &|story| {
            let records =
                story.records.iter().map(|it| format!("source {}, block at {:#x}", it.source, it.address));
            or_none(distinct(records))
        }),
        row("told", "guest notified by", &|story| {
            let notifications = story.notified.iter().map(|it| match it.vcpu {
                Some(vcpu) => format!("{} on vCPU {vcpu}", words(&it.how)),
                None => words(&it.how),
            });
            or_none(distinct(notifications))
        }),
        measured("told-after", "  after", &|story| {
            let notified = story.notified.first()?;
            let seen = story.seen.iter().rfind(|seen| seen.t_ns <= notified.t_ns)?;
            Some(notified.t_ns.saturating_sub(seen.t_ns))
        }),
        row("acknowledged", "acknowledged by the guest", &|story| {
            let sources = story.acknowledged.iter().map(|it| format!("source {}", it.source));
            match (story.records.is_empty(), story.acknowledged.is_empty()) {
                (true, true) => vec!["no record to acknowledge".to_owned()],
                (false, true) => vec!["never".to_owned()],
                _ => distinct(sources),
            }
        }),
        measured("acknowledged-after", "  after", &|story| story.acknowledged.first().map(|it| it.after_ns)),
        row("troubles", "delivery", &|story| story.troubles.iter().map(|it| words(it)).collect()),
        row("repaired", "repaired", &|story| {
            let yes = story.repaired.then(|| "yes: replaced by new memory".to_owned());
            yes.into_iter().collect()
        }),
        row("guest", "guest console", &|story| {
            if story.guest.is_empty() { vec!["no line about it".to_owned()] } else { story.guest.clone() }
        }),
    ]
}

fn seen(seen: &Seen) -> String {
    let class = match seen.class.as_str() {
        "AR" => "consumed (AR)",
        "AO" => "detected (AO)",
        "CE" => "corrected (CE)",
        other => other,
    };
    let vcpu = seen.vcpu.map_or_else(String::new, |vcpu| format!(", vCPU {vcpu}"));
    let origin = match seen.origin.as_str() {
        "sigbus" => "SIGBUS",
        "memory-fault" => "KVM_EXIT_MEMORY_FAULT",
        "arm-sea" => "KVM_EXIT_ARM_SEA",
        "injected" => "simulated",
        other => other,
    };
    format!("{class}{vcpu}: {origin}")
}

/// An identifier as words: `machine-check` becomes `machine check`.
fn words(name: &str) -> String {
    name.replace('-', " ")
}

/// Each distinct value once, with the number of its occurrences.
fn distinct(values: impl Iterator<Item = String>) -> Vec<String> {
    let mut counted: Vec<(String, usize)> = Vec::new();
    for value in values {
        match counted.iter_mut().find(|(known, _)| *known == value) {
            Some((_, times)) => *times += 1,
            None => counted.push((value, 1)),
        }
    }
    let shown =
        |(value, times): (String, usize)| if times > 1 { format!("{value} ({times} times)") } else { value };
    counted.into_iter().map(shown).collect()
}

fn or_none(values: Vec<String>) -> Vec<String> {
    if values.is_empty() { vec!["none".to_owned()] } else { values }
}

//! Memory errors: what the host saw, what the guest was told, what it did.

use super::{both, section};
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
        sections.push(section(format!("error-{number}"), title, story(pair)));
    }
    if sections.is_empty() && !orders.is_empty() {
        let values = both(sides, |_| vec!["nobody met an error".to_owned()]);
        sections.push(section(
            "error-1",
            "The memory error",
            vec![Row::new("page", "what was lost", values)],
        ));
    }
    let other = Row::new("other", "said of no one error", both(sides, |side| side.other_lines.clone()));
    sections.push(section("other-errors", "Further words about errors", vec![other]));
    sections
}

/// Which stories are of the same error: those of the same page, and else those of the same rank.
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
    // On one side only, the other side has lost nothing: that is said, not left blank.
    let page = pair.map(|story| {
        vec![story.map_or_else(
            || "nothing: nobody met an error".to_owned(),
            |story| format!("{} at {:#x}", size(story.span), story.gpa),
        )]
    });
    vec![
        Row::new("page", "what was lost", page),
        row("seen", "the host saw", &|story| distinct(story.seen.iter().map(seen))),
        row("answer", "the plan's answer", &|story| {
            distinct(story.seen.iter().map(|it| it.response.clone()))
        }),
        row("record", "record written", &|story| {
            let records =
                story.records.iter().map(|it| format!("source {}, block at {:#x}", it.source, it.address));
            or_none(distinct(records))
        }),
        row("told", "the guest is notified by", &|story| {
            let told = story.notified.iter().map(|it| match it.vcpu {
                Some(vcpu) => format!("{} on vCPU {vcpu}", words(&it.how)),
                None => words(&it.how),
            });
            or_none(distinct(told))
        }),
        measured("told-after", "  after", &|story| {
            let told = story.notified.first()?;
            let seen = story.seen.iter().rfind(|seen| seen.t_ns <= told.t_ns)?;
            Some(told.t_ns.saturating_sub(seen.t_ns))
        }),
        row("acknowledged", "the guest acknowledges", &|story| {
            let sources = story.acknowledged.iter().map(|it| format!("source {}", it.source));
            match (story.records.is_empty(), story.acknowledged.is_empty()) {
                (true, true) => vec!["nothing: no record".to_owned()],
                (false, true) => vec!["never".to_owned()],
                _ => distinct(sources),
            }
        }),
        measured("acknowledged-after", "  after", &|story| story.acknowledged.first().map(|it| it.after_ns)),
        row("troubles", "on the way", &|story| story.troubles.iter().map(|it| words(it)).collect()),
        row("repaired", "repaired", &|story| {
            let yes = story.repaired.then(|| "yes: fresh memory took its place".to_owned());
            yes.into_iter().collect()
        }),
        row("guest", "the guest", &|story| {
            if story.guest.is_empty() { vec!["said nothing of it".to_owned()] } else { story.guest.clone() }
        }),
    ]
}

fn seen(seen: &Seen) -> String {
    let class = match seen.class.as_str() {
        "AR" => "consumed (AR)",
        "AO" => "found (AO)",
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

/// `machine-check` in words.
fn words(name: &str) -> String {
    name.replace('-', " ")
}

/// Each once, with how often it was there.
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

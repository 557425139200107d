//! The grammar of `--inject`.
//!
//! ```text
//! ar@0x2000000                          poisoned when the guest starts; the next vCPU that accesses it consumes the error
//! ao@0x2000000,span=2MiB                poisoned when the guest starts, and reported as detected
//! ao@0x2000000,via=madvise,after=500ms  poisoned by the host's kernel, half a second after the start
//! ce@0x2000000,when=login:              corrected, and reported; nothing is poisoned
//! ar@0x2000000,when=probe: touching     poisoned when the guest has written this text to its console (always the last key)
//! ar@{victim a page 1 * gpa}            the address is the word that follows this text on the guest's console
//! ```

use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use platform::Range;
use ras_core::{Kind, Span};

use super::request::LOG2_LENS;
use super::{Contradiction, InjectionMethod, InjectionRequest};

/// An injection request and its trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectionSpec {
    /// The request. Its GPA is 0 if there is an `address_pattern`.
    pub request: InjectionRequest,
    /// Where the guest's console shows the GPA. `None` if the spec names the GPA.
    pub address_pattern: Option<ConsolePattern>,
    /// When the error is injected, but not before its GPA is known.
    pub trigger: Trigger,
}

/// When an error is injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// This long after the machine was started.
    After(Duration),
    /// When the guest has written this text to its console.
    ConsoleText(String),
}

/// A place in a line of the guest's console: the word after several texts that follow each other on that line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsolePattern(Vec<String>);

impl ConsolePattern {
    /// Reads texts with `*` between them. `*` matches anything on the same line.
    pub(super) fn parse(pattern: &str) -> Option<Self> {
        let texts: Vec<String> = pattern.split('*').map(|text| text.trim().to_owned()).collect();
        texts.iter().all(|text| !text.is_empty()).then_some(ConsolePattern(texts))
    }

    /// The address in a line. `None` if the line does not match.
    pub(super) fn address_in(&self, line: &str) -> Option<u64> {
        let rest = self.0.iter().try_fold(line, |rest, text| Some(rest.split_once(text.as_str())?.1))?;
        parse_number(rest.split_whitespace().next()?)
    }
}

/// Why an argument of `--inject` is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InjectionSpecError {
    /// It does not start with a kind and an address.
    #[error(
        "an injection request starts with `ar@`, `ao@` or `ce@` and a guest physical address, for example `ar@0x2000000`"
    )]
    Start,
    /// The address is not valid.
    #[error(
        "`{0}` is not a guest physical address: write it in decimal, in hexadecimal after 0x, or write `{{TEXT}}` \
         for the word that follows TEXT on the guest's console"
    )]
    Address(String),
    /// The key is not known.
    #[error("unknown key `{0}`: expected via=, span=, after= or when=")]
    Key(String),
    /// The method is not known.
    #[error("unknown method `{0}`: expected simulate, madvise or notice")]
    Method(String),
    /// The span is not valid.
    #[error("`{0}` is not a valid span: expected a power of two from 4KiB to 1GiB")]
    Span(String),
    /// The time is not valid.
    #[error("`{0}` is not a valid time: expected a whole number of ms or s, for example `500ms`")]
    Time(String),
    /// Kind, method and span do not go together.
    #[error(transparent)]
    Contradiction(Contradiction),
    /// The span is not within the guest's memory.
    #[error("{gpa:#x}: {span} is not memory of this guest, which has {}", ranges(.memory))]
    NotMemory {
        /// The address in the spec.
        gpa: u64,
        /// The pages that would be poisoned.
        span: Span,
        /// The guest's memory.
        memory: Vec<Range>,
    },
}

/// `0x0 to 0x3ffffff and 0x100000000 to 0x17fffffff`.
fn ranges(memory: &[Range]) -> String {
    let shown = memory.iter().map(|range| format!("{:#x} to {:#x}", range.start, range.end() - 1));
    shown.collect::<Vec<_>>().join(" and ")
}

impl InjectionSpec {
    /// Checks that what the spec names is in the guest's memory. An address that the guest's console will show is checked when
    /// it is known.
    ///
    /// # Errors
    /// Returns an error if it is not.
    pub fn check_memory(&self, memory: &[Range]) -> Result<(), InjectionSpecError> {
        let span = self.request.span();
        let within = |range: &Range| {
            let end = span.gpa.checked_add(span.bytes());
            range.start <= span.gpa && end.is_some_and(|end| end <= range.end())
        };
        if self.address_pattern.is_some() || memory.iter().any(within) {
            return Ok(());
        }
        Err(InjectionSpecError::NotMemory { gpa: self.request.gpa, span, memory: memory.to_vec() })
    }
}

impl FromStr for InjectionSpec {
    type Err = InjectionSpecError;

    fn from_str(spec: &str) -> Result<Self, InjectionSpecError> {
        // The text of `when=` may hold commas: it extends to the end.
        let (head, console_text) = match spec.split_once(",when=") {
            Some((head, text)) => (head, Some(text)),
            None => (spec, None),
        };
        let (kind, rest) = head.split_once('@').ok_or(InjectionSpecError::Start)?;
        // So may the text in braces: it extends to the closing brace.
        let end = if rest.starts_with('{') { rest.find('}').map(|at| at + 1) } else { rest.find(',') };
        let (gpa, keys) = rest.split_at_checked(end.unwrap_or(rest.len())).unwrap_or((rest, ""));
        let kind = match kind {
            "ar" => Kind::ActionRequired,
            "ao" => Kind::ActionOptional,
            "ce" => Kind::Corrected,
            _ => return Err(InjectionSpecError::Start),
        };
        let invalid_address = || InjectionSpecError::Address(gpa.to_owned());
        let pattern = gpa.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        let address_pattern =
            pattern.map(|text| ConsolePattern::parse(text).ok_or_else(invalid_address)).transpose()?;
        let gpa = match address_pattern {
            Some(_) => 0,
            None => parse_number(gpa).ok_or_else(invalid_address)?,
        };
        let mut request = InjectionRequest { gpa, log2_len: 12, kind, method: InjectionMethod::default() };
        let mut trigger = Trigger::After(Duration::ZERO);
        for word in keys.split(',').skip(1) {
            match word.split_once('=') {
                Some(("via", name)) => {
                    let known = InjectionMethod::from_str(name, false);
                    request.method = known.map_err(|_| InjectionSpecError::Method(name.to_owned()))?;
                }
                Some(("span", span)) => {
                    request.log2_len =
                        parse_log2_span(span).ok_or_else(|| InjectionSpecError::Span(span.to_owned()))?;
                }
                Some(("after", time)) => {
                    let time = parse_time(time).ok_or_else(|| InjectionSpecError::Time(time.to_owned()))?;
                    trigger = Trigger::After(time);
                }
                _ => return Err(InjectionSpecError::Key(word.to_owned())),
            }
        }
        if !keys.is_empty() && !keys.starts_with(',') {
            return Err(InjectionSpecError::Key(keys.to_owned()));
        }
        if let Some(text) = console_text {
            trigger = Trigger::ConsoleText(text.to_owned());
        }
        if let Some(contradiction) = request.contradiction() {
            return Err(InjectionSpecError::Contradiction(contradiction));
        }
        Ok(InjectionSpec { request, address_pattern, trigger })
    }
}

/// A number: decimal, or hexadecimal after 0x.
#[must_use]
pub fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A size in bytes, KiB, MiB or GiB.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("", 1)]
        .into_iter()
        .find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)))?;
    parse_number(number)?.checked_mul(unit)
}

/// The base-two logarithm of a span: a power of two from 4 KiB to 1 GiB, in bytes, KiB, MiB or GiB.
#[must_use]
pub fn parse_log2_span(text: &str) -> Option<u8> {
    let bytes = parse_size(text).filter(|bytes| bytes.is_power_of_two())?;
    u8::try_from(bytes.trailing_zeros()).ok().filter(|log2_len| LOG2_LENS.contains(log2_len))
}

/// A time: a whole number of ms or s.
#[must_use]
pub fn parse_time(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(number) => number.parse().ok().map(Duration::from_millis),
        None => text.strip_suffix('s')?.parse().ok().map(Duration::from_secs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Result<InjectionSpec, InjectionSpecError> {
        text.parse()
    }

    #[test]
    fn a_spec_has_defaults_for_every_key() {
        let request = InjectionRequest {
            gpa: 0x200_0000,
            log2_len: 12,
            kind: Kind::ActionRequired,
            method: InjectionMethod::Simulate,
        };
        let trigger = Trigger::After(Duration::ZERO);
        assert_eq!(spec("ar@0x2000000"), Ok(InjectionSpec { request, address_pattern: None, trigger }));
        let huge = InjectionRequest {
            log2_len: 21,
            kind: Kind::ActionOptional,
            method: InjectionMethod::Madvise,
            ..request
        };
        let trigger = Trigger::After(Duration::from_millis(500));
        assert_eq!(
            spec("ao@33554432,span=2MiB,via=madvise,after=500ms"),
            Ok(InjectionSpec { request: huge, address_pattern: None, trigger })
        );
        let trigger = |text| spec(text).expect("a spec").trigger;
        assert_eq!(trigger("ar@0x2000000,when=a, b=c"), Trigger::ConsoleText("a, b=c".into()));
        assert_eq!(trigger("ar@0x2000000,after=2s"), Trigger::After(Duration::from_secs(2)));
    }

    #[test]
    fn an_invalid_spec_is_refused_with_the_invalid_part() {
        assert_eq!(spec("0x2000000"), Err(InjectionSpecError::Start));
        assert_eq!(spec("ax@1"), Err(InjectionSpecError::Start));
        assert_eq!(spec("ar@2000000h"), Err(InjectionSpecError::Address("2000000h".into())));
        assert_eq!(spec("ar@1,via=magic"), Err(InjectionSpecError::Method("magic".into())));
        assert_eq!(spec("ar@1,span=3KiB"), Err(InjectionSpecError::Span("3KiB".into())));
        assert_eq!(spec("ar@1,after=1h"), Err(InjectionSpecError::Time("1h".into())));
        assert_eq!(spec("ar@1,often"), Err(InjectionSpecError::Key("often".into())));
        assert_eq!(
            spec("ar@1,via=notice"),
            Err(InjectionSpecError::Contradiction(Contradiction::ConsumedNotice))
        );
        assert_eq!(
            spec("ce@1,via=madvise"),
            Err(InjectionSpecError::Contradiction(Contradiction::PoisonedCorrected))
        );
        assert_eq!(
            spec("ce@1,span=2MiB"),
            Err(InjectionSpecError::Contradiction(Contradiction::WideCorrected))
        );
        for text in ["{}", "{ * }", "{gpa", "{*gpa}"] {
            assert_eq!(spec(&format!("ar@{text}")), Err(InjectionSpecError::Address(text.into())));
        }
        assert_eq!(spec("ar@{gpa}x"), Err(InjectionSpecError::Key("x".into())));
    }

    #[test]
    fn an_address_outside_memory_is_refused_with_the_ranges_of_memory() {
        let memory = [Range { start: 0, len: 0x400_0000 }, Range { start: 1 << 32, len: 1 << 20 }];
        let check = |text: &str| spec(text).expect("a spec").check_memory(&memory);
        for inside in ["ar@0", "ar@0x3ffffff", "ao@0x100000000", "ao@0x3e00000,span=2MiB", "ar@{gpa}"] {
            assert_eq!(check(inside), Ok(()), "{inside}");
        }
        let last = format!("ar@{:#x}", u64::MAX);
        for outside in ["ar@0x4000000", "ao@0xfffff000", "ao@0x100000000,span=2MiB", &last] {
            assert!(check(outside).is_err(), "{outside}");
        }
        assert_eq!(
            check("ar@0x4000123").expect_err("outside").to_string(),
            "0x4000123: 4 KiB at 0x4000000 is not memory of this guest, which has 0x0 to 0x3ffffff and 0x100000000 to 0x1000fffff"
        );
    }

    #[test]
    fn an_address_pattern_may_hold_commas() {
        let read = spec("ar@{victim a, page 1 * gpa},via=madvise,when=is ready").expect("a spec");
        let pattern = ConsolePattern(vec!["victim a, page 1".into(), "gpa".into()]);
        assert_eq!((read.address_pattern, read.request.method), (Some(pattern), InjectionMethod::Madvise));
    }

    #[test]
    fn spans_are_powers_of_two_with_or_without_a_unit() {
        assert_eq!(
            ["4096", "0x200000", "64KiB", "1GiB"].map(parse_log2_span),
            [Some(12), Some(21), Some(16), Some(30)]
        );
        assert_eq!(["0", "2048", "4097", "2GiB", "KiB", ""].map(parse_log2_span), [None; 6]);
    }
}

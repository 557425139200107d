//! Memory errors that a person orders: what is to be lost, how, and when.
//!
//! ```text
//! ar@0x2000000                          taken from the guest at once; whoever touches it consumes the error
//! ao@0x2000000,span=2MiB                told as found, and taken from the guest
//! ao@0x2000000,via=madvise,after=500ms  lost for real, half a second after the start
//! ar@0x2000000,when=probe: touching     once the guest's console has shown this text (the last word of an order)
//! ar@{victim a page 1 * gpa}            at the address that the guest's console shows after these words
//! ```

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ras_core::{Kind, Span};
use serde::{Deserialize, Serialize};

/// What is to be lost, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct InjectionRequest {
    /// A GPA in it.
    pub gpa: u64,
    /// Base-two logarithm of its bytes: 12 to 30.
    pub log2_len: u8,
    /// Whether it is found, or waits to be consumed.
    pub kind: Kind,
    /// How it is lost.
    pub via: Via,
}

/// How memory is lost on order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// It is left out of the guest's memory slots, and signals are raised as the host would raise them. Works on any host.
    #[default]
    Simulate,
    /// The host's kernel is told that it is broken (MADV_HWPOISON): needs CONFIG_MEMORY_FAILURE and CAP_SYS_ADMIN.
    Madvise,
    /// Nothing is lost: the guest is only told so, as of what was found.
    Notice,
}

impl InjectionRequest {
    /// The pages that are to be lost.
    #[must_use]
    pub const fn span(&self) -> Span {
        Span::around(self.gpa, self.log2_len)
    }
}

impl Via {
    /// All of them, with the word for each.
    pub const ALL: [(&'static str, Via); 3] =
        [("simulate", Via::Simulate), ("madvise", Via::Madvise), ("notice", Via::Notice)];
}

/// An order, its place and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What; its address counts only where `shown` names no other.
    pub order: InjectionRequest,
    /// The address is what the guest's console shows after this.
    pub shown: Option<Shown>,
    /// When; not before the address is known.
    pub when: When,
}

/// A place in what the guest's console shows: the word that follows some texts, which follow each other on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown(Vec<String>);

impl Shown {
    /// Texts with `*` between them, for whatever stands there.
    fn parse(text: &str) -> Option<Self> {
        let texts: Vec<String> = text.split('*').map(|text| text.trim().to_owned()).collect();
        texts.iter().all(|text| !text.is_empty()).then_some(Shown(texts))
    }

    /// The address in a line.
    fn find(&self, line: &str) -> Option<u64> {
        let rest = self.0.iter().try_fold(line, |rest, text| Some(rest.split_once(text.as_str())?.1))?;
        address(rest.split_whitespace().next()?)
    }
}

/// When an order is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// So long after the machine was started.
    After(Duration),
    /// Once the guest's console has shown this text.
    Said(String),
}

/// Why a text is no order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// It does not begin as one.
    #[error("an order begins with `ar@` or `ao@` and a guest physical address, as in `ar@0x2000000`")]
    Start,
    /// The address is none.
    #[error(
        "`{0}` is no address: decimal, hexadecimal after 0x, or `{{TEXT}}` for the word that the guest's console shows after a text"
    )]
    Address(String),
    /// There is no such key.
    #[error("`{0}` is none of via=, span=, after= and when=")]
    Key(String),
    /// There is no such way.
    #[error("`{0}` is none of simulate, madvise and notice")]
    Via(String),
    /// The span is none.
    #[error("`{0}` is no span: a power of two from 4KiB to 1GiB")]
    Span(String),
    /// The time is none.
    #[error("`{0}` is no time: a whole number of ms or s")]
    Time(String),
    /// A consumed error cannot be told without one.
    #[error("what is only told is not consumed: `notice` goes with `ao`")]
    ConsumedNotice,
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        // What the console shows may hold anything: it is the last word.
        let (head, said) = match text.split_once(",when=") {
            Some((head, said)) => (head, Some(said)),
            None => (text, None),
        };
        let (kind, rest) = head.split_once('@').ok_or(SpecError::Start)?;
        // What the console shows may hold commas too.
        let end = if rest.starts_with('{') { rest.find('}').map(|at| at + 1) } else { rest.find(',') };
        let (gpa, words) = rest.split_at_checked(end.unwrap_or(rest.len())).unwrap_or((rest, ""));
        let kind = match kind {
            "ar" => Kind::ActionRequired,
            "ao" => Kind::ActionOptional,
            _ => return Err(SpecError::Start),
        };
        let no_address = || SpecError::Address(gpa.to_owned());
        let braced = gpa.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        let shown = braced.map(|text| Shown::parse(text).ok_or_else(no_address)).transpose()?;
        let gpa = if shown.is_some() { 0 } else { address(gpa).ok_or_else(no_address)? };
        let mut order = InjectionRequest { gpa, log2_len: 12, kind, via: Via::default() };
        let mut when = When::After(Duration::ZERO);
        for word in words.split(',').skip(1) {
            match word.split_once('=') {
                Some(("via", via)) => {
                    let known = Via::ALL.into_iter().find(|(name, _)| *name == via);
                    order.via = known.ok_or_else(|| SpecError::Via(via.to_owned()))?.1;
                }
                Some(("span", span)) => {
                    order.log2_len = log2_span(span).ok_or_else(|| SpecError::Span(span.to_owned()))?;
                }
                Some(("after", time)) => {
                    when = When::After(period(time).ok_or_else(|| SpecError::Time(time.to_owned()))?);
                }
                _ => return Err(SpecError::Key(word.to_owned())),
            }
        }
        if !words.is_empty() && !words.starts_with(',') {
            return Err(SpecError::Key(words.to_owned()));
        }
        if let Some(said) = said {
            when = When::Said(said.to_owned());
        }
        if order.kind == Kind::ActionRequired && order.via == Via::Notice {
            return Err(SpecError::ConsumedNotice);
        }
        Ok(Spec { order, shown, when })
    }
}

/// A number: decimal, or hexadecimal after 0x.
#[must_use]
pub fn address(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The base-two logarithm of a span: a power of two from 4 KiB to 1 GiB, in bytes, KiB, MiB or GiB.
#[must_use]
pub fn log2_span(text: &str) -> Option<u8> {
    let (number, shift) = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("", 0)]
        .into_iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))?;
    let bytes = address(number)?.checked_shl(shift).filter(|bytes| bytes.is_power_of_two())?;
    u8::try_from(bytes.trailing_zeros()).ok().filter(|log2_len| (12..=30).contains(log2_len))
}

/// A time: a whole number of ms or s.
#[must_use]
pub fn period(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(number) => number.parse().ok().map(Duration::from_millis),
        None => text.strip_suffix('s')?.parse().ok().map(Duration::from_secs),
    }
}

/// Orders that wait for their time.
#[derive(Debug, Default)]
pub struct Schedule {
    waiting: Vec<Waiting>,
    heard: Mutex<Heard>,
}

#[derive(Debug)]
struct Waiting {
    spec: Spec,
    /// The address, once it was shown.
    place: OnceLock<u64>,
    /// Its text was shown.
    said: AtomicBool,
    done: AtomicBool,
}

/// What is remembered of what the console has shown.
#[derive(Debug, Default)]
struct Heard {
    /// Its end, as long as the longest text that is waited for.
    end: Vec<u8>,
    /// The line that is not yet whole, as far as [`LINE`] goes, while an address is waited for.
    line: Vec<u8>,
}

/// Bytes of a line in which an address is looked for.
const LINE: usize = 4096;

impl Schedule {
    /// All orders, none carried out yet.
    #[must_use]
    pub fn new(specs: &[Spec]) -> Self {
        let waiting = specs.iter().map(|spec| Waiting {
            spec: spec.clone(),
            place: OnceLock::new(),
            said: AtomicBool::new(false),
            done: AtomicBool::new(false),
        });
        Schedule { waiting: waiting.collect(), heard: Mutex::default() }
    }

    /// The guest's console shows these bytes.
    pub fn hear(&self, bytes: &[u8]) {
        let texts = self.waiting.iter().filter_map(|waiting| match &waiting.spec.when {
            When::Said(text) if !waiting.said.load(Ordering::Relaxed) => Some((text.as_bytes(), waiting)),
            _ => None,
        });
        let texts: Vec<_> = texts.collect();
        let places = self.waiting.iter().filter_map(|waiting| {
            let shown = waiting.spec.shown.as_ref().filter(|_| waiting.place.get().is_none())?;
            Some((shown, &waiting.place))
        });
        let places: Vec<_> = places.collect();
        if texts.is_empty() && places.is_empty() {
            return;
        }
        let Heard { end, line } = &mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if !places.is_empty() {
            look_for_places(bytes, line, &places);
        }
        let Some(longest) = texts.iter().map(|(text, _)| text.len()).max() else { return };
        end.extend(bytes);
        for (text, waiting) in texts {
            if end.windows(text.len().max(1)).any(|window| window == text) {
                waiting.said.store(true, Ordering::Release);
            }
        }
        let keep = end.len().saturating_sub(longest);
        end.drain(..keep);
    }

    /// The orders whose time has come, so long after the machine was started. Each is given once.
    pub fn due(&self, elapsed: Duration) -> impl Iterator<Item = InjectionRequest> + '_ {
        self.waiting.iter().filter_map(move |waiting| {
            let in_time = match &waiting.spec.when {
                When::After(time) => elapsed >= *time,
                When::Said(_) => waiting.said.load(Ordering::Acquire),
            };
            let gpa = match waiting.spec.shown {
                Some(_) => *waiting.place.get()?,
                None => waiting.spec.order.gpa,
            };
            let is_due = in_time && !waiting.done.swap(true, Ordering::AcqRel);
            is_due.then_some(InjectionRequest { gpa, ..waiting.spec.order })
        })
    }
}

/// Looks at every line that these bytes make whole; the first place of each counts.
fn look_for_places(bytes: &[u8], line: &mut Vec<u8>, places: &[(&Shown, &OnceLock<u64>)]) {
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        line.extend(piece.iter().take(LINE.saturating_sub(line.len())));
        if piece.ends_with(b"\n") {
            let text = String::from_utf8_lossy(line);
            for (shown, place) in places {
                if let Some(gpa) = shown.find(&text) {
                    // An error means that it was shown before.
                    let _ = place.set(gpa);
                }
            }
            line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Result<Spec, SpecError> {
        text.parse()
    }

    #[test]
    fn orders_are_read() {
        let order = InjectionRequest {
            gpa: 0x200_0000,
            log2_len: 12,
            kind: Kind::ActionRequired,
            via: Via::Simulate,
        };
        let at_once = When::After(Duration::ZERO);
        assert_eq!(spec("ar@0x2000000"), Ok(Spec { order, shown: None, when: at_once }));
        let huge = InjectionRequest { log2_len: 21, kind: Kind::ActionOptional, via: Via::Madvise, ..order };
        let later = When::After(Duration::from_millis(500));
        assert_eq!(
            spec("ao@33554432,span=2MiB,via=madvise,after=500ms"),
            Ok(Spec { order: huge, shown: None, when: later })
        );
        assert_eq!(spec("ar@0x2000000,when=a, b=c").unwrap().when, When::Said("a, b=c".into()));
        assert_eq!(spec("ar@0x2000000,after=2s").unwrap().when, When::After(Duration::from_secs(2)));
    }

    #[test]
    fn what_is_no_order_is_told_why() {
        assert_eq!(spec("0x2000000"), Err(SpecError::Start));
        assert_eq!(spec("ax@1"), Err(SpecError::Start));
        assert_eq!(spec("ar@2000000h"), Err(SpecError::Address("2000000h".into())));
        assert_eq!(spec("ar@1,via=magic"), Err(SpecError::Via("magic".into())));
        assert_eq!(spec("ar@1,span=3KiB"), Err(SpecError::Span("3KiB".into())));
        assert_eq!(spec("ar@1,after=1h"), Err(SpecError::Time("1h".into())));
        assert_eq!(spec("ar@1,often"), Err(SpecError::Key("often".into())));
        assert_eq!(spec("ar@1,via=notice"), Err(SpecError::ConsumedNotice));
        for text in ["{}", "{ * }", "{gpa", "{*gpa}"] {
            assert_eq!(spec(&format!("ar@{text}")), Err(SpecError::Address(text.into())));
        }
        assert_eq!(spec("ar@{gpa}x"), Err(SpecError::Key("x".into())));
    }

    #[test]
    fn an_address_may_be_shown_by_the_guest() {
        let text = "ar@{victim a, page 1 * gpa},via=madvise,when=is ready";
        let expected = Shown(vec!["victim a, page 1".into(), "gpa".into()]);
        let read = spec(text).unwrap();
        assert_eq!((read.shown.as_ref(), read.order.via), (Some(&expected), Via::Madvise));
        let schedule = Schedule::new(&[read]);
        let due = || schedule.due(Duration::ZERO).map(|order| order.gpa).collect::<Vec<_>>();
        schedule.hear(b"is ready\nvictim a, page 0 va 0x1 gpa 0x5000\nvictim a, page 1 gpa garbage\n");
        assert!(due().is_empty());
        // Hostile: no end of line for long, bytes that are no text, and the words on two lines.
        schedule.hear(&[0xff; 3 * LINE]);
        schedule.hear(b"\nvictim a, page 1\n gpa 0x6000\nvictim a, page 1 va 0x2 gpa 0x70");
        assert!(due().is_empty());
        schedule.hear(b"00\r\nvictim a, page 1 va 0x2 gpa 0x8000\n");
        assert_eq!(due(), [0x7000]);
        assert!(due().is_empty());
    }

    #[test]
    fn spans_are_powers_of_two_with_or_without_a_unit() {
        assert_eq!(
            ["4096", "0x200000", "64KiB", "1GiB"].map(log2_span),
            [Some(12), Some(21), Some(16), Some(30)]
        );
        assert_eq!(["0", "2048", "4097", "2GiB", "KiB", ""].map(log2_span), [None; 6]);
    }

    #[test]
    fn an_order_waits_for_its_time_or_its_text_and_is_given_once() {
        let specs = ["ar@0x1000,after=1s", "ao@0x2000,when=ready"].map(|text| spec(text).unwrap());
        let schedule = Schedule::new(&specs);
        let due = |ms| schedule.due(Duration::from_millis(ms)).map(|order| order.gpa).collect::<Vec<_>>();
        assert!(due(999).is_empty());
        schedule.hear(b"not rea");
        assert!(due(999).is_empty());
        schedule.hear(b"dy yet");
        assert_eq!(due(1000), [0x1000, 0x2000]);
        schedule.hear(b"ready");
        assert!(due(5000).is_empty());
    }
}

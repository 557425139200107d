//! The cases: every combination of tables, kind of error, response and place that these tables can carry on this host.

use std::fmt;

use clap::ValueEnum;
use machine_profile::{Machine, TableSet};
use ras_core::Response;
use ras_core::plan::decision::{ErrorClass, rows};
use serde::{Deserialize, Serialize};
use vmm::plan::Blueprint;
use vmm::ras::inject::InjectionMethod;

use super::super::ProfileArgs;
use super::super::settings::{self, Settings, table_sets};

/// The kind of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// Action required: the page is accessed.
    Consumed,
    /// Action optional: the page is accessed after the guest was notified.
    Detected,
}

/// What the poisoned page is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Place {
    /// Anonymous memory of a process.
    User,
    /// The same, of a process that requests the signal early (PR_MCE_KILL_EARLY). Detected errors only.
    EarlyKill,
    /// A page of a disk's page cache that holds what the disk holds, mapped by a process.
    FileClean,
    /// A page of a disk's page cache that the disk does not hold yet, mapped by a process.
    FileDirty,
    /// A page in a huge page of hugetlbfs.
    Hugetlb,
    /// A page in a transparent huge page.
    Thp,
    /// Free memory. To consume it is to allocate it.
    Free,
    /// The code of a system call.
    KernelText,
    /// A page table of a process.
    PageTable,
    /// Memory of a process that a disk writes to (O_DIRECT). Consumed by the device.
    DeviceBuffer,
}

impl Place {
    /// Whether a hole in the memslots cannot stand for a poisoned page that is consumed here. KVM itself answers a fetch of
    /// instructions (arm64) and a walk of page tables outside of the memslots, a store in a hole has no address (arm64) or is
    /// dropped (x86_64), and devices access guest memory by other means.
    const fn needs_poison(self) -> bool {
        matches!(self, Place::Free | Place::KernelText | Place::PageTable | Place::DeviceBuffer)
    }
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) tables: TableSet,
    pub(super) kind: Kind,
    pub(super) response: Response,
    pub(super) place: Place,
    via: InjectionMethod,
}

/// A case, and the overrides with which its guest boots or the reason why it cannot be checked.
pub(super) struct Planned {
    pub(super) case: Case,
    pub(super) boot: Result<Settings, String>,
}

/// Lines of the guest's program, as far as the injection depends on them.
const PAGE_LINE: &str = "ras-check: page";
const READY_LINE: &str = "ras-check: ready";

impl Case {
    /// The injection request: the guest's console names the page, and says when.
    pub(super) fn injection(&self) -> String {
        let kind = match self.kind {
            Kind::Consumed => "ar",
            Kind::Detected => "ao",
        };
        format!("{kind}@{{{PAGE_LINE}}},via={},when={READY_LINE}", name(self.via))
    }

    /// The class of error whose response is checked.
    fn class(&self) -> ErrorClass {
        class(self.kind, self.place)
    }

    /// The overrides of the profile.
    fn settings(&self, args: &ProfileArgs, cmdline: &str) -> Result<Settings, String> {
        if self.kind == Kind::Consumed && self.place.needs_poison() && self.via == InjectionMethod::Simulate {
            return Err("a memslot hole cannot stand for it: use --via madvise, as root".into());
        }
        // The other response must not be in the way: a page that the host poisons is detected before it is consumed.
        let (synchronous, asynchronous) = match (self.class(), self.kind) {
            (ErrorClass::Consumed, _) => (self.response.name(), "ignore"),
            _ => ("auto", self.response.name()),
        };
        let cmdline = format!(
            "{cmdline} panic=-1 quiet loglevel=1 ras-check.place={} ras-check.kind={}",
            name(self.place),
            name(self.kind)
        );
        let args = with_responses(args, synchronous, asynchronous);
        let settings = Settings::new(&args, self.tables.name(), Some(cmdline.trim()))?;
        match settings
            .changes
            .iter()
            .find(|change| change.key.starts_with("ras.") && change.key.ends_with("synchronous"))
        {
            Some(change) => Err(format!("{} = {} is not for these tables", change.key, change.asked)),
            None => Ok(settings),
        }
    }
}

fn is_consumed_by_device(kind: Kind, place: Place) -> bool {
    (kind, place) == (Kind::Consumed, Place::DeviceBuffer)
}

/// Errors that a device consumes are reported as detected ones.
fn class(kind: Kind, place: Place) -> ErrorClass {
    match kind {
        Kind::Consumed if !is_consumed_by_device(kind, place) => ErrorClass::Consumed,
        _ => ErrorClass::Detected,
    }
}

/// The name of a value of the command line.
pub(super) fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.tables.name(), name(self.kind), self.response, name(self.place))
    }
}

fn with_responses(args: &ProfileArgs, synchronous: &str, asynchronous: &str) -> ProfileArgs {
    let mut args = args.clone();
    args.set
        .set
        .retain(|text| !text.starts_with("ras.synchronous=") && !text.starts_with("ras.asynchronous="));
    args.set.set.push(format!("ras.synchronous={synchronous}"));
    args.set.set.push(format!("ras.asynchronous={asynchronous}"));
    args
}

/// The filters of the command line; an empty list is no filter.
pub(super) struct Choice<'a> {
    pub(super) kinds: &'a [Kind],
    pub(super) places: &'a [Place],
    /// `None` is the response of `auto`.
    pub(super) responses: &'a [Option<Response>],
    pub(super) tables: &'a [TableSet],
    pub(super) full: bool,
    pub(super) via: InjectionMethod,
}

impl Choice<'_> {
    /// The chosen cases of this host.
    ///
    /// # Errors
    /// Returns the reason if the machine cannot be planned with one of its table sets.
    pub(super) fn plan(&self, args: &ProfileArgs, machine: &Machine) -> Result<Vec<Planned>, String> {
        let mut planned = Vec::new();
        for tables in table_sets(machine.arch).into_iter().filter(|tables| is_chosen(self.tables, tables)) {
            let auto = Settings::new(&with_responses(args, "auto", "auto"), tables.name(), None)?;
            let auto = blueprint(&auto)?.ras;
            for (kind, place) in self.errors() {
                let class = class(kind, place);
                let auto = match class {
                    _ if is_consumed_by_device(kind, place) => Response::Ignore,
                    ErrorClass::Consumed => auto.consumed.chosen,
                    _ => auto.detected.chosen,
                };
                let responses = rows(class, machine.arch, tables).map(|row| row.response);
                // A device is the first to access a page that the host poisons only if the guest is not notified before.
                let responses = responses.filter(|it| !is_consumed_by_device(kind, place) || *it == auto);
                for response in responses.filter(|it| self.wants(tables, place, *it, auto)) {
                    let case = Case { tables, kind, response, place, via: self.via };
                    let boot = case.settings(args, &machine.boot.cmdline);
                    let boot = boot.and_then(|settings| carried(&case, settings));
                    planned.push(Planned { case, boot });
                }
            }
        }
        Ok(planned)
    }

    /// The chosen kinds and places of errors.
    fn errors(&self) -> impl Iterator<Item = (Kind, Place)> {
        let kinds = Kind::value_variants().iter().filter(move |kind| is_chosen(self.kinds, *kind));
        let errors = kinds.flat_map(|kind| Place::value_variants().iter().map(move |place| (*kind, *place)));
        errors.filter(move |(kind, place)| {
            // A consumed error is signalled at once, whatever the process has requested.
            is_chosen(self.places, place) && (*kind, *place) != (Kind::Consumed, Place::EarlyKill)
        })
    }

    /// Whether such an error is checked under a response. `auto` is that of these tables.
    fn wants(&self, tables: TableSet, place: Place, response: Response, auto: Response) -> bool {
        let is_auto = response == auto;
        match self.responses {
            [] if self.full || place == Place::User => true,
            [] => is_auto && (tables == TableSet::Acpi || !self.places.is_empty()),
            chosen => chosen.contains(&Some(response)) || is_auto && chosen.contains(&None),
        }
    }
}

fn is_chosen<T: PartialEq>(chosen: &[T], value: &T) -> bool {
    chosen.is_empty() || chosen.contains(value)
}

fn blueprint(settings: &Settings) -> Result<Blueprint, String> {
    settings::blueprint(&settings.profile.machine).map_err(|error| error.to_string())
}

/// The settings, if tables and host can carry the response.
fn carried(case: &Case, settings: Settings) -> Result<Settings, String> {
    let ras = blueprint(&settings)?.ras;
    let plan = if case.class() == ErrorClass::Consumed { ras.consumed } else { ras.detected };
    if plan.chosen == case.response {
        return Ok(settings);
    }
    let unmet = plan.candidates.iter().find(|candidate| candidate.response == case.response);
    let unmet: Vec<_> = unmet.iter().flat_map(|it| &it.unmet).map(ToString::to_string).collect();
    Err(format!("this host cannot carry it: {}", unmet.join("; ")))
}

/// A response of the command line; `None` is `auto`.
pub(super) fn response(text: &str) -> Result<Option<Response>, String> {
    match (text, Response::from_name(text)) {
        ("auto", _) => Ok(None),
        (_, Some(response)) => Ok(Some(response)),
        _ => {
            let names: Vec<_> = Response::ALL.iter().map(|response| response.name()).collect();
            Err(format!("expected auto, {}", names.join(", ")))
        }
    }
}

/// Tables of the command line.
pub(super) fn tables(text: &str) -> Result<TableSet, String> {
    let known = [TableSet::Acpi, TableSet::Devicetree, TableSet::MpTable];
    known
        .into_iter()
        .find(|tables| tables.name() == text)
        .ok_or_else(|| "expected acpi, devicetree or mptable".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_injection_waits_for_the_guests_program() {
        let case = Case {
            tables: TableSet::Acpi,
            kind: Kind::Detected,
            response: Response::Gsiv,
            place: Place::FileClean,
            via: InjectionMethod::Madvise,
        };
        assert_eq!(case.to_string(), "acpi detected gsiv file-clean");
        let spec = case.injection();
        assert_eq!(spec, "ao@{ras-check: page},via=madvise,when=ras-check: ready");
        assert!(spec.parse::<vmm::ras::inject::InjectionSpec>().is_ok());
    }

    #[test]
    fn a_device_does_not_consume_as_a_vcpu_does() {
        assert_eq!(class(Kind::Consumed, Place::User), ErrorClass::Consumed);
        assert_eq!(class(Kind::Consumed, Place::DeviceBuffer), ErrorClass::Detected);
        assert_eq!(class(Kind::Detected, Place::KernelText), ErrorClass::Detected);
    }

    #[test]
    fn responses_and_tables_have_names() {
        assert_eq!(response("auto"), Ok(None));
        assert_eq!(response("sea"), Ok(Some(Response::Sea)));
        assert!(response("other").expect_err("no response").contains("gsiv"));
        assert_eq!(tables("mptable"), Ok(TableSet::MpTable));
        assert!(tables("other").is_err());
    }
}

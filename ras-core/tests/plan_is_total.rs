//! Every request, every relevant host, every table set: a plan that can be carried out, or an error with a reason.

use core::num::NonZeroU32;

use ras_core::abilities::{
    Aarch64Abilities, ArchAbilities, Fact, HostAbilities, MachineCheckAbilities, MemoryFailure, Vendor,
    X86Abilities,
};
use ras_core::plan::decision::{ErrorClass, responses};
use ras_core::plan::{Plan, PlanError, ResponsePlan, TablesView, UnmetRequirement, plan};
use ras_core::request::{Arch, OnMissingSupport, Repair, Request, TableSet};
use ras_core::{ErrorSource, Notification, RecordArea, Response};

const INTERVAL: NonZeroU32 = NonZeroU32::new(1_000).unwrap();

fn request(
    arch: Arch,
    tables: TableSet,
    synchronous: Option<Response>,
    asynchronous: Option<Response>,
) -> Request {
    Request {
        arch,
        tables,
        synchronous,
        asynchronous,
        corrected: None,
        corrected_threshold: None,
        poll_interval_ms: INTERVAL,
        on_missing_support: OnMissingSupport::Degrade,
        repair: Repair::OnReset,
    }
}

/// `auto`, and every response that any guest can be given to that class of error.
fn requests(class: ErrorClass) -> impl Iterator<Item = Option<Response>> {
    std::iter::once(None).chain(responses(class).map(Some))
}

/// Every combination of the abilities that a response may require.
fn hosts() -> Vec<HostAbilities> {
    let mut arches = Vec::new();
    for vcpu_events in Fact::ALL {
        for inject_serror_esr in Fact::ALL {
            for vcpu_ras in Fact::ALL {
                arches.push(ArchAbilities::Aarch64(Aarch64Abilities {
                    vcpu_events,
                    inject_serror_esr,
                    vcpu_ras,
                    ..Default::default()
                }));
            }
        }
    }
    let bits = [MachineCheckAbilities::SER_P, MachineCheckAbilities::CMCI_P, MachineCheckAbilities::LMCE_P];
    let mut checks = vec![None];
    for set in 0..8_usize {
        let supported =
            bits.iter().enumerate().filter(|(bit, _)| set >> bit & 1 != 0).map(|(_, mask)| mask).sum();
        checks.extend([0, 1, 2, 32].map(|banks| Some(MachineCheckAbilities { supported, banks })));
    }
    for user_nmi in Fact::ALL {
        for mce in &checks {
            for vendor in [None, Some(Vendor::Intel), Some(Vendor::Amd)] {
                arches.push(ArchAbilities::X86_64(X86Abilities { user_nmi, mce: *mce, vendor }));
            }
        }
    }
    let mut hosts = Vec::new();
    for arch in arches {
        for handled in Fact::ALL {
            for recovery in Fact::ALL {
                hosts.push(HostAbilities {
                    arch,
                    memory_failure: MemoryFailure { handled, recovery, early_kill: Fact::Unknown },
                    ..HostAbilities::unknown(Arch::Aarch64)
                });
            }
        }
    }
    hosts
}

/// Every record area: each subset of these notifications, and none.
fn areas(notifications: &[Notification]) -> Vec<Option<RecordArea>> {
    (0..1_u32 << notifications.len())
        .map(|set| {
            let chosen = notifications.iter().enumerate().filter(|(bit, _)| set >> bit & 1 != 0);
            let sources: Vec<ErrorSource> = chosen
                .map(|(bit, &notification)| ErrorSource { id: 40 + bit as u16, notification })
                .collect();
            RecordArea::lay_out(1 << 30, 1 << 20, &sources).ok()
        })
        .collect()
}

/// Whether a response is possible, specified independently of the table: the guest's processor must have the exception, the host must be
/// able to inject it, and a record needs a source in the guest's tables and a notification.
fn is_possible(response: Response, plan: &Plan, host: &HostAbilities, tables: &TablesView<'_>) -> bool {
    let arm = match host.arch {
        ArchAbilities::Aarch64(host) => Some(host),
        ArchAbilities::X86_64(_) => None,
    };
    let x86 = match host.arch {
        ArchAbilities::X86_64(host) => Some(host),
        ArchAbilities::Aarch64(_) => None,
    };
    let record = |kind: fn(&Notification) -> bool| {
        plan.tables == TableSet::Acpi
            && tables.record_area.is_some_and(|area| area.slots().any(|slot| kind(&slot.source.notification)))
    };
    match response {
        Response::Stop | Response::Ignore => true,
        Response::Abort => arm.is_some(),
        Response::Serror => arm.is_some_and(|host| host.vcpu_events == Fact::Yes),
        Response::Sea => arm.is_some() && record(|kind| matches!(kind, Notification::Sea)),
        Response::Sei => {
            arm.is_some_and(|host| host.vcpu_events == Fact::Yes)
                && record(|kind| matches!(kind, Notification::Sei))
        }
        Response::Nmi => {
            x86.is_some_and(|host| host.user_nmi == Fact::Yes)
                && record(|kind| matches!(kind, Notification::Nmi))
        }
        Response::Mce => {
            x86.and_then(|host| host.mce).is_some_and(|mce| mce.supported & 0x100_0000 != 0 && mce.banks > 1)
        }
        Response::Polled => record(|kind| matches!(kind, Notification::Polled { .. })),
        Response::External => x86.is_some() && record(|kind| matches!(kind, Notification::External { .. })),
        Response::Gsiv if plan.tables == TableSet::Devicetree => tables.record_area.is_some_and(|area| {
            area.slots().any(|slot| matches!(slot.source.notification, Notification::External { .. }))
        }),
        Response::Gsiv => tables.error_device && record(|kind| matches!(kind, Notification::Gsiv)),
        Response::Sci => {
            x86.is_some() && tables.error_device && record(|kind| matches!(kind, Notification::Sci))
        }
        Response::Gpio => tables.error_device && record(|kind| matches!(kind, Notification::Gpio)),
        other => panic!("{other} is missing here"),
    }
}

fn check(request: &Request, host: &HostAbilities, tables: &TablesView<'_>) -> Result<Plan, PlanError> {
    let result = plan(request, host, tables);
    match &result {
        Ok(plan) => {
            for (response, requested) in
                [(&plan.consumed, request.synchronous), (&plan.detected, request.asynchronous)]
            {
                check_response(response, requested, request, plan, host, tables);
            }
            assert_eq!((plan.own_memory.chosen, plan.own_memory.degraded), (Response::Stop, false));
            assert_eq!(plan.touched_by_device.chosen, plan.detected.chosen);
            assert_eq!(plan.touched_by_device.source, plan.detected.source);
            let (handled, recovery) = (host.memory_failure.handled, host.memory_failure.recovery);
            let reports = handled == Fact::Yes && recovery == Fact::Yes;
            assert!(reports || request.on_missing_support == OnMissingSupport::Degrade);
            assert!(
                handled != Fact::No
                    || plan.notes.iter().any(|note| note.to_string().contains("CONFIG_MEMORY_FAILURE"))
            );
        }
        Err(error) => {
            assert!(error.to_string().len() > 20, "{error}");
            let missing = matches!(
                error,
                PlanError::MissingSupport { .. }
                    | PlanError::HostReportsNothing(_)
                    | PlanError::HostPanics(_)
            );
            assert!(
                !missing || request.on_missing_support == OnMissingSupport::Refuse,
                "{request:?}: {error}"
            );
        }
    }
    result
}

fn check_response(
    response: &ResponsePlan,
    requested: Option<Response>,
    request: &Request,
    plan: &Plan,
    host: &HostAbilities,
    tables: &TablesView<'_>,
) {
    for used in [Some(response.chosen), response.unacknowledged, response.stalled].into_iter().flatten() {
        assert!(is_possible(used, plan, host, tables), "{used} for {request:?} on {host:?}");
    }
    for candidate in &response.candidates {
        assert_eq!(
            candidate.unmet.is_empty(),
            is_possible(candidate.response, plan, host, tables),
            "{} on {host:?}",
            candidate.response
        );
    }
    assert!(!response.reason.is_empty());
    assert_eq!(response.requested, requested);
    assert_eq!(
        response.degraded,
        requested.is_some_and(|requested| requested != response.chosen)
            || response.degraded && requested.is_none()
    );
    assert!(!response.degraded || request.on_missing_support == OnMissingSupport::Degrade);
    if let Some(requested) = requested
        && is_possible(requested, plan, host, tables)
    {
        assert_eq!(response.chosen, requested, "it was possible");
    }
    let slot = response.source.and_then(|id| tables.record_area.and_then(|area| area.slot(id)));
    let number = match (response.chosen, plan.tables) {
        (Response::Gsiv, TableSet::Devicetree) => Some(1),
        (chosen, _) => chosen.notification(),
    };
    assert_eq!(slot.map(|slot| slot.source.notification.number()), number);
}

#[test]
fn every_request_leads_to_a_plan_or_an_error_with_a_reason() {
    let consumed = [Notification::Sea, Notification::Sei, Notification::Nmi];
    let detected = [
        Notification::Polled { interval_ms: INTERVAL },
        Notification::Gsiv,
        Notification::Sci,
        Notification::Gpio,
        Notification::External { gsi: 20 },
    ];
    let (mut plans, mut errors) = (0_u64, 0_u64);
    let mut count = |result: Result<Plan, PlanError>| match result {
        Ok(_) => plans += 1,
        Err(_) => errors += 1,
    };
    let hosts = hosts();
    for arch in Arch::ALL {
        for set in TableSet::ALL {
            for on_missing_support in [OnMissingSupport::Degrade, OnMissingSupport::Refuse] {
                // One class of error at a time: the request for one does not change the response to the other (checked below).
                for area in areas(&consumed) {
                    let tables = TablesView { set, record_area: area.as_ref(), error_device: false };
                    for host in &hosts {
                        for synchronous in requests(ErrorClass::Consumed) {
                            let request = Request {
                                on_missing_support,
                                ..request(arch, set, synchronous, Some(Response::Ignore))
                            };
                            count(check(&request, host, &tables));
                        }
                    }
                }
                for area in areas(&detected) {
                    for error_device in [false, true] {
                        let tables = TablesView { set, record_area: area.as_ref(), error_device };
                        // Vendor and syndrome change no response to detected errors; KVM's machine check does.
                        for host in hosts.iter().step_by(3) {
                            for asynchronous in requests(ErrorClass::Detected) {
                                let request = Request {
                                    on_missing_support,
                                    ..request(arch, set, Some(Response::Stop), asynchronous)
                                };
                                count(check(&request, host, &tables));
                            }
                        }
                    }
                }
            }
        }
    }
    println!("{plans} plans, {errors} errors");
    assert!(plans > 100_000 && errors > 100_000);
}

#[test]
fn a_response_depends_neither_on_the_other_class_nor_on_abilities_that_no_row_requires() {
    let all = [
        Notification::Sea,
        Notification::Sei,
        Notification::Nmi,
        Notification::Polled { interval_ms: INTERVAL },
        Notification::Gsiv,
        Notification::Gpio,
        Notification::External { gsi: 20 },
    ];
    for area in areas(&all) {
        for arch in Arch::ALL {
            for set in TableSet::ALL {
                let tables = TablesView { set, record_area: area.as_ref(), error_device: true };
                let host = HostAbilities::unknown(arch);
                for synchronous in requests(ErrorClass::Consumed) {
                    for asynchronous in requests(ErrorClass::Detected) {
                        let both = request(arch, set, synchronous, asynchronous);
                        let alone =
                            plan(&Request { asynchronous: Some(Response::Stop), ..both }, &host, &tables)
                                .map(|plan| plan.consumed);
                        let other =
                            plan(&Request { synchronous: Some(Response::Stop), ..both }, &host, &tables)
                                .map(|plan| plan.detected);
                        match check(&both, &host, &tables) {
                            Ok(plan) => assert_eq!((Ok(plan.consumed), Ok(plan.detected)), (alone, other)),
                            Err(error) => assert!(alone == Err(error.clone()) || other == Err(error)),
                        }
                        // Abilities that only change notes and the form of an exception.
                        let mut more = HostAbilities {
                            kvm: Fact::No,
                            memory_fault_info: Fact::No,
                            privileged: Fact::No,
                            ..host.clone()
                        };
                        more.memory_failure.early_kill = Fact::No;
                        more.page_sizes = vec![4096, 2 << 20];
                        if let ArchAbilities::Aarch64(host) = &mut more.arch {
                            (host.inject_ext_dabt, host.sea_to_user, host.far_not_valid) =
                                (Fact::Yes, Fact::No, Fact::Yes);
                        }
                        match (plan(&both, &host, &tables), plan(&both, &more, &tables)) {
                            (Ok(plan), Ok(with)) => {
                                assert_eq!((plan.consumed, plan.detected), (with.consumed, with.detected))
                            }
                            (one, other) => assert_eq!(one.map(|_| ()), other.map(|_| ())),
                        }
                    }
                }
            }
        }
    }
}

/// The documented meaning of `auto`.
#[test]
fn auto_means_what_is_documented() {
    let kvm = |arch, recovery: bool, nmi: bool| {
        let mut host = HostAbilities::unknown(arch);
        host.memory_failure = MemoryFailure { handled: Fact::Yes, recovery: Fact::Yes, early_kill: Fact::No };
        match &mut host.arch {
            ArchAbilities::Aarch64(host) => host.vcpu_events = Fact::Yes,
            ArchAbilities::X86_64(host) => {
                let supported = if recovery { 0x0900_0500 | 1 << 24 } else { 0x500 };
                host.mce = Some(MachineCheckAbilities { supported, banks: 32 });
                host.user_nmi = nmi.into();
            }
        }
        host
    };
    let all = [
        Notification::Nmi,
        Notification::External { gsi: 20 },
        Notification::Polled { interval_ms: INTERVAL },
        Notification::Gpio,
        Notification::Sei,
        Notification::Gsiv,
        Notification::Sea,
    ];
    let area = areas(&all).pop().unwrap();
    for (arch, set, recovery, consumed, detected) in [
        (Arch::Aarch64, TableSet::Acpi, false, "sea", "gsiv"),
        (Arch::Aarch64, TableSet::Devicetree, false, "abort", "ignore"),
        (Arch::X86_64, TableSet::Acpi, true, "mce", "gsiv"),
        (Arch::X86_64, TableSet::Acpi, false, "nmi", "gsiv"),
        (Arch::X86_64, TableSet::MpTable, true, "mce", "mce"),
        (Arch::X86_64, TableSet::MpTable, false, "stop", "ignore"),
    ] {
        for on_missing_support in [OnMissingSupport::Degrade, OnMissingSupport::Refuse] {
            let auto = Request { on_missing_support, ..request(arch, set, None, None) };
            let record_area = area.as_ref().filter(|_| set == TableSet::Acpi);
            let tables = TablesView { set, record_area, error_device: set == TableSet::Acpi };
            let plan = plan(&auto, &kvm(arch, recovery, true), &tables).unwrap();
            assert_eq!(
                (plan.consumed.chosen.name(), plan.detected.chosen.name()),
                (consumed, detected),
                "{arch} {set}"
            );
            assert!(!plan.consumed.degraded && !plan.detected.degraded);
            assert_eq!(plan.own_memory.chosen, Response::Stop);
        }
    }
}

#[test]
fn corrected_errors_are_reported_on_request_by_acpi_only() {
    for arch in Arch::ALL {
        let host = HostAbilities::unknown(arch);
        for set in TableSet::ALL {
            for corrected in requests(ErrorClass::Corrected) {
                let request = Request { corrected, ..request(arch, set, None, Some(Response::Gsiv)) };
                let sources: Vec<_> = ras_core::plan::sources_wanted(&request, &host, Some(20)).collect();
                let area = RecordArea::lay_out(1 << 30, 1 << 20, &sources).ok();
                let tables = TablesView { set, record_area: area.as_ref(), error_device: true };
                let is_record = corrected.is_some_and(Response::writes_record);
                match plan(&request, &host, &tables) {
                    Ok(plan) => {
                        assert_eq!(plan.corrected.chosen, corrected.unwrap_or(Response::Ignore));
                        assert_eq!(plan.corrected.source.is_some(), is_record);
                        assert_eq!(plan.corrected.threshold, None, "none was requested");
                    }
                    Err(error) => assert!(set != TableSet::Acpi, "{error}"),
                }
            }
        }
    }
}

/// The sources that are built for a request are those that its plan uses.
#[test]
fn the_plan_uses_exactly_the_sources_that_were_wanted() {
    for host in hosts() {
        for set in TableSet::ALL {
            let (arch, error_device) = (host.architecture(), set == TableSet::Acpi);
            for synchronous in requests(ErrorClass::Consumed) {
                let corrected = [None, Some(Response::Gsiv)];
                let others = requests(ErrorClass::Detected).flat_map(|it| corrected.map(|also| (it, also)));
                for (asynchronous, corrected) in others {
                    let request = Request { corrected, ..request(arch, set, synchronous, asynchronous) };
                    let sources: Vec<_> = ras_core::plan::sources_wanted(&request, &host, Some(20)).collect();
                    let area = RecordArea::lay_out(1 << 30, 1 << 20, &sources).ok();
                    let tables = TablesView { set, record_area: area.as_ref(), error_device };
                    let Ok(plan) = plan(&request, &host, &tables) else { continue };
                    let used: Vec<u16> = [plan.consumed.source, plan.detected.source, plan.corrected.source]
                        .into_iter()
                        .flatten()
                        .collect();
                    // Also if detected errors have the same notification.
                    assert_eq!(plan.corrected.source, corrected.map(|_| ErrorSource::CORRECTED));
                    assert_eq!(
                        used,
                        sources.iter().map(|source| source.id).collect::<Vec<_>>(),
                        "{request:?} {host:?}"
                    );
                    // A missing source is never the only reason why another response was chosen.
                    let lacks = |response: &ResponsePlan| {
                        let rejected =
                            response.candidates.iter().take_while(|other| other.response != response.chosen);
                        let lacked =
                            |unmet: &UnmetRequirement| matches!(unmet, UnmetRequirement::NoSource(_));
                        (response.degraded || response.requested.is_none())
                            && rejected
                                .map(|other| &other.unmet)
                                .any(|all| !all.is_empty() && all.iter().all(lacked))
                    };
                    assert!(!lacks(&plan.consumed) && !lacks(&plan.detected), "{request:?} {host:?}");
                }
            }
        }
    }
}

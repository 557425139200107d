//! Plan, machine and host, converted to the types of the crate `compare`.

use compare::{Answer, HostSummary, Lack, MachineSummary, PlanSummary, Table};
use ras_core::plan::ResponsePlan;
use ras_core::plan::decision::ErrorClass;
use vcpu::host::KvmState;
use vmm::plan::Blueprint;

pub(super) fn machine(machine: &machine_profile::Machine) -> MachineSummary {
    MachineSummary {
        name: machine.name.clone(),
        architecture: machine.arch.name().into(),
        vcpus: machine.vcpus,
        memory: machine.memory.size,
        kernel: machine.boot.kernel.to_string(),
        cmdline: machine.boot.cmdline.clone(),
    }
}

pub(super) fn plan(blueprint: &Blueprint) -> PlanSummary {
    let report = &blueprint.report;
    let ras = &report.ras;
    let tables = report.tables.iter().map(|table| Table {
        name: table.name.into(),
        gpa: table.gpa,
        len: table.len as u64,
    });
    let answers = [
        ("consumed", &ras.consumed),
        ("found", &ras.detected),
        ("corrected", &ras.corrected),
        ("touched-by-device", &ras.touched_by_device),
        ("own-memory", &ras.own_memory),
    ];
    // Without a source of corrected errors there is nothing to compare.
    let has_answer = |(_, response): &(&str, &ResponsePlan)| {
        response.class != ErrorClass::Corrected || response.source.is_some()
    };
    PlanSummary {
        because: report.because.into(),
        tables: tables.collect(),
        answers: answers.into_iter().filter(has_answer).map(answer).collect(),
        notes: ras.notes.iter().map(ToString::to_string).collect(),
    }
}

fn answer((class, response): (&str, &ResponsePlan)) -> Answer {
    let others = response.candidates.iter().filter(|candidate| candidate.response != response.chosen);
    let ruled_out = others.map(|candidate| {
        let unmet: Vec<_> = candidate.unmet.iter().map(ToString::to_string).collect();
        let why = if unmet.is_empty() { "possible, not preferred".into() } else { unmet.join("; ") };
        format!("{}: {why}", candidate.response)
    });
    Answer {
        question: class.into(),
        asked: response.requested.map(|requested| requested.to_string()),
        chosen: response.chosen.to_string(),
        degraded: response.degraded,
        because: response.reason.clone(),
        source: response.source,
        otherwise: response
            .unacknowledged
            .map(|fallback| format!("{fallback}, {} ms after", response.timeouts.acknowledge_ms)),
        ruled_out: ruled_out.collect(),
    }
}

/// This host and the capabilities that it lacks.
pub(super) fn host() -> HostSummary {
    let host = vcpu::host::probe();
    let mut lacks = Vec::new();
    if let KvmState::Absent { reason } = &host.kvm {
        lacks.push(Lack { what: "KVM".into(), cost: format!("nothing boots here ({reason})") });
    }
    // Missing memory failure handling is among the notes of every plan.
    let missing = host.capabilities.iter().filter(|capability| capability.value <= 0);
    lacks.extend(missing.map(|it| Lack { what: it.name.into(), cost: it.without.into() }));
    HostSummary { kernel: host.kernel, lacks }
}

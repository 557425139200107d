//! `ghest probe`.

use clap::Args;
use vcpu::host::{Host, KvmState};
use vmm::status::Status;

use super::output;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Print the capabilities as JSON.
    #[arg(long)]
    json: bool,
    /// Print what plans depend on, as the file for `ghest plan --host`.
    #[arg(long, conflicts_with = "json")]
    abilities: bool,
}

pub(super) fn run(options: &Options) -> Status {
    let host = vcpu::host::probe();
    if options.abilities {
        return output::print_json(&vcpu::abilities::of(&host));
    }
    if options.json { output::print_json(&host) } else { output::print(&text(&host)) }
}

fn text(host: &Host) -> String {
    let mut lines = vec![format!("host            {}, kernel {}", host.architecture, host.kernel)];
    lines.push(match &host.kvm {
        KvmState::Present => "kvm             present".into(),
        KvmState::Absent { reason } => format!("kvm             absent: {reason}"),
    });
    if let Some(vcpus) = host.vcpus {
        lines.push(format!("vcpus           {} recommended, {} at most", vcpus.recommended, vcpus.maximum));
    }
    if let Some(bits) = host.address_bits {
        lines.push(format!("addresses       {bits} bits, of a guest's physical address"));
    }
    lines.extend(host.capabilities.iter().map(|capability| {
        if capability.value > 0 {
            format!("  {:<22} yes ({})", capability.name, capability.value)
        } else {
            format!("  {:<22} no: {}", capability.name, capability.without)
        }
    }));
    let memory = host.memory_failure;
    lines.push(match (memory.handled, memory.recovery) {
        (false, _) => {
            "memory failure  not handled by the host's kernel: no error will ever be reported".into()
        }
        (true, Some(false)) => "memory failure  handled, but the host panics on the first error \
                                (vm.memory_failure_recovery is 0)"
            .into(),
        (true, _) => "memory failure  handled by the host's kernel".into(),
    });
    lines.join("\n") + "\n"
}

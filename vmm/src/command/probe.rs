//! `ghest probe`.

use clap::Args;
use vcpu::host::{Host, KvmState};
use vmm::status::Status;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Print what was found as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> Status {
    let host = vcpu::host::probe();
    if options.json {
        match serde_json::to_string_pretty(&host) {
            Ok(text) => println!("{text}"),
            Err(error) => {
                eprintln!("ghest: {error}");
                return Status::Failure;
            }
        }
    } else {
        print(&host);
    }
    Status::Success
}

fn print(host: &Host) {
    println!("host            {}, kernel {}", host.architecture, host.kernel);
    match &host.kvm {
        KvmState::Present => println!("kvm             present"),
        KvmState::Absent { reason } => println!("kvm             absent: {reason}"),
    }
    if let Some(vcpus) = host.vcpus {
        println!("vcpus           {} recommended, {} at most", vcpus.recommended, vcpus.maximum);
    }
    for capability in &host.capabilities {
        if capability.value > 0 {
            println!("  {:<22} yes ({})", capability.name, capability.value);
        } else {
            println!("  {:<22} no: {}", capability.name, capability.without);
        }
    }
    let memory = host.memory_failure;
    if memory.handled {
        println!("memory failure  handled by the host's kernel");
        if memory.recovery == Some(false) {
            println!(
                "                but vm.memory_failure_recovery is 0: the host panics on the first error"
            );
        }
    } else {
        println!("memory failure  not handled by the host's kernel: no error will ever be reported");
    }
}

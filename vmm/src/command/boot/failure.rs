//! Why a machine cannot be started, as a diagnostic at the profile's key that requests what is not possible.

use std::path::PathBuf;

use devices::slot_file;
use devices::socket_file::ListenError;
use machine_profile::{Diagnostic, Profile};
use platform::Arch;
use vcpu::ThreadError;
use vcpu::host::OpenError;
use vmm::board::BoardError;
use vmm::machine::MachineError;
use vmm::plan::PlanError;
use vmm::ras::inject::InjectionSpecError;
use vmm::status::Status;

use super::super::{diagnostics, plan};

/// Why the machine cannot be started.
pub(super) enum Failure {
    Files(Vec<Diagnostic>),
    Injection(InjectionSpecError),
    Plan(PlanError),
    Open(OpenError),
    Control(PathBuf, ListenError),
    Store(PathBuf, slot_file::OpenError),
    Ledger(PathBuf, slot_file::OpenError),
    Machine(MachineError),
}

impl Failure {
    /// Prints a diagnostic at the profile's key that requests what is not possible. Returns the message and the status.
    pub(super) fn report(&self, profile: &Profile) -> (String, Status) {
        let refuse = |key: &str, error: &dyn std::fmt::Display, help: &str| {
            diagnostics::print(&[profile.problem(key, error.to_string(), help)]);
        };
        match self {
            Failure::Files(problems) => {
                diagnostics::print(problems);
                ("the machine cannot start: its devices share files".into(), Status::Usage)
            }
            Failure::Injection(error) => (format!("--inject: {error}"), Status::Usage),
            Failure::Plan(error) => {
                let (problem, status) = plan::refusal(profile, error);
                diagnostics::print(&[problem]);
                (format!("the machine cannot start: {error}"), status)
            }
            Failure::Open(error) => (
                format!(
                    "the machine cannot start: {error}\n  Guests run on KVM. Load its module (kvm-intel, kvm-amd), get access to /dev/kvm,\n  \
                     or use an emulated host that has it: cargo lab shell --host {}",
                    Arch::NATIVE
                ),
                Status::Host,
            ),
            Failure::Control(path, error) => {
                (format!("control socket {}: {error}", path.display()), Status::Failure)
            }
            Failure::Store(path, error) => {
                let message = format!("{}: {error}", path.display());
                refuse(
                    "ras.persistent-store",
                    &message,
                    "name a file that is a store, or that does not exist",
                );
                (format!("the machine cannot start: {message}"), Status::Usage)
            }
            Failure::Ledger(path, error) => {
                let message = format!("{}: {error}", path.display());
                refuse("ras.ledger", &message, "name a file that is a ledger, or that does not exist");
                (format!("the machine cannot start: {message}"), Status::Usage)
            }
            Failure::Machine(error @ MachineError::MemoryFile { .. }) => {
                refuse(
                    "memory.path",
                    error,
                    "name a file on tmpfs (memfd) or on hugetlbfs (hugetlbfs), of the machine's own, or one that does not exist",
                );
                (format!("the machine cannot start: {error}"), Status::Usage)
            }
            Failure::Machine(MachineError::Boot(error)) => {
                let (key, help) = error.key();
                refuse(key, error, &help);
                (format!("the machine cannot start: {error}"), Status::Usage)
            }
            Failure::Machine(MachineError::Board(BoardError::Device { index, source })) => {
                refuse(&format!("device.{index}.{}", source.key), source, &source.help);
                (format!("the machine cannot start: {source}"), Status::Usage)
            }
            Failure::Machine(MachineError::Memory(error)) => {
                refuse(
                    "memory.backing",
                    error,
                    "use less memory, another backing, or a host with more memory",
                );
                (format!("the machine cannot start: {error}"), Status::Host)
            }
            Failure::Machine(MachineError::Threads(error @ ThreadError::NotStopped { .. })) => {
                (format!("the machine cannot boot again: {error}"), Status::Failure)
            }
            Failure::Machine(
                error @ (MachineError::Kvm(_)
                | MachineError::Board(BoardError::Kvm(_) | BoardError::EventFd(_))
                | MachineError::Threads(_)
                | MachineError::Host { .. }),
            ) => (format!("the machine cannot start: {error}"), Status::Host),
            Failure::Machine(error) => (format!("the machine cannot start: {error}"), Status::Failure),
        }
    }
}

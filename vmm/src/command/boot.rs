//! `ghest boot`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use machine_profile::{OnReboot, Profile};
use platform::Arch;
use vcpu::host::{OpenError, open};
use vmm::control::Server;
use vmm::journal::Journal;
use vmm::kvm::offered;
use vmm::lifecycle::Ending;
use vmm::machine::{self, MachineError, Surroundings};
use vmm::plan::Plan;
use vmm::signals::Signals;
use vmm::status::Status;
use vmm::timings::{Phase, Timings};

use super::logging::{LogFormat, last_line};
use super::{ProfileArgs, diagnostics, plan, profiles};

#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    profile: ProfileArgs,
    /// Write what happens to this file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Write how long each phase of the boot took to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    timings: Option<PathBuf>,
    /// Listen at this socket for `ghest ctl`, instead of the profile's `control.socket`.
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
}

pub(super) fn run(options: &Options, timings: Timings, format: LogFormat) -> Status {
    let profile = match profiles::load(&options.profile, Arch::NATIVE) {
        Ok(profile) => profile,
        Err(status) => return status,
    };
    timings.mark(Phase::Profile);
    let timings = Arc::new(timings);
    let outcome = boot(&profile, options, &timings);
    let (message, status) = match &outcome {
        Ok(ending) => (ending.to_string(), ending.status()),
        Err(failure) => failure.report(&profile),
    };
    if let Some(path) = &options.timings
        && let Err(error) = timings.write(path)
    {
        eprintln!("ghest: {}: {error}", path.display());
        return Status::Failure;
    }
    last_line(format, &message, status.code());
    status
}

/// Why there is no machine.
enum Failure {
    Describe(vmm::describe::DescribeError),
    Open(OpenError),
    File(PathBuf, std::io::Error),
    Machine(MachineError),
}

fn boot(profile: &Profile, options: &Options, timings: &Arc<Timings>) -> Result<Ending, Failure> {
    let offered = offered(&open().map_err(Failure::Open)?).map_err(|error| Failure::Machine(error.into()))?;
    let (plan, platform, _) = Plan::of(&profile.machine, offered).map_err(Failure::Describe)?;
    let journal = Journal::new(options.events.as_deref(), Arc::clone(timings))
        .map_err(|error| Failure::File(options.events.clone().unwrap_or_default(), error))?;
    // A plan is plain data: strings and numbers always make JSON.
    journal.plan(&serde_json::to_value(&plan).unwrap_or_default());
    let signals = Signals::take().map_err(|error| Failure::Machine(error.into()))?;
    let socket = options.control.as_ref().or(profile.machine.control_socket.as_ref());
    let control = match socket {
        Some(path) => Some(Server::listen(path).map_err(|error| Failure::File(path.clone(), error))?),
        None => None,
    };
    let mut around =
        Surroundings { journal: Arc::new(journal), timings: Arc::clone(timings), signals, control };
    let ending = loop {
        let kvm = open().map_err(Failure::Open)?;
        let ending = machine::prepare(kvm, &profile.machine, &platform, &around)
            .and_then(|machine| machine.run(&mut around))
            .map_err(Failure::Machine)?;
        match (&ending, profile.machine.on_reboot) {
            (Ending::Reset(cause), OnReboot::Restart) => {
                tracing::info!(%cause, "the guest resets its machine")
            }
            _ => break ending,
        }
    };
    if let Ending::PoweredOff = ending {
        around.journal.guest_shutdown();
    }
    around.journal.stopped(&ending.to_string(), ending.status().code());
    Ok(ending)
}

impl Failure {
    /// Prints where the profile asks for what can not be had, and says what happened.
    fn report(&self, profile: &Profile) -> (String, Status) {
        match self {
            Failure::Describe(error) => (format!("no machine: {error}"), plan::refuse(profile, error)),
            Failure::Open(error) => (
                format!(
                    "no machine: {error}\n  KVM is what runs guests. Load its module (kvm-intel, kvm-amd), ask for access \
                     to /dev/kvm,\n  or run an emulated host that has it: cargo lab shell --host {}",
                    Arch::NATIVE
                ),
                Status::Host,
            ),
            Failure::File(path, error) => (format!("{}: {error}", display(path)), Status::Failure),
            Failure::Machine(MachineError::Boot(error)) => {
                let (key, help) = error.key();
                diagnostics::print(&[profile.problem(key, error.to_string(), help)]);
                (format!("no machine: {error}"), Status::Usage)
            }
            Failure::Machine(MachineError::Memory(error)) => {
                let key = "memory.backing";
                let help = "give the host more, or ask for less or another backing";
                diagnostics::print(&[profile.problem(key, error.to_string(), help)]);
                (format!("no machine: {error}"), Status::Host)
            }
            Failure::Machine(error @ MachineError::Kvm(_)) => (format!("no machine: {error}"), Status::Host),
            Failure::Machine(error) => (format!("no machine: {error}"), Status::Failure),
        }
    }
}

fn display(path: &Path) -> std::path::Display<'_> {
    path.display()
}

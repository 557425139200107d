//! `ghest boot`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use guest_memory::sigbus;
use machine_profile::{OnReboot, Profile};
use platform::Arch;
use ras_core::actions::{StopReason, StopReport};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use vcpu::host::{OpenError, open};
use vmm::control::Server;
use vmm::journal::{Journal, Note};
use vmm::kvm::offered;
use vmm::lifecycle::Ending;
use vmm::machine::{self, Environment, MachineError, PreservedState, no};
use vmm::plan::{Blueprint, PlanError};
use vmm::ras::fatal_signal;
use vmm::ras::inject::Spec;
use vmm::signals::Signals;
use vmm::status::Status;
use vmm::timings::{Phase, Timings};

use super::{ProfileArgs, diagnostics, output, plan, profiles};

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
    /// Lose memory of the guest: `ar@GPA` or `ao@GPA` (consumed by whoever touches it next, or found), then, after commas,
    /// `via=simulate|madvise|notice`, `span=4KiB`, `after=2s`, and last `when=TEXT` to wait until the guest's console has
    /// shown a text. `ar@{TEXT}` takes the word that the guest's console shows after a text (`*` in it stands for anything
    /// on that line). May be repeated.
    #[arg(long, value_name = "ORDER")]
    inject: Vec<Spec>,
    /// End at once when this process, the parent, does: `ghest compare` leaves nothing running.
    #[arg(long, value_name = "PID", hide = true)]
    with_parent: Option<i32>,
}

pub(super) fn run(options: &Options, timings: Timings) -> Status {
    if let Some(parent) = options.with_parent {
        // From here on its end is noticed; and it may have ended before.
        let asked = set_parent_process_death_signal(Some(Signal::KILL));
        if asked.is_err() || getppid().is_none_or(|pid| pid.as_raw_nonzero().get() != parent) {
            return output::say("the process that wanted this machine has ended", Status::Failure);
        }
    }
    let profile = match profiles::load(&options.profile, Arch::NATIVE) {
        Ok(profile) => profile,
        Err(status) => return status,
    };
    timings.mark(Phase::Profile);
    let timings = Arc::new(timings);
    let journal = match Journal::new(options.events.as_deref(), Arc::clone(&timings)) {
        Ok(journal) => Arc::new(journal),
        Err(error) => return cannot_write(options.events.as_deref(), &error),
    };
    let (message, status) = match boot(&profile, options, &timings, &journal) {
        Ok(ending) => (ending.to_string(), ending.status()),
        Err(failure) => failure.report(&profile),
    };
    journal.write(Note::Stopped { reason: message.clone(), status: status.code() });
    if let Some(path) = &options.timings
        && let Err(error) = timings.write(path)
    {
        return cannot_write(Some(path), &error);
    }
    output::say(&message, status)
}

fn cannot_write(path: Option<&Path>, error: &std::io::Error) -> Status {
    output::say(&format!("{}: {error}", path.unwrap_or(Path::new("")).display()), Status::Failure)
}

/// Why there is no machine.
enum Failure {
    Plan(PlanError),
    Open(OpenError),
    Control(PathBuf, std::io::Error),
    Machine(MachineError),
}

fn boot(
    profile: &Profile,
    options: &Options,
    timings: &Arc<Timings>,
    journal: &Arc<Journal>,
) -> Result<Ending, Failure> {
    let machine = &profile.machine;
    let kvm = open().map_err(Failure::Open)?;
    let offered = offered(&kvm).map_err(|error| Failure::Machine(error.into()))?;
    let abilities = vcpu::abilities::of_this_host(machine.arch);
    let blueprint = Blueprint::of(machine, offered, abilities).map_err(Failure::Plan)?;
    // A plan is plain data: strings and numbers always make JSON.
    journal.write(Note::Plan(serde_json::to_value(&blueprint.plan).unwrap_or_default()));
    let signals = Signals::take().map_err(|error| Failure::Machine(no("descriptors for signals")(error)))?;
    // What cannot go on says so; from here on, and before any other thread is there.
    if let Some(events) = journal.last_line() {
        fatal_signal::write_to(events);
    }
    sigbus::install(fatal_signal::say)
        .map_err(|error| Failure::Machine(no("handler for memory errors")(error)))?;
    let preserved = PreservedState::new(machine, &blueprint, &options.inject, journal, timings)
        .map_err(Failure::Machine)?;
    let control = match options.control.as_ref().or(machine.control_socket.as_ref()) {
        Some(path) => Some(Server::listen(path).map_err(|error| Failure::Control(path.clone(), error))?),
        None => None,
    };
    let mut around =
        Environment { journal: Arc::clone(journal), timings: Arc::clone(timings), signals, control };
    let mut kvm = Some(kvm);
    loop {
        let kvm = kvm.take().map_or_else(open, Ok).map_err(Failure::Open)?;
        let lost = preserved.lost_for_good();
        let prepared = match machine::prepare(kvm, machine, &blueprint, &preserved, &around) {
            // It found its place in this memory once.
            Err(MachineError::Boot(error)) if !lost.is_empty() => {
                let lost: Vec<_> =
                    lost.iter().map(|it| format!("{} bytes at {:#x}", it.len, it.start)).collect();
                tracing::error!("{error}; lost: {}", lost.join(", "));
                return Ok(Ending::MemoryError(StopReport {
                    reason: StopReason::CannotRestart,
                    error: None,
                }));
            }
            prepared => prepared.map_err(Failure::Machine)?,
        };
        let ending = prepared.run(&preserved, &mut around).map_err(Failure::Machine)?;
        match (&ending, machine.on_reboot) {
            (Ending::Reset(_), OnReboot::Restart) | (Ending::ControlReset, _) => {
                tracing::info!("{ending}: it starts again");
                preserved.renew().map_err(Failure::Machine)?;
            }
            _ => return Ok(ending),
        }
    }
}

impl Failure {
    /// Prints where the profile asks for what cannot be had, and says what happened.
    fn report(&self, profile: &Profile) -> (String, Status) {
        let refuse = |key: &str, error: &dyn std::fmt::Display, help: &str| {
            diagnostics::print(&[profile.problem(key, error.to_string(), help)]);
        };
        match self {
            Failure::Plan(error) => {
                let (problem, status) = plan::refusal(profile, error);
                diagnostics::print(&[problem]);
                (format!("no machine: {error}"), status)
            }
            Failure::Open(error) => (
                format!(
                    "no machine: {error}\n  KVM is what runs guests. Load its module (kvm-intel, kvm-amd), ask for access \
                     to /dev/kvm,\n  or run an emulated host that has it: cargo lab shell --host {}",
                    Arch::NATIVE
                ),
                Status::Host,
            ),
            Failure::Control(path, error) => (format!("{}: {error}", path.display()), Status::Failure),
            Failure::Machine(MachineError::Boot(error)) => {
                let (key, help) = error.key();
                refuse(key, error, help);
                (format!("no machine: {error}"), Status::Usage)
            }
            Failure::Machine(error @ MachineError::Disk { index, source, .. }) => {
                refuse(&format!("device.{index}.path"), error, source.help());
                (format!("no machine: {error}"), Status::Usage)
            }
            Failure::Machine(MachineError::Memory(error)) => {
                refuse("memory.backing", error, "give the host more, or ask for less or another backing");
                (format!("no machine: {error}"), Status::Host)
            }
            Failure::Machine(
                error @ (MachineError::Kvm(_) | MachineError::Threads(_) | MachineError::Host { .. }),
            ) => (format!("no machine: {error}"), Status::Host),
            Failure::Machine(error) => (format!("no machine: {error}"), Status::Failure),
        }
    }
}

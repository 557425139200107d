//! A running machine as its main thread controls it: requests of the control socket, injection, repair.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use devices::error_injection::ErrorInjector;
use devices::kind::Backend;
use guest_memory::sigbus;
use machine_profile::Machine;
use ras_core::{Kind, Origin, Span};
use serde::Serialize;
use serde_json::json;
use vcpu::{RunState, Vcpus};

use super::dump::{self, After, CurrentDump};
use super::request_error::RequestError;
use super::retire::{Suspect, retire};
use super::terminal::Terminal;
use super::{PreservedState, balloon, console_size};
use crate::board::EventLine;
use crate::control::{Devices, Later, MemoryMap, MemorySlot, Reply, Request, State};
use crate::dump::Dump;
use crate::kvm::KvmVm;
use crate::lifecycle::{Ending, Lifecycle};
use crate::metrics::Sample;
use crate::plan::PlanReport;
use crate::ras::DetectedError;
use crate::ras::inject::{Injection, InjectionMethod, InjectionRequest};

/// A running machine, for the main thread.
pub(super) struct RunningMachine<'a> {
    pub(super) machine: &'a Machine,
    pub(super) plan: &'a PlanReport,
    pub(super) vcpus: &'a Vcpus,
    pub(super) power_button: &'a EventLine,
    pub(super) new_generation: &'a EventLine,
    /// The console on standard input and output, if it is not the serial port.
    pub(super) terminal: Option<&'a Terminal>,
    pub(super) lifecycle: &'a Lifecycle,
    pub(super) preserved: &'a PreservedState,
    pub(super) vm: &'a KvmVm,
    /// The guest's memory map.
    pub(super) memory: &'a platform::MemoryMap,
    /// The device by which the guest injects errors. `None` if it cannot.
    pub(super) error_injector: Option<&'a Mutex<ErrorInjector>>,
    /// Of the profile's devices, in its order.
    pub(super) backends: &'a [Backend],
    pub(super) started: Instant,
    pub(super) dump: CurrentDump,
}

/// How long an injection waits until the AO listener has received its signal. Far more than that takes.
const SIGNAL_TIMEOUT: Duration = Duration::from_secs(1);

impl RunningMachine<'_> {
    /// Handles a request of the control socket.
    pub(super) fn handle(&self, request: Request) -> Reply {
        self.carry_out(request).unwrap_or_else(|error| Reply::Now(Err(error.to_string())))
    }

    /// Retires a page on a thread of its own: a huge page takes the kernel a good part of a second.
    fn retire(&self, gpa: Option<u64>, host_address: Option<u64>) -> Result<Later, RequestError> {
        let suspect = Suspect::new(gpa, host_address)?;
        let PreservedState { ram, reporting, jobs, .. } = self.preserved;
        let (ram, reporting) = (ram.clone(), Arc::clone(reporting));
        jobs.start("retire", move |_| retire(suspect, &ram, &reporting))
    }

    fn carry_out(&self, request: Request) -> Result<Reply, RequestError> {
        match request {
            Request::Status => {}
            Request::Pause | Request::Resume if self.dump.progress().is_some() => {
                return Err(RequestError::Dumping);
            }
            Request::Pause => self.vcpus.pause()?,
            Request::Resume => self.vcpus.resume(),
            Request::PowerButton { .. } if self.power_button.raise() => {}
            Request::PowerButton { .. } => return Err(RequestError::NoPowerButton),
            Request::NewGeneration => self.new_generation()?,
            Request::Inject(Injection::Error(request)) => self.inject(request)?,
            Request::Inject(Injection::Record(request)) => {
                self.preserved.reporting.inject_record(&request)?;
                self.kick();
            }
            Request::Balloon { size, device } => {
                return answer(balloon::handle(self.backends, self.machine.memory.size, size, device)?);
            }
            Request::Retire { gpa, host_address } => {
                return self.retire(gpa, host_address).map(Reply::Later);
            }
            Request::Dump { file } => return self.dump(file).map(Reply::Later),
            Request::Ledger => return answer(self.preserved.reporting.ledger()),
            Request::Metrics { prometheus } => {
                let sample = Sample::take(self.plan.into(), &self.preserved.reporting);
                return answer(if prometheus {
                    json!({ "text": sample.prometheus() })
                } else {
                    sample.json()
                });
            }
            Request::MemoryMap => {
                let slots = self.vm.ram().slots();
                let slots = slots.map(|slot| MemorySlot { gpa: slot.gpa, len: slot.len, hva: slot.hva });
                return answer(MemoryMap { slots: slots.collect() });
            }
            Request::Plan => return answer(self.plan),
            Request::Devices => return answer(Devices::of(self.machine)?),
            // The server passes those that follow on to the journal.
            Request::Events { .. } => return Err(RequestError::PastEvents),
            Request::ConsoleSize { columns, rows, device } => {
                console_size::set(self.backends, columns, rows, device)?;
            }
            Request::Reset => self.lifecycle.end(Ending::ControlReset),
            Request::Stop => self.lifecycle.end(Ending::ControlStop),
        }
        answer(State {
            machine: self.machine.name.clone(),
            state: self.vcpus.run_state().into(),
            vcpus: self.vcpus.count(),
            overdue: self.preserved.reporting.overdue(),
            dump: self.dump.progress(),
        })
    }

    /// Dumps the machine, on a thread of its own. The vCPUs stay paused meanwhile.
    fn dump(&self, file: String) -> Result<Later, RequestError> {
        let PreservedState { ram, reporting, jobs, .. } = self.preserved;
        let path = dump::path(file)?;
        if self.dump.progress().is_some() {
            return Err(RequestError::Dumping);
        }
        let requested = self.vcpus.run_state();
        match requested {
            RunState::Run => self.vcpus.pause()?,
            RunState::Pause => {}
            RunState::Stop => return Err(RequestError::Stopping),
        }
        let start = || {
            let registers = self.vcpus.core_registers()?;
            let dump = Dump { ram: ram.clone(), registers, poisoned: reporting.poisoned_ranges() };
            let progress = self.dump.begin(ram, requested == RunState::Run);
            jobs.start("dump", move |completion| dump::write(&dump, &path, &progress, completion))
        };
        let outcome = start();
        if outcome.is_err() {
            self.dump_ended();
            if requested == RunState::Run {
                self.vcpus.resume();
            }
        }
        outcome
    }

    /// Takes note of requests that were carried out on other threads. Their clients have no responses yet.
    pub(super) fn jobs_ended(&self) {
        self.preserved.jobs.reap();
        self.dump_ended();
    }

    /// Resumes the vCPUs if a dump has ended that they were paused for.
    fn dump_ended(&self) {
        if self.dump.take_ended() == Some(After::Resume) && self.vcpus.run_state() == RunState::Pause {
            self.vcpus.resume();
        }
    }

    /// Gives the machine a new generation id, and notifies the guest of it.
    fn new_generation(&self) -> Result<(), RequestError> {
        if !self.new_generation.is_present() {
            return Err(RequestError::NoGenerationId);
        }
        self.preserved.new_generation().map_err(RequestError::GenerationId)?;
        // After the id is in guest memory.
        self.new_generation.raise();
        tracing::info!("the machine has a new generation id");
        Ok(())
    }

    /// Injects a memory error.
    fn inject(&self, request: InjectionRequest) -> Result<(), RequestError> {
        let PreservedState { ram, reporting, .. } = self.preserved;
        let span = request.span();
        let last = span.gpa + (span.bytes() - 1);
        let (Some(_), Some(hva), Some(_)) =
            (ram.host_address(span.gpa), ram.host_address(request.gpa), ram.host_address(last))
        else {
            return Err(RequestError::NotMemory(span));
        };
        if let Some(contradiction) = request.contradiction() {
            return Err(RequestError::Contradiction(contradiction));
        }
        let fault = sigbus::Fault { hva, log2_len: span.log2_len, action: sigbus::Action::Optional };
        let raise = || self.raise(fault).map_err(|source| RequestError::Raise { span, source });
        match (request.method, request.kind) {
            (_, Kind::Corrected) => {
                if !reporting.has_corrected_source() {
                    return Err(RequestError::NoCorrectedSource);
                }
                self.report_corrected(request.gpa, Origin::Injected);
            }
            (InjectionMethod::Notice, _) => self.report(DetectedError::Noticed { span }),
            (InjectionMethod::Simulate, kind) => {
                if reporting.memslot_holes().overlaps(span) {
                    return Err(RequestError::PoisonedAlready(span));
                }
                if cfg!(target_arch = "x86_64") && kind == Kind::ActionRequired {
                    tracing::info!(
                        %span,
                        "simulated poison: KVM has completed a store when it exits, so a store to these pages is reported and \
                         dropped; loads and instruction fetches are executed again"
                    );
                }
                self.with_vcpus_paused(|| {
                    self.vm.punch_hole(span)?;
                    reporting.memslot_holes().insert(span);
                    Ok(())
                })?;
                if kind == Kind::ActionOptional {
                    raise()?;
                }
            }
            (InjectionMethod::Madvise, kind) => {
                ram.poison(span.gpa, span.bytes())
                    .map_err(|source| RequestError::Madvise { span, source })?;
                // The host's kernel signals pages that it has poisoned. If it does not, the signal is raised here.
                if kind == Kind::ActionOptional && !self.report_next_detected() {
                    raise()?;
                }
            }
        }
        Ok(())
    }

    /// Raises SIGBUS and waits until the error is reported, so that a response to an injection request means that.
    pub(super) fn raise(&self, fault: sigbus::Fault) -> io::Result<()> {
        sigbus::raise(fault)?;
        self.report_next_detected();
        Ok(())
    }

    /// Waits for a detected error and reports it. Returns false if none comes within [`SIGNAL_TIMEOUT`].
    fn report_next_detected(&self) -> bool {
        match self.preserved.detected_errors.next(SIGNAL_TIMEOUT) {
            Some(error) => {
                self.report(error);
                true
            }
            None => false,
        }
    }

    /// Reports a detected error to the guest.
    pub(super) fn report(&self, error: DetectedError) {
        self.preserved.reporting.detected(error);
        self.preserved.note_poison();
        self.preserved.save_ledger();
        self.fill_restored_holes();
        self.kick();
    }

    /// Reports a corrected error to the guest.
    pub(super) fn report_corrected(&self, gpa: u64, origin: Origin) {
        self.preserved.reporting.corrected(gpa, origin);
        self.kick();
    }

    /// Maps restored memory again that injection requests removed from the memslots.
    fn fill_restored_holes(&self) {
        let reporting = &self.preserved.reporting;
        for hole in reporting.take_restored_holes() {
            // Several vCPUs may have accessed one hole.
            let is_hole = reporting.memslot_holes().contains(hole.span.gpa);
            let outcome = match is_hole {
                true => self.with_vcpus_paused(|| Ok(self.vm.fill_hole(hole.span)?)),
                false => Ok(()),
            };
            match outcome {
                // Nothing runs any more.
                Err(RequestError::Stopping) => {}
                outcome => {
                    reporting.filled(hole, outcome.map_err(|error| io::Error::other(error.to_string())))
                }
            }
        }
    }

    /// Kicks the vCPUs that have to exit for an error.
    fn kick(&self) {
        if self.preserved.reporting.needs_vcpu_state() {
            self.vcpus.kick();
        } else {
            self.vcpus.kick_waiting();
        }
    }

    /// Injects what is due, checks for acknowledgements and timeouts, and repairs what may be repaired.
    pub(super) fn tick(&self) {
        for request in self.preserved.schedule.take_due(self.started.elapsed()) {
            if let Err(error) = self.inject(request) {
                tracing::error!(span = %request.span(), "an injection request of the command line failed: {error}");
            }
        }
        self.preserved.reporting.tick();
        self.preserved.reporting.reserve();
        // Errors that a vCPU has consumed, and pages that were repaired.
        self.preserved.note_poison();
        self.preserved.save_ledger();
        self.check_budget();
        self.fill_restored_holes();
        self.kick();
        for span in self.preserved.reporting.repairable() {
            self.repair(span);
        }
    }

    /// Replaces poisoned pages by fresh ones.
    fn repair(&self, span: Span) {
        let PreservedState { ram, reporting, .. } = self.preserved;
        if let Err(error) = ram.replace_pages(span.gpa, span.bytes()) {
            return reporting.not_repaired(span, &error);
        }
        for hole in reporting.memslot_holes().within(span) {
            if let Err(error) = self.with_vcpus_paused(|| Ok(self.vm.fill_hole(hole)?)) {
                return reporting.not_repaired(span, &io::Error::other(error.to_string()));
            }
        }
        reporting.repaired(span);
    }

    /// Runs `operation` while no vCPU is in the guest.
    pub(super) fn with_vcpus_paused(
        &self,
        operation: impl FnOnce() -> Result<(), RequestError>,
    ) -> Result<(), RequestError> {
        let requested = self.vcpus.run_state();
        if requested == RunState::Stop {
            return Err(RequestError::Stopping);
        }
        self.vcpus.pause_briefly()?;
        let outcome = operation();
        if requested == RunState::Run {
            self.vcpus.resume();
        }
        outcome
    }
}

/// The reply to a request that was carried out.
fn answer(fields: impl Serialize) -> Result<Reply, RequestError> {
    Ok(Reply::Now(Ok(json!(fields))))
}

//! The main thread of a running machine: waits for its end, and does what it is asked meanwhile.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use guest_memory::sigbus;
use ras_core::{Kind, Span};
use serde_json::{Value, json};
use vcpu::{RunState, Vcpus};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::timerfd::TimerFd;

use super::preserved::DetectedErrors;
use super::{MachineError, PowerButton, PreservedState};
use crate::control::{Request, Server};
use crate::kvm::{KvmError, KvmVm};
use crate::lifecycle::{Ending, Lifecycle};
use crate::ras::DetectedError;
use crate::ras::inject::{InjectionRequest, Via};
use crate::signals::Signals;

/// What those who control a machine can do to it.
pub(super) struct Operator<'a> {
    pub(super) name: &'a str,
    pub(super) vcpus: &'a Vcpus,
    pub(super) power_button: &'a PowerButton,
    pub(super) lifecycle: &'a Lifecycle,
    pub(super) preserved: &'a PreservedState,
    pub(super) vm: &'a KvmVm,
    pub(super) started: Instant,
}

/// How long a signal is waited for that was raised on order. Far more than it takes.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why something cannot be done to a machine.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Threads(#[from] vcpu::ThreadError),
    #[error(transparent)]
    Kvm(#[from] KvmError),
    #[error("the tables of this machine have no word for a power button")]
    NoPowerButton,
    #[error("{0} is not memory of this guest")]
    NotMemory(Span),
    #[error("{0} is lost already")]
    LostAlready(Span),
    #[error("what is only told is not consumed: a notice is of kind ao")]
    ConsumedNotice,
    #[error("the host does not lose {span}: {source}{}", help(.source))]
    Host { span: Span, source: std::io::Error },
    #[error("the machine stops")]
    Stopping,
}

/// What to do where the host does not lose memory on order.
fn help(error: &std::io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EINVAL) => " (its kernel has no CONFIG_MEMORY_FAILURE: take `simulate`)",
        Some(libc::EPERM) => " (it takes CAP_SYS_ADMIN)",
        _ => "",
    }
}

impl Operator<'_> {
    fn answer(&self, request: Request) -> Result<Value, Refused> {
        match request {
            Request::Status => {}
            Request::Pause => self.vcpus.pause()?,
            Request::Resume => self.vcpus.resume(),
            Request::PowerButton if self.power_button.press() => {}
            Request::PowerButton => return Err(Refused::NoPowerButton),
            Request::Inject(order) => self.inject(order)?,
            Request::Ledger => return Ok(self.preserved.reporting.ledger()),
            Request::Metrics => return Ok(self.preserved.reporting.metrics()),
            Request::MemoryMap => {
                let slots = self.vm.ram().slots();
                let slots = slots.map(|slot| json!({ "gpa": slot.gpa, "len": slot.len, "hva": slot.hva }));
                return Ok(json!({ "slots": slots.collect::<Vec<_>>() }));
            }
            Request::Reset => self.lifecycle.end(Ending::ControlReset),
            Request::Stop => self.lifecycle.end(Ending::ControlStop),
        }
        let state = match self.vcpus.run_state() {
            RunState::Run => "running",
            RunState::Pause => "paused",
            RunState::Stop => "stopping",
        };
        Ok(json!({ "machine": self.name, "state": state, "vcpus": self.vcpus.count() }))
    }

    /// Loses memory of the guest, or says that it was lost.
    fn inject(&self, order: InjectionRequest) -> Result<(), Refused> {
        let PreservedState { ram, reporting, .. } = self.preserved;
        let span = order.span();
        let last = span.gpa + (span.bytes() - 1);
        let (Some(_), Some(hva), Some(_)) =
            (ram.host_address(span.gpa), ram.host_address(order.gpa), ram.host_address(last))
        else {
            return Err(Refused::NotMemory(span));
        };
        let found = sigbus::Fault { hva, log2_len: span.log2_len, action: sigbus::Action::Optional };
        let lost = |source| Refused::Host { span, source };
        match (order.via, order.kind) {
            (Via::Notice, Kind::ActionRequired) => return Err(Refused::ConsumedNotice),
            (Via::Notice, Kind::ActionOptional) => self.found(DetectedError::Noticed { span }),
            (Via::Simulate, kind) => {
                if reporting.memslot_holes().overlaps(span) {
                    return Err(Refused::LostAlready(span));
                }
                self.while_out(|| {
                    self.vm.punch_hole(span)?;
                    reporting.memslot_holes().punch_hole(span);
                    Ok(())
                })?;
                if kind == Kind::ActionOptional {
                    self.raise(found).map_err(lost)?;
                }
            }
            (Via::Madvise, kind) => {
                ram.poison(span.gpa, span.bytes()).map_err(lost)?;
                // The host tells of what it lost by itself; where it does not, it is told as ordered.
                if kind == Kind::ActionOptional && !self.hear() {
                    self.raise(found).map_err(lost)?;
                }
            }
        }
        Ok(())
    }

    /// Has the host's signal raised, and waits until it has gone its way: who has ordered an error finds it told.
    fn raise(&self, fault: sigbus::Fault) -> std::io::Result<()> {
        sigbus::raise(fault)?;
        self.hear();
        Ok(())
    }

    /// Waits for something that is found, and tells of it. False where nothing is.
    fn hear(&self) -> bool {
        let found = self.preserved.detected_errors.next(PATIENCE);
        let is_found = found.is_some();
        found.into_iter().for_each(|found| self.found(found));
        is_found
    }

    /// Tells the guest of what was found.
    fn found(&self, found: DetectedError) {
        self.preserved.reporting.found(found);
        self.kick();
    }

    /// Takes vCPUs out of the guest that have to do something for an error.
    fn kick(&self) {
        if self.preserved.reporting.asks() {
            self.vcpus.kick();
        } else {
            self.vcpus.kick_waiting();
        }
    }

    /// Carries out orders whose time has come, looks after records that the guest has not acknowledged, and replaces what may
    /// be replaced.
    fn tick(&self) {
        for order in self.preserved.schedule.due(self.started.elapsed()) {
            if let Err(error) = self.inject(order) {
                tracing::error!("an ordered memory error cannot be had: {error}");
            }
        }
        self.preserved.reporting.tick();
        self.kick();
        for span in self.preserved.reporting.repairable() {
            self.repair(span);
        }
    }

    /// Puts fresh memory in the place of poisoned pages.
    fn repair(&self, span: Span) {
        let PreservedState { ram, reporting, .. } = self.preserved;
        if let Err(error) = ram.replace_pages(span.gpa, span.bytes()) {
            return reporting.not_repaired(span, &error);
        }
        for memslot_holes in reporting.memslot_holes().within(span) {
            if let Err(error) = self.while_out(|| Ok(self.vm.fill_hole(memslot_holes)?)) {
                return reporting.not_repaired(span, &std::io::Error::other(error.to_string()));
            }
        }
        reporting.repaired(span);
    }

    /// Does something while no vCPU is in the guest.
    fn while_out(&self, act: impl FnOnce() -> Result<(), Refused>) -> Result<(), Refused> {
        let requested = self.vcpus.run_state();
        if requested == RunState::Stop {
            return Err(Refused::Stopping);
        }
        self.vcpus.pause()?;
        let outcome = act();
        if requested == RunState::Run {
            self.vcpus.resume();
        }
        outcome
    }
}

/// Waits for the machine's end.
pub(super) fn watch(
    operator: &Operator<'_>,
    signals: &mut Signals,
    control: Option<&Server>,
) -> Result<Ending, MachineError> {
    let lifecycle = operator.lifecycle;
    let mut events = EventManager::<Box<dyn MutEventSubscriber + '_>>::new().map_err(MachineError::Events)?;
    events.add_subscriber(Box::new(EndWatcher(lifecycle)));
    events.add_subscriber(Box::new(SignalWatcher { signals, lifecycle }));
    let mut timer = TimerFd::new().map_err(no_timer)?;
    timer.reset(TICK, None).map_err(no_timer)?;
    events.add_subscriber(Box::new(TickWatcher { timer, operator }));
    events.add_subscriber(Box::new(DetectedErrorWatcher {
        detected_errors: &operator.preserved.detected_errors,
        operator,
    }));
    if let Some(server) = control {
        events.add_subscriber(Box::new(ControlWatcher { server, operator }));
    }
    loop {
        events.run().map_err(MachineError::Events)?;
        if let Some(ending) = lifecycle.ending() {
            return Ok(ending);
        }
    }
}

/// How often it is looked whether there is something to do.
const TICK: Duration = Duration::from_millis(20);
/// The same, while the guest is expected to acknowledge a record: what waits for the same block goes on then.
const SHORT_TICK: Duration = Duration::from_millis(1);

fn no_timer(error: vmm_sys_util::errno::Error) -> MachineError {
    MachineError::Host { what: "timer", source: error.into() }
}

/// Looks after records that wait.
struct TickWatcher<'a> {
    timer: TimerFd,
    operator: &'a Operator<'a>,
}

impl MutEventSubscriber for TickWatcher<'_> {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        // How often it fired does not matter.
        let _ = self.timer.wait();
        self.operator.tick();
        let next = if self.operator.preserved.reporting.expects_guest() { SHORT_TICK } else { TICK };
        if let Err(error) = self.timer.reset(next, None) {
            tracing::error!(%error, "the timer cannot be set: records are not looked after any more");
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        add(ops, &self.timer);
    }
}

/// Hears of memory that was found lost.
struct DetectedErrorWatcher<'a> {
    detected_errors: &'a DetectedErrors,
    operator: &'a Operator<'a>,
}

impl MutEventSubscriber for DetectedErrorWatcher<'_> {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        self.detected_errors.all().for_each(|found| self.operator.found(found));
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        add(ops, self.detected_errors.wake());
    }
}

/// Answers the control socket.
struct ControlWatcher<'a> {
    server: &'a Server,
    operator: &'a Operator<'a>,
}

impl MutEventSubscriber for ControlWatcher<'_> {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        for call in self.server.calls() {
            let outcome = self.operator.answer(call.request);
            call.answer(outcome.map_err(|error| error.to_string()));
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        add(ops, self.server.wake());
    }
}

/// Wakes the event loop when an end was announced.
struct EndWatcher<'a>(&'a Lifecycle);

impl MutEventSubscriber for EndWatcher<'_> {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        // An error means that it was read already.
        let _ = self.0.wake().read();
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        add(ops, self.0.wake());
    }
}

/// Ends the machine when a signal asks for it.
struct SignalWatcher<'a> {
    signals: &'a mut Signals,
    lifecycle: &'a Lifecycle,
}

impl MutEventSubscriber for SignalWatcher<'_> {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        if let Some(signal) = self.signals.pending() {
            self.lifecycle.end(Ending::Signal(signal));
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        add(ops, self.signals);
    }
}

fn add(ops: &mut EventOps<'_>, descriptor: &impl AsRawFd) {
    if let Err(error) = ops.add(Events::new(descriptor, EventSet::IN)) {
        tracing::error!(?error, "a descriptor cannot be watched");
    }
}

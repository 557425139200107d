//! The main thread of a running machine: waits for its end, and does what it is asked meanwhile.

use std::cell::RefCell;
use std::os::fd::AsRawFd;
use std::time::Duration;

use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use ras_core::{Kind, MemoryError, Origin, Span};
use serde_json::{Value, json};
use vcpu::{Vcpus, Wish};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::timerfd::TimerFd;

use super::{MachineError, PowerButton};
use crate::control::{Request, Server};
use crate::kvm::KvmVm;
use crate::lifecycle::{Ending, Lifecycle};
use crate::ras::Reporting;
use crate::signals::Signals;

/// What those who control a machine can do to it.
pub(super) struct Operator<'a> {
    pub(super) name: &'a str,
    pub(super) vcpus: &'a Vcpus,
    pub(super) power_button: &'a PowerButton,
    pub(super) lifecycle: &'a Lifecycle,
    pub(super) reporting: RefCell<Reporting>,
    pub(super) vm: &'a KvmVm,
}

impl Operator<'_> {
    fn answer(&self, request: Request) -> Result<Value, String> {
        match request {
            Request::Status => {}
            Request::Pause => self.vcpus.pause().map_err(|error| error.to_string())?,
            Request::Resume => self.vcpus.resume(),
            Request::PowerButton if self.power_button.press() => {}
            Request::PowerButton => {
                return Err("the tables of this machine have no word for a power button".into());
            }
            Request::Inject { gpa, log2_len } => self.inject(gpa, log2_len)?,
            Request::Ledger => {
                let reporting = self.reporting.borrow();
                return Ok(
                    json!({ "entries": reporting.ledger(), "bytes_lost": reporting.ledger().bytes_lost() }),
                );
            }
            Request::MemoryMap => {
                let slots = self.vm.ram().slots();
                let slots = slots.map(|slot| json!({ "gpa": slot.gpa, "len": slot.len, "hva": slot.hva }));
                return Ok(json!({ "slots": slots.collect::<Vec<_>>() }));
            }
            Request::Reset => self.lifecycle.end(Ending::ControlReset),
            Request::Stop => self.lifecycle.end(Ending::ControlStop),
        }
        let state = match self.vcpus.wish() {
            Wish::Run => "running",
            Wish::Pause => "paused",
            Wish::Stop => "stopping",
        };
        Ok(json!({ "machine": self.name, "state": state, "vcpus": self.vcpus.count() }))
    }

    /// Tells the guest of an error at a page that nobody consumed. The page itself stays as it is.
    fn inject(&self, gpa: u64, log2_len: u8) -> Result<(), String> {
        if self.vm.ram().host_address(gpa).is_none() {
            return Err(format!("{gpa:#x} is not memory of this guest"));
        }
        let mut reporting = self.reporting.borrow_mut();
        let error = MemoryError {
            span: Span::around(gpa, log2_len),
            gpa,
            kind: Kind::ActionOptional,
            vcpu: None,
            origin: Origin::Injected,
            time_ns: reporting.now_ns(),
        };
        reporting.report(&error);
        self.vcpus.kick();
        Ok(())
    }

    /// Looks after records that the guest has not acknowledged.
    fn tick(&self) {
        let mut reporting = self.reporting.borrow_mut();
        if reporting.waits() {
            reporting.tick();
            self.vcpus.kick_if_injected();
        }
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
    let timer = tick_timer().map_err(|error| MachineError::Host { what: "timer", source: error.into() })?;
    events.add_subscriber(Box::new(TickWatcher { timer, operator }));
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

/// How often records that wait for their acknowledgement are looked at.
const TICK: Duration = Duration::from_millis(20);

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
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        add(ops, &self.timer);
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
            call.answer(outcome);
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
        tracing::error!(?error, "a descriptor can not be watched");
    }
}

fn tick_timer() -> Result<TimerFd, vmm_sys_util::errno::Error> {
    let mut timer = TimerFd::new()?;
    timer.reset(TICK, Some(TICK))?;
    Ok(timer)
}

//! The event loop of a running machine's main thread.

use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use devices::error_injection::ErrorInjector;
use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

use super::running::RunningMachine;
use super::{MachineError, host_error};
use crate::control::Server;
use crate::lifecycle::{Ending, Lifecycle};
use crate::notify::Notifier;
use crate::signals::Signals;

/// Runs until the machine ends.
pub(super) fn run(
    machine: &RunningMachine<'_>,
    signals: &mut Signals,
    control: Option<&mut Server>,
    notifier: &mut Notifier,
) -> Result<Ending, MachineError> {
    let lifecycle = machine.lifecycle;
    let mut events = EventManager::<Box<dyn MutEventSubscriber + '_>>::new().map_err(MachineError::Events)?;
    events.add_subscriber(Box::new(EndWatcher(lifecycle)));
    events.add_subscriber(Box::new(SignalWatcher { signals, machine }));
    let mut timer = TimerFd::new().map_err(|error| host_error("timerfd_create(2)")(error.into()))?;
    timer.reset(TICK, None).map_err(|error| host_error("timerfd_settime(2)")(error.into()))?;
    events.add_subscriber(Box::new(TickWatcher { timer, machine, notifier }));
    events.add_subscriber(Box::new(DetectedErrorWatcher(machine)));
    if let Some(injector) = machine.error_injector {
        events.add_subscriber(Box::new(ErrorInjectorWatcher::new(machine, injector)));
    }
    if let Some(server) = control {
        events.add_subscriber(Box::new(ControlWatcher { server, machine }));
    }
    loop {
        events.run().map_err(MachineError::Events)?;
        if let Some(ending) = lifecycle.ending() {
            return Ok(ending);
        }
    }
}

/// The interval of [`RunningMachine::tick`].
const TICK: Duration = Duration::from_millis(20);
/// The same while a record waits for the guest's acknowledgement: the next record may wait for the same status block.
const SHORT_TICK: Duration = Duration::from_millis(1);

/// Calls [`RunningMachine::tick`] and [`Notifier::tick`].
struct TickWatcher<'a> {
    timer: TimerFd,
    machine: &'a RunningMachine<'a>,
    notifier: &'a mut Notifier,
}

impl MutEventSubscriber for TickWatcher<'_> {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        // The number of expirations does not matter.
        let _ = self.timer.wait();
        self.machine.tick();
        self.notifier.tick();
        let next = if self.machine.preserved.reporting.expects_acknowledgement() { SHORT_TICK } else { TICK };
        if let Err(error) = self.timer.reset(next, None) {
            tracing::error!(%error, "timerfd_settime(2) failed: acknowledgements and timeouts are no longer checked");
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        add(ops, &self.timer);
    }
}

/// Reports detected errors.
struct DetectedErrorWatcher<'a>(&'a RunningMachine<'a>);

impl MutEventSubscriber for DetectedErrorWatcher<'_> {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        self.0.preserved.detected_errors.some_pending().for_each(|error| self.0.report(error));
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        add(ops, self.0.preserved.detected_errors.wake());
    }
}

/// Carries out what the guest requests of its error injector.
struct ErrorInjectorWatcher<'a> {
    machine: &'a RunningMachine<'a>,
    injector: &'a Mutex<ErrorInjector>,
    wake: Arc<EventFd>,
}

impl<'a> ErrorInjectorWatcher<'a> {
    fn new(machine: &'a RunningMachine<'a>, injector: &'a Mutex<ErrorInjector>) -> Self {
        let wake = injector.lock().unwrap_or_else(PoisonError::into_inner).wake();
        ErrorInjectorWatcher { machine, injector, wake }
    }
}

impl MutEventSubscriber for ErrorInjectorWatcher<'_> {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        // Read first: what the guest requests from now on wakes the loop again. An error means that it was read already.
        let _ = self.wake.read();
        self.machine.serve_error_injector(self.injector);
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        add(ops, &*self.wake);
    }
}

/// Responds to requests of the control socket.
struct ControlWatcher<'a> {
    server: &'a mut Server,
    machine: &'a RunningMachine<'a>,
}

impl MutEventSubscriber for ControlWatcher<'_> {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let machine = self.machine;
        let jobs = &machine.preserved.jobs;
        if events.fd() == jobs.wake().as_raw_fd() {
            machine.jobs_ended();
            self.server.finish(ops);
        } else {
            self.server.process(events, ops, &mut |request| machine.handle(request));
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        self.server.watch(ops);
        add(ops, self.machine.preserved.jobs.wake());
    }
}

/// Wakes the event loop when the machine ends.
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

/// Ends the machine when a signal requests it, and has its console follow the size of the terminal.
struct SignalWatcher<'a> {
    signals: &'a mut Signals,
    machine: &'a RunningMachine<'a>,
}

impl MutEventSubscriber for SignalWatcher<'_> {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        if let Some(signal) = self.signals.take_pending() {
            self.machine.lifecycle.end(Ending::Signal(signal));
        }
        if let Some(terminal) = self.machine.terminal.filter(|_| self.signals.take_resized()) {
            terminal.follow_size();
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        add(ops, self.signals);
    }
}

fn add(ops: &mut EventOps<'_>, descriptor: &impl AsRawFd) {
    if let Err(error) = ops.add(Events::new(descriptor, EventSet::IN)) {
        tracing::error!(
            ?error,
            fd = descriptor.as_raw_fd(),
            "epoll_ctl(2) failed: a descriptor is not watched"
        );
    }
}

//! Memory errors of a running machine: what `ras-core` decides, carried out.
//!
//! [`request`] says what a profile asks for; [`Reporting`] owns the responder, takes errors in, and has [`Hands`] do what
//! comes out: writes to the record area, interrupts, exceptions of vCPUs, the end of the machine.

mod hands;
pub mod request;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ras_core::abilities::HostAbilities;
use ras_core::actions::{Action, ActionSink, Mark};
use ras_core::ledger::Ledger;
use ras_core::plan::Plan;
use ras_core::reporters::{BuildError, Moment};
use ras_core::responder::{Responder, Scene, Side};
use ras_core::vcpu_state::VcpuState;
use ras_core::{MemoryError, RecordArea};

pub use hands::Hands;

use crate::journal::Journal;
use crate::timings::Timings;

/// What answers a machine's memory errors.
pub struct Reporting {
    responder: Responder,
    hands: Hands,
    journal: Arc<Journal>,
    clock: Arc<Timings>,
    /// Records that were written and not acknowledged.
    unacknowledged: u64,
}

impl Reporting {
    /// What carries a plan out, over the record area that the tables point at.
    ///
    /// # Errors
    /// Where this build has no reporter for an answer.
    pub fn new(
        plan: &Plan,
        host: &HostAbilities,
        area: Option<&RecordArea>,
        hands: Hands,
        journal: Arc<Journal>,
        clock: Arc<Timings>,
    ) -> Result<Self, BuildError> {
        Ok(Reporting {
            responder: Responder::new(plan, host, area)?,
            hands,
            journal,
            clock,
            unacknowledged: 0,
        })
    }

    /// Answers an error that nobody consumed.
    pub fn report(&mut self, error: &MemoryError) {
        self.journal.memory_error(error);
        self.act(|responder, scene, sink| responder.report(error, scene, sink));
    }

    /// Looks whether the guest has acknowledged something, and lets time pass.
    pub fn tick(&mut self) {
        self.act(|responder, scene, sink| responder.tick(scene, sink));
    }

    /// Whether [`tick`](Self::tick) has something to look for.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.unacknowledged > 0 || self.responder.deadline_ns().is_some()
    }

    /// What was lost so far.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        self.responder.ledger()
    }

    /// The time of this machine's clock, in nanoseconds.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn act(&mut self, step: impl FnOnce(&mut Responder, &Scene, &mut dyn ActionSink)) {
        // The time first: a register that is read after it holds what the guest had written by then.
        let now_ns = self.now_ns();
        let register = |side| self.responder.acknowledge_register(side).map_or(0, |gpa| self.hands.read(gpa));
        let scene = Scene {
            moment: Moment {
                now_ns,
                unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
                acknowledge_register: register(Side::Consumed),
                vcpu: READY,
            },
            found_register: register(Side::Found),
        };
        let Reporting { responder, hands, journal, unacknowledged, .. } = self;
        let mut sink = |action: Action<'_>| match action {
            Action::Mark(mark) => {
                match mark {
                    Mark::RecordWritten { .. } => *unacknowledged += 1,
                    Mark::Acknowledged { .. } => *unacknowledged = unacknowledged.saturating_sub(1),
                    _ => {}
                }
                journal.mark(&mark);
            }
            action => {
                if let Some(how) = hands.carry_out(action) {
                    journal.notified(how);
                }
            }
        };
        step(responder, &scene, &mut sink);
    }
}

/// How vCPU 0 is taken to stand towards a machine check that tells of what nobody consumed: ready. KVM itself refuses one
/// that it is not ready for by ending the guest, as a processor does.
#[cfg(target_arch = "x86_64")]
const READY: Option<VcpuState> = Some(VcpuState::X86_64(ras_core::vcpu_state::MachineCheckState {
    in_progress: false,
    enabled: true,
    local: false,
    others_ready: true,
}));
/// On aarch64 nothing that tells of what nobody consumed is taken by a vCPU.
#[cfg(target_arch = "aarch64")]
const READY: Option<VcpuState> = None;

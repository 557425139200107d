//! Memory errors of a running machine: what `ras-core` decides, carried out.
//!
//! [`request`] says what a profile asks for; [`Reporting`] owns the reporters and the ledger, takes errors in, and does what
//! comes out: writes to the record area, interrupts, exceptions of vCPUs, the end of the machine.

mod hands;
pub mod request;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ras_core::abilities::HostAbilities;
use ras_core::actions::{Action, Mark};
use ras_core::ledger::Ledger;
use ras_core::plan::Plan;
use ras_core::reporters::{self, BuildError, Claims, Moment, Reporter, Setup};
use ras_core::vcpu_state::{MachineCheckState, VcpuState};
use ras_core::{Kind, MemoryError, RecordArea};

pub use hands::Hands;

use crate::journal::Journal;
use crate::timings::Timings;

/// The reporters of a machine, and what they have told.
pub struct Reporting {
    /// Tells of errors that nobody consumed.
    found: Box<dyn Reporter>,
    hands: Hands,
    book: Book,
    clock: Arc<Timings>,
    /// Records that were written and not acknowledged.
    unacknowledged: u64,
}

/// What is written down of what happens.
struct Book {
    ledger: Ledger,
    journal: Arc<Journal>,
}

/// Pages that the ledger has room for before it allocates.
const LEDGER_ROOM: usize = 4096;

impl Reporting {
    /// The reporters that a plan names, over the record area that the tables point at.
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
        let mut claims = Claims::of(area);
        let found = reporters::build(&mut Setup { answer: &plan.found, host, claims: &mut claims })?;
        let book = Book { ledger: Ledger::with_room_for(LEDGER_ROOM), journal };
        Ok(Reporting { found, hands, book, clock, unacknowledged: 0 })
    }

    /// Tells the guest of an error that nobody consumed.
    pub fn report(&mut self, error: &MemoryError) {
        debug_assert_eq!(error.kind, Kind::ActionOptional);
        self.book.ledger.record(error);
        self.book.journal.memory_error(error);
        self.act(|reporter, moment, sink| reporter.report(error, moment, sink));
    }

    /// Looks whether the guest has acknowledged something, and lets time pass.
    pub fn tick(&mut self) {
        self.act(|reporter, moment, sink| reporter.tick(moment, sink));
    }

    /// Whether [`tick`](Self::tick) has something to look for.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.unacknowledged > 0 || self.found.deadline_ns().is_some()
    }

    /// What was lost so far.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.book.ledger
    }

    /// The time of this machine's clock, in nanoseconds.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn act(&mut self, step: impl FnOnce(&mut dyn Reporter, &Moment, &mut dyn ras_core::actions::ActionSink)) {
        let moment = Moment {
            now_ns: self.now_ns(),
            unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            acknowledge_register: self.found.acknowledge_register().map_or(0, |gpa| self.hands.read(gpa)),
            vcpu: READY,
        };
        let (hands, book, unacknowledged) = (&mut self.hands, &mut self.book, &mut self.unacknowledged);
        let mut sink = |action: Action<'_>| match action {
            Action::Mark(mark) => {
                match mark {
                    Mark::RecordWritten { .. } => *unacknowledged += 1,
                    Mark::Acknowledged { .. } => *unacknowledged = unacknowledged.saturating_sub(1),
                    _ => {}
                }
                book.mark(mark, moment.now_ns);
            }
            Action::Stop { account } => {
                hands.stop(account);
            }
            action => {
                if let Some(how) = hands.carry_out(action) {
                    book.journal.notified(how);
                }
            }
        };
        step(self.found.as_mut(), &moment, &mut sink);
    }
}

/// How vCPU 0 is taken to stand towards a machine check that tells of what nobody consumed: ready. KVM itself refuses one
/// that it is not ready for by ending the guest, as a processor does.
#[cfg(target_arch = "x86_64")]
const READY: Option<VcpuState> = Some(VcpuState::X86_64(MachineCheckState {
    in_progress: false,
    enabled: true,
    local: false,
    others_ready: true,
}));
/// On aarch64 nothing that tells of what nobody consumed is taken by a vCPU.
#[cfg(target_arch = "aarch64")]
const READY: Option<VcpuState> = None;

impl Book {
    fn mark(&mut self, mark: Mark, now_ns: u64) {
        match mark {
            Mark::Answered { span, response } => self.ledger.answered(span, response),
            Mark::Acknowledged { span, .. } => self.ledger.acknowledged(span, now_ns),
            _ => {}
        }
        self.journal.mark(&mark);
    }
}

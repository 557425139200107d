//! GHES: records in a status block, and their notification.

use alloc::boxed::Box;

use super::external_abort::Injector;
use super::stop::stop;
use super::{BuildError, Claim, Registration, Reporter, ReporterContext, Setup};
use crate::abilities::HostAbilities;
use crate::actions::{Action, ActionSink, ErrorEvent, StopReason};
use crate::handshake::{Consumer, Handshake, Record, Step};
use crate::memory_blocks::{MemoryBlocks, MemoryReport, PartName};
use crate::memory_error::{Kind, MemoryError, Span};
use crate::notification::Notification;
use crate::plan::ResponsePlan;
use crate::record_area::{self, RecordSlot};
use crate::response::Response;
use crate::vcpu_state::VcpuState;

pub(super) const REGISTRATION: Registration = Registration {
    carries: Response::writes_record,
    build: |Setup { response, host, claims, part }| {
        let claim = response.source.and_then(|source| claims.claim(source));
        let claim = claim.ok_or(BuildError::NoBlock(response.chosen))?;
        Ok(Box::new(Ghes::new(claim, response, host, *part)))
    },
};

/// Errors that can be queued for one block, and vCPUs that can be held for it.
const CAPACITY: usize = 64;
/// Bytes of a status block.
const BLOCK_LEN: usize = record_area::BLOCK_LEN as usize;
/// Bytes of the block status, the first field of a block. If it is zero, the block is empty.
const STATUS_LEN: usize = 4;

/// Writes records into one status block and notifies the guest.
///
/// It can only be built from a [`Claim`], which only a laid-out record area gives: no record is ever written that no table describes.
#[derive(Debug)]
pub struct Ghes {
    handshake: Handshake<CAPACITY>,
    channel: Channel,
}

/// Carries out the steps of the handshake.
#[derive(Debug)]
struct Channel {
    claim: Claim,
    part: PartName,
    response: Response,
    /// What is done if no record can be written.
    fallback: Response,
    injector: Injector,
    /// Number of records written so far.
    written: u64,
    block: [u8; BLOCK_LEN],
}

impl Ghes {
    /// The reporter that writes to that block. Its records name the memory `part`.
    #[must_use]
    pub fn new(claim: Claim, response: &ResponsePlan, host: &HostAbilities, part: PartName) -> Self {
        Ghes {
            handshake: Handshake::new(response.timeouts.acknowledge_ns()),
            channel: Channel {
                claim,
                part,
                response: response.chosen,
                fallback: response.unacknowledged.unwrap_or(Response::Stop),
                injector: Injector::of(host),
                written: 0,
                block: [0; BLOCK_LEN],
            },
        }
    }
}

impl Reporter for Ghes {
    fn report(&mut self, error: &MemoryError, context: &ReporterContext, sink: &mut dyn ActionSink) {
        let (span, consumer) = match (error.kind, error.vcpu) {
            (Kind::ActionOptional, _) => (error.span, None),
            (Kind::ActionRequired, Some(vcpu)) => {
                let state = context.vcpu;
                if state.is_none() && self.channel.response.needs_vcpu_state() {
                    return stop(*error, StopReason::NotDeliverable, sink);
                }
                // The pages around the accessed one; the responder reports the rest as detected.
                let span = Span::around(error.gpa, error.span.log2_len.min(Record::MAX_LOG2_LEN));
                (span, Some(Consumer { vcpu, state, error: *error }))
            }
            (Kind::ActionRequired, None) => return stop(*error, StopReason::NotDeliverable, sink),
        };
        let channel = &mut self.channel;
        self.handshake.report(span, consumer, is_free(context), context.now_ns, &mut |step| {
            channel.carry_out(step, context, sink);
        });
    }

    fn tick(&mut self, context: &ReporterContext, sink: &mut dyn ActionSink) {
        let channel = &mut self.channel;
        self.handshake
            .tick(is_free(context), context.now_ns, &mut |step| channel.carry_out(step, context, sink));
    }

    fn driver_up(&mut self, context: &ReporterContext) {
        self.handshake.driver_up(context.now_ns);
    }

    fn reset(&mut self, sink: &mut dyn ActionSink) {
        self.channel.restore(sink);
        self.handshake.reset();
    }

    fn has_capacity(&self) -> bool {
        self.handshake.queued() < CAPACITY
    }

    fn acknowledge_register(&self) -> Option<u64> {
        Some(self.channel.claim.slot().ack_gpa)
    }

    fn deadline_ns(&self) -> Option<u64> {
        self.handshake.deadline_ns()
    }
}

fn is_free(context: &ReporterContext) -> bool {
    context.acknowledge_register & RecordSlot::FREE != 0
}

impl Channel {
    fn carry_out(&mut self, step: Step, context: &ReporterContext, sink: &mut dyn ActionSink) {
        let source = self.claim.slot().source.id;
        match step {
            Step::Write(record) => self.write(&record, context, sink),
            Step::Hold(vcpu) => sink.act(Action::Hold { vcpu }),
            Step::Release(vcpu) => sink.act(Action::Release { vcpu }),
            Step::Fallback(consumer, span) => self.respond_with_fallback(consumer, span, sink),
            Step::Queued(span) => sink.act(Action::Event(ErrorEvent::Queued { source, span })),
            Step::Coalesced(span) => sink.act(Action::Event(ErrorEvent::Coalesced { source, span })),
            Step::Acknowledged(Record { span, .. }, after_ns) => {
                sink.act(Action::Event(ErrorEvent::Acknowledged { source, span, after_ns }));
            }
            Step::Overdue(Record { span, .. }) => {
                sink.act(Action::Event(ErrorEvent::Overdue { source, span }))
            }
            Step::Overflowed(span, times) => {
                sink.act(Action::Event(ErrorEvent::Overflowed { source, span, times }))
            }
        }
    }

    /// The register first, so that an acknowledgement can only be of this record; then the block's body; last its first field, by which a
    /// polling guest sees that the block is not empty.
    fn write(&mut self, record: &Record, context: &ReporterContext, sink: &mut dyn ActionSink) {
        let RecordSlot { source, ack_gpa, block_gpa, .. } = *self.claim.slot();
        self.written = self.written.saturating_add(1);
        // No two records of the area have the same number: the last digit is the source's.
        let number = self.written.saturating_mul(10).saturating_add(u64::from(source.id % 10));
        let report =
            MemoryReport::uncorrected(record.kind(), context.unix_seconds, number).with_part(self.part);
        // Cannot fail: a record is no larger than a block.
        let Ok(len) = MemoryBlocks::new(record.span, report).write_next(&mut self.block) else { return };
        let (status, body) = self.block.split_at(STATUS_LEN);
        let body = body.get(..len.saturating_sub(STATUS_LEN)).unwrap_or_default();

        sink.act(Action::Write { gpa: ack_gpa, bytes: &[0; 8] });
        sink.act(Action::Write { gpa: block_gpa + STATUS_LEN as u64, bytes: body });
        sink.act(Action::Write { gpa: block_gpa, bytes: status });
        sink.act(Action::Event(ErrorEvent::RecordWritten {
            source: source.id,
            gpa: block_gpa,
            span: record.span,
        }));
        self.notify(record, sink);
        sink.act(Action::Event(ErrorEvent::Handled { span: record.span, response: self.response }));
    }

    fn notify(&self, record: &Record, sink: &mut dyn ActionSink) {
        let notification = self.claim.slot().source.notification;
        if notification.needs_error_device() {
            return sink.act(Action::RaiseErrorEvent);
        }
        match (notification, record.consumer) {
            (Notification::External { gsi }, _) => sink.act(Action::RaiseInterrupt { gsi }),
            (Notification::Nmi, consumer) => {
                sink.act(Action::InjectNmi { vcpu: consumer.map_or(0, |consumer| consumer.vcpu) });
            }
            (
                Notification::Sea,
                Some(Consumer { vcpu, state: Some(VcpuState::Aarch64(consumption)), .. }),
            ) => {
                sink.act(self.injector.abort(vcpu, consumption));
            }
            (Notification::Sei, consumer) => {
                sink.act(self.injector.serror(consumer.map_or(0, |consumer| consumer.vcpu)));
            }
            // A polled record, or one for SEA without a consumer, which the guest reads at its next abort.
            _ => {}
        }
    }

    fn respond_with_fallback(&self, consumer: Consumer, span: Span, sink: &mut dyn ActionSink) {
        let Consumer { vcpu, state, error } = consumer;
        let response = match (self.fallback, state) {
            (Response::Abort, Some(VcpuState::Aarch64(consumption))) => {
                sink.act(self.injector.abort(vcpu, consumption));
                Response::Abort
            }
            (Response::Serror, Some(VcpuState::Aarch64(_))) => {
                sink.act(self.injector.serror(vcpu));
                Response::Serror
            }
            _ => return stop(error, StopReason::Unacknowledged, sink),
        };
        sink.act(Action::Event(ErrorEvent::Handled { span, response }));
    }

    /// Initialises the source's part of the record area: the block is empty and free.
    fn restore(&mut self, sink: &mut dyn ActionSink) {
        let RecordSlot { cell_gpa, ack_gpa, block_gpa, .. } = *self.claim.slot();
        self.block.fill(0);
        sink.act(Action::Write { gpa: block_gpa, bytes: &self.block });
        sink.act(Action::Write { gpa: cell_gpa, bytes: &block_gpa.to_le_bytes() });
        sink.act(Action::Write { gpa: ack_gpa, bytes: &RecordSlot::FREE.to_le_bytes() });
    }
}

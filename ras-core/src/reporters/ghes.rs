//! GHES: records in a status block, and their notification.

mod corrected;
mod corrected_pages;
mod injected;

use alloc::boxed::Box;

use super::external_abort::Injector;
use super::stop::stop;
use super::{BuildError, Claim, NotInjected, Registration, Reporter, ReporterContext, Setup};
use crate::abilities::HostAbilities;
use crate::actions::{Action, ActionFailed, ActionSink, ErrorEvent, StopReason, Unacknowledged};
use crate::corrected::CorrectedErrors;
use crate::handshake::{Consumer, Handshake, Record, Step};
use crate::memory_blocks::{MemoryBlocks, MemoryReport, PartName};
use crate::memory_error::{Kind, MemoryError, Span};
use crate::notification::Notification;
use crate::plan::ResponsePlan;
use crate::record_area::{self, RecordSlot};
use crate::response::Response;
use crate::severity::Severity;
use crate::vcpu_state::VcpuState;
use corrected::Corrected;
use injected::Injected;

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
    /// The last fatal record that was acknowledged: a guest reads it, and panics.
    fatal: Option<Record>,
    /// Why the record of the last step was not reported.
    failure: Option<StopReason>,
    block: [u8; BLOCK_LEN],
    injected: Injected,
    corrected: Corrected,
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
                fatal: None,
                failure: None,
                block: [0; BLOCK_LEN],
                injected: Injected::default(),
                corrected: Corrected::new(response.threshold),
            },
        }
    }
}

impl Reporter for Ghes {
    fn report(&mut self, error: &MemoryError, context: &ReporterContext, sink: &mut dyn ActionSink) {
        let (span, consumer) = match (error.kind, error.vcpu) {
            (Kind::Corrected, _) => return self.report_corrected(error, context, sink),
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
        self.handshake.report(
            span,
            error.severity,
            consumer,
            is_free(context),
            context.now_ns,
            &mut |step| channel.carry_out(step, context, sink),
        );
        self.after_steps(context, sink);
    }

    fn tick(&mut self, context: &ReporterContext, sink: &mut dyn ActionSink) {
        let channel = &mut self.channel;
        self.handshake
            .tick(is_free(context), context.now_ns, &mut |step| channel.carry_out(step, context, sink));
        self.after_steps(context, sink);
    }

    fn driver_up(&mut self, context: &ReporterContext) {
        self.handshake.driver_up(context.now_ns);
    }

    fn reset(&mut self, sink: &mut dyn ActionSink) {
        self.channel.restore(sink);
        self.channel.injected = Injected::default();
        self.channel.corrected.reset();
        self.channel.fatal = None;
        self.handshake.reset();
    }

    fn overdue(&self) -> Option<Unacknowledged> {
        self.handshake.overdue().map(|record| self.channel.as_unacknowledged(&record))
    }

    fn unacknowledged(&self, context: &ReporterContext) -> Option<Unacknowledged> {
        let record = self.handshake.unacknowledged(is_free(context), context.now_ns);
        record.or(self.channel.fatal).map(|record| self.channel.as_unacknowledged(&record))
    }

    fn corrected_errors(&self) -> CorrectedErrors {
        self.channel.corrected.numbers()
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

    fn slot(&self) -> Option<&RecordSlot> {
        Some(self.channel.claim.slot())
    }

    fn inject_block(
        &mut self,
        block: &[u8],
        context: &ReporterContext,
        sink: &mut dyn ActionSink,
    ) -> Result<(), NotInjected> {
        let RecordSlot { source, block_len, .. } = *self.channel.claim.slot();
        if block.len() > block_len as usize {
            return Err(NotInjected::TooLong { len: block.len(), max: block_len });
        }
        if source.notification == Notification::Sea {
            return Err(NotInjected::NoAccess { notification: source.notification.name() });
        }
        if !self.has_capacity() {
            return Err(NotInjected::QueueFull { queued: self.handshake.queued() });
        }
        let channel = &mut self.channel;
        channel.injected.add(block);
        let (span, severity) = (channel.own_span(), Severity::Informational);
        self.handshake.report_other(span, severity, is_free(context), context.now_ns, &mut |step| {
            channel.carry_out(step, context, sink);
        });
        self.after_steps(context, sink);
        Ok(())
    }
}

fn is_free(context: &ReporterContext) -> bool {
    context.acknowledge_register & RecordSlot::FREE != 0
}

impl Ghes {
    /// What follows the steps of the handshake.
    fn after_steps(&mut self, context: &ReporterContext, sink: &mut dyn ActionSink) {
        self.undo_failed_write(context, sink);
        self.queue_rest(context, sink);
    }

    /// Uses the fallback, if the last record could not be reported.
    fn undo_failed_write(&mut self, context: &ReporterContext, sink: &mut dyn ActionSink) {
        let channel = &mut self.channel;
        if channel.failure.is_some() {
            self.handshake.not_written(&mut |step| channel.carry_out(step, context, sink));
            channel.failure = None;
        }
    }
}

impl Channel {
    fn carry_out(&mut self, step: Step, context: &ReporterContext, sink: &mut dyn ActionSink) {
        let source = self.claim.slot().source.id;
        match step {
            Step::Write(record) => {
                let span = record.span;
                self.failure = match self.write(&record, context, sink) {
                    Err(ActionFailed) => Some(StopReason::RecordAreaPoisoned),
                    Ok(()) => self.notify(&record, sink).err().map(|ActionFailed| StopReason::NotDeliverable),
                };
                if self.failure.is_some() && record.severity == Severity::Corrected {
                    self.corrected.not_reported();
                }
                sink.event(match self.failure {
                    None => ErrorEvent::Handled { span, response: self.response },
                    Some(_) => ErrorEvent::NotReported { source, span },
                });
            }
            // A VMM can always hold and release its vCPUs.
            Step::Hold(vcpu) => drop(sink.act(Action::Hold { vcpu })),
            Step::Release(vcpu) => drop(sink.act(Action::Release { vcpu })),
            Step::Fallback(consumer, span) => self.respond_with_fallback(consumer, span, sink),
            Step::Queued(span) => sink.event(ErrorEvent::Queued { source, span }),
            Step::Coalesced(span) => sink.event(ErrorEvent::Coalesced { source, span }),
            Step::Acknowledged(record, after_ns) => {
                let span = record.span;
                if record.severity == Severity::Fatal {
                    self.fatal = Some(record);
                }
                sink.event(ErrorEvent::Acknowledged { source, span, after_ns });
            }
            Step::Overdue(record) => sink.event(ErrorEvent::Overdue(self.as_unacknowledged(&record))),
            Step::Overflowed(span, times) => sink.event(ErrorEvent::Overflowed { source, span, times }),
        }
    }

    fn as_unacknowledged(&self, record: &Record) -> Unacknowledged {
        Unacknowledged {
            source: Some(self.claim.slot().source.id),
            span: record.span,
            severity: record.severity,
            consumed_by: record.consumer.map(|consumer| consumer.vcpu),
        }
    }

    /// The register first, so that an acknowledgement can only be of this record; then the block's body; last its first field, by which a
    /// polling guest sees that the block is not empty.
    fn write(
        &mut self,
        record: &Record,
        context: &ReporterContext,
        sink: &mut dyn ActionSink,
    ) -> Result<(), ActionFailed> {
        let RecordSlot { source, ack_gpa, block_gpa, .. } = *self.claim.slot();
        let len = if record.span == self.own_span() {
            self.injected.take(&mut self.block)
        } else {
            self.written = self.written.saturating_add(1);
            // No two records of the area have the same number: the last digit is the source's.
            let number = self.written.saturating_mul(10).saturating_add(u64::from(source.id % 10));
            let time = context.unix_seconds;
            if record.severity == Severity::Corrected {
                let report = MemoryReport::corrected(time, number).with_part(self.part);
                self.corrected.write(record.span, &report, &mut self.block)
            } else {
                let report = MemoryReport::uncorrected(record.kind(), time, number)
                    .with_severity(record.severity)
                    .with_part(self.part);
                MemoryBlocks::new(record.span, report).write_next(&mut self.block).ok()
            }
        };
        // There is one: a record is no larger than a block.
        let len = len.ok_or(ActionFailed)?;
        let (status, body) = self.block.split_at(STATUS_LEN);
        let body = body.get(..len.saturating_sub(STATUS_LEN)).unwrap_or_default();

        sink.act(Action::Write { gpa: ack_gpa, bytes: &[0; 8] })?;
        sink.act(Action::Write { gpa: block_gpa + STATUS_LEN as u64, bytes: body })?;
        sink.act(Action::Write { gpa: block_gpa, bytes: status })?;
        sink.event(ErrorEvent::RecordWritten { source: source.id, gpa: block_gpa, span: record.span });
        Ok(())
    }

    /// The span of an injected record: the page of the status block itself, in which the guest has no memory.
    fn own_span(&self) -> Span {
        Span::around(self.claim.slot().block_gpa, 12)
    }

    fn notify(&self, record: &Record, sink: &mut dyn ActionSink) -> Result<(), ActionFailed> {
        let notification = self.claim.slot().source.notification;
        if notification.needs_error_device() {
            return sink.act(Action::RaiseErrorEvent);
        }
        match (notification, record.consumer) {
            (Notification::External { gsi }, _) => sink.act(Action::RaiseInterrupt { gsi }),
            (Notification::Nmi, consumer) => {
                sink.act(Action::InjectNmi { vcpu: consumer.map_or(0, |consumer| consumer.vcpu) })
            }
            (
                Notification::Sea,
                Some(Consumer { vcpu, state: Some(VcpuState::Aarch64(consumption)), .. }),
            ) => sink.act(self.injector.abort(vcpu, consumption)),
            (Notification::Sei, consumer) => {
                sink.act(self.injector.serror(consumer.map_or(0, |consumer| consumer.vcpu)))
            }
            // A polled record, or one for SEA without a consumer, which the guest reads at its next abort.
            _ => Ok(()),
        }
    }

    fn respond_with_fallback(&self, consumer: Consumer, span: Span, sink: &mut dyn ActionSink) {
        let Consumer { vcpu, state, error } = consumer;
        let action = match (self.fallback, state) {
            (Response::Abort, Some(VcpuState::Aarch64(consumption))) => {
                self.injector.abort(vcpu, consumption)
            }
            (Response::Serror, Some(VcpuState::Aarch64(_))) => self.injector.serror(vcpu),
            _ => return stop(error, self.failure.unwrap_or(StopReason::Unacknowledged), sink),
        };
        match sink.act(action) {
            Ok(()) => sink.event(ErrorEvent::Handled { span, response: self.fallback }),
            Err(ActionFailed) => stop(error, StopReason::NotDeliverable, sink),
        }
    }

    /// Initialises the source's part of the record area: the block is empty and free.
    fn restore(&mut self, sink: &mut dyn ActionSink) {
        let RecordSlot { cell_gpa, ack_gpa, block_gpa, .. } = *self.claim.slot();
        self.block.fill(0);
        for (gpa, bytes) in [
            (block_gpa, &self.block[..]),
            (cell_gpa, &block_gpa.to_le_bytes()[..]),
            (ack_gpa, &RecordSlot::FREE.to_le_bytes()[..]),
        ] {
            // A record that is written there later fails too, and has its fallback.
            let _ = sink.act(Action::Write { gpa, bytes });
        }
    }
}

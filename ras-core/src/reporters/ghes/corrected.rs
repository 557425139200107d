//! Corrected errors: counted by page, and reported in records of one page each.

use super::corrected_pages::{Batch, PageCounts, Waiting};
use super::{CAPACITY, Ghes, Reporter, ReporterContext, is_free};
use crate::actions::{ActionSink, ErrorEvent};
use crate::corrected::{CorrectedErrors, Threshold};
use crate::memory_blocks::{MemoryReport, write_page_errors};
use crate::memory_error::{MemoryError, Span};
use crate::severity::Severity;
use crate::status_block::section_flags;

/// The corrected errors of a source.
#[derive(Debug)]
pub(super) struct Corrected {
    counts: PageCounts,
    /// As many pages as the handshake has queued, and the one of `rest`.
    waiting: Waiting,
    /// The page of the record that was written last, if it has more errors than one record. It is to be queued again.
    rest: Option<Span>,
    numbers: CorrectedErrors,
    /// Errors in the record that was written last.
    last_errors: u32,
}

impl Corrected {
    pub(super) fn new(threshold: Option<Threshold>) -> Self {
        Corrected {
            counts: PageCounts::new(threshold),
            waiting: Waiting::new(CAPACITY + 1),
            rest: None,
            numbers: CorrectedErrors::default(),
            last_errors: 0,
        }
    }

    pub(super) const fn numbers(&self) -> CorrectedErrors {
        self.numbers
    }

    /// Writes the block of a page's next record. Returns its length.
    pub(super) fn write(&mut self, page: Span, report: &MemoryReport, block: &mut [u8]) -> Option<usize> {
        let (Batch { errors, reaches_threshold, .. }, more) = self.waiting.take(page.gpa)?;
        self.rest = more.then_some(page);
        self.last_errors = errors;
        let flags_of_last = if reaches_threshold { section_flags::THRESHOLD_EXCEEDED } else { 0 };
        write_page_errors(page.gpa, errors, report, flags_of_last, block).ok()
    }

    /// The guest cannot be notified of the record that was written last.
    pub(super) fn not_reported(&mut self) {
        self.drop_errors(self.last_errors.into());
    }

    /// The guest was reset: it is not notified of what waits. What was counted stays: the memory is the same.
    pub(super) fn reset(&mut self) {
        let dropped = self.waiting.clear();
        self.drop_errors(dropped);
        self.rest = None;
    }

    fn drop_errors(&mut self, errors: u64) {
        self.numbers.not_reported = self.numbers.not_reported.saturating_add(errors);
    }
}

impl Ghes {
    pub(super) fn report_corrected(
        &mut self,
        error: &MemoryError,
        context: &ReporterContext,
        sink: &mut dyn ActionSink,
    ) {
        // First what waits: there may be a place then.
        self.tick(context, sink);
        let page = Span::around(error.gpa, 12);
        let source = self.channel.claim.slot().source.id;
        let has_capacity = self.handshake.queued() < CAPACITY;
        let corrected = &mut self.channel.corrected;
        corrected.numbers.errors = corrected.numbers.errors.saturating_add(1);
        let reached = corrected.counts.count(page.gpa, context.now_ns);
        if let Some(errors) = reached {
            corrected.numbers.thresholds = corrected.numbers.thresholds.saturating_add(1);
            sink.event(ErrorEvent::ThresholdExceeded { source, span: page, errors });
        }
        if corrected.waiting.join(page.gpa, reached.is_some()) {
            return sink.event(ErrorEvent::Coalesced { source, span: page });
        }
        if has_capacity {
            corrected.waiting.add(page.gpa, reached.is_some());
        } else {
            // The handshake says so too.
            corrected.drop_errors(1);
        }
        self.queue_corrected(page, context, sink);
        self.after_steps(context, sink);
    }

    /// Queues what did not fit into the last record of its page. The record has left the queue, so there is a place. If records cannot be
    /// written, each has taken some of the errors.
    pub(super) fn queue_rest(&mut self, context: &ReporterContext, sink: &mut dyn ActionSink) {
        while let Some(page) = self.channel.corrected.rest.take() {
            self.queue_corrected(page, context, sink);
            self.undo_failed_write(context, sink);
        }
    }

    fn queue_corrected(&mut self, page: Span, context: &ReporterContext, sink: &mut dyn ActionSink) {
        let channel = &mut self.channel;
        self.handshake.report_other(
            page,
            Severity::Corrected,
            is_free(context),
            context.now_ns,
            &mut |step| {
                channel.carry_out(step, context, sink);
            },
        );
    }
}

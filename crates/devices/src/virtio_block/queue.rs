//! Serves a queue of a disk: takes its requests, divides them into operations of the engine, and returns them.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::timerfd::TimerFd;

use super::engine::{Completion, Engine, EngineKind, Operation};
use super::pool::Pool;
use super::request::{Active, Destination, Failure, Step, Target};
use crate::rate_limit::RateLimiter;
use crate::virtio::{GroupContext, QueueGroup, ServeError, Taken};

/// Tokens of the descriptors that the thread watches.
const COMPLETED: u32 = 0;
const ADMITTED: u32 = 1;
const UNUSED: u32 = 2;

/// How long a buffer is kept without being used. Until it is freed, the timer that notices costs a system call in this time.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// Operations that are submitted together. What the host has in its page cache is complete after that: the next operations use the
/// same buffers, which are in the processor's cache then. Twice as fast for writes of 480 KiB as with 16.
const BATCH: usize = 4;

/// What serves a queue.
pub(super) struct BlockQueue {
    index: u16,
    target: Target,
    engine: EngineKind,
    /// The most operations in flight.
    operations: u16,
    limiter: Option<RateLimiter>,
    /// `Some` from the start of the thread on.
    progress: Option<Progress>,
    /// Whether a failure of the host was logged: a guest can cause any number of them.
    is_failure_logged: bool,
}

/// Requests in progress. Dropping it abandons them.
struct Progress {
    engine: Box<dyn Engine>,
    /// Of operations that can begin.
    pool: Pool,
    /// Runs while the pool has buffers.
    timer: TimerFd,
    is_timed: bool,
    /// Operations in flight, by token.
    operations: Vec<Option<(RequestId, Destination)>>,
    requests: HashMap<RequestId, Active>,
    next_id: RequestId,
    /// A request that has not begun all its operations. The next one in the queue waits for that.
    current: Option<RequestId>,
    /// A request that the rate limit refused.
    refused: Option<Active>,
}

/// Of a request in progress. A hostile driver uses one head for several.
type RequestId = u64;

impl BlockQueue {
    pub(super) fn new(
        index: u16,
        target: Target,
        engine: EngineKind,
        operations: u16,
        limiter: Option<RateLimiter>,
    ) -> Self {
        BlockQueue { index, target, engine, operations, limiter, progress: None, is_failure_logged: false }
    }

    /// Does all that can be done now. It goes on when the driver notifies, an operation completes, or the rate limit's timer
    /// expires.
    fn serve(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        // Out of `self` meanwhile: an error ends the thread.
        let Some(mut progress) = self.progress.take() else { return Ok(()) };
        context.suppress_notifications(self.index)?;
        while !context.stop().is_set() {
            let completed = self.complete(&mut progress, context)?;
            let begun = self.begin(&mut progress, context)?;
            progress.engine.submit()?;
            context.notify_driver(self.index)?;
            let more =
                completed || begun || !progress.is_blocked() && context.request_notifications(self.index)?;
            if !more {
                break;
            }
        }
        if !progress.is_timed && progress.pool.has_buffers() {
            progress.time()?;
        }
        self.progress = Some(progress);
        Ok(())
    }

    /// Takes the operations that have completed. Returns whether there were any.
    fn complete(
        &mut self,
        progress: &mut Progress,
        context: &mut GroupContext<'_>,
    ) -> Result<bool, ServeError> {
        let mut any = false;
        while !context.stop().is_set()
            && let Some(Completion { token, buffer, outcome }) = progress.engine.completed()
        {
            any = true;
            let operation = progress.operations.get_mut(usize::from(token)).and_then(Option::take);
            if let Some((id, destination)) = operation
                && let Some(request) = progress.requests.get_mut(&id)
            {
                request.complete(context.memory(), destination, &buffer, outcome);
                self.finish(id, progress, context)?;
            }
            progress.pool.put(token, buffer);
        }
        Ok(any)
    }

    /// Begins a few operations. Returns whether there were requests to begin.
    fn begin(&mut self, progress: &mut Progress, context: &mut GroupContext<'_>) -> Result<bool, ServeError> {
        let mut any = false;
        for _ in 0..BATCH {
            if context.stop().is_set() || progress.pool.is_empty() {
                break;
            }
            let Some(id) = self.current(progress, context)? else { break };
            any = true;
            let Some((token, mut buffer)) = progress.pool.take() else { break };
            let request = progress.requests.get_mut(&id);
            match request.and_then(|request| request.begin(context.memory(), &mut buffer)) {
                Some(Step { work, offset, destination }) => {
                    progress.operations[usize::from(token)] = Some((id, destination));
                    progress.engine.start(Operation { token, work, offset, buffer })?;
                }
                None => {
                    progress.pool.put(token, buffer);
                    progress.current = None;
                    self.finish(id, progress, context)?;
                }
            }
        }
        Ok(any)
    }

    /// The request whose operations are to begin. `None` if the queue is empty, or the rate limit admits no request now.
    fn current(
        &mut self,
        progress: &mut Progress,
        context: &mut GroupContext<'_>,
    ) -> Result<Option<RequestId>, ServeError> {
        if progress.current.is_some() {
            return Ok(progress.current);
        }
        let request = match progress.refused.take() {
            Some(request) => request,
            None => match context.pop(self.index)? {
                Some(Taken { head, request }) => Active::new(head, request, &self.target),
                None => return Ok(None),
            },
        };
        if let Some(limiter) = &mut self.limiter
            && !limiter.admits(request.len())?
        {
            progress.refused = Some(request);
            return Ok(None);
        }
        let id = progress.next_id;
        progress.next_id += 1;
        progress.requests.insert(id, request);
        progress.current = Some(id);
        Ok(Some(id))
    }

    /// Returns a request to the driver, if all its operations have completed.
    fn finish(
        &mut self,
        id: RequestId,
        progress: &mut Progress,
        context: &mut GroupContext<'_>,
    ) -> Result<(), ServeError> {
        if !progress.requests.get(&id).is_some_and(Active::is_complete) {
            return Ok(());
        }
        let Some(request) = progress.requests.remove(&id) else { return Ok(()) };
        progress.current.take_if(|current| *current == id);
        if let Some(failure) = request.failure() {
            self.log(failure);
        }
        let (head, written) = request.finish(context.memory());
        context.add_used(self.index, head, written)
    }

    fn log(&mut self, error: &Failure) {
        if error.is_of_the_host() && !std::mem::replace(&mut self.is_failure_logged, true) {
            tracing::warn!(%error, "virtio-block request failed; the next failures are logged at debug level");
        } else {
            tracing::debug!(%error, "virtio-block request failed");
        }
    }
}

impl QueueGroup for BlockQueue {
    fn start(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        // First: no write of an abandoned request takes effect behind one of the next requests.
        self.progress = None;
        let engine = self.engine.start(&self.target.disk, self.operations)?;
        for event in engine.events() {
            context.watch(&event, COMPLETED, EventSet::IN)?;
        }
        if let Some(limiter) = &self.limiter {
            // Once for each time that it expires: what was refused may wait for an operation too.
            context.watch(limiter, ADMITTED, EventSet::IN | EventSet::EDGE_TRIGGERED)?;
        }
        let timer = TimerFd::new().map_err(io::Error::from)?;
        context.watch(&timer, UNUSED, EventSet::IN)?;
        self.progress = Some(Progress {
            engine,
            pool: Pool::new(self.operations),
            timer,
            is_timed: false,
            operations: (0..self.operations).map(|_| None).collect(),
            requests: HashMap::new(),
            next_id: 0,
            current: None,
            refused: None,
        });
        Ok(())
    }

    fn available(&mut self, _: u16, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        self.serve(context)
    }

    fn ready(&mut self, token: u32, _: EventSet, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        match &mut self.progress {
            Some(progress) if token == UNUSED => Ok(progress.trim()?),
            _ => self.serve(context),
        }
    }
}

impl Progress {
    /// Frees buffers that were not used since the timer was started, and starts it again for those that were.
    fn trim(&mut self) -> io::Result<()> {
        self.timer.wait()?;
        self.is_timed = false;
        if self.pool.trim() { self.time() } else { Ok(()) }
    }

    fn time(&mut self) -> io::Result<()> {
        self.is_timed = true;
        Ok(self.timer.reset(KEPT_FOR, None)?)
    }

    /// Whether the next request waits for an operation or for the rate limit, and not for the driver.
    fn is_blocked(&self) -> bool {
        self.pool.is_empty() || self.refused.is_some()
    }
}

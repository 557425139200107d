//! The group of all queues of an active device, which a back end serves.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::timerfd::TimerFd;

use super::VhostUserBackend;
use super::connection::{ConnectError, Connection};
use crate::vhost::Rings;
use crate::virtio::{Group, GroupContext, QueueGroup, ServeError};

/// How long after a connection has ended or failed the next one is tried.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);

/// The queues of a device that a back end serves. Their thread drives the connection.
///
/// When the thread ends, the back end is asked to stop. One that does not answer is disconnected; what it does with the guest's memory
/// from then on cannot be prevented.
struct Session {
    /// For logs.
    device: &'static str,
    backend: Arc<VhostUserBackend>,
    /// The number of queues.
    queues: u16,
    /// What the driver has accepted.
    features: u64,
    rings: Rings,
    /// `None` while there is no back end.
    connection: Option<Connection>,
    /// Expires when the next connection is to be tried.
    retry: TimerFd,
    /// The failure that was logged last, until a connection succeeds.
    reported: Option<String>,
}

/// Tokens of the descriptors. Those of the rings are others.
const CONNECTION: u32 = 0;
const RETRY: u32 = 1;

impl VhostUserBackend {
    /// The group of all queues of a device, which the back end serves, with the features that the driver has accepted. A back end that is
    /// gone is no error.
    ///
    /// # Errors
    /// Returns the error of timerfd_create(2).
    #[cfg_attr(not(feature = "virtio-fs"), allow(dead_code, reason = "its devices use it"))]
    pub(crate) fn group(self: &Arc<Self>, device: &'static str, features: u64) -> io::Result<Group> {
        let session = Session {
            device,
            backend: Arc::clone(self),
            queues: self.queues,
            features,
            rings: Rings::default(),
            connection: None,
            retry: TimerFd::new()?,
            reported: None,
        };
        Ok(((0..self.queues).collect(), Box::new(session)))
    }
}

impl QueueGroup for Session {
    fn start(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        self.rings = Rings::lend(context, (0..self.queues).map(|queue| (queue, queue.into())))?;
        context.watch(&self.retry, RETRY, EventSet::IN)?;
        self.connect(context)
    }

    fn available(&mut self, _: u16, _: &mut GroupContext<'_>) -> Result<(), ServeError> {
        Ok(())
    }

    fn ready(&mut self, token: u32, _: EventSet, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        match token {
            CONNECTION if self.connection.is_some() => {
                self.disconnected(&"it closed the connection", context)
            }
            RETRY => {
                // This also makes it unreadable.
                self.retry.clear().map_err(io::Error::from)?;
                self.connect(context)
            }
            token => {
                self.rings.forward(token, context);
                Ok(())
            }
        }
    }

    fn ended(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        self.retry.clear().map_err(io::Error::from)?;
        if let Some(mut connection) = self.connection.take() {
            match connection.stop(&mut self.rings) {
                Ok(()) => self.backend.keep(connection),
                Err(error) => {
                    drop(connection);
                    self.report(&error);
                    self.rings.rebase(context.memory())?;
                }
            }
        }
        std::mem::take(&mut self.rings).give_back(context)
    }
}

impl Session {
    /// Has the back end serve the rings. If there is none, it is tried again later.
    fn connect(&mut self, context: &GroupContext<'_>) -> Result<(), ServeError> {
        match self.started(context) {
            Ok(connection) => {
                context.watch(&connection, CONNECTION, EventSet::READ_HANG_UP)?;
                self.connection = Some(connection);
                if self.reported.take().is_some() {
                    let (device, socket) = (self.device, self.backend.socket());
                    tracing::info!(device, ?socket, "vhost-user back end connected again");
                    // What it or the driver notified meanwhile is lost.
                    self.rings.notify_all(context);
                }
                Ok(())
            }
            Err(error) => self.disconnected(&error, context),
        }
    }

    fn started(&self, context: &GroupContext<'_>) -> Result<Connection, ConnectError> {
        let mut connection = self.backend.connection(self.features)?;
        connection.start(self.features, context.memory().ram(), &self.rings)?;
        Ok(connection)
    }

    /// There is no back end. One that goes at once, perhaps of the request that it is given again, is not connected to again and again.
    fn disconnected(&mut self, reason: &dyn ToString, context: &GroupContext<'_>) -> Result<(), ServeError> {
        self.connection = None;
        self.report(reason);
        self.rings.rebase(context.memory())?;
        Ok(self.retry.reset(RECONNECT_INTERVAL, None).map_err(io::Error::from)?)
    }

    /// Logs a failure, once until a connection succeeds or it changes.
    fn report(&mut self, error: &dyn ToString) {
        let error = error.to_string();
        if self.reported.as_ref() != Some(&error) {
            tracing::warn!(
                device = self.device,
                socket = ?self.backend.socket(),
                error,
                "no vhost-user back end: the device waits until one listens"
            );
            self.reported = Some(error);
        }
    }
}

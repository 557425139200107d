//! Notifications to the service manager: the protocol of sd_notify(3).
//!
//! A datagram to the socket of `NOTIFY_SOCKET` says that the guest runs, that the machine stops, and, as often as `WATCHDOG_USEC` asks
//! for, that the main thread's event loop turns. Nothing waits for the manager.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with};

/// The service manager. Without one, nothing is sent.
#[derive(Debug)]
pub struct Notifier {
    manager: Option<(OwnedFd, SocketAddrUnix)>,
    /// How often it wants to know that this process is alive.
    watchdog: Option<Duration>,
    last_alive: Instant,
    ready: Ready,
}

/// Whether the manager knows that the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    No,
    /// The guest runs, and that is not sent yet.
    Unsent,
    Sent,
}

impl Notifier {
    /// The manager that started this process, by its environment.
    #[must_use]
    pub fn from_environment() -> Self {
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        // The variables may be those of a parent.
        let is_this = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|_| is_this).map(Duration::from_micros);
        Notifier::new(std::env::var_os("NOTIFY_SOCKET").as_deref(), watchdog)
    }

    fn new(socket: Option<&OsStr>, watchdog: Option<Duration>) -> Self {
        let manager = socket.and_then(|socket| match connect(socket.as_bytes()) {
            Ok(manager) => Some(manager),
            Err(error) => {
                tracing::warn!(
                    "the service manager cannot be notified: NOTIFY_SOCKET={}: {error}",
                    socket.display()
                );
                None
            }
        });
        // Twice in that time: sd_watchdog_enabled(3).
        let watchdog = watchdog.map(|time| time / 2);
        Notifier { manager, watchdog, last_alive: Instant::now(), ready: Ready::No }
    }

    /// The guest runs. Only the first call has an effect.
    pub fn ready(&mut self) {
        if self.ready == Ready::No {
            self.ready = Ready::Unsent;
        }
        self.tick();
    }

    /// Sends what is due. Called often.
    pub fn tick(&mut self) {
        if self.ready == Ready::Unsent && self.send("READY=1\nSTATUS=The guest runs.") {
            self.ready = Ready::Sent;
        }
        let is_due = |interval| self.last_alive.elapsed() >= interval;
        if self.watchdog.is_some_and(is_due) && self.send("WATCHDOG=1") {
            self.last_alive = Instant::now();
        }
    }

    /// The machine stops.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=The machine has stopped.");
    }

    /// Returns false if the manager takes nothing now: its socket is full.
    fn send(&self, text: &str) -> bool {
        let Some((socket, address)) = &self.manager else { return true };
        let sent = sendto(socket, text.as_bytes(), SendFlags::NOSIGNAL, address);
        !matches!(sent, Err(Errno::AGAIN | Errno::INTR))
    }
}

/// A socket that does not block, and the address: a path, or after `@` an abstract name.
fn connect(socket: &[u8]) -> Result<(OwnedFd, SocketAddrUnix), Errno> {
    let address = match socket {
        [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
        path => SocketAddrUnix::new(path)?,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok((socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?, address))
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::*;

    fn received(manager: &UnixDatagram) -> Vec<String> {
        manager.set_nonblocking(true).expect("a socket");
        let mut bytes = [0; 100];
        let next =
            || manager.recv(&mut bytes).ok().map(|len| String::from_utf8_lossy(&bytes[..len]).into_owned());
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn ready_is_sent_once_and_the_watchdog_in_its_interval() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        let mut notifier = Notifier::new(Some(path.as_os_str()), Some(Duration::ZERO));
        notifier.ready();
        notifier.ready();
        notifier.watchdog = Some(Duration::from_secs(3600));
        notifier.tick();
        notifier.stopping();
        let ready = "READY=1\nSTATUS=The guest runs.";
        let stopping = "STOPPING=1\nSTATUS=The machine has stopped.";
        assert_eq!(received(&manager), [ready, "WATCHDOG=1", "WATCHDOG=1", stopping]);
    }

    #[test]
    fn an_abstract_name_and_a_manager_that_does_not_read() {
        let name = format!("ghest-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let manager = UnixDatagram::bind_addr(&address).expect("a socket");
        let mut notifier = Notifier::new(Some(format!("@{name}").as_ref()), None);
        // It does not wait.
        while notifier.send("full") {}
        notifier.ready();
        assert_eq!(notifier.ready, Ready::Unsent);
        assert!(received(&manager).iter().all(|text| text == "full"));
        notifier.tick();
        assert_eq!(received(&manager), ["READY=1\nSTATUS=The guest runs."]);
    }

    #[test]
    fn no_manager_and_one_that_has_gone_cost_nothing() {
        for socket in [None, Some("/missing/notify"), Some("@")] {
            let mut notifier = Notifier::new(socket.map(OsStr::new), Some(Duration::ZERO));
            notifier.ready();
            notifier.stopping();
            assert_eq!(notifier.ready, Ready::Sent);
        }
    }
}

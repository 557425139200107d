//! A running emulated host, and the two wires to it: `control`, and `guest`, the console of what runs there.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::host::Host;
use crate::process;

/// Time for the emulator to connect, which it does before it emulates anything.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// An emulated host. Dropping it ends it.
pub(crate) struct Machine {
    emulator: Child,
    control: UnixStream,
    guest: UnixStream,
    heard: Receiver<Heard>,
}

/// What came out of a host.
pub(crate) enum Heard {
    Control(Vec<u8>),
    Guest(Vec<u8>),
    /// A wire was cut: the host is gone.
    Gone,
    /// Nothing until the deadline.
    Silence,
}

/// What a host boots, and where what is said meanwhile goes.
pub(crate) struct Boot<'a> {
    pub(crate) emulator: &'a Path,
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
    /// File for the emulator's own messages.
    pub(crate) log: &'a Path,
}

impl Machine {
    /// Starts a host; its own console goes to the file `console`.
    pub(crate) fn start(host: &Host, boot: &Boot<'_>, console: &Path) -> Result<Self> {
        // Abstract sockets leave nothing behind, however the lab ends.
        let socket = |port: &str| format!("ghesthouse-lab-{}-{port}", std::process::id());
        let listen = |port: &str| -> Result<UnixListener> {
            let address = SocketAddr::from_abstract_name(socket(port)).context("cannot name a socket")?;
            let listener = UnixListener::bind_addr(&address).context("cannot make a socket")?;
            listener.set_nonblocking(true).context("cannot set up a socket")?;
            Ok(listener)
        };
        let control_listener = listen("control")?;
        let guest_listener = listen("guest")?;

        let mut command = process::mortal_in_background(boot.emulator);
        emulator_arguments(&mut command, host, boot, "")?;
        command.args(["-display", "none", "-monitor", "none"]);
        command.arg("-serial").arg(format!("file:{}", console.display()));
        command.args(["-device", "virtio-serial-pci"]);
        for port in ["control", "guest"] {
            command.arg("-chardev").arg(format!("socket,id={port},abstract=on,path={}", socket(port)));
            command.arg("-device").arg(format!("virtserialport,chardev={port},name={port}"));
        }
        command.stdout(Stdio::null());
        let mut emulator =
            command.spawn().context(format_args!("cannot start {}", boot.emulator.display()))?;

        let connected = accept(&control_listener, &mut emulator)
            .and_then(|control| Ok((control, accept(&guest_listener, &mut emulator)?)));
        let (control, guest) = match connected {
            Ok(both) => both,
            Err(error) => {
                end(&mut emulator);
                return Err(Error::new(format!("{error}\n{}", said(boot))));
            }
        };
        let (sender, heard) = mpsc::channel();
        listen_to(&control, sender.clone(), Heard::Control)?;
        listen_to(&guest, sender, Heard::Guest)?;
        Ok(Self { emulator, control, guest, heard })
    }

    /// Waits for the next piece of news.
    pub(crate) fn hear(&self, deadline: Instant) -> Heard {
        match self.heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(heard) => heard,
            Err(RecvTimeoutError::Timeout) => Heard::Silence,
            Err(RecvTimeoutError::Disconnected) => Heard::Gone,
        }
    }

    /// Asks the host's init for something.
    pub(crate) fn command(&mut self, line: &str) -> Result<()> {
        self.control.write_all(format!("{line}\n").as_bytes()).context("the host does not listen any more")
    }

    /// Types on the guest's console.
    pub(crate) fn type_text(&mut self, text: &str) -> Result<()> {
        self.guest.write_all(text.as_bytes()).context("the host does not listen any more")
    }

    /// Powers the host off; one that does not go by itself is ended.
    pub(crate) fn power_off(mut self) -> Result<()> {
        self.command("poweroff")?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if self.emulator.try_wait().context("cannot wait for the emulator")?.is_some() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err(Error::new("the host did not power off"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        end(&mut self.emulator);
    }
}

/// Runs a host with the lab's terminal as its console, until it powers off.
pub(crate) fn interactive(host: &Host, boot: &Boot<'_>) -> Result<()> {
    let mut command = process::mortal(boot.emulator);
    emulator_arguments(&mut command, host, boot, "quiet lab.shell")?;
    command.args(["-display", "none", "-serial", "mon:stdio"]);
    process::run(&mut command).map_err(|error| Error::new(format!("{error}\n{}", said(boot))))
}

fn emulator_arguments(command: &mut Command, host: &Host, boot: &Boot<'_>, extra: &str) -> Result<()> {
    command.args(host.machine).args(["-no-reboot", "-nodefaults", "-net", "none"]);
    command.arg("-kernel").arg(boot.kernel).arg("-initrd").arg(boot.initramfs);
    // A host that panics reboots, which ends the emulator at once.
    command.arg("-append").arg(format!("console={} panic=-1 {} {extra}", host.console, host.cmdline));
    // It warns of each processor feature that it does not emulate: of use only when it fails.
    command.stderr(File::create(boot.log).context("cannot make the emulator's log")?);
    Ok(())
}

/// What the emulator said.
fn said(boot: &Boot<'_>) -> String {
    fs::read_to_string(boot.log).unwrap_or_default().trim_end().to_owned()
}

fn accept(listener: &UnixListener, emulator: &mut Child) -> Result<UnixStream> {
    let deadline = Instant::now() + CONNECT_LIMIT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).context("cannot set up a socket")?;
                return Ok(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("cannot connect to the emulator"),
        }
        if let Some(status) = emulator.try_wait().context("cannot wait for the emulator")? {
            return Err(Error::new(format!("the emulator ended at once ({status})")));
        }
        if Instant::now() > deadline {
            return Err(Error::new("the emulator did not connect"));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn listen_to(stream: &UnixStream, sender: Sender<Heard>, wrap: fn(Vec<u8>) -> Heard) -> Result<()> {
    let mut stream = stream.try_clone().context("cannot share a socket")?;
    thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        loop {
            let heard = match stream.read(&mut buffer) {
                Ok(0) | Err(_) => Heard::Gone,
                Ok(count) => wrap(buffer.get(..count).unwrap_or_default().to_vec()),
            };
            let last = matches!(heard, Heard::Gone);
            if sender.send(heard).is_err() || last {
                return;
            }
        }
    });
    Ok(())
}

/// Both fail only for a child that is gone already.
fn end(child: &mut Child) {
    child.kill().and_then(|()| child.wait().map(drop)).unwrap_or_default();
}

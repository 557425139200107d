//! A running emulated host, its two virtio-serial ports (`control`, and `guest`, the console of the scenario's command), and its
//! emulator's monitor.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::host::Host;
use crate::process;

/// Time for the emulator to connect to the sockets, before emulation begins.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// An emulated host. Its emulator is killed when it is dropped.
pub(crate) struct Machine {
    emulator: Child,
    control: UnixStream,
    guest: UnixStream,
    monitor: UnixStream,
    output: Receiver<Output>,
}

/// Output of a host.
pub(crate) enum Output {
    Control(Vec<u8>),
    Guest(Vec<u8>),
    /// A port was closed: the host has ended.
    Closed,
    /// Nothing was received until the deadline.
    Timeout,
}

/// What a host boots, and with which emulator.
pub(crate) struct Boot<'a> {
    pub(crate) emulator: &'a Path,
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
    /// Images of disks. What the host writes to them is lost when it ends.
    pub(crate) disks: &'a [PathBuf],
    /// File for the emulator's own messages.
    pub(crate) log: &'a Path,
}

impl Machine {
    /// Starts a host; its console is written to the file `console`, and what the emulator's monitor prints to `monitor`.
    pub(crate) fn start(host: &Host, boot: &Boot<'_>, console: &Path, monitor: &Path) -> Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        // Abstract sockets need no removal, however the lab ends.
        let socket = |port: &str| format!("ghesthouse-lab-{}-{number}-{port}", std::process::id());
        let listen = |port: &str| -> Result<UnixListener> {
            let address = SocketAddr::from_abstract_name(socket(port)).context("cannot name a socket")?;
            let listener = UnixListener::bind_addr(&address).context("cannot create a socket")?;
            listener.set_nonblocking(true).context("cannot set up a socket")?;
            Ok(listener)
        };
        let control_listener = listen("control")?;
        let guest_listener = listen("guest")?;
        let monitor_listener = listen("monitor")?;

        let mut command = process::mortal_in_background(boot.emulator);
        emulator_arguments(&mut command, host, boot, "")?;
        command.args(["-display", "none", "-mon", "chardev=monitor,mode=control"]);
        command.arg("-chardev").arg(format!("socket,id=monitor,abstract=on,path={}", socket("monitor")));
        command.arg("-serial").arg(format!("file:{}", console.display()));
        command.args(["-device", "virtio-serial-pci"]);
        for port in ["control", "guest"] {
            command.arg("-chardev").arg(format!("socket,id={port},abstract=on,path={}", socket(port)));
            command.arg("-device").arg(format!("virtserialport,chardev={port},name={port}"));
        }
        command.stdout(Stdio::null());
        let mut emulator =
            command.spawn().context(format_args!("cannot start {}", boot.emulator.display()))?;

        let listeners = [control_listener, guest_listener, monitor_listener];
        let connected: Result<Vec<_>> =
            listeners.iter().map(|listener| accept(listener, &mut emulator)).collect();
        let connected = connected.map(<[UnixStream; 3]>::try_from);
        let [control, guest, monitor_port] = match connected {
            Ok(Ok(all)) => all,
            Ok(Err(_)) => return Err(Error::new("the emulator has another number of sockets")),
            Err(error) => {
                end(&mut emulator);
                return Err(Error::new(format!("{error}\n{}", log_of(boot))));
            }
        };
        let (sender, output) = mpsc::channel();
        forward(&control, sender.clone(), Output::Control)?;
        forward(&guest, sender, Output::Guest)?;
        log_monitor(&monitor_port, monitor)?;
        let mut machine = Self { emulator, control, guest, monitor: monitor_port, output };
        machine.monitor_command(r#"{"execute":"qmp_capabilities"}"#)?;
        Ok(machine)
    }

    /// Waits for output.
    pub(crate) fn receive(&self, deadline: Instant) -> Output {
        match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(output) => output,
            Err(RecvTimeoutError::Timeout) => Output::Timeout,
            Err(RecvTimeoutError::Disconnected) => Output::Closed,
        }
    }

    /// Sends a command to the host's init.
    pub(crate) fn command(&mut self, line: &str) -> Result<()> {
        self.control.write_all(format!("{line}\n").as_bytes()).context("cannot write to the host")
    }

    /// Sends a command to the emulator's monitor, in the form of QMP.
    pub(crate) fn monitor_command(&mut self, line: &str) -> Result<()> {
        self.monitor.write_all(format!("{line}\n").as_bytes()).context("cannot write to the monitor")
    }

    /// Types on the guest's console.
    pub(crate) fn type_text(&mut self, text: &str) -> Result<()> {
        self.guest.write_all(text.as_bytes()).context("cannot write to the host")
    }

    /// Powers the host off; its emulator is killed if that takes too long.
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
    process::run(&mut command).map_err(|error| Error::new(format!("{error}\n{}", log_of(boot))))
}

fn emulator_arguments(command: &mut Command, host: &Host, boot: &Boot<'_>, extra: &str) -> Result<()> {
    command.args(host.machine).args(["-no-reboot", "-nodefaults", "-net", "none"]);
    command.arg("-kernel").arg(boot.kernel).arg("-initrd").arg(boot.initramfs);
    for (number, disk) in boot.disks.iter().enumerate() {
        command.arg("-drive").arg(format!(
            "id=disk{number},if=none,format=raw,snapshot=on,cache=unsafe,file={}",
            disk.display()
        ));
        // The host's init finds it by its serial number.
        command.arg("-device").arg(format!("virtio-blk-pci,drive=disk{number},serial={number}"));
    }
    // A host that panics reboots, which ends the emulator (-no-reboot).
    command.arg("-append").arg(format!("console={} panic=-1 {} {extra}", host.console, host.cmdline));
    // It warns of each processor feature that it does not emulate; shown only if it fails.
    command.stderr(File::create(boot.log).context("cannot create the emulator's log")?);
    Ok(())
}

/// The emulator's own messages.
fn log_of(boot: &Boot<'_>) -> String {
    fs::read_to_string(boot.log).unwrap_or_default().trim_end().to_owned()
}

fn accept(listener: &UnixListener, emulator: &mut Child) -> Result<UnixStream> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
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
            return Err(Error::new(format!("the emulator ended ({status})")));
        }
        if Instant::now() > deadline {
            return Err(Error::new("the emulator did not connect"));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Sends what is read from a port to a channel, from a thread.
fn forward(stream: &UnixStream, sender: Sender<Output>, wrap: fn(Vec<u8>) -> Output) -> Result<()> {
    let mut stream = stream.try_clone().context("cannot share a socket")?;
    thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        loop {
            let output = match stream.read(&mut buffer) {
                Ok(0) | Err(_) => Output::Closed,
                Ok(count) => wrap(buffer.get(..count).unwrap_or_default().to_vec()),
            };
            let last = matches!(output, Output::Closed);
            if sender.send(output).is_err() || last {
                return;
            }
        }
    });
    Ok(())
}

/// Writes what the monitor prints to a file, from a thread.
fn log_monitor(stream: &UnixStream, path: &Path) -> Result<()> {
    let mut stream = stream.try_clone().context("cannot share a socket")?;
    let mut file = File::create(path).context("cannot create the monitor's log")?;
    thread::spawn(move || io::copy(&mut stream, &mut file));
    Ok(())
}

/// Kills a child. Both calls fail only for a child that has ended already.
fn end(child: &mut Child) {
    child.kill().and_then(|()| child.wait().map(drop)).unwrap_or_default();
}

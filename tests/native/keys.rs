//! `ghest` in a terminal: raw while the guest runs, restored after every kind of end, and the keys after Ctrl-A.

use std::fs::File;
use std::io::{Read, Write, pipe};
use std::process::Stdio;

use libtest_mimic::Trial;
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::Signal;

use crate::harness::ghest::Running;
use crate::harness::pty::Pty;
use crate::harness::terminal::Terminal;
use crate::harness::{Checked, Ghest, Profile, Scratch, kernels, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        power_off,
        quit,
        quit_with_a_virtio_console,
        help,
        ctrl_a_for_the_guest,
        ctrl_c_for_the_guest,
        sigterm,
        sighup,
        crash,
        restart,
        refused_kernel,
        refused_profile,
        quit_while_the_guest_does_not_read,
        quit_while_output_is_not_read,
        keys_that_the_guest_reads_late,
    ]
}

/// A guest that waits for keys, and its terminal.
fn listening(scratch: &Scratch) -> Result<Terminal, needs::Missing> {
    needs::kvm()?;
    let terminal = Terminal::boot(&scratch.machine("cmdline = \"probe.echo\""));
    terminal.wait_for("probe: listening");
    assert!(terminal.is_raw());
    Ok(terminal)
}

/// Whether a line of the screen is this one.
fn has_line(screen: &str, line: &str) -> bool {
    screen.lines().any(|found| found.trim_end() == line)
}

fn power_off() -> Checked {
    let scratch = Scratch::new();
    let mut terminal = listening(&scratch)?;
    terminal.type_keys(b"hello\rquit\r");
    let (status, screen, stderr) = terminal.finish();
    assert_eq!((status, stderr.as_str()), (0, "ghest: the guest switched its machine off\n"));
    assert!(has_line(&screen, "probe: echo hello"), "{screen}");
    assert!(has_line(&screen, "probe: ok"), "{screen}");
    Ok(())
}

fn quit() -> Checked {
    let scratch = Scratch::new();
    let mut terminal = listening(&scratch)?;
    terminal.type_keys(b"\x01");
    terminal.type_keys(b"x");
    let (status, screen, stderr) = terminal.finish();
    assert_eq!((status, stderr.as_str()), (0, "ghest: stopped from the console\n"));
    assert!(!screen.contains("probe: ok"), "{screen}");
    Ok(())
}

/// The keys after Ctrl-A are ghest's whatever device the console is. The built-in guest's messages, on the serial port, are dropped.
fn quit_with_a_virtio_console() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch
        .machine("cmdline = \"probe.exit=hang\"\n\n[[device]]\ntype = \"virtio-console\"\nterminal = true\n");
    let mut terminal = Terminal::boot(&profile);
    while !terminal.is_raw() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    terminal.type_keys(b"not for ghest\x01x");
    let (status, screen, stderr) = terminal.finish();
    assert_eq!((status, stderr.as_str()), (0, "ghest: stopped from the console\n"));
    assert!(!screen.contains("probe"), "{screen}");
    Ok(())
}

fn help() -> Checked {
    let scratch = Scratch::new();
    let mut terminal = listening(&scratch)?;
    terminal.type_keys(b"be\x01hfore\rquit\r");
    let (status, screen, stderr) = terminal.finish();
    assert_eq!(status, 0);
    for key in ["Ctrl-A x", "Ctrl-A h", "Ctrl-A Ctrl-A"] {
        assert!(stderr.contains(&format!("ghest: {key} ")), "{stderr}");
    }
    // The guest reads the keys before and after it as one line.
    assert!(has_line(&screen, "probe: echo before"), "{screen}");
    Ok(())
}

fn ctrl_a_for_the_guest() -> Checked {
    let scratch = Scratch::new();
    let mut terminal = listening(&scratch)?;
    terminal.type_keys(b"\x01\x01x\x01z\rquit\r");
    let (status, screen, _) = terminal.finish();
    assert_eq!(status, 0);
    assert!(has_line(&screen, "probe: echo \\x01x"), "{screen}");
    Ok(())
}

/// Ctrl-C, Ctrl-D, Ctrl-Z and Ctrl-\ as a terminal has them, and the key that interrupts in this one.
fn ctrl_c_for_the_guest() -> Checked {
    let scratch = Scratch::new();
    let mut terminal = listening(&scratch)?;
    terminal.type_keys(b"\x03\x04\x1a\x1c\x07\rquit\r");
    let (status, screen, _) = terminal.finish();
    assert_eq!(status, 0);
    assert!(has_line(&screen, "probe: echo \\x03\\x04\\x1a\\x1c\\x07"), "{screen}");
    Ok(())
}

fn sigterm() -> Checked {
    signalled(Signal::TERM, 143, "ghest: stopped by signal SIGTERM\n")
}

fn sighup() -> Checked {
    signalled(Signal::HUP, 129, "ghest: stopped by signal SIGHUP\n")
}

fn signalled(signal: Signal, expected: i32, last: &str) -> Checked {
    let scratch = Scratch::new();
    let terminal = listening(&scratch)?;
    terminal.signal(signal);
    let (status, _, stderr) = terminal.finish();
    assert_eq!((status, stderr.as_str()), (expected, last));
    Ok(())
}

fn crash() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let (status, screen, stderr) =
        Terminal::boot(&scratch.machine("cmdline = \"probe.exit=triple-fault\"")).finish();
    assert_eq!(status, 4, "{screen}{stderr}");
    assert!(stderr.starts_with("ghest: the guest crashed: vCPU 0: triple fault; rip="), "{stderr}");
    Ok(())
}

/// Raw again in the second run, and restored after it.
fn restart() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.profile(
        "[machine]\nvcpus = 1\nmemory = \"64MiB\"\nfirmware = \"acpi\"\non-reboot = \"restart\"\n\n\
         [boot]\ncmdline = \"probe.echo probe.exit=reset\"\n",
    );
    let mut terminal = Terminal::boot(&profile);
    terminal.wait_for("probe: listening");
    terminal.type_keys(b"quit\r");
    terminal.wait_for_times("probe: listening", 2);
    assert!(terminal.is_raw());
    terminal.type_keys(b"\x01x");
    assert_eq!(terminal.finish().0, 0);
    Ok(())
}

fn refused_kernel() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let whole = kernels::bz_image(&[0xf4; 4096]);
    scratch.file("kernel", &whole[..whole.len() / 2]);
    assert_eq!(Terminal::boot(&scratch.machine("kernel = \"kernel\"")).finish().0, 2);
    Ok(())
}

fn refused_profile() -> Checked {
    let scratch = Scratch::new();
    assert_eq!(Terminal::boot(&scratch.profile("[machine]\nvcpus = 0\n")).finish().0, 2);
    Ok(())
}

/// `ghest boot` with its keyboard only on a terminal. The terminal is nobody's controlling one, so it is not raw: a line reaches `ghest`
/// when it is complete.
fn with_keyboard(profile: &Profile, stdout: impl Into<Stdio>) -> (Running, File) {
    let Pty { master, line, .. } = Pty::open();
    (Ghest::boot(profile).stdin(line).stdout(stdout).start(), master)
}

/// The UART's FIFO holds 64 bytes, and the guest reads none.
fn quit_while_the_guest_does_not_read() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.machine("cmdline = \"probe.exit=loop\"");
    let (mut running, mut keyboard) = with_keyboard(&profile, Stdio::piped());
    running.wait_for("probe: ok");
    for _ in 0..100 {
        keyboard
            .write_all(b"keys that nobody reads, more than the FIFO and the terminal hold\n")
            .expect("a terminal");
    }
    keyboard.write_all(b"\x01x\n").expect("a terminal");
    running.finish().expect(0).expect_last("ghest: stopped from the console");
    Ok(())
}

/// A vCPU waits at the UART for the reader of its output.
fn quit_while_output_is_not_read() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    scratch.file("initrd", kernels::pattern(300_000));
    scratch.file("kernel", kernels::prints_initrd());
    let profile = scratch.machine("kernel = \"kernel\"\ninitrd = \"initrd\"");
    let (mut reader, writer) = pipe().expect("a pipe");
    fcntl_setpipe_size(&writer, 4096).expect("a small pipe");
    let (mut running, mut keyboard) = with_keyboard(&profile, writer);
    reader.read_exact(&mut [0]).expect("the guest's first byte");
    running.wait_until_its_vcpu_waits();
    keyboard.write_all(b"keys\n\x01x\n").expect("a terminal");
    running.finish().expect(0).expect_last("ghest: stopped from the console");
    Ok(())
}

/// None is lost that is typed before the guest reads.
fn keys_that_the_guest_reads_late() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.machine("cmdline = \"probe.touch=0x2000000 probe.timeout=500 probe.echo\"");
    let (running, mut keyboard) = with_keyboard(&profile, Stdio::piped());
    let lines: Vec<_> = (0..100).map(|n| format!("line {n} {}", "x".repeat(100))).collect();
    for line in &lines {
        keyboard.write_all(format!("{line}\n").as_bytes()).expect("a terminal");
    }
    keyboard.write_all(b"quit\n").expect("a terminal");
    let outcome = running.finish().expect_ok();
    assert_eq!(outcome.probe("echo"), lines, "{outcome}");
    Ok(())
}

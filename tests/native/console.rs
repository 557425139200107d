//! The guest's console on pipes and files: every byte arrives, in both directions, even if one side is slow.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::io::ioctl_fionbio;
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::Signal;

use crate::harness::ghest::{GHEST, TIME_LIMIT};
use crate::harness::{Checked, Ghest, Profile, Scratch, kernels, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        much_input_from_a_pipe,
        input_before_the_guest_listens,
        input_from_a_file,
        no_input,
        closed_input,
        escapes_are_for_terminals,
        slow_reader,
        nonblocking_output,
        reader_that_never_reads,
        reader_that_goes_away,
        closed_output,
        full_disk,
    ]
}

fn echoing(scratch: &Scratch) -> Profile {
    scratch.machine("cmdline = \"probe.echo\"")
}

/// Lines for the guest to repeat, without the one that ends it.
fn lines(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{n:03} {}", "abcdefghij".repeat(20))).collect()
}

fn much_input_from_a_pipe() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let mut running = Ghest::boot(&echoing(&scratch)).stdin(Stdio::piped()).start();
    running.wait_for("probe: listening");
    let lines = lines(100);
    let mut stdin = running.take_stdin();
    stdin.write_all((lines.join("\n") + "\nquit\n").as_bytes()).expect("ghest reads");
    let outcome = running.finish().expect_ok();
    assert!(lines.iter().map(|line| line.len() + 1).sum::<usize>() > 20_000);
    assert_eq!(outcome.probe("echo"), lines, "{outcome}");
    Ok(())
}

/// Input during the guest's boot is buffered, and none is dropped when the guest sets up the port.
fn input_before_the_guest_listens() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let mut running = Ghest::boot(&echoing(&scratch)).stdin(Stdio::piped()).start();
    running.take_stdin().write_all(b"first line\nsecond line\nquit\n").expect("ghest reads");
    let outcome = running.finish().expect_ok();
    assert_eq!(outcome.probe("echo"), ["first line", "second line"], "{outcome}");
    Ok(())
}

fn input_from_a_file() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let path = scratch.file("input", "from a file\nquit\n");
    let outcome =
        Ghest::boot(&echoing(&scratch)).stdin(File::open(path).expect("the file")).finish().expect_ok();
    assert_eq!(outcome.probe("echo"), ["from a file"], "{outcome}");
    Ok(())
}

/// The end of input is not the end of the guest.
fn no_input() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let mut running = Ghest::boot(&echoing(&scratch)).stdin(Stdio::null()).start();
    running.wait_for("probe: listening");
    running.signal(Signal::TERM);
    running.finish().expect(143);
    Ok(())
}

fn closed_input() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    in_shell("exec \"$0\" \"$@\" <&-", &scratch.machine("")).finish().expect_ok();
    Ok(())
}

/// `ghest boot` of a profile by a line of shell.
fn in_shell(line: &str, profile: &Profile) -> Ghest {
    let mut shell = Command::new("sh");
    shell.args(["-c", line, GHEST, "boot"]);
    Ghest::within(shell).arg(&profile.path)
}

/// Ctrl-A from a pipe has no special meaning.
fn escapes_are_for_terminals() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let path = scratch.file("input", "\x01x\x01h\nquit\n");
    let outcome =
        Ghest::boot(&echoing(&scratch)).stdin(File::open(path).expect("the file")).finish().expect_ok();
    assert_eq!(outcome.probe("echo"), ["\\x01x\\x01h"], "{outcome}");
    Ok(())
}

/// A guest that prints far more than all buffers hold, and the number of bytes.
fn talkative(scratch: &Scratch) -> (Profile, Vec<u8>) {
    let text = kernels::pattern(300_000);
    scratch.file("initrd", &text);
    scratch.file("kernel", kernels::prints_initrd());
    (scratch.machine("kernel = \"kernel\"\ninitrd = \"initrd\""), text)
}

fn slow_reader() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let (profile, text) = talkative(&scratch);
    let (mut reader, writer) = pipe().expect("a pipe");
    fcntl_setpipe_size(&writer, 4096).expect("a small pipe");
    let mut running = Ghest::boot(&profile).stdout(writer).start();
    let mut got = vec![0; 1000];
    reader.read_exact(&mut got).expect("the guest's first words");
    running.wait_until_its_vcpu_waits();
    let mut chunk = [0; 3000];
    loop {
        match reader.read(&mut chunk).expect("a pipe") {
            0 => break,
            count => got.extend(&chunk[..count]),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    running.finish().expect(0);
    assert!(got == text, "{} bytes came, not the {} said", got.len(), text.len());
    Ok(())
}

/// O_NONBLOCK belongs to the open file description: whoever shares standard output may have set it. EAGAIN is a slow reader then.
fn nonblocking_output() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    // More than the pipe holds, and less than the queue.
    let text = kernels::pattern(20_000);
    scratch.file("initrd", &text);
    scratch.file("kernel", kernels::prints_initrd());
    let (mut reader, mut writer) = pipe().expect("a pipe");
    let capacity = fcntl_setpipe_size(&writer, 4096).expect("a small pipe");
    ioctl_fionbio(&writer, true).expect("a pipe that does not block");
    writer.write_all(&vec![b'-'; capacity]).expect("an empty pipe");
    let events = scratch.path("events");
    let boot = Ghest::boot(&scratch.machine("kernel = \"kernel\"\ninitrd = \"initrd\""));
    let mut running = boot.arg("--events").arg(&events).stdout(writer).start();
    // By then the first bytes could not be written.
    let has_ended = || fs::read_to_string(&events).is_ok_and(|events| events.contains("guest-shutdown"));
    let deadline = Instant::now() + TIME_LIMIT;
    while running.is_running() && !has_ended() {
        assert!(Instant::now() < deadline, "the guest does not end");
        std::thread::yield_now();
    }
    let mut got = Vec::new();
    reader.read_to_end(&mut got).expect("a pipe");
    running.finish().expect(0).expect_last("ghest: the guest switched its machine off");
    assert!(got[capacity..] == text, "{} bytes came, not the {} said", got.len() - capacity, text.len());
    Ok(())
}

/// A guest whose output is not read can still be stopped.
fn reader_that_never_reads() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let (profile, _) = talkative(&scratch);
    let (mut reader, writer) = pipe().expect("a pipe");
    fcntl_setpipe_size(&writer, 4096).expect("a small pipe");
    let mut running = Ghest::boot(&profile).stdout(writer).start();
    reader.read_exact(&mut [0]).expect("the guest's first word");
    running.wait_until_its_vcpu_waits();
    running.signal(Signal::TERM);
    running.finish().expect(143).expect_last("ghest: stopped by signal SIGTERM");
    Ok(())
}

/// The same as `ghest boot ... | head -1`.
fn reader_that_goes_away() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let (reader, writer) = pipe().expect("a pipe");
    let running = Ghest::boot(&scratch.machine("")).stdout(writer).start();
    let mut line = String::new();
    BufReader::with_capacity(16, reader).read_line(&mut line).expect("a pipe");
    assert_eq!(line, "probe: entry pvh\r\n");
    running.finish().expect(0).expect_last("ghest: the guest switched its machine off");
    Ok(())
}

fn closed_output() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    in_shell("exec \"$0\" \"$@\" >&-", &scratch.machine(""))
        .finish()
        .expect(0)
        .expect_last("ghest: the guest switched its machine off");
    Ok(())
}

fn full_disk() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    in_shell("exec \"$0\" \"$@\" >/dev/full", &scratch.machine(""))
        .finish()
        .expect(0)
        .expect_said("write(2) to standard output failed")
        .expect_last("ghest: the guest switched its machine off");
    Ok(())
}

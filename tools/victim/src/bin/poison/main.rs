//! `poison`: poisons pages of a process by the host kernel's memory failure handling, or replaces them by an address that answers with
//! external aborts.

#[cfg(target_arch = "aarch64")]
mod unbacked;

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use pagemap::{Pagemap, Use, number, page_size};
use serde_json::Value;

const HELP: &str = "\
Poisons pages of a process on this host. Needs root.

Usage: poison [OPTIONS] --control SOCKET GPA...   pages of a ghest's guest
       poison [OPTIONS] --pid PID --hva HVA...    pages of any process
       poison [OPTIONS] --heap PID                the last page of its heap that it has written to

Addresses are decimal, or hexadecimal with 0x. For each page a line is printed:
  poisoned gpa 0x... hva 0x... pfn 0x...          (without gpa for --pid and --heap)

Options:
  --control SOCKET  Control socket of the ghest, for the addresses of its guest's memory
  --pid PID         The process, instead of the one that listens at the socket
  --hva HVA         Virtual address in the process; may be repeated
  --heap PID        The process in whose heap a page is poisoned
  --via WAY         hard-offline     /sys/devices/system/memory/hard_offline_page (the default)
                    hwpoison-inject  the debugfs file hwpoison/corrupt-pfn
                    soft-offline     /sys/devices/system/memory/soft_offline_page: the contents are migrated
  --unbacked ADDRESS
                    Not by the kernel: a page of /dev/mem replaces each page in the process, at a physical address
                    at which the machine has nothing, so that accesses are external aborts (aarch64)
  --dry-run         Only locate the pages, and print \"found\" for \"poisoned\"
  --help            Print this help
";

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)) {
        Ok(None) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Some(options)) => match options.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("poison: {error}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("poison: {error}\nSee poison --help");
            ExitCode::from(2)
        }
    }
}

/// The command line.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    victim: Victim,
    via: Way,
    dry_run: bool,
}

/// The process and its pages.
#[derive(Debug, PartialEq, Eq)]
enum Victim {
    Guest { socket: PathBuf, pid: Option<u64>, gpas: Vec<u64> },
    Process { pid: u64, hvas: Vec<u64> },
    Heap { pid: u64 },
}

/// The kernel interface that poisons a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    HardOffline,
    HwpoisonInject,
    SoftOffline,
    /// No interface: the page is replaced by one at this physical address.
    Unbacked(u64),
}

impl Options {
    /// Parses arguments. `None` if help is requested.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let (mut control, mut pid, mut heap, mut via) = (None, None, None, Way::HardOffline);
        let (mut gpas, mut hvas, mut dry_run) = (Vec::new(), Vec::new(), false);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument}: missing value"));
            match argument.as_str() {
                "--help" | "-h" => return Ok(None),
                "--dry-run" => dry_run = true,
                "--control" => control = Some(PathBuf::from(value()?)),
                "--pid" => pid = Some(number(&value()?)?),
                "--heap" => heap = Some(number(&value()?)?),
                "--hva" => hvas.push(number(&value()?)?),
                "--via" => via = Way::named(&value()?)?,
                "--unbacked" => via = Way::Unbacked(number(&value()?)?),
                option if option.starts_with('-') => return Err(format!("unknown option {option}")),
                gpa => gpas.push(number(gpa)?),
            }
        }
        let victim = match (control, heap, pid) {
            (Some(socket), None, pid) if !gpas.is_empty() && hvas.is_empty() => {
                Victim::Guest { socket, pid, gpas }
            }
            (None, None, Some(pid)) if gpas.is_empty() && !hvas.is_empty() => Victim::Process { pid, hvas },
            (None, Some(pid), None) if gpas.is_empty() && hvas.is_empty() => Victim::Heap { pid },
            _ => return Err("one of --control SOCKET GPA, --pid PID --hva HVA, --heap PID is needed".into()),
        };
        Ok(Some(Self { victim, via, dry_run }))
    }

    fn run(&self) -> Result<(), String> {
        match &self.victim {
            Victim::Guest { socket, pid, gpas } => {
                let guest = Guest::connect(socket)?;
                let pid = pid.unwrap_or(guest.pid);
                for gpa in gpas {
                    let hva =
                        guest.host_address(*gpa).ok_or(format!("{gpa:#x} is not in the guest's memory"))?;
                    self.poison(pid, Some(*gpa), hva)?;
                }
                Ok(())
            }
            Victim::Process { pid, hvas } => hvas.iter().try_for_each(|hva| self.poison(*pid, None, *hva)),
            Victim::Heap { pid } => self.poison(*pid, None, heap_page(*pid)?),
        }
    }

    /// Poisons the page of a process that contains an address.
    fn poison(&self, pid: u64, gpa: Option<u64>, hva: u64) -> Result<(), String> {
        let frame = frame(pid, hva)?
            .ok_or(format!("process {pid} has no page at {hva:#x}: never accessed, or already poisoned"))?;
        if pagemap::frame_use(frame).map_err(|error| format!("/proc/kpageflags: {error}"))? == Use::Zeros {
            return Err(format!(
                "process {pid} has the shared zero page at {hva:#x}: it has never written there"
            ));
        }
        let done = if self.dry_run {
            "found"
        } else {
            self.via.poison(pid, hva, frame)?;
            self.via.done()
        };
        let gpa = gpa.map_or_else(String::new, |gpa| format!("gpa {gpa:#x} "));
        println!("{done} {gpa}hva {hva:#x} pfn {frame:#x}");
        Ok(())
    }
}

impl Way {
    fn named(name: &str) -> Result<Self, String> {
        match name {
            "hard-offline" => Ok(Self::HardOffline),
            "hwpoison-inject" => Ok(Self::HwpoisonInject),
            "soft-offline" => Ok(Self::SoftOffline),
            _ => Err(format!("--via {name}: must be hard-offline, hwpoison-inject or soft-offline")),
        }
    }

    /// What happened to the page, for the output.
    fn done(self) -> &'static str {
        match self {
            Self::HardOffline | Self::HwpoisonInject => "poisoned",
            Self::SoftOffline => "moved",
            Self::Unbacked(_) => "unbacked",
        }
    }

    /// Poisons the page at an address of a process, which is in this frame.
    fn poison(self, pid: u64, hva: u64, frame: u64) -> Result<(), String> {
        let (path, value) = match self {
            #[cfg(target_arch = "aarch64")]
            Self::Unbacked(physical) => return unbacked::replace(pid, hva, physical),
            #[cfg(not(target_arch = "aarch64"))]
            Self::Unbacked(_) => {
                return Err(format!("--unbacked, page {hva:#x} of process {pid}: aarch64 only"));
            }
            Self::HardOffline => ("/sys/devices/system/memory/hard_offline_page", frame * page_size()),
            Self::HwpoisonInject => ("/sys/kernel/debug/hwpoison/corrupt-pfn", frame),
            Self::SoftOffline => ("/sys/devices/system/memory/soft_offline_page", frame * page_size()),
        };
        // Not created if it is missing: it is a file of the kernel.
        let file = fs::OpenOptions::new().write(true).open(path);
        file.and_then(|mut file| file.write_all(format!("{value:#x}").as_bytes()))
            .map_err(|error| format!("{path}, frame {frame:#x}: {error}"))
    }
}

/// The memory map of a guest, from its ghest.
struct Guest {
    pid: u64,
    slots: Vec<(u64, u64, u64)>,
}

impl Guest {
    fn connect(socket: &PathBuf) -> Result<Self, String> {
        let fail = |error: io::Error| format!("{}: {error}", socket.display());
        let mut stream = UnixStream::connect(socket).map_err(fail)?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(fail)?;
        // SO_PEERCRED: the process that listens.
        let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(|error| fail(error.into()))?;
        stream.write_all(b"{\"command\":\"memory-map\"}\n").map_err(fail)?;
        let mut lines = BufReader::new(stream);
        let (mut greeting, mut line) = (String::new(), String::new());
        lines.read_line(&mut greeting).and_then(|_| lines.read_line(&mut line)).map_err(fail)?;
        let slots =
            slots(&line).ok_or(format!("{}: invalid answer to memory-map: {line}", socket.display()))?;
        Ok(Self { pid: u64::from(peer.pid.as_raw_nonzero().get().unsigned_abs()), slots })
    }

    fn host_address(&self, gpa: u64) -> Option<u64> {
        let holds = |(start, len, _): &&(u64, u64, u64)| gpa.checked_sub(*start).is_some_and(|at| at < *len);
        self.slots.iter().find(holds).map(|(start, _, hva)| gpa - start + hva)
    }
}

/// `{"ok":true,"slots":[{"gpa":0,"len":4096,"hva":140000000000000}]}`
fn slots(answer: &str) -> Option<Vec<(u64, u64, u64)>> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    let slots = answer.get("slots")?.as_array()?;
    slots
        .iter()
        .map(|slot| {
            Some((slot.get("gpa")?.as_u64()?, slot.get("len")?.as_u64()?, slot.get("hva")?.as_u64()?))
        })
        .collect()
}

/// The last page of a process's heap that it has written to. The first page of the heap of a static program may be the main thread's TLS:
/// the kernel writes there too, and sends SIGSEGV for a poisoned page.
fn heap_page(pid: u64) -> Result<u64, String> {
    let path = format!("/proc/{pid}/maps");
    let maps = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let heap = heap(&maps).ok_or(format!("process {pid} has no heap"))?;
    let size = usize::try_from(page_size()).map_err(|error| error.to_string())?;
    for hva in heap.step_by(size).collect::<Vec<_>>().into_iter().rev() {
        if let Some(frame) = frame(pid, hva)?
            && pagemap::frame_use(frame).map_err(|error| format!("/proc/kpageflags: {error}"))?
                == Use::Anonymous
        {
            return Ok(hva);
        }
    }
    Err(format!("process {pid} has not written to its heap"))
}

/// `55d0c0e4f000-55d0c0e70000 rw-p 00000000 00:00 0   [heap]`
fn heap(maps: &str) -> Option<std::ops::Range<u64>> {
    let line = maps.lines().find(|line| line.ends_with("[heap]"))?;
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
}

fn frame(pid: u64, hva: u64) -> Result<Option<u64>, String> {
    let frame = Pagemap::of(&pid.to_string()).and_then(|pages| pages.frame(hva));
    frame.map_err(|error| format!("/proc/{pid}/pagemap: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Options>, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_three_usages_are_parsed() {
        let guest = parse("--control c 0x1000 8192").unwrap().unwrap();
        let gpas = vec![4096, 8192];
        assert_eq!(guest.victim, Victim::Guest { socket: "c".into(), pid: None, gpas });
        assert_eq!((guest.via, guest.dry_run), (Way::HardOffline, false));
        let process = parse("--pid 7 --hva 0x1000 --via hwpoison-inject").unwrap().unwrap();
        assert_eq!(process.victim, Victim::Process { pid: 7, hvas: vec![4096] });
        assert_eq!(process.via, Way::HwpoisonInject);
        assert_eq!(parse("--heap 7").unwrap().unwrap().victim, Victim::Heap { pid: 7 });
        assert_eq!(parse("--heap 7 --help").unwrap(), None);
    }

    #[test]
    fn invalid_arguments_are_reported() {
        assert!(parse("0x1000").unwrap_err().contains("--control SOCKET GPA"));
        assert!(parse("--control c").unwrap_err().contains("is needed"));
        assert!(parse("--control").unwrap_err().contains("--control: missing value"));
        assert!(parse("--pid 1 --hva 0xg").unwrap_err().contains("0xg"));
        assert!(parse("--via magic").unwrap_err().contains("magic: must be hard-offline"));
        assert!(parse("--hard").unwrap_err().contains("unknown option --hard"));
    }

    #[test]
    fn guest_addresses_are_translated_by_their_slot() {
        let answer =
            r#"{"ok":true,"slots":[{"gpa":0,"len":8192,"hva":65536},{"gpa":1048576,"len":4096,"hva":0}]}"#;
        let guest = Guest { pid: 1, slots: slots(answer).unwrap() };
        let found = [0x1fff, 0x2000, 0x10_0001].map(|gpa| guest.host_address(gpa));
        assert_eq!(found, [Some(0x1_1fff), None, Some(1)]);
        assert!(slots(r#"{"ok":false,"error":"no"}"#).is_none());
    }

    #[test]
    fn a_heap_is_found_among_mappings() {
        let maps = "1000-2000 r-xp 0 08:01 5  /bin/x\n55d0-55e0 rw-p 00000000 00:00 0    [heap]\n";
        assert_eq!(heap(maps), Some(0x55d0..0x55e0));
        assert_eq!(heap("1000-2000 r-xp 0 08:01 5  /bin/x\n"), None);
    }
}

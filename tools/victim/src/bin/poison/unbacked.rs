//! Puts a page of a process on a physical address at which the machine has nothing: accesses to it are answered with an external abort,
//! as those to memory whose error the hardware reports. The process itself maps the page of `/dev/mem`, made to by ptrace(2).
//!
//! Only the process's main thread is stopped, for three system calls; its other threads see the old page or the new one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use libc::{c_long, c_void, pid_t};
use pagemap::page_size;

/// Replaces the page of a process that contains an address.
pub(crate) fn replace(pid: u64, hva: u64, physical: u64) -> Result<(), String> {
    let thread = Thread::stop(pid)?;
    let before = thread.registers()?;
    let outcome = thread.map(&before, hva & !(page_size() - 1), physical);
    thread.set_registers(&before).and_then(|()| thread.release()).and(outcome)
}

/// x0 to x30, sp, pc and pstate: `struct user_pt_regs` (asm/ptrace.h).
type Registers = [u64; 34];
const X0: usize = 0;
const X8: usize = 8;
const SP: usize = 31;
const PC: usize = 32;

/// `svc #0`.
const SYSTEM_CALL: [u8; 4] = 0xd400_0001_u32.to_le_bytes();

const DEV_MEM: &[u8] = b"/dev/mem\0";

/// The main thread of a process, stopped. It runs again when this process ends, at the latest.
struct Thread {
    pid: pid_t,
}

impl Thread {
    fn stop(pid: u64) -> Result<Self, String> {
        let thread = Self { pid: pid.try_into().map_err(|_| format!("no process {pid}"))? };
        thread.request("PTRACE_SEIZE", libc::PTRACE_SEIZE, 0, libc::PTRACE_O_TRACESYSGOOD as usize)?;
        thread.request("PTRACE_INTERRUPT", libc::PTRACE_INTERRUPT, 0, 0)?;
        thread.wait()?;
        Ok(thread)
    }

    fn release(&self) -> Result<(), String> {
        self.request("PTRACE_DETACH", libc::PTRACE_DETACH, 0, 0)
    }

    /// Has the thread map a page of physical memory.
    fn map(&self, before: &Registers, page: u64, physical: u64) -> Result<(), String> {
        let memory = format!("/proc/{}/mem", self.pid);
        let fail = |error: io::Error| format!("{memory}: {error}");
        let memory = File::options().read(true).write(true).open(&memory).map_err(fail)?;
        // Nobody uses what is below the stack pointer.
        let path = before[SP] - 256;
        memory.write_all_at(DEV_MEM, path).map_err(fail)?;

        let instruction = self.system_call_instruction(&memory)?;
        let call = |name: &str, number, arguments| {
            let result = self.call(before, instruction, number, arguments)?;
            result.map_err(|error| format!("{name} in process {}: {error}", self.pid))
        };
        let directory = i64::from(libc::AT_FDCWD) as u64;
        let flags = (libc::O_RDWR | libc::O_SYNC | libc::O_CLOEXEC) as u64;
        let file = call("openat(2) of /dev/mem", libc::SYS_openat, [directory, path, flags, 0, 0, 0])?;
        let (access, how) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
        let arguments = [page, page_size(), access as u64, how as u64, file, physical];
        let mapped = call("mmap(2) of /dev/mem", libc::SYS_mmap, arguments);
        call("close(2)", libc::SYS_close, [file, 0, 0, 0, 0, 0]).and(mapped).map(drop)
    }

    /// The address of an instruction in the process that is a system call.
    fn system_call_instruction(&self, memory: &File) -> Result<u64, String> {
        let path = format!("/proc/{}/maps", self.pid);
        let maps = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let mut page = vec![0; page_size() as usize];
        for range in maps.lines().filter_map(code) {
            for start in range.step_by(page.len()) {
                memory
                    .read_exact_at(&mut page, start)
                    .map_err(|error| format!("{start:#x} of {path}: {error}"))?;
                if let Some(index) = page.chunks_exact(4).position(|word| word == SYSTEM_CALL) {
                    return Ok(start + 4 * index as u64);
                }
            }
        }
        Err(format!("{path}: no code with a system call"))
    }

    /// Has the thread execute a system call. The result is its own; an error of the thread is an outer one.
    fn call(
        &self,
        before: &Registers,
        instruction: u64,
        number: c_long,
        arguments: [u64; 6],
    ) -> Result<Result<u64, io::Error>, String> {
        let mut registers = *before;
        registers[X0..X0 + arguments.len()].copy_from_slice(&arguments);
        registers[X8] = number as u64;
        registers[PC] = instruction;
        self.set_registers(&registers)?;
        // To its entry, and to its exit.
        for _ in 0..2 {
            self.request("PTRACE_SYSCALL", libc::PTRACE_SYSCALL, 0, 0)?;
            let status = self.wait()?;
            if libc::WSTOPSIG(status) != libc::SIGTRAP | 0x80 {
                return Err(format!("process {}: stopped by signal {}", self.pid, libc::WSTOPSIG(status)));
            }
        }
        let result = self.registers()?[X0];
        // An error number is negated, and less than a page.
        Ok(match result.wrapping_neg() {
            errno @ 1..4096 => Err(io::Error::from_raw_os_error(errno as i32)),
            _ => Ok(result),
        })
    }

    fn registers(&self) -> Result<Registers, String> {
        let mut registers = [0; 34];
        let mut vector =
            libc::iovec { iov_base: registers.as_mut_ptr().cast(), iov_len: size_of::<Registers>() };
        let vector = (&raw mut vector).expose_provenance();
        self.request("PTRACE_GETREGSET", libc::PTRACE_GETREGSET, NT_PRSTATUS, vector)?;
        Ok(registers)
    }

    fn set_registers(&self, registers: &Registers) -> Result<(), String> {
        let base = registers.as_ptr().cast_mut().cast::<c_void>();
        let mut vector = libc::iovec { iov_base: base, iov_len: size_of::<Registers>() };
        let vector = (&raw mut vector).expose_provenance();
        self.request("PTRACE_SETREGSET", libc::PTRACE_SETREGSET, NT_PRSTATUS, vector)
    }

    #[expect(unsafe_code, reason = "ptrace(2) is called")]
    fn request(&self, name: &str, request: libc::c_uint, address: usize, data: usize) -> Result<(), String> {
        // SAFETY: `data` is a number, or the address of an iovec that outlives the call and describes `Registers`.
        let result = unsafe { libc::ptrace(request, self.pid, address, data) };
        match result {
            0 => Ok(()),
            _ => Err(format!("{name}, process {}: {}", self.pid, io::Error::last_os_error())),
        }
    }

    /// Waits until the thread has stopped; returns its status.
    #[expect(unsafe_code, reason = "waitpid(2) is called")]
    fn wait(&self) -> Result<i32, String> {
        let mut status = 0;
        // SAFETY: the status is written to a variable.
        let waited = unsafe { libc::waitpid(self.pid, &mut status, libc::__WALL) };
        if waited != self.pid {
            return Err(format!("waitpid(2), process {}: {}", self.pid, io::Error::last_os_error()));
        }
        if libc::WIFSTOPPED(status) { Ok(status) } else { Err(format!("process {} has ended", self.pid)) }
    }
}

/// The registers that PTRACE_GETREGSET is about (linux/elf.h).
const NT_PRSTATUS: usize = 1;

/// The addresses of code that is in a file: `00400000-00500000 r-xp 00000000 00:02 7   /lab/bin/ghest`
fn code(line: &str) -> Option<std::ops::Range<u64>> {
    let (addresses, rest) = line.split_once(" r-xp ")?;
    let (start, end) = addresses.split_once('-').filter(|_| rest.contains('/'))?;
    Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_files_is_found_among_mappings() {
        assert_eq!(code("400000-500000 r-xp 00000000 00:02 7   /lab/bin/ghest"), Some(0x40_0000..0x50_0000));
        assert_eq!(code("500000-501000 rw-p 00000000 00:02 7   /lab/bin/ghest"), None);
        assert_eq!(code("ffff0000-ffff1000 r-xp 00000000 00:00 0   [vdso]"), None);
    }
}

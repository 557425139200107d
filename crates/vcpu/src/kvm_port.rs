//! KVM's vCPU as the run loop's port.

use std::io;

use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::exit::Exit;
use crate::port::{Injection, RunError, VcpuPort};

/// A KVM vCPU.
#[derive(Debug)]
pub struct KvmPort {
    fd: VcpuFd,
}

impl KvmPort {
    /// Takes a vCPU whose registers are set.
    #[must_use]
    pub fn new(fd: VcpuFd) -> Self {
        KvmPort { fd }
    }
}

impl VcpuPort for KvmPort {
    fn run(&mut self) -> Result<Exit<'_>, RunError> {
        // What kvm-ioctls leaves out of an exit (the width of a port access, the suberror, errno) is read from the run
        // page once its own borrow of the page has ended. So the borrowed data goes through a pointer.
        enum Data {
            PortIn(u16),
            PortOut(u16),
            MmioRead(u64),
            MmioWrite(u64),
        }
        let (kind, data, len) = match self.fd.run() {
            Ok(VcpuExit::IoIn(port, data)) => (Data::PortIn(port), data.as_mut_ptr(), data.len()),
            Ok(VcpuExit::IoOut(port, data)) => (Data::PortOut(port), data.as_ptr().cast_mut(), data.len()),
            Ok(VcpuExit::MmioRead(gpa, data)) => (Data::MmioRead(gpa), data.as_mut_ptr(), data.len()),
            Ok(VcpuExit::MmioWrite(gpa, data)) => {
                (Data::MmioWrite(gpa), data.as_ptr().cast_mut(), data.len())
            }
            Ok(VcpuExit::InternalError) => {
                return Ok(Exit::InternalError { suberror: suberror(self.fd.get_kvm_run()) });
            }
            Ok(VcpuExit::Shutdown) => return Ok(Exit::Shutdown),
            Ok(VcpuExit::SystemEvent(kind, _)) => return Ok(Exit::SystemEvent { kind }),
            Ok(VcpuExit::FailEntry(reason, _)) => return Ok(Exit::EntryFailed { reason }),
            Ok(VcpuExit::Intr) => return Ok(Exit::Interrupted),
            Ok(VcpuExit::MemoryFault { flags, gpa, size }) => {
                let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EFAULT);
                return Ok(Exit::MemoryFault { gpa, size, flags, errno });
            }
            Ok(_) => return Ok(Exit::Unexpected { reason: self.fd.get_kvm_run().exit_reason }),
            // EINTR: a signal. EAGAIN: an application processor that was just woken, or is not started yet.
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                return Ok(Exit::Interrupted);
            }
            Err(error) => return Err(RunError(io::Error::from_raw_os_error(error.errno()))),
        };
        let width = usize::from(port_width(self.fd.get_kvm_run()));
        let data = run_page_bytes(&mut self.fd, data, len);
        Ok(match kind {
            Data::PortIn(port) => Exit::PortIn { port, width, data },
            Data::PortOut(port) => Exit::PortOut { port, width, data },
            Data::MmioRead(gpa) => Exit::MmioRead { gpa, data },
            Data::MmioWrite(gpa) => Exit::MmioWrite { gpa, data },
        })
    }

    #[cfg(target_arch = "x86_64")]
    fn inject(&mut self, injection: Injection) -> Result<(), RunError> {
        let outcome = match injection {
            Injection::Nmi => self.fd.nmi(),
            Injection::MachineCheck(check) => crate::x86_64::machine_check::raise(&self.fd, &check),
        };
        outcome.map_err(|error| RunError(io::Error::from_raw_os_error(error.errno())))
    }

    #[cfg(target_arch = "aarch64")]
    fn inject(&mut self, _: Injection) -> Result<(), RunError> {
        Err(RunError(io::ErrorKind::Unsupported.into()))
    }

    fn clear_kick(&mut self) {
        self.fd.set_kvm_immediate_exit(0);
    }

    fn kick_flag(&mut self) -> *mut u8 {
        &raw mut self.fd.get_kvm_run().immediate_exit
    }

    #[cfg(target_arch = "x86_64")]
    fn registers(&mut self) -> String {
        match (self.fd.get_regs(), self.fd.get_sregs()) {
            (Ok(regs), Ok(sregs)) => format!(
                "rip={:#x} rsp={:#x} rflags={:#x} rax={:#x} cs={:#x} cr0={:#x} cr2={:#x} cr3={:#x} cr4={:#x} efer={:#x}",
                regs.rip,
                regs.rsp,
                regs.rflags,
                regs.rax,
                sregs.cs.selector,
                sregs.cr0,
                sregs.cr2,
                sregs.cr3,
                sregs.cr4,
                sregs.efer
            ),
            (Err(error), _) | (_, Err(error)) => format!("registers can not be read: {error}"),
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn registers(&mut self) -> String {
        use crate::aarch64::registers::{PC, PSTATE, X0, get};
        let mut line = String::new();
        for (name, id) in [("pc", PC), ("pstate", PSTATE), ("x0", X0)] {
            match get(&self.fd, id) {
                Ok(value) => line.push_str(&format!("{name}={value:#x} ")),
                Err(error) => line.push_str(&format!("{name}: {error} ")),
            }
        }
        line.trim_end().to_owned()
    }
}

/// The data of an exit, which KVM keeps in the pages that it shares with the VMM.
#[expect(unsafe_code, reason = "the run page's data is reached through a pointer")]
fn run_page_bytes(_owner: &mut VcpuFd, data: *mut u8, len: usize) -> &mut [u8] {
    // SAFETY: both come from a slice that kvm-ioctls made of this vCPU's run page, which is mapped for as long as the
    // vCPU lives; the result borrows the vCPU mutably, so nothing else refers to the page meanwhile.
    unsafe { std::slice::from_raw_parts_mut(data, len) }
}

#[expect(unsafe_code, reason = "a union that C describes")]
fn port_width(run: &kvm_bindings::kvm_run) -> u8 {
    // SAFETY: plain integers, so any bits are valid; they mean something after KVM_EXIT_IO only.
    unsafe { run.__bindgen_anon_1.io.size }
}

#[expect(unsafe_code, reason = "a union that C describes")]
fn suberror(run: &kvm_bindings::kvm_run) -> u32 {
    // SAFETY: plain integers, so any bits are valid; they mean something after KVM_EXIT_INTERNAL_ERROR only.
    unsafe { run.__bindgen_anon_1.internal.suberror }
}

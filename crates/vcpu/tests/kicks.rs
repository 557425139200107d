//! No kick is lost, with real threads, real signals, and a guest on real KVM that never exits by itself.
//!
//! The kicking thread waits until the vCPU has read what the kick is for, and kicks again immediately: most kicks arrive between that
//! and KVM_RUN, where one that only interrupted the guest would be lost. After a lost kick the guest runs for ever.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, vec![Trial::ignorable_test("a_million_kicks", a_million_kicks)])
        .exit_code()
}

#[cfg(not(target_arch = "x86_64"))]
fn a_million_kicks() -> Result<libtest_mimic::Completion, libtest_mimic::Failed> {
    let missing = "its guest is x86_64 code";
    eprintln!("\n*** NOT TESTED: a_million_kicks: {missing} ***");
    Ok(libtest_mimic::Completion::ignored_with(missing))
}

#[cfg(target_arch = "x86_64")]
use x86_64::a_million_kicks;

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use guest_memory::{Backing, GuestRam};
    use kvm_bindings::kvm_userspace_memory_region;
    use kvm_ioctls::{Kvm, VcpuFd, VmFd};
    use libtest_mimic::{Completion, Failed};
    use ras_core::vcpu_state::VcpuState;
    use vcpu::{
        Control, IoBus, KvmPort, MemoryErrorHandler, PoisonAccess, VcpuEnvironment, VcpuExitReason,
        VcpuExited, Vcpus,
    };

    const KICKS: u64 = 1_000_000;
    /// Far longer than any kick takes.
    const KICK_TIMEOUT: Duration = Duration::from_secs(20);
    /// Polls without a system call: longer than a vCPU that runs takes for a kick.
    const SPINS: u32 = 2000;
    const MEMORY: u64 = 0x1_0000;
    const CODE: u64 = 0x1000;
    /// `jmp` to itself.
    const GUEST: [u8; 2] = [0xeb, 0xfe];

    /// What the vCPU has read before its last entry.
    #[derive(Default)]
    struct Requests {
        requested: AtomicU64,
        seen: AtomicU64,
        has_ended: AtomicBool,
    }

    impl MemoryErrorHandler for Requests {
        fn consumed(&self, _: u32, access: PoisonAccess, _: &mut dyn FnMut() -> Option<VcpuState>) {
            panic!("no memory is poisoned: {access:?}");
        }

        /// Called at each entry, after the kick flag was cleared.
        fn pre_entry(&self, _: u32, _: &mut dyn FnMut() -> Option<VcpuState>) {
            self.seen.store(self.requested.load(Ordering::SeqCst), Ordering::SeqCst);
        }
    }

    impl IoBus for Requests {}

    pub(super) fn a_million_kicks() -> Result<Completion, Failed> {
        let kvm = match vcpu::host::open() {
            Ok(kvm) => kvm,
            Err(error) => {
                eprintln!("\n*** NOT TESTED: a_million_kicks: {error} ***");
                return Ok(Completion::ignored_with(error.to_string()));
            }
        };
        let ram = GuestRam::allocate(&[(0, MEMORY)], Backing::Anonymous)?;
        ram.write(CODE, &GUEST)?;
        let (_vm, fd) = machine(&kvm, &ram)?;
        let requests = Arc::new(Requests::default());
        let environment = VcpuEnvironment {
            io: Arc::clone(&requests) as _,
            memory_errors: Arc::clone(&requests) as _,
            observer: Arc::new(()),
        };
        let exited: Arc<dyn Fn(VcpuExited) + Send + Sync> = {
            let requests = Arc::clone(&requests);
            Arc::new(move |exited| {
                requests.has_ended.store(true, Ordering::SeqCst);
                if exited.reason != VcpuExitReason::Stopped {
                    eprintln!("{}; {}", exited.reason, exited.registers);
                }
            })
        };
        let control = Arc::new(Control::default());
        let mut vcpus = Vcpus::start(vec![KvmPort::new(fd, ram)], &environment, &control, &exited)?;
        for kick in 1..=KICKS {
            requests.requested.store(kick, Ordering::SeqCst);
            vcpus.kick();
            let mut polls = 0_u32;
            let mut deadline = None;
            while requests.seen.load(Ordering::SeqCst) < kick {
                polls += 1;
                if polls < SPINS {
                    std::hint::spin_loop();
                    continue;
                }
                // The vCPU's thread may be waiting for this processor.
                std::thread::yield_now();
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + KICK_TIMEOUT);
                assert!(Instant::now() < deadline, "kick {kick} is lost: the guest runs on");
                assert!(!requests.has_ended.load(Ordering::SeqCst), "the vCPU has ended at kick {kick}");
            }
        }
        vcpus.stop()?;
        Ok(Completion::Completed)
    }

    /// A virtual machine with the guest's memory, and its vCPU at the start of the code, in real mode.
    #[expect(unsafe_code, reason = "KVM accesses host memory")]
    fn machine(kvm: &Kvm, ram: &GuestRam) -> Result<(VmFd, VcpuFd), Failed> {
        let vm = kvm.create_vm()?;
        vm.set_tss_address(0xfffb_d000)?;
        for slot in ram.slots() {
            let region = kvm_userspace_memory_region {
                slot: slot.index,
                guest_phys_addr: slot.gpa,
                memory_size: slot.len,
                userspace_addr: slot.hva,
                flags: 0,
            };
            // SAFETY: the vCPU's port, which exists as long as the vCPU runs, keeps a clone of `ram`.
            unsafe { vm.set_user_memory_region(region) }?;
        }
        let fd = vm.create_vcpu(0)?;
        let mut sregs = fd.get_sregs()?;
        (sregs.cs.base, sregs.cs.selector) = (0, 0);
        fd.set_sregs(&sregs)?;
        let mut regs = fd.get_regs()?;
        (regs.rip, regs.rflags) = (CODE, 2);
        fd.set_regs(&regs)?;
        Ok((vm, fd))
    }
}

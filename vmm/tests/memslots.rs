//! Memslots are split and merged on real KVM, each time with the vCPUs paused: the guest never finds its memory missing or changed.

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let tests = vec![
        #[cfg(target_arch = "x86_64")]
        libtest_mimic::Trial::ignorable_test("holes_come_and_go_under_two_running_vcpus", x86_64::holes),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};
    use std::thread;
    use std::time::{Duration, Instant};

    use guest_memory::{Backing, GuestRam};
    use libtest_mimic::{Completion, Failed};
    use ras_core::Span;
    use ras_core::vcpu_state::VcpuState;
    use vcpu::x86_64::{BOOT_GDT, BOOT_GDT_GPA, Entry, PageTables};
    use vcpu::{
        Control, IoBus, MemoryErrorHandler, PoisonAccess, Unmapped, VcpuEnvironment, VcpuExitReason,
        VcpuExited, Vcpus,
    };
    use vmm::kvm::KvmVm;

    /// The code of the boot processor, in long mode.
    const CODE: u64 = 0x10_0000;
    /// The counter that it increments.
    const COUNTER: u64 = 0x20_0000;
    /// The word that it compares, behind all holes.
    const WORD: u64 = 0x30_0000;
    /// The code of the other processor, in real mode: the vector of its SIPI is 8.
    const OTHER_CODE: u64 = 0x8000;
    /// The counter that the other processor increments.
    const OTHER_COUNTER: u64 = 0x3000;
    /// The port that the boot processor writes if the word has changed.
    const FAILED: u16 = 0x10;
    const PAGE_TABLES: PageTables = PageTables { root: 0x9000 };

    /// Starts the other processor, then increments the counter and compares the word, again and again.
    const BOOT: [u8; 62] = [
        0xbf, 0x00, 0x00, 0xe0, 0xfe, // mov edi, 0xfee00000
        0xc7, 0x87, 0x10, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, // mov dword [rdi + 0x310], 1 << 24
        0xc7, 0x87, 0x00, 0x03, 0x00, 0x00, 0x00, 0x45, 0x00, 0x00, // mov dword [rdi + 0x300], INIT
        0xc7, 0x87, 0x00, 0x03, 0x00, 0x00, 0x08, 0x46, 0x00, 0x00, // mov dword [rdi + 0x300], SIPI
        0xbb, 0x00, 0x00, 0x20, 0x00, // mov ebx, COUNTER
        0xb9, 0x00, 0x00, 0x30, 0x00, // mov ecx, WORD
        0x48, 0xff, 0x03, // inc qword [rbx]
        0x8b, 0x01, // mov eax, [rcx]
        0x3d, 0x78, 0x56, 0x34, 0x12, // cmp eax, 0x12345678
        0x75, 0x02, // jne over the jmp
        0xeb, 0xf2, // jmp to the inc
        0xe6, 0x10, 0xf4, // out FAILED, al; hlt
    ];
    /// `inc dword [0x3000]`, and again.
    const OTHER: [u8; 7] = [0x66, 0xff, 0x06, 0x00, 0x30, 0xeb, 0xf9];

    /// The guest's only device.
    #[derive(Default)]
    struct Port {
        has_failed: AtomicBool,
    }

    impl IoBus for Port {
        fn port_out(&self, port: u16, _: &[u8]) -> Result<(), Unmapped> {
            self.has_failed.fetch_or(port == FAILED, Ordering::SeqCst);
            Ok(())
        }

        fn mmio_read(&self, _: u64, _: &mut [u8]) -> Result<(), Unmapped> {
            self.has_failed.store(true, Ordering::SeqCst);
            Err(Unmapped)
        }

        fn mmio_write(&self, _: u64, _: &[u8]) -> Result<(), Unmapped> {
            self.has_failed.store(true, Ordering::SeqCst);
            Err(Unmapped)
        }
    }

    impl MemoryErrorHandler for Port {
        fn consumed(&self, _: u32, _: PoisonAccess, _: &mut dyn FnMut() -> Option<VcpuState>) {
            self.has_failed.store(true, Ordering::SeqCst);
        }
    }

    /// Waits until both processors have incremented their counters.
    fn await_progress(ram: &GuestRam) {
        let counters = || {
            let mut other = [0; 4];
            ram.read(OTHER_COUNTER, &mut other).expect("memory");
            (ram.load_u64(COUNTER).expect("memory"), u32::from_le_bytes(other))
        };
        let (before, deadline) = (counters(), Instant::now() + Duration::from_secs(60));
        loop {
            let now = counters();
            if now.0 > before.0 && now.1 != before.1 {
                return;
            }
            assert!(Instant::now() < deadline, "the vCPUs stand still: {before:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn holes() -> Result<Completion, Failed> {
        let kvm = match vcpu::host::open() {
            Ok(kvm) => kvm,
            Err(error) => {
                eprintln!("*** NOT TESTED: this machine has no KVM: {error} ***");
                return Ok(Completion::ignored_with(format!("this machine has no KVM: {error}")));
            }
        };
        let platform =
            platform::x86_64::platform(&platform::x86_64::Layout::REFERENCE, 2, 64 << 20, vec![], None);
        let runs: Vec<_> = platform.memory.ram.iter().map(|run| (run.start, run.len)).collect();
        let ram = GuestRam::allocate(&runs, Backing::Anonymous)?;
        let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        for (gpa, bytes) in [
            (CODE, BOOT.to_vec()),
            (OTHER_CODE, OTHER.to_vec()),
            (WORD, 0x1234_5678_u32.to_le_bytes().to_vec()),
            (BOOT_GDT_GPA, bytes(&BOOT_GDT)),
            (PAGE_TABLES.root, bytes(&PAGE_TABLES.entries().collect::<Vec<_>>())),
        ] {
            ram.write(gpa, &bytes)?;
        }
        let mut vm = KvmVm::new(&kvm, ram.clone(), &platform)?;
        let entry = Entry::Linux64 { rip: CODE, boot_params: 0x7000, page_tables: PAGE_TABLES.root };
        let ports = vm.ports(&kvm, &entry)?;
        let port = Arc::new(Port::default());
        let environment = VcpuEnvironment {
            io: Arc::clone(&port) as _,
            memory_errors: Arc::clone(&port) as _,
            observer: Arc::new(()),
        };
        let exits = Arc::new(Mutex::new(Vec::new()));
        let exited: Arc<dyn Fn(VcpuExited) + Send + Sync> = {
            let exits = Arc::clone(&exits);
            Arc::new(move |exited| exits.lock().expect("no panic").push(exited))
        };
        let mut vcpus = Vcpus::start(ports, &environment, &Arc::new(Control::default()), &exited)?;
        await_progress(&ram);
        // Holes beside each other, apart from each other, and wider ones, between and around what the processors use.
        let spans: Vec<_> = (0..16)
            .map(|index| Span::around(COUNTER + 0x1000 + index * 0x3000, 12))
            .chain(
                [(WORD + 0x1000, 12), (WORD - 0x1000, 12), (COUNTER - 0x2000, 13), (0x28_0000, 16)]
                    .map(|(gpa, log2_len)| Span::around(gpa, log2_len)),
            )
            .collect();
        for _ in 0..4 {
            for is_punched in [true, false] {
                for span in &spans {
                    vcpus.pause()?;
                    if is_punched {
                        vm.punch_hole(*span)?
                    } else {
                        vm.fill_hole(*span)?
                    }
                    vcpus.resume();
                }
                await_progress(&ram);
            }
        }
        vcpus.stop().expect("every vCPU stops");
        let exits = std::mem::take(&mut *exits.lock().expect("no panic"));
        assert!(exits.iter().all(|exit| exit.reason == VcpuExitReason::Stopped), "{exits:?}");
        assert!(!port.has_failed.load(Ordering::SeqCst), "a part of guest memory was missing or had changed");
        Ok(Completion::Completed)
    }
}

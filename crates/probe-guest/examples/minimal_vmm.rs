//! A complete VMM for x86_64, on kvm-ioctls alone: boots the built-in guest with one vCPU and reports a simulated memory error to it.
//!
//! `cargo run -p ghest-probe-guest --example minimal_vmm`
//!
//! It shows how a VMM uses `platform`, `firmware-tables` and `ras-core`:
//! 1. `describe`: `ras-core` lists the error sources, `firmware-tables` builds ACPI tables with a HEST for them, and `ras-core` makes
//!    the plan and its responder from these tables.
//! 2. `run`: an error occurs. The responder returns actions for `carry_out`: writes of a record to guest memory, and an NMI.
//! 3. The guest reads the record and acknowledges it, which the responder detects.
//!
//! The error is simulated: one page is in no memory slot of KVM, and counts as poisoned. The command line makes the guest read it, and
//! the read exits with KVM_EXIT_MMIO. For a real error, the host's kernel sends SIGBUS with BUS_MCEERR_AR (see `guest-memory`).
//!
//! The exit status is 0 if the guest has read the record, stopped using the page, and passed all of its other checks.

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("This example is for x86_64: nothing to run on this host.");
}

#[cfg(target_arch = "x86_64")]
fn main() -> vmm::Result<()> {
    vmm::run(&mut std::io::stdout())
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod vmm {
    use std::io::{Cursor, Write};
    use std::num::NonZeroU32;
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    use firmware_tables::{GuestTables, OemInfo, TableSet, build};
    use guest_memory::{Backing, GuestRam};
    use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_regs, kvm_segment, kvm_userspace_memory_region};
    use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};
    use linux_loader::loader::KernelLoader;
    use linux_loader::loader::elf::{Elf, PvhBootCapability};
    use linux_loader::loader::start_info::{hvm_memmap_table_entry, hvm_start_info};
    use platform::x86_64::{EXTENDED_MEMORY_START, Layout, platform};
    use platform::{AcpiIdentity, Chosen, DeviceNode, DeviceRole, Platform, RegionKind, Trigger};
    use ras_core::abilities::{ArchAbilities, Fact, HostAbilities, MemoryFailure, X86Abilities};
    use ras_core::actions::{Action, ActionFailed};
    use ras_core::plan::{TablesView, plan, sources_wanted};
    use ras_core::reporters::ReporterContext;
    use ras_core::request::{OnMissingSupport, Repair, Request};
    use ras_core::responder::{Responder, ResponderContext, ResponderOptions};
    use ras_core::{Arch, Kind, MemoryError, Origin, Response, Severity, Span};
    use vm_memory::{Address, ByteValued, GuestAddress};

    pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

    const LAYOUT: Layout = Layout::REFERENCE;
    /// Bytes of guest memory.
    const MEMORY: u64 = 64 << 20;
    /// The page that counts as poisoned. The guest does not use it, except by `probe.touch`.
    const POISONED: Span = Span::around(0x200_0000, 12);
    /// GPAs in usable memory that the built-in guest does not use before it has read them.
    const START_INFO: u64 = 0x6000;
    const MEMORY_MAP: u64 = 0x6100;
    const COMMAND_LINE: u64 = 0x7000;
    /// Registers of the 16550 that the guest uses (National Semiconductor PC16550D, 8.0).
    const TRANSMIT: u16 = LAYOUT.serial_port;
    const INTERRUPT_ENABLE: u16 = LAYOUT.serial_port + 1;
    const INTERRUPT_IDENTIFICATION: u16 = LAYOUT.serial_port + 2;
    const LINE_STATUS: u16 = LAYOUT.serial_port + 5;
    /// Interrupt enable: transmitter empty.
    const TRANSMITTER_EMPTY: u8 = 1 << 1;
    /// hvm_start_info.magic.
    const PVH_MAGIC: u32 = 0x336e_c578;
    /// SLEEP_CONTROL_REG: SLP_EN, and SLP_TYP of S5 from bit 2 on (ACPI 6.5, 4.8.3.7).
    const POWER_OFF: u8 = 1 << 5 | LAYOUT.s5_sleep_type << 2;

    const OEM: OemInfo<'static> = OemInfo {
        oem_id: *b"ACME  ",
        oem_table_id: *b"ACMEVM  ",
        oem_revision: 1,
        creator_id: *b"ACME",
        creator_revision: 1,
        hypervisor_vendor: *b"ACMEVMM\0",
        firmware_vendor: "Acme",
        firmware_revision: 1,
        model: "acme,vm",
        compatible: &["linux,dummy-virt"],
        mp_oem_id: *b"ACME    ",
        mp_product_id: *b"ACME VM     ",
    };

    /// Runs the machine until the guest powers it off. Writes the guest's console and the steps of the error report to `out`.
    pub(crate) fn run(out: &mut dyn Write) -> Result<()> {
        let kvm = Kvm::new().map_err(|error| format!("/dev/kvm: {error}"))?;
        let ram = GuestRam::allocate(&[(0, MEMORY)], Backing::Anonymous)?;
        let (platform, tables, mut responder) = describe(&kvm, out)?;
        let entry = load(&ram, &platform, &tables)?;
        let (vm, mut vcpu) = create(&kvm, &ram, entry).map_err(|error| format!("no VM: {error}"))?;
        let (mut console, mut interrupt_enable, start) = (Vec::new(), 0, Instant::now());
        loop {
            let mut consumed = None;
            match vcpu.run().map_err(|error| format!("KVM_RUN: {error}"))? {
                VcpuExit::IoOut(port, &[value]) if LAYOUT.power_port == port && value == POWER_OFF => break,
                VcpuExit::IoOut(TRANSMIT, &[byte]) => {
                    out.write_all(&[byte])?;
                    console.push(byte);
                }
                VcpuExit::IoOut(INTERRUPT_ENABLE, &[value]) => {
                    interrupt_enable = value;
                    // The transmitter is always empty. The interrupt is a rising edge.
                    vm.set_irq_line(LAYOUT.serial_gsi, value & TRANSMITTER_EMPTY != 0)?;
                    vm.set_irq_line(LAYOUT.serial_gsi, false)?;
                }
                VcpuExit::IoIn(INTERRUPT_IDENTIFICATION, [value]) => {
                    *value = if interrupt_enable & TRANSMITTER_EMPTY != 0 { 0x2 } else { 0x1 };
                }
                VcpuExit::IoIn(LINE_STATUS, [value]) => *value = 0x60,
                VcpuExit::MmioRead(gpa, data) if POISONED.contains(gpa) => {
                    // KVM completes the read when the vCPU is entered again. The NMI is taken after that.
                    data.fill(0xff);
                    consumed = Some(gpa);
                }
                // No other devices.
                VcpuExit::IoIn(_, data) => data.fill(0xff),
                VcpuExit::IoOut(..) => {}
                exit => return Err(format!("unexpected exit of the vCPU: {exit:?}").into()),
            }
            let context = context(&responder, &ram, start)?;
            let mut failed = None;
            let mut sink = |action: Action<'_>| {
                carry_out(action, &ram, &vcpu, out).map_err(|error| {
                    failed.get_or_insert(error);
                    ActionFailed
                })
            };
            match consumed {
                Some(gpa) => {
                    let (span, kind, time_ns) = (POISONED, Kind::ActionRequired, context.context.now_ns);
                    let (vcpu, origin, severity) = (Some(0), Origin::Injected, Severity::Recoverable);
                    let error = MemoryError { span, gpa, kind, severity, vcpu, origin, time_ns };
                    responder.report(&error, &context, &mut sink);
                }
                None => responder.tick(&context, &mut sink),
            }
            failed.map_or(Ok(()), Err)?;
        }
        let console = String::from_utf8_lossy(&console);
        for wanted in ["probe: error record", "probe: error offlined 0x2000000", "probe: ok"] {
            if !console.lines().any(|line| line.starts_with(wanted)) {
                return Err(format!("the guest did not print `{wanted}`").into());
            }
        }
        let is_acknowledged = responder.ledger().repairable().next().is_some();
        is_acknowledged.then_some(()).ok_or_else(|| "the guest did not acknowledge the record".into())
    }

    /// Describes the machine, and plans the responses to memory errors.
    fn describe(kvm: &Kvm, out: &mut dyn Write) -> Result<(Platform, GuestTables, Responder)> {
        let request = Request {
            arch: Arch::X86_64,
            tables: TableSet::Acpi,
            synchronous: Some(Response::Nmi),
            asynchronous: Some(Response::Ignore),
            corrected: None,
            corrected_threshold: None,
            poll_interval_ms: NonZeroU32::MIN,
            on_missing_support: OnMissingSupport::Refuse,
            repair: Repair::WhenAcknowledged,
        };
        let mut host = HostAbilities::unknown(Arch::X86_64);
        let user_nmi = kvm.check_extension(Cap::UserNmi).into();
        host.arch = ArchAbilities::X86_64(X86Abilities { user_nmi, ..Default::default() });
        // The error is simulated: what the host's kernel does with real ones does not matter.
        host.memory_failure = MemoryFailure { handled: Fact::Yes, recovery: Fact::Yes, early_kill: Fact::No };

        let serial = DeviceNode::new("serial0")
            .ports(LAYOUT.serial_port, 8)
            .interrupt(LAYOUT.serial_gsi, Trigger::Edge)
            .role(DeviceRole::Ns16550)
            .acpi(AcpiIdentity::new("COM1", "PNP0501"));
        let platform = platform(&LAYOUT, 1, MEMORY, vec![serial], Some("serial0"))
            .with_error_sources(sources_wanted(&request, &host, None).collect());
        let tables = build(TableSet::Acpi, &platform, &Chosen::default(), &OEM)?;

        let area = tables.record_area.as_ref();
        let view = TablesView { set: tables.set, record_area: area, error_device: tables.error_device };
        let plan = plan(&request, &host, &view).map_err(|error| error.to_string())?;
        let response = &plan.consumed;
        writeln!(out, "vmm: response to consumed errors: {}; {}", response.chosen, response.reason)?;
        let responder = Responder::new(&plan, &host, area, ResponderOptions::new())?;
        Ok((platform, tables, responder))
    }

    /// Loads the guest, its tables and its PVH start info (Xen, docs/misc/pvh.pandoc). Returns the entry point.
    fn load(ram: &GuestRam, platform: &Platform, tables: &GuestTables) -> Result<u64> {
        let start = Some(GuestAddress(EXTENDED_MEMORY_START));
        let loaded = Elf::load(ram.memory(), None, &mut Cursor::new(probe_guest::IMAGE), start)?;
        let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
            return Err("the image has no PVH entry point".into());
        };
        for table in &tables.tables {
            ram.write(table.gpa, &table.bytes)?;
        }
        for (region, index) in platform.memory.regions.iter().zip(0..) {
            // E820 types.
            let type_ = match region.kind {
                RegionKind::Usable => 1,
                RegionKind::Reserved => 2,
                RegionKind::AcpiReclaim => 3,
                RegionKind::AcpiNvs => 4,
                RegionKind::Unusable => 5,
            };
            let (addr, size) = (region.range.start, region.range.len);
            let entry = hvm_memmap_table_entry { addr, size, type_, reserved: 0 };
            ram.write(MEMORY_MAP + index * size_of_val(&entry) as u64, entry.as_slice())?;
        }
        ram.write(COMMAND_LINE, format!("probe.touch={:#x}\0", POISONED.gpa).as_bytes())?;
        let start_info = hvm_start_info {
            magic: PVH_MAGIC,
            version: 1,
            cmdline_paddr: COMMAND_LINE,
            rsdp_paddr: tables.entry.gpa(),
            memmap_paddr: MEMORY_MAP,
            memmap_entries: platform.memory.regions.len() as u32,
            ..Default::default()
        };
        ram.write(START_INFO, start_info.as_slice())?;
        Ok(entry.raw_value())
    }

    /// The VM and its vCPU, in the initial state that PVH requires. The poisoned page is in no memory slot.
    #[expect(unsafe_code, reason = "KVM accesses memory of this process")]
    fn create(kvm: &Kvm, ram: &GuestRam, entry: u64) -> Result<(VmFd, VcpuFd)> {
        let vm = kvm.create_vm()?;
        vm.set_tss_address(LAYOUT.kvm_tss.start as usize)?;
        vm.set_identity_map_address(LAYOUT.kvm_identity_map.start)?;
        vm.create_irq_chip()?;
        let above = POISONED.gpa + POISONED.bytes();
        for (slot, range) in [(0, 0..POISONED.gpa), (1, above..MEMORY)] {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: range.start,
                memory_size: range.end - range.start,
                userspace_addr: ram.host_address(range.start).ok_or("a slot outside of guest memory")?,
            };
            // SAFETY: the range is in the one region of `ram`, which `run` drops after the VM.
            unsafe { vm.set_user_memory_region(region) }?;
        }
        let vcpu = vm.create_vcpu(0)?;
        let mut cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
        for leaf in cpuid.as_mut_slice() {
            // KVM returns the APIC id of the host's processor; this vCPU's is 0.
            match leaf.function {
                0x1 => leaf.ebx &= 0x00ff_ffff,
                0xb | 0x1f => leaf.edx = 0,
                _ => {}
            }
        }
        vcpu.set_cpuid2(&cpuid)?;
        let mut sregs = vcpu.get_sregs()?;
        // Flat 32-bit segments of 4 GiB.
        let flat = kvm_segment { limit: u32::MAX, present: 1, s: 1, g: 1, db: 1, ..Default::default() };
        sregs.cs = kvm_segment { selector: 0x10, type_: 0xb, ..flat };
        sregs.ds = kvm_segment { selector: 0x18, type_: 0x3, ..flat };
        (sregs.es, sregs.fs, sregs.gs, sregs.ss) = (sregs.ds, sregs.ds, sregs.ds, sregs.ds);
        sregs.tr = kvm_segment { type_: 0xb, limit: 0x67, present: 1, ..Default::default() };
        // CR0: PE and ET. No paging.
        (sregs.cr0, sregs.cr4, sregs.efer) = (0x11, 0, 0);
        vcpu.set_sregs(&sregs)?;
        vcpu.set_regs(&kvm_regs { rip: entry, rbx: START_INFO, rflags: 2, ..Default::default() })?;
        Ok((vm, vcpu))
    }

    /// Clock and acknowledge register, as the responder needs them.
    fn context(responder: &Responder, ram: &GuestRam, start: Instant) -> Result<ResponderContext> {
        let now_ns = start.elapsed().as_nanos() as u64;
        let register =
            responder.acknowledge_register(Kind::ActionRequired).ok_or("a plan without records")?;
        let context = ReporterContext {
            now_ns,
            unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
            acknowledge_register: ram.load_u64(register)?,
            vcpu: None, // Only machine checks and external aborts need the vCPU's state.
        };
        Ok(ResponderContext { context, ..Default::default() })
    }

    /// Carries out an action of the responder.
    fn carry_out(action: Action<'_>, ram: &GuestRam, vcpu: &VcpuFd, out: &mut dyn Write) -> Result<()> {
        match action {
            // The only vCPU is not running: the guest cannot observe a part of the write.
            Action::Write { gpa, bytes } => ram.write(gpa, bytes)?,
            Action::InjectNmi { vcpu: index } => {
                writeln!(out, "vmm: inject an NMI into vCPU {index}")?;
                vcpu.nmi().map_err(|error| format!("KVM_NMI: {error}"))?;
            }
            Action::Event(event) => writeln!(out, "vmm: {event:x?}")?,
            Action::Stop { report } => return Err(report.to_string().into()),
            action => return Err(format!("not an action of this plan: {action:x?}").into()),
        }
        Ok(())
    }
}

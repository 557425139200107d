//! The emulated hosts: machines with real KVM and real memory failure handling.

use crate::architecture::Architecture;

use crate::apt::Release;

/// How a host of one architecture is emulated.
pub(crate) struct Host {
    pub(crate) architecture: Architecture,
    pub(crate) emulator: &'static str,
    /// The Debian release that the emulator is of.
    pub(crate) release: Release,
    pub(crate) machine: &'static [&'static str],
    /// The kernel's name of the first serial port.
    pub(crate) console: &'static str,
    /// Further parameters of the kernel's command line.
    pub(crate) cmdline: &'static str,
    /// Kernel of the host if a scenario names none.
    pub(crate) kernel: &'static str,
    /// Modules to load, in addition to their dependencies.
    pub(crate) modules: &'static [&'static str],
}

/// Modules of a host that runs a system from a disk, in addition: its file system, and the checksum of that, which it loads by itself.
pub(crate) const SYSTEM_MODULES: &[&str] = &["crc32c_generic", "ext4"];

const X86_64: Host = Host {
    architecture: Architecture::X86_64,
    emulator: "qemu-system-x86_64",
    release: Release::Bookworm,
    // One processor: with two, QEMU's SVM occasionally uses a stale translation, and the guest or the host takes a page fault at a
    // mapped address.
    machine: &["-M", "q35", "-cpu", "EPYC,+svm,+npt", "-smp", "1", "-m", "8G"],
    console: "ttyS0",
    // A periodic tick: QEMU's SVM updates the processor's pending interrupts without a lock at VMRUN and #VMEXIT, and drops an
    // interrupt that arrives at that moment. It stays pending in the local APIC and is delivered with the next one. Without a
    // periodic tick the dropped interrupt can be the timer's, and the host hangs.
    cmdline: "nohz=off highres=off",
    kernel: "6.1",
    modules: &[
        "virtio_pci",
        "virtio_console",
        "virtio_blk",
        "kvm-amd",
        "hwpoison-inject",
        "tun",
        "vhost_net",
    ],
};

/// A processor whose machine checks software can recover from (AMD's SUCCOR), so that one about a poisoned page is no panic. QEMU
/// emulates what that takes, but only its versions from 9.1 on know the flag, and none offers it for emulated processors by itself.
const X86_64_SUCCOR: Host = Host {
    release: Release::Trixie,
    machine: &[
        "-M",
        "q35",
        "-cpu",
        "EPYC,+svm,+npt,+succor,+overflow-recov,x-force-features=on",
        "-smp",
        "1",
        "-m",
        "8G",
    ],
    ..X86_64
};

const AARCH64: Host = Host {
    architecture: Architecture::Aarch64,
    emulator: "qemu-system-aarch64",
    release: Release::Bookworm,
    // No pointer authentication: its emulation would take most of the time. No 52-bit addresses: a stage 2 fault during a walk of the
    // guest's tables reports the level of the table, and KVM knows no level below 0 (6.1), or makes no progress (6.12 with pages of
    // 16 KiB).
    machine: &[
        "-M",
        "virt,virtualization=on,gic-version=3",
        "-cpu",
        "max,pauth=off,lpa2=off",
        "-smp",
        "2",
        "-m",
        "8G",
    ],
    console: "ttyAMA0",
    cmdline: "",
    kernel: "6.1",
    modules: &["virtio_pci", "virtio_console", "virtio_blk", "hwpoison-inject", "tun", "vhost_net"],
};

impl Host {
    pub(crate) fn of(architecture: Architecture) -> &'static Self {
        match architecture {
            Architecture::X86_64 => &X86_64,
            Architecture::Aarch64 => &AARCH64,
        }
    }

    /// The x86_64 host that can be sent machine checks.
    pub(crate) fn with_machine_checks() -> &'static Self {
        &X86_64_SUCCOR
    }
}

//! The emulated hosts: machines with real KVM and real memory failure handling.

use serde::Deserialize;

use crate::apt::Release;
use crate::architecture::Architecture;

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
    /// What Debian's emulator lacks: a change of its source, from which the lab builds one.
    pub(crate) patch: Option<&'static str>,
}

/// Errors that the hardware of a host reports by itself, beyond those that its kernel can be made to handle as if it had.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HardwareErrors {
    /// Machine checks, by the emulator's monitor (x86_64).
    MachineChecks,
    /// Synchronous external aborts of a guest's accesses to addresses at which there is nothing (aarch64).
    ExternalAborts,
    /// Records of its firmware, by the emulator's monitor (aarch64).
    Records,
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
    patch: None,
};

/// A processor whose machine checks software can recover from (AMD's SUCCOR), so that one about a poisoned page is no panic. QEMU
/// emulates what that takes, but only its versions from 9.1 on know the flag, and offer it for emulated processors only if they are forced
/// to. They would be to all other features of this processor, too: those that they do not emulate are off.
const X86_64_SUCCOR: Host = Host {
    release: Release::Trixie,
    machine: &[
        "-M",
        "q35",
        "-cpu",
        "EPYC,+svm,+npt,+succor,+overflow-recov,x-force-features=on,\
         -fxsr-opt,-misalignsse,-nrip-save,-osvw,-topoext,-xsavec",
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
    patch: None,
};

/// A processor that takes the external aborts of guests to the hypervisor, as KVM requests (HCR_EL2.TEA). QEMU has that bit, and takes
/// them to the guest nevertheless.
const AARCH64_EXTERNAL_ABORTS: Host =
    Host { patch: Some(include_str!("../images/qemu-external-aborts.patch")), ..AARCH64 };

/// A machine whose firmware has error records (APEI). QEMU's versions from 10.2 on can be sent some; UEFI firmware puts them into memory.
const AARCH64_RECORDS: Host = Host {
    release: Release::TrixieBackports,
    machine: &[
        "-M",
        "virt,virtualization=on,gic-version=3,ras=on",
        "-cpu",
        "max,pauth=off,lpa2=off",
        "-smp",
        "2",
        "-m",
        "8G",
        "-bios",
        "QEMU_EFI.fd",
    ],
    ..AARCH64
};

impl Host {
    pub(crate) fn of(architecture: Architecture) -> &'static Self {
        match architecture {
            Architecture::X86_64 => &X86_64,
            Architecture::Aarch64 => &AARCH64,
        }
    }

    /// The host whose hardware reports such errors.
    pub(crate) fn reporting(errors: HardwareErrors) -> &'static Self {
        match errors {
            HardwareErrors::MachineChecks => &X86_64_SUCCOR,
            HardwareErrors::ExternalAborts => &AARCH64_EXTERNAL_ABORTS,
            HardwareErrors::Records => &AARCH64_RECORDS,
        }
    }
}

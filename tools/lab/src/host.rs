//! The emulated hosts: machines with real KVM and real memory failure handling.

use crate::architecture::Architecture;

/// How a host of one architecture is emulated.
pub(crate) struct Host {
    pub(crate) emulator: &'static str,
    pub(crate) machine: &'static [&'static str],
    /// The kernel's name of the first serial port.
    pub(crate) console: &'static str,
    /// More words of the kernel's command line.
    pub(crate) cmdline: &'static str,
    /// Kernel that it runs when a scenario names none.
    pub(crate) kernel: &'static str,
    /// Modules to load; what they need comes along.
    pub(crate) modules: &'static [&'static str],
}

const X86_64: Host = Host {
    emulator: "qemu-system-x86_64",
    // One processor: with two, QEMU's SVM now and then runs a guest on a stale translation, and the guest, or the host
    // itself, dies of a page fault at an address that is mapped.
    machine: &["-M", "q35", "-cpu", "EPYC,+svm,+npt", "-smp", "1", "-m", "8G"],
    console: "ttyS0",
    // A tick that is always there: QEMU's SVM writes to the processor's pending interrupts without a lock at VMRUN and #VMEXIT, and
    // loses one that comes at that moment. It stays requested at the local APIC, and is seen when the next one comes; with a tick
    // on demand the lost one is now and then the tick itself, and the host stands still.
    cmdline: "nohz=off highres=off",
    kernel: "6.1",
    modules: &["virtio_pci", "virtio_console", "kvm-amd", "hwpoison-inject"],
};

const AARCH64: Host = Host {
    emulator: "qemu-system-aarch64",
    // Without pointer authentication: its emulation takes most of the time otherwise. Without 52-bit addresses: a fault on a page
    // below a table of the guest's tells the host the level of that table, and KVM knows none before 0 (6.1), or makes no
    // progress (6.12 with pages of 16 KiB).
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
    modules: &["virtio_pci", "virtio_console", "hwpoison-inject"],
};

impl Host {
    pub(crate) fn of(architecture: Architecture) -> &'static Self {
        match architecture {
            Architecture::X86_64 => &X86_64,
            Architecture::Aarch64 => &AARCH64,
        }
    }
}

//! Every section and key of a profile: its form, its default and one line about it.
//!
//! The reader and the JSON Schema both follow from these declarations, so they accept the same values.

use std::ops::RangeInclusive;
use std::time::Duration;

use ras_core::Response;
use ras_core::plan::decision::ErrorClass;

use crate::description::{Default, Key, Optional, Section, Shape};
use crate::forms::{FilePath, Flag, Integer, KernelPath, Period, ResponseName, Size, Text, Word, Words};
use crate::machine::{
    BootProtocol, Kernel, MemoryBacking, OnBudget, OnMissingSupport, OnReboot, PageSize, Repair, TableSet,
};

/// The section of that name.
pub(crate) fn section(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().copied().find(|section| section.name == name)
}

/// All sections, in the order of the documentation.
pub(crate) static SECTIONS: &[&Section] = &[
    &machine::SECTION,
    &memory::SECTION,
    &boot::SECTION,
    &ras::SECTION,
    &device::SECTION,
    &control::SECTION,
    &metrics::SECTION,
];

const fn word<T>(word: &'static str, value: T, doc: &'static str) -> Word<T> {
    Word { word, value, doc }
}

/// `[machine]`.
pub(crate) mod machine {
    use super::*;

    pub(crate) static SECTION: Section = Section {
        name: "machine",
        doc: "The machine.",
        shape: Shape::Once { required: true, keys: &[&NAME, &VCPUS, &MEMORY, &FIRMWARE, &ON_REBOOT] },
    };
    pub(crate) static NAME: Key<Text, Optional> = Key {
        name: "name",
        doc: "The machine's name.",
        form: Text {
            min: 1,
            max: (255, "the limit of Linux for names of files"),
            refused: NOT_IN_NAMES,
            example: "web-1",
        },
        absent: Optional("the profile's file name without its ending"),
    };
    pub(crate) static VCPUS: Key<Integer, Default<u32>> = Key {
        name: "vcpus",
        doc: "How many processors the guest has.",
        form: Integer { min: 1, max: 512, example: 2 },
        absent: Default(1),
    };
    pub(crate) static MEMORY: Key<Size, Default<u64>> = Key {
        name: "memory",
        doc: "How much memory the guest has: a multiple of memory.page-size.",
        form: Size {
            min: (platform::x86_64::MIN_MEMORY, "required for the firmware tables and the kernel"),
            max: (1 << 40, "the limit of this version"),
        },
        absent: Default(256 << 20),
    };
    pub(crate) static FIRMWARE: Key<Words<TableSet>, Default<TableSet>> = Key {
        name: "firmware",
        doc: "The tables that describe the machine to its guest.",
        form: Words(&[
            word("acpi", TableSet::Acpi, "ACPI, with error records"),
            word("devicetree", TableSet::Devicetree, "a devicetree (aarch64)"),
            word("mptable", TableSet::MpTable, "an Intel MP table (x86_64)"),
        ]),
        absent: Default(TableSet::Acpi),
    };
    pub(crate) static ON_REBOOT: Key<Words<OnReboot>, Default<OnReboot>> = Key {
        name: "on-reboot",
        doc: "The effect of a reset that the guest requests, or that a memory error causes.",
        form: Words(&[
            word("exit", OnReboot::Exit, "the VMM exits with status 0"),
            word(
                "restart",
                OnReboot::Restart,
                "the machine boots again, also after an end because of a memory error",
            ),
        ]),
        absent: Default(OnReboot::Exit),
    };

    /// Characters that a name must not contain: it is used in names of files, and shown on terminals.
    const NOT_IN_NAMES: &[RangeInclusive<char>] = &['\0'..='\x1f', '/'..='/', '\x7f'..='\u{9f}'];

    /// The name of a machine whose profile sets none: that of the file, without the characters that a name must not contain.
    pub(crate) fn name_of_file(stem: &str) -> String {
        let allowed = |c: &char| !NOT_IN_NAMES.iter().any(|range| range.contains(c));
        let name: String = stem.chars().filter(allowed).collect();
        if name.is_empty() { SECTION.name.to_owned() } else { name }
    }
}

/// `[memory]`.
pub(crate) mod memory {
    use super::*;

    pub(crate) static SECTION: Section = Section {
        name: "memory",
        doc: "The backing of the guest's memory.",
        shape: Shape::Once { required: false, keys: &[&BACKING, &PAGE_SIZE, &PATH] },
    };
    pub(crate) static BACKING: Key<Words<MemoryBacking>, Default<MemoryBacking>> = Key {
        name: "backing",
        doc: "What backs the guest's memory on the host.",
        form: Words(&[
            word("anonymous", MemoryBacking::Anonymous, "private anonymous memory"),
            word("memfd", MemoryBacking::Memfd, "a memfd, shared"),
            word("hugetlbfs", MemoryBacking::Hugetlbfs, "the host's pool of huge pages"),
        ]),
        absent: Default(MemoryBacking::Anonymous),
    };
    pub(crate) static PAGE_SIZE: Key<Words<PageSize>, Optional> = Key {
        name: "page-size",
        doc: "The size of the pages that back the guest.",
        form: Words(&[
            word("4KiB", PageSize::Small, "for anonymous and memfd"),
            word("2MiB", PageSize::Large, "for hugetlbfs"),
            word("1GiB", PageSize::Giant, "for hugetlbfs"),
        ]),
        absent: Optional("2MiB with hugetlbfs, else 4KiB"),
    };
    pub(crate) static PATH: Key<FilePath, Optional> = Key {
        name: "path",
        doc: "The file whose pages the memory is, relative to the profile; made if it is missing. It keeps its pages when the machine ends, and so which of them are poisoned. With memfd on a tmpfs, with hugetlbfs on a hugetlbfs of that page size.",
        form: FilePath { example: "/dev/hugepages/web-1" },
        absent: Optional("none: the memory ends with the process"),
    };
}

/// `[boot]`.
pub(crate) mod boot {
    use super::*;

    /// The limit of Linux is 2048 bytes with the terminating NUL, on x86 and on arm64 (COMMAND_LINE_SIZE in
    /// arch/x86/include/asm/setup.h and arch/arm64/include/uapi/asm/setup.h).
    const MAX_CMDLINE_LEN: usize = 2047;

    pub(crate) static SECTION: Section = Section {
        name: "boot",
        doc: "What is booted.",
        shape: Shape::Once { required: false, keys: &[&KERNEL, &INITRD, &CMDLINE, &PROTOCOL] },
    };
    pub(crate) static KERNEL: Key<KernelPath, Default<Kernel>> = Key {
        name: "kernel",
        doc: "The kernel, relative to the profile.",
        form: KernelPath,
        absent: Default(Kernel::BuiltinProbe),
    };
    pub(crate) static INITRD: Key<FilePath, Optional> = Key {
        name: "initrd",
        doc: "The initial RAM disk, relative to the profile.",
        form: FilePath { example: "initrd.img" },
        absent: Optional("none"),
    };
    pub(crate) static CMDLINE: Key<Text, Default<String>> = Key {
        name: "cmdline",
        doc: "The kernel's command line.",
        form: Text {
            min: 0,
            max: (MAX_CMDLINE_LEN, "the limit of Linux"),
            refused: &['\0'..='\0', '\n'..='\n', '\r'..='\r'],
            example: "console=ttyS0",
        },
        absent: Default(String::new()),
    };
    pub(crate) static PROTOCOL: Key<Words<BootProtocol>, Default<BootProtocol>> = Key {
        name: "protocol",
        doc: "How the kernel is entered.",
        form: Words(&[
            word("auto", BootProtocol::Auto, "PVH if the kernel file supports it, else linux"),
            word("linux", BootProtocol::Linux, "the Linux boot protocol"),
            word("pvh", BootProtocol::Pvh, "PVH (x86_64)"),
        ]),
        absent: Default(BootProtocol::Auto),
    };
}

/// `[ras]`.
pub(crate) mod ras {
    use super::*;

    pub(crate) static SECTION: Section = Section {
        name: "ras",
        doc: "How memory errors are handled.",
        shape: Shape::Once {
            required: false,
            keys: &[
                &SYNCHRONOUS,
                &ASYNCHRONOUS,
                &POLL_INTERVAL,
                &ON_MISSING_SUPPORT,
                &REPAIR,
                &CORRECTED,
                &CORRECTED_THRESHOLD,
                &CORRECTED_WINDOW,
                &INJECTION,
                &BOOT_RECORD,
                &PERSISTENT_STORE,
                &LEDGER,
                &BUDGET,
                &ON_BUDGET,
            ],
        },
    };
    pub(crate) static SYNCHRONOUS: Key<ResponseName, Default<Option<Response>>> = Key {
        name: "synchronous",
        doc: "The response to an error that a processor consumed (action required).",
        form: ResponseName(ErrorClass::Consumed),
        absent: Default(None),
    };
    pub(crate) static ASYNCHRONOUS: Key<ResponseName, Default<Option<Response>>> = Key {
        name: "asynchronous",
        doc: "The response to an error that was detected and not consumed (action optional).",
        form: ResponseName(ErrorClass::Detected),
        absent: Default(None),
    };
    pub(crate) static POLL_INTERVAL: Key<Period, Default<Duration>> = Key {
        name: "poll-interval",
        doc: "How often the guest polls for a record.",
        form: Period {
            min: (1, "the unit of the interval in HEST"),
            max: (3_600_000, "because an error that is read later may as well be ignored"),
        },
        absent: Default(Duration::from_secs(1)),
    };
    pub(crate) static ON_MISSING_SUPPORT: Key<Words<OnMissingSupport>, Default<OnMissingSupport>> = Key {
        name: "on-missing-support",
        doc: "What to do if the host does not support a response.",
        form: Words(&[
            word("degrade", OnMissingSupport::Degrade, "use the next best response and report it"),
            word("refuse", OnMissingSupport::Refuse, "do not boot"),
        ]),
        absent: Default(OnMissingSupport::Degrade),
    };
    pub(crate) static REPAIR: Key<Words<Repair>, Default<Repair>> = Key {
        name: "repair",
        doc: "When a poisoned page is replaced.",
        form: Words(&[
            word("on-reset", Repair::OnReset, "when the guest is reset"),
            word("when-acknowledged", Repair::WhenAcknowledged, "when the guest acknowledged the record"),
            word("never", Repair::Never, "never"),
        ]),
        absent: Default(Repair::OnReset),
    };
    pub(crate) static CORRECTED: Key<Words<Option<Response>>, Default<Option<Response>>> = Key {
        name: "corrected",
        doc: "Whether the guest has a source of corrected errors, and how it is notified of them. With ACPI only.",
        form: Words(&[
            word("off", None, "it has none"),
            word("polled", Some(Response::Polled), "it polls, every `poll-interval`"),
            word("gsiv", Some(Response::Gsiv), "an interrupt"),
        ]),
        absent: Default(None),
    };
    pub(crate) static CORRECTED_THRESHOLD: Key<Integer, Default<u32>> = Key {
        name: "corrected-threshold",
        doc: "How many corrected errors of one page within `corrected-window` make the record say that the threshold is exceeded: Linux then soft-offlines the page. 0: none.",
        form: Integer { min: 0, max: 1_000_000, example: 10 },
        // That of mcelog, which does the same on physical machines (`[page] memory-ce-threshold = 10 / 24h`).
        absent: Default(10),
    };
    pub(crate) static CORRECTED_WINDOW: Key<Period, Default<Duration>> = Key {
        name: "corrected-window",
        doc: "How long after the first of them the errors of a page count.",
        form: Period {
            min: (1, "its unit"),
            max: (30 * 24 * 3_600_000, "because older errors say little about a page"),
        },
        absent: Default(Duration::from_secs(24 * 3_600)),
    };
    pub(crate) static INJECTION: Key<Flag, Default<bool>> = Key {
        name: "injection",
        doc: "Whether the guest can inject errors into its own memory (EINJ), with ACPI only.",
        form: Flag,
        absent: Default(false),
    };
    pub(crate) static BOOT_RECORD: Key<Flag, Default<bool>> = Key {
        name: "boot-record",
        doc: "Whether the next boot finds the record of an error that ended the one before (BERT). With ACPI only: other tables have no place for it.",
        form: Flag,
        absent: Default(true),
    };
    pub(crate) static PERSISTENT_STORE: Key<FilePath, Optional> = Key {
        name: "persistent-store",
        doc: "The file in which the guest keeps its last log and error records (ERST, pstore), relative to the profile; made if it is missing. With ACPI only.",
        form: FilePath { example: "/var/lib/ghest/web-1/store.erst" },
        absent: Optional("none"),
    };
    pub(crate) static LEDGER: Key<FilePath, Optional> = Key {
        name: "ledger",
        doc: "The file in which the ledger of poisoned pages is kept, relative to the profile; made if it is missing. It is read at the next start: with `memory.path`, what is poisoned is not used again.",
        form: FilePath { example: "/var/lib/ghest/web-1/ledger" },
        absent: Optional("none"),
    };
    pub(crate) static BUDGET: Key<Integer, Optional> = Key {
        name: "budget",
        doc: "How many distinct pages of 4 KiB may be poisoned until the machine should move to another host.",
        form: Integer { min: 1, max: MAX_BUDGET, example: 64 },
        absent: Optional("no limit"),
    };
    pub(crate) static ON_BUDGET: Key<Words<OnBudget>, Default<OnBudget>> = Key {
        name: "on-budget",
        doc: "What follows the event `evacuate` when the budget is spent.",
        form: Words(&[
            word("report", OnBudget::Report, "nothing else"),
            word("power-button", OnBudget::PowerButton, "press the machine's power button"),
            word("stop", OnBudget::Stop, "stop the machine with status 12"),
        ]),
        absent: Default(OnBudget::Report),
    };

    /// The pages of the largest machine.
    const MAX_BUDGET: u32 = 1 << 28;
}

/// `[[device]]`.
pub(crate) mod device {
    use super::*;

    pub(crate) static SECTION: Section = Section {
        name: "device",
        doc: "A device, in addition to those of every machine.",
        shape: Shape::Devices,
    };
}

/// `[control]`.
pub(crate) mod control {
    use super::*;

    pub(crate) static SECTION: Section = Section {
        name: "control",
        doc: "How a running machine is controlled.",
        shape: Shape::Once { required: false, keys: &[&SOCKET] },
    };
    pub(crate) static SOCKET: Key<FilePath, Optional> = Key {
        name: "socket",
        doc: "The control socket, relative to the profile; at most 107 bytes after it is resolved.",
        form: FilePath { example: "/run/web-1.sock" },
        absent: Optional("none"),
    };
}

/// `[metrics]`.
pub(crate) mod metrics {
    use super::*;

    pub(crate) static SECTION: Section = Section {
        name: "metrics",
        doc: "Metrics of a running machine, in the text form of Prometheus.",
        shape: Shape::Once { required: false, keys: &[&FILE, &INTERVAL] },
    };
    pub(crate) static FILE: Key<FilePath, Optional> = Key {
        name: "file",
        doc: "The file that has them while the machine runs, relative to the profile. It is replaced as a whole each time.",
        form: FilePath { example: "/run/ghest/web-1/metrics.prom" },
        absent: Optional("none"),
    };
    pub(crate) static INTERVAL: Key<Period, Default<Duration>> = Key {
        name: "interval",
        doc: "How often the file is written.",
        form: Period {
            min: (100, "because nothing reads it more often"),
            max: (3_600_000, "because metrics of that age say little about the machine"),
        },
        absent: Default(Duration::from_secs(10)),
    };
}

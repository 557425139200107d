//! What each key may say by itself, but not beside what another key or the architecture says.

use platform::{Arch, x86_64};

use crate::answers::{Answers, default_page_size};
use crate::device_kind::FileUse;
use crate::diagnostic::{Diagnostic, Report};
use crate::machine::{Asynchronous, Backing, BootProtocol, Firmware, Kernel, PageSize, Synchronous};
use crate::reader::Setting;
use crate::units;

/// The longest path of a socket: `sun_path` of `struct sockaddr_un` has 108 bytes, the last one a NUL (unix(7)).
const LONGEST_SOCKET: usize = 107;
/// Processors that an MP table can name: an APIC id has eight bits, 255 addresses all of them (Intel MultiProcessor
/// Specification 1.4, 4.3.1), and the I/O APIC needs one too.
const MOST_MPTABLE_VCPUS: u32 = 254;

/// Reports every impossible combination.
pub(crate) fn check(answers: &Answers, arch: Arch, report: &mut Report) {
    let problems = [
        firmware(answers, arch),
        mptable_vcpus(answers),
        page_size(answers),
        memory(answers),
        protocol(answers, arch),
        initrd(answers),
        synchronous(answers, arch),
        asynchronous(answers, arch),
        poll_interval(answers),
        socket(answers),
        too_many_devices(answers, arch),
    ];
    for problem in problems.into_iter().flatten().chain(shared_files(answers)) {
        report.push(problem);
    }
}

fn firmware(answers: &Answers, arch: Arch) -> Option<Diagnostic> {
    let firmware = answers.firmware.as_ref().ok()?;
    match (firmware.value, arch) {
        (Firmware::Acpi, _) | (Firmware::Devicetree, Arch::Aarch64) | (Firmware::MpTable, Arch::X86_64) => {
            None
        }
        (Firmware::Devicetree, Arch::X86_64) => Some(firmware.refused(
            "an x86_64 guest is not described by a devicetree",
            "write `\"acpi\"`, or `\"mptable\"` for tables without ACPI",
        )),
        (Firmware::MpTable, Arch::Aarch64) => Some(firmware.refused(
            "an aarch64 guest is not described by an MP table",
            "write `\"acpi\"`, or `\"devicetree\"` for tables without ACPI",
        )),
    }
}

fn mptable_vcpus(answers: &Answers) -> Option<Diagnostic> {
    let (vcpus, firmware) = (answers.vcpus.as_ref().ok()?, answers.firmware.as_ref().ok()?);
    let fits = firmware.value != Firmware::MpTable || vcpus.value <= MOST_MPTABLE_VCPUS;
    (!fits).then(|| {
        vcpus
            .refused(
                format!("an MP table names at most {MOST_MPTABLE_VCPUS} processors, by ids of eight bits"),
                format!("write `{MOST_MPTABLE_VCPUS}` or less, or choose the firmware `\"acpi\"`"),
            )
            .beside(&firmware.place, "the MP table is chosen here")
    })
}

fn page_size(answers: &Answers) -> Option<Diagnostic> {
    let backing = answers.backing.as_ref().ok()?;
    let page_size = answers.page_size.as_ref().ok()?.as_ref()?;
    let refused = match (backing.value, page_size.value) {
        (Backing::Hugetlbfs, PageSize::Large | PageSize::Giant)
        | (Backing::Anonymous | Backing::Memfd, PageSize::Small) => return None,
        (Backing::Hugetlbfs, PageSize::Small) => page_size.refused(
            "the host's pool of huge pages has none that small",
            "write `\"2MiB\"` or `\"1GiB\"`, or choose the backing `\"anonymous\"` or `\"memfd\"`",
        ),
        (Backing::Anonymous | Backing::Memfd, PageSize::Large | PageSize::Giant) => page_size.refused(
            "only the backing `\"hugetlbfs\"` has pages that big",
            "add `backing = \"hugetlbfs\"` to `[memory]`, or write `\"4KiB\"`",
        ),
    };
    Some(beside_given(refused, backing, "the backing is chosen here"))
}

fn memory(answers: &Answers) -> Option<Diagnostic> {
    let (memory, backing) = (answers.memory.as_ref().ok()?, answers.backing.as_ref().ok()?);
    let page_size = answers.page_size.as_ref().ok()?.as_ref();
    let page = page_size.map_or(default_page_size(backing.value), |setting| setting.value).bytes();
    if memory.value.is_multiple_of(page) {
        return None;
    }
    let shown = |bytes| units::format(bytes, units::SIZES);
    let below = memory.value / page * page;
    let fitting = if below == 0 { page } else { below };
    match page_size {
        Some(page_size) if !memory.given => Some(page_size.refused(
            format!("the machine has {}, which is no multiple of it", shown(memory.value)),
            format!("add `memory = \"{}\"` to `[machine]`, or choose smaller pages", shown(fitting)),
        )),
        _ => {
            let refused = memory.refused(
                format!("it is no multiple of the page size, {}", shown(page)),
                format!("write `\"{}\"`", shown(fitting)),
            );
            Some(match page_size {
                Some(page_size) => refused.beside(&page_size.place, "the page size is chosen here"),
                None => beside_given(refused, backing, "the page size follows from the backing"),
            })
        }
    }
}

fn protocol(answers: &Answers, arch: Arch) -> Option<Diagnostic> {
    let protocol = answers.protocol.as_ref().ok()?;
    (protocol.value == BootProtocol::Pvh && arch != Arch::X86_64).then(|| {
        protocol.refused(
            format!("PVH is of x86_64, and the guest is {arch}"),
            "write `\"linux\"`, or leave the key out",
        )
    })
}

fn initrd(answers: &Answers) -> Option<Diagnostic> {
    let (kernel, initrd) = (answers.kernel.as_ref().ok()?, answers.initrd.as_ref().ok()?.as_ref()?);
    (kernel.value == Kernel::BuiltinProbe).then(|| {
        let refused = initrd.refused(
            "the built-in guest takes no initial RAM disk",
            "name the kernel it belongs to, `kernel = \"...\"`, or leave the key out",
        );
        beside_given(refused, kernel, "the built-in guest is chosen here")
    })
}

fn synchronous(answers: &Answers, arch: Arch) -> Option<Diagnostic> {
    let answer = answers.synchronous.as_ref().ok()?;
    // Its architecture and, if it writes a record, the like of it that writes none.
    let (of, without_record) = match answer.value {
        Synchronous::Auto | Synchronous::Stop => return None,
        Synchronous::Sea => (Arch::Aarch64, Some("\"abort\"")),
        Synchronous::Sei => (Arch::Aarch64, Some("\"serror\"")),
        Synchronous::Abort | Synchronous::Serror => (Arch::Aarch64, None),
        Synchronous::Nmi => (Arch::X86_64, Some("\"mce\"")),
        Synchronous::Mce => (Arch::X86_64, None),
    };
    if of != arch {
        let words = match (arch, has_acpi(answers)) {
            (Arch::X86_64, true) => "`\"mce\"`, `\"nmi\"`",
            (Arch::X86_64, false) => "`\"mce\"`",
            (Arch::Aarch64, true) => "`\"sea\"`, `\"sei\"`, `\"abort\"`, `\"serror\"`",
            (Arch::Aarch64, false) => "`\"abort\"`, `\"serror\"`",
        };
        return Some(answer.refused(
            format!("it is of {of}, and the guest is {arch}"),
            format!("write {words} or `\"auto\"`"),
        ));
    }
    without_record.and_then(|instead| without_acpi(answers, answer, instead))
}

fn asynchronous(answers: &Answers, arch: Arch) -> Option<Diagnostic> {
    let answer = answers.asynchronous.as_ref().ok()?;
    let x86_64_only = match answer.value {
        Asynchronous::Auto | Asynchronous::Ignore | Asynchronous::Stop => return None,
        Asynchronous::Polled | Asynchronous::Gsiv | Asynchronous::Gpio => false,
        Asynchronous::External | Asynchronous::Mce => true,
    };
    if x86_64_only && arch != Arch::X86_64 {
        let words = if has_acpi(answers) {
            "`\"gsiv\"`, `\"gpio\"`, `\"polled\"`"
        } else {
            "`\"gsiv\"`, `\"ignore\"`"
        };
        return Some(answer.refused(
            format!("it is of x86_64, and the guest is {arch}"),
            format!("write {words} or `\"auto\"`"),
        ));
    }
    match (answer.value, arch) {
        (Asynchronous::Mce, _) => None,
        (_, Arch::X86_64) => without_acpi(answers, answer, "\"ignore\""),
        (value, Arch::Aarch64) => {
            let firmware = answers.firmware.as_ref().ok()?;
            (firmware.value != Firmware::Acpi && value != Asynchronous::Gsiv).then(|| {
                answer
                    .refused(
                        "a devicetree leads to error records by `arm,ras-cper` alone, which tells of them by an interrupt",
                        "write `\"gsiv\"`, `\"auto\"` or `\"ignore\"`, or choose the firmware `\"acpi\"`",
                    )
                    .beside(&firmware.place, "tables without ACPI are chosen here")
            })
        }
    }
}

fn has_acpi(answers: &Answers) -> bool {
    answers.firmware.as_ref().is_ok_and(|firmware| firmware.value == Firmware::Acpi)
}

/// An answer that writes a record, where the tables have no room for one.
fn without_acpi<T>(answers: &Answers, answer: &Setting<T>, instead: &str) -> Option<Diagnostic> {
    let firmware = answers.firmware.as_ref().ok()?;
    (firmware.value != Firmware::Acpi).then(|| {
        answer
            .refused(
                "it writes an error record, and only ACPI tables say where that is",
                format!("write `\"auto\"` or `{instead}`, or choose the firmware `\"acpi\"`"),
            )
            .beside(&firmware.place, "tables without ACPI are chosen here")
    })
}

fn poll_interval(answers: &Answers) -> Option<Diagnostic> {
    let interval = answers.poll_interval.as_ref().ok()?;
    let asynchronous = answers.asynchronous.as_ref().ok()?;
    let used = matches!(asynchronous.value, Asynchronous::Polled | Asynchronous::Auto);
    (interval.given && !used).then(|| {
        interval
            .refused("nothing is polled", "leave the key out, or write `asynchronous = \"polled\"`")
            .beside(&asynchronous.place, "another answer is chosen here")
    })
}

fn socket(answers: &Answers) -> Option<Diagnostic> {
    let socket = answers.control_socket.as_ref().ok()?.as_ref()?;
    let len = socket.value.as_os_str().len();
    (len > LONGEST_SOCKET).then(|| {
        socket.refused(
            format!(
                "with the profile's directory it is {len} bytes long; the most for a socket is {LONGEST_SOCKET}"
            ),
            "choose a shorter path, for example below `/run`",
        )
    })
}

fn too_many_devices(answers: &Answers, arch: Arch) -> Option<Diagnostic> {
    let most = match arch {
        Arch::X86_64 => x86_64::VIRTIO_GSIS.len(),
        Arch::Aarch64 => return None,
    };
    let devices = answers.devices.as_ref().ok()?;
    let first_beyond = devices.get(most)?;
    Some(Diagnostic::new(
        first_beyond.place.clone(),
        format!("device.{most}"),
        format!("`device` has {} entries; an {arch} machine has interrupts for {most}", devices.len()),
        format!("remove {}", devices.len() - most),
    ))
}

/// Files that two devices open, at least one of them for writing.
fn shared_files(answers: &Answers) -> Vec<Diagnostic> {
    let files: Vec<&FileUse> = answers.devices.iter().flatten().flat_map(|device| &device.files).collect();
    let clash = |(index, file): (usize, &&FileUse)| {
        let shares = |other: &&&FileUse| other.path.value == file.path.value && (other.writes || file.writes);
        let first = files.iter().take(index).find(shares)?;
        let refused = file.path.refused(
            "another device of the machine uses that file, and one of the two may write to it",
            "name another file, or write `read-only = true` for both",
        );
        Some(refused.beside(&first.path.place, "the same file"))
    };
    files.iter().enumerate().filter_map(clash).collect()
}

/// Adds the place of a setting that has one of its own.
fn beside_given<T>(diagnostic: Diagnostic, setting: &Setting<T>, message: &str) -> Diagnostic {
    if setting.given { diagnostic.beside(&setting.place, message) } else { diagnostic }
}

//! What a profile asks for, in `ras-core`'s words.

use std::num::NonZeroU32;

use machine_profile as profile;
use platform::Arch;
use ras_core::request as ras;

/// What the machine's profile asks for.
#[must_use]
pub fn of(machine: &profile::Machine) -> ras::Request {
    ras::Request {
        arch: arch(machine.arch),
        tables: match machine.firmware {
            profile::Firmware::Acpi => ras::TableSet::Acpi,
            profile::Firmware::Devicetree => ras::TableSet::Devicetree,
            profile::Firmware::MpTable => ras::TableSet::MpTable,
        },
        synchronous: match machine.ras.synchronous {
            profile::Synchronous::Auto => ras::Synchronous::Auto,
            profile::Synchronous::Sea => ras::Synchronous::Sea,
            profile::Synchronous::Sei => ras::Synchronous::Sei,
            profile::Synchronous::Nmi => ras::Synchronous::Nmi,
            profile::Synchronous::Mce => ras::Synchronous::Mce,
            profile::Synchronous::Abort => ras::Synchronous::Abort,
            profile::Synchronous::Serror => ras::Synchronous::Serror,
            profile::Synchronous::Stop => ras::Synchronous::Stop,
        },
        asynchronous: match machine.ras.asynchronous {
            profile::Asynchronous::Auto => ras::Asynchronous::Auto,
            profile::Asynchronous::Polled => ras::Asynchronous::Polled,
            profile::Asynchronous::Gsiv => ras::Asynchronous::Gsiv,
            profile::Asynchronous::Gpio => ras::Asynchronous::Gpio,
            profile::Asynchronous::External => ras::Asynchronous::External,
            profile::Asynchronous::Mce => ras::Asynchronous::Mce,
            profile::Asynchronous::Ignore => ras::Asynchronous::Ignore,
            profile::Asynchronous::Stop => ras::Asynchronous::Stop,
        },
        // A profile's interval is 1 ms to 1 h.
        poll_interval_ms: u32::try_from(machine.ras.poll_interval.as_millis())
            .ok()
            .and_then(NonZeroU32::new)
            .unwrap_or(NonZeroU32::MIN),
        on_missing_support: match machine.ras.on_missing_support {
            profile::OnMissingSupport::Degrade => ras::OnMissingSupport::Degrade,
            profile::OnMissingSupport::Refuse => ras::OnMissingSupport::Refuse,
        },
        repair: match machine.ras.repair {
            profile::Repair::OnReset => ras::Repair::OnReset,
            profile::Repair::WhenAcknowledged => ras::Repair::WhenAcknowledged,
            profile::Repair::Never => ras::Repair::Never,
        },
    }
}

/// The architecture, in `ras-core`'s words.
#[must_use]
pub const fn arch(arch: Arch) -> ras::Arch {
    match arch {
        Arch::Aarch64 => ras::Arch::Aarch64,
        Arch::X86_64 => ras::Arch::X86_64,
    }
}

//! Values of the machine-check registers.

/// MCi_MISC: a physical address (mode 2, bits 8:6), valid to 4 KiB (12, bits 5:0). Linux clears the address's bits below: with a coarser
/// granule it would offline the wrong page.
pub(super) const MISC: u64 = 2 << 6 | 12;

/// MCi_STATUS (Intel SDM volume 3, Machine-Check Architecture, IA32_MCi_STATUS; AMD APM volume 2, chapter 9).
pub(super) mod status {
    /// The bank holds an error.
    pub(in super::super) const VAL: u64 = 1 << 63;
    /// Uncorrected.
    pub(in super::super) const UC: u64 = 1 << 61;
    /// Enabled, with a valid physical address: VAL, EN, MISCV, ADDRV.
    pub(in super::super) const REPORTED: u64 = VAL | 1 << 60 | 1 << 59 | 1 << 58;
    /// The same, and UC.
    pub(in super::super) const UNCORRECTED: u64 = REPORTED | UC;
    /// Processor context corrupt: the program cannot be resumed.
    pub(in super::super) const PCC: u64 = 1 << 57;
    /// Intel: signalled by an exception.
    pub(in super::super) const S: u64 = 1 << 56;
    /// Intel: action required.
    pub(in super::super) const AR: u64 = 1 << 55;
    /// AMD: deferred, not consumed yet.
    pub(in super::super) const DEFERRED: u64 = 1 << 44;
    /// AMD: poisoned data.
    pub(in super::super) const POISON: u64 = 1 << 43;
    /// Intel: data load, an architecturally defined SRAR error.
    pub(in super::super) const DATA_LOAD: u64 = 0x134;
    /// Intel: memory scrub, channel 0, an architecturally defined SRAO error.
    pub(in super::super) const SCRUB: u64 = 0xc0;
}

/// MCG_STATUS (Intel SDM volume 3, Machine-Check Architecture, IA32_MCG_STATUS).
pub(super) mod mcg {
    /// The exception is in progress.
    pub(in super::super) const MCIP: u64 = 1 << 2;
    /// MCIP and RIPV: the exception is in progress, and the program can be resumed.
    pub(in super::super) const TAKEN: u64 = MCIP | 1;
    /// The interrupted instruction is the one that consumed the error.
    pub(in super::super) const EIPV: u64 = 1 << 1;
    /// Local: only this processor takes it.
    pub(in super::super) const LMCE: u64 = 1 << 3;
}

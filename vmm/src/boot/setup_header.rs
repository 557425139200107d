//! The setup header of a bzImage, as far as this VMM reads it (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").
//!
//! It is read on both architectures: a profile for an x86_64 machine can be checked on any host.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The header up to `init_size`.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct SetupHeader {
    setup_sects: u8,
    root_flags: U16,
    syssize: U32,
    ram_size: U16,
    vid_mode: U16,
    root_dev: U16,
    boot_flag: U16,
    jump: U16,
    header: [u8; 4],
    version: U16,
    realmode_swtch: U32,
    start_sys_seg: U16,
    kernel_version: U16,
    type_of_loader: u8,
    loadflags: u8,
    setup_move_size: U16,
    code32_start: U32,
    ramdisk_image: U32,
    ramdisk_size: U32,
    bootsect_kludge: U32,
    heap_end_ptr: U16,
    ext_loader_ver: u8,
    ext_loader_type: u8,
    cmd_line_ptr: U32,
    initrd_addr_max: U32,
    kernel_alignment: U32,
    relocatable_kernel: u8,
    min_alignment: u8,
    xloadflags: U16,
    cmdline_size: U32,
    hardware_subarch: U32,
    hardware_subarch_data: U64,
    payload_offset: U32,
    payload_length: U32,
    setup_data: U64,
    pref_address: U64,
    init_size: U32,
}

/// Offset of the header in the file.
const START: usize = 0x1f1;
/// Bytes of a file that hold the header.
pub(super) const END: usize = START + size_of::<SetupHeader>();

const _: () = assert!(END == 0x264);

impl SetupHeader {
    /// The header of a file that starts with these bytes. `None` if it is not a bzImage.
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        // A file may end anywhere after the signature. Fields that it does not have are 0, which is a protocol of version 0.
        let mut bytes = [0; END - START];
        let present = start.get(START..)?;
        let len = present.len().min(bytes.len());
        bytes[..len].copy_from_slice(&present[..len]);
        let header: SetupHeader = zerocopy::transmute!(bytes);
        (header.header == *b"HdrS").then_some(header)
    }

    /// Version of the boot protocol: major and minor.
    pub(super) fn version(&self) -> (u8, u8) {
        let [minor, major] = self.version.get().to_le_bytes();
        (major, minor)
    }

    /// The longest command line that the kernel takes, in bytes, without its terminating NUL.
    pub(super) fn command_line_max(&self) -> usize {
        if self.version() >= (2, 6) { self.cmdline_size.get() as usize } else { 255 }
    }
}

/// What a loader reads.
#[cfg(target_arch = "x86_64")]
impl SetupHeader {
    /// The features of the 64-bit protocol. 0 in versions that do not have the field.
    pub(super) fn xloadflags(&self) -> u16 {
        if self.version() >= (2, 12) { self.xloadflags.get() } else { 0 }
    }

    /// Where the loader is to put the protected-mode code.
    pub(super) fn load_address(&self) -> u64 {
        self.code32_start.get().into()
    }

    /// Where the kernel runs, and how many bytes it uses there before it reads the memory map. It decompresses itself to that place.
    pub(super) fn runtime(&self) -> (u64, u64) {
        (self.pref_address.get(), self.init_size.get().into())
    }

    /// The alignment of other places at which it can run. `None` if there are none.
    pub(super) fn relocation_alignment(&self) -> Option<u64> {
        let alignment = u64::from(self.kernel_alignment.get());
        (self.relocatable_kernel != 0 && alignment.is_power_of_two()).then_some(alignment)
    }

    /// Bytes of the protected-mode code, in units of 16 bytes.
    pub(super) fn code_len(&self) -> u64 {
        u64::from(self.syssize.get()) * 16
    }

    /// Offset of the protected-mode code in the file, after the boot sector and the setup code.
    pub(super) fn code_start(&self) -> u64 {
        const SECTOR: u64 = 512;
        let sectors = if self.setup_sects == 0 { 4 } else { u64::from(self.setup_sects) };
        (sectors + 1) * SECTOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u16, cmdline_size: u32, xloadflags: u16) -> Vec<u8> {
        let mut file = vec![0; END];
        file[0x202..0x206].copy_from_slice(b"HdrS");
        file[0x206..0x208].copy_from_slice(&version.to_le_bytes());
        file[0x236..0x238].copy_from_slice(&xloadflags.to_le_bytes());
        file[0x238..0x23c].copy_from_slice(&cmdline_size.to_le_bytes());
        file
    }

    #[test]
    fn fields_exist_from_their_version_on() {
        for (version, line) in [(0x205, 255), (0x206, 1000), (0x20f, 1000)] {
            let header = SetupHeader::of(&file(version, 1000, 1)).expect("a bzImage");
            assert_eq!(header.command_line_max(), line, "{version:#x}");
        }
        #[cfg(target_arch = "x86_64")]
        for (version, flags) in [(0x20b, 0), (0x20c, 1), (0x20f, 1)] {
            let header = SetupHeader::of(&file(version, 1000, 1)).expect("a bzImage");
            assert_eq!(header.xloadflags(), flags, "{version:#x}");
        }
    }

    #[test]
    fn a_file_without_the_signature_is_no_bzimage() {
        assert!(SetupHeader::of(&[]).is_none());
        assert!(SetupHeader::of(&[0xaa; 0x300]).is_none());
        assert!(SetupHeader::of(&file(0x20f, 0, 0)[..0x205]).is_none());
        assert_eq!(SetupHeader::of(&file(0x20f, 0, 0)[..0x208]).expect("a bzImage").version(), (2, 15));
    }
}

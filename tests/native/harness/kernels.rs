//! Generated kernels for tests: valid ones that do one thing, and invalid files.

use devices::error_serialization;
use linux_loader::loader::bootparam::setup_header;
use platform::x86_64::{
    ERROR_SERIALIZATION_BASE, GED_BASE, POWER_PORT, RESET_VALUE, S5_SLEEP_TYPE, SERIAL_PORT,
};
use vm_memory::ByteValued;

/// Where a bzImage's protected-mode code is loaded.
pub(crate) const LOAD: u64 = 0x10_0000;

/// Bytes with such a long period that a missing, repeated or misplaced part is noticed.
pub(crate) fn pattern(len: u64) -> Vec<u8> {
    (0..len).map(|n| (n * n % 251 + n / 251) as u8).collect()
}

/// A bzImage that prints its initrd, byte by byte, and switches off.
pub(crate) fn prints_initrd() -> Vec<u8> {
    // mov ecx, [rsi + ramdisk_size]; mov esi, [rsi + ramdisk_image]: rsi is at the boot parameters.
    let what = [0x8b, 0x8e, 0x1c, 0x02, 0, 0, 0x8b, 0xb6, 0x18, 0x02, 0, 0];
    bz_image(&prints(&what))
}

/// A bzImage that prints memory, byte by byte, and switches off.
pub(crate) fn prints_memory(gpa: u32, len: u32) -> Vec<u8> {
    prints_memory_with(valid_header(), gpa, len)
}

/// The same, with these fields in its setup header.
pub(crate) fn prints_memory_with(header: setup_header, gpa: u32, len: u32) -> Vec<u8> {
    // mov ecx, len; mov esi, gpa
    let mut what = vec![0xb9];
    what.extend(len.to_le_bytes());
    what.push(0xbe);
    what.extend(gpa.to_le_bytes());
    bz_image_with(header, &prints(&what))
}

/// A bzImage that prints a digit in its memory, initially `0`, increments it and resets.
pub(crate) fn counts_boots() -> Vec<u8> {
    counts_boots_with(valid_header())
}

/// The same, with these fields in its setup header.
pub(crate) fn counts_boots_with(header: setup_header) -> Vec<u8> {
    let [serial_low, serial_high] = SERIAL_PORT.to_le_bytes();
    let [reset_low, reset_high] = (POWER_PORT + 2).to_le_bytes();
    let digit = 25_u8;
    let mut code = vec![0x8a, 0x05, digit - 6, 0, 0, 0]; // mov al, [rip + to the digit]
    code.extend([0xfe, 0x05, digit - 12, 0, 0, 0]); // inc byte [rip + to the digit]
    code.extend([0x66, 0xba, serial_low, serial_high, 0xee]); // mov dx, SERIAL_PORT; out dx, al
    code.extend([0x66, 0xba, reset_low, reset_high]); // mov dx, the reset register
    code.extend([0xb0, RESET_VALUE, 0xee, 0xf4]); // mov al, RESET_VALUE; out dx, al; hlt
    assert_eq!(code.len(), usize::from(digit));
    code.push(b'0');
    bz_image_with(header, &code)
}

/// A bzImage that prints `w`, waits until its power button is pressed (ACPI: polls the event device's selector), and switches off.
pub(crate) fn waits_for_its_power_button() -> Vec<u8> {
    let [serial_low, serial_high] = SERIAL_PORT.to_le_bytes();
    let [power_low, power_high] = POWER_PORT.to_le_bytes();
    let ged = u32::try_from(GED_BASE).expect("below 4 GiB");
    let mut code = vec![0x66, 0xba, serial_low, serial_high, 0xb0, b'w', 0xee]; // mov dx, SERIAL_PORT; mov al, 'w'; out dx, al
    code.push(0xbf);
    code.extend(ged.to_le_bytes()); // mov edi, GED_BASE
    code.extend([0x8b, 0x07, 0xa8, 2, 0x74, 0xfa]); // mov eax, [rdi]; test al, POWER_BUTTON; jz to the read
    code.extend([0x66, 0xba, power_low, power_high, 0xb0, S5_SLEEP_TYPE << 2 | 1 << 5, 0xee, 0xf4]); // mov dx, al; out; hlt
    bz_image(&code)
}

/// A bzImage that prints the number of records in its store (ERST), writes one more with the next identifier, prints the status of that, and
/// switches off. Each is a digit.
pub(crate) fn writes_a_record() -> Vec<u8> {
    let [serial_low, serial_high] = SERIAL_PORT.to_le_bytes();
    let [power_low, power_high] = POWER_PORT.to_le_bytes();
    let at = error_serialization::registers(0);
    let register = |offset: u64| u8::try_from(offset).expect("one of the first registers");
    let print = [0x04, b'0', 0x66, 0xba, serial_low, serial_high, 0xee]; // add al, '0'; mov dx, SERIAL_PORT; out dx, al
    let set = |offset: u64, value: u8| vec![0x48, 0xc7, 0x47, register(offset), value, 0, 0, 0]; // mov qword [rdi + offset], value
    let get = |offset: u64| vec![0x48, 0x8b, 0x47, register(offset)]; // mov rax, [rdi + offset]
    let mut code = vec![0xbf];
    code.extend(u32::try_from(ERROR_SERIALIZATION_BASE).expect("below 4 GiB").to_le_bytes()); // mov edi, the registers
    code.extend([0x48, 0x8b, 0x77, register(at.log_address)]); // mov rsi, [rdi + log address]
    code.extend(get(at.count));
    code.extend(print);
    code.extend([0xc7, 0x06, b'C', b'P', b'E', b'R']); // mov dword [rsi], "CPER"
    code.extend([0xc7, 0x46, 4, 1, 1, 0xff, 0xff, 0xc7, 0x46, 8, 0xff, 0xff, 0, 0]); // mov dword [rsi + 4], revision, signature end; [rsi + 8]
    code.extend([0xc7, 0x46, 20, 128, 0, 0, 0]); // mov dword [rsi + 20], 128
    code.extend(get(at.count));
    code.extend([0x48, 0xff, 0xc0, 0x48, 0x89, 0x46, 96]); // inc rax; mov [rsi + 96], rax
    code.extend([set(at.operation, 0), set(at.offset, 0), set(at.execute, 1)].concat());
    code.extend(get(at.busy));
    code.extend([0x84, 0xc0, 0x75, 0xf8]); // test al, al; jnz to the read
    code.extend(get(at.status));
    code.extend(print);
    code.extend([0x66, 0xba, power_low, power_high, 0xb0, S5_SLEEP_TYPE << 2 | 1 << 5, 0xee, 0xf4]); // mov dx, al; out; hlt
    bz_image(&code)
}

/// A bzImage that requests a sleep state that no table declares, that number of times, and switches off.
pub(crate) fn requests_unknown_sleep_states(times: u32) -> Vec<u8> {
    let [power_low, power_high] = POWER_PORT.to_le_bytes();
    let sleep = |sleep_type: u8| sleep_type << 2 | 1 << 5;
    let mut code = vec![0xb9]; // mov ecx, times
    code.extend(times.to_le_bytes());
    code.extend([0x66, 0xba, power_low, power_high]); // mov dx, POWER_PORT
    code.extend([0xb0, sleep(S5_SLEEP_TYPE ^ 1)]); // mov al, sleep
    code.extend([0xee, 0xe2, 0xfd]); // out dx, al; loop to it
    code.extend([0xb0, sleep(S5_SLEEP_TYPE), 0xee, 0xf4]); // mov al, sleep; out dx, al; hlt
    bz_image(&code)
}

/// A bzImage that writes a sector of its first disk, once for each number of `sectors`, prints a digit for each request, its status
/// (VIRTIO 1.2, 5.2.6), and switches off.
pub(crate) fn writes_sectors(sectors: &[u32]) -> Vec<u8> {
    // Guest memory that nothing else uses: the queue's parts, then for each request a header of 16 bytes and a status byte.
    const DESCRIPTORS: u32 = 0x40_0000;
    const DRIVER: u32 = 0x40_1000;
    const DEVICE: u32 = 0x40_2000;
    const REQUESTS: u32 = 0x40_3000;
    const DATA: u32 = 0x40_4000;
    const DEVICE_REGISTERS: u32 = 0xd000_0000;
    let count = u32::try_from(sectors.len()).expect("a few sectors");
    let mut stores = Vec::new();
    for (index, sector) in (0..).zip(sectors) {
        let (chain, header) = (3 * index, REQUESTS + 32 * index);
        // struct virtio_blk_req: VIRTIO_BLK_T_OUT, reserved, sector; then a status that no device sets.
        stores.extend([
            (header, 1),
            (header + 4, 0),
            (header + 8, *sector),
            (header + 12, 0),
            (header + 16, 9),
        ]);
        // struct virtq_desc: address, length, flags (1: next, 2: device-writable) and next.
        for (part, (address, len, flags)) in (0..).zip([(header, 16, 1), (DATA, 512, 1), (header + 16, 1, 2)])
        {
            let at = DESCRIPTORS + 16 * (chain + part);
            stores.extend([
                (at, address),
                (at + 4, 0),
                (at + 8, len),
                (at + 12, flags | ((chain + part + 1) << 16)),
            ]);
        }
    }
    // struct virtq_avail: flags and idx, then two heads in each store.
    stores.push((DRIVER, count << 16));
    stores.extend(
        (0..count).step_by(2).map(|index| (DRIVER + 4 + 2 * index, (3 * index) | ((3 * index + 3) << 16))),
    );
    // The initialisation of a device (VIRTIO 1.2, 4.2.3.1): status, features (VIRTIO_F_VERSION_1), queue, DRIVER_OK, notification.
    let registers = [
        (0x70, 0),
        (0x70, 1),
        (0x70, 3),
        (0x24, 1),
        (0x20, 1),
        (0x70, 0xb),
        (0x30, 0),
        (0x38, 16),
        (0x80, DESCRIPTORS),
        (0x90, DRIVER),
        (0xa0, DEVICE),
        (0x44, 1),
        (0x70, 0xf),
        (0x50, 0),
    ];
    stores.extend(registers.map(|(register, value)| (DEVICE_REGISTERS + register, value)));
    stores.push((0, 0));

    let [serial_low, serial_high] = SERIAL_PORT.to_le_bytes();
    let [power_low, power_high] = POWER_PORT.to_le_bytes();
    let sleep = S5_SLEEP_TYPE << 2 | 1 << 5;
    let mut code = vec![0x48, 0x8d, 0x35]; // lea rsi, [rip + to the stores]
    let lea = code.len();
    code.extend([0; 4]);
    code.extend([0xfc, 0xad, 0x89, 0xc7]); // cld; next: lodsd; mov edi, eax
    code.extend([0xad, 0x85, 0xff, 0x74, 0x04]); // lodsd; test edi, edi; jz done
    code.extend([0x89, 0x07, 0xeb, 0xf4]); // mov [rdi], eax; jmp next
    code.extend([0xb9]); // done: mov ecx, count
    code.extend(count.to_le_bytes());
    code.extend([0xbf]); // mov edi, DEVICE
    code.extend(DEVICE.to_le_bytes());
    code.extend([0x66, 0x39, 0x4f, 0x02, 0x75, 0xfa]); // wait: cmp [rdi + 2], cx; jne wait
    code.extend([0xbe]); // mov esi, the status of the first request
    code.extend((REQUESTS + 16).to_le_bytes());
    code.extend([0x66, 0xba, serial_low, serial_high]); // mov dx, SERIAL_PORT
    code.extend([0x8a, 0x06, 0x04, b'0', 0xee]); // print: mov al, [rsi]; add al, '0'; out dx, al
    code.extend([0x83, 0xc6, 32, 0xff, 0xc9, 0x75, 0xf4]); // add esi, 32; dec ecx; jnz print
    code.extend([0x66, 0xba, power_low, power_high]); // mov dx, POWER_PORT
    code.extend([0xb0, sleep, 0xee, 0xf4, 0xeb, 0xfd]); // mov al, sleep; out dx, al; hlt; jmp to it
    let table = u32::try_from(code.len() - lea - 4).expect("little code");
    code[lea..lea + 4].copy_from_slice(&table.to_le_bytes());
    code.extend(
        stores.iter().flat_map(|(address, value)| [address.to_le_bytes(), value.to_le_bytes()].concat()),
    );
    bz_image(&code)
}

/// Code that prints `ecx` bytes from `rsi`, both set by `what`, and switches off by the sleep control register.
fn prints(what: &[u8]) -> Vec<u8> {
    let [serial_low, serial_high] = SERIAL_PORT.to_le_bytes();
    let [power_low, power_high] = POWER_PORT.to_le_bytes();
    let sleep = S5_SLEEP_TYPE << 2 | 1 << 5;
    let mut code = what.to_vec();
    code.extend([0x66, 0xba, serial_low, serial_high]); // mov dx, SERIAL_PORT
    code.extend([0xfc, 0xf3, 0x6e]); // cld; rep outsb
    code.extend([0x66, 0xba, power_low, power_high]); // mov dx, POWER_PORT
    code.extend([0xb0, sleep, 0xee]); // mov al, sleep; out dx, al
    code.extend([0xf4, 0xeb, 0xfd]); // hlt; jmp to it
    code
}

/// A bzImage that prints the values of model-specific registers, eight bytes each, and switches off.
pub(crate) fn prints_msrs(registers: &[u32]) -> Vec<u8> {
    let buffer = 0x5_0000_u32;
    let mut what = Vec::new();
    for (register, low) in registers.iter().zip((buffer..).step_by(8)) {
        what.push(0xb9);
        what.extend(register.to_le_bytes()); // mov ecx, register
        what.extend([0x0f, 0x32]); // rdmsr
        what.extend([0x89, 0x04, 0x25]);
        what.extend(low.to_le_bytes()); // mov [low], eax
        what.extend([0x89, 0x14, 0x25]);
        what.extend((low + 4).to_le_bytes()); // mov [low + 4], edx
    }
    what.push(0xb9);
    what.extend((registers.len() as u32 * 8).to_le_bytes()); // mov ecx, len
    what.push(0xbe);
    what.extend(buffer.to_le_bytes()); // mov esi, buffer
    bz_image(&prints(&what))
}

/// Code that prints the first `len` bytes of PVH's start info, in 32-bit mode, and switches off.
pub(crate) fn prints_start_info(len: u8) -> Vec<u8> {
    prints(&[0xb9, len, 0, 0, 0, 0x89, 0xde]) // mov ecx, len; mov esi, ebx
}

/// A bzImage with code at its 64-bit entry.
pub(crate) fn bz_image(code: &[u8]) -> Vec<u8> {
    bz_image_with(valid_header(), code)
}

/// A bzImage with code at its 64-bit entry and these fields in its setup header.
pub(crate) fn bz_image_with(header: setup_header, code: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 0x200];
    body.extend(code);
    body.resize(body.len().next_multiple_of(16), 0);
    bz_image_of(setup_header { syssize: (body.len() / 16) as u32, ..header }, &body)
}

/// A valid setup header, of a kernel that needs 1 MiB.
pub(crate) fn valid_header() -> setup_header {
    setup_header {
        setup_sects: 1,
        boot_flag: 0xaa55,
        header: u32::from_le_bytes(*b"HdrS"),
        version: 0x20f,
        loadflags: 1,
        xloadflags: 1,
        code32_start: LOAD as u32,
        initrd_addr_max: 0x7fff_ffff,
        kernel_alignment: 0x1000,
        cmdline_size: 2047,
        pref_address: LOAD,
        init_size: 0x10_0000,
        ..Default::default()
    }
}

/// A bzImage with any setup header and protected-mode code.
pub(crate) fn bz_image_of(header: setup_header, body: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 0x1f1];
    file.extend(header.as_slice());
    file.resize((usize::from(header.setup_sects) + 1) * 512, 0);
    file.extend(body);
    file
}

/// The header of a Multiboot kernel without requests (Multiboot 0.6.96, 3.1.1).
pub(crate) const MULTIBOOT: [u32; 3] = [0x1bad_b002, 0, 0_u32.wrapping_sub(0x1bad_b002)];

/// A 64-bit ELF file with one segment.
pub(crate) struct Elf {
    /// `e_machine`: 62 for x86_64.
    pub(crate) machine: u16,
    pub(crate) entry: u64,
    /// Where the segment is loaded.
    pub(crate) gpa: u64,
    /// p_filesz of its program header.
    pub(crate) in_file: u64,
    pub(crate) in_memory: u64,
    /// What the file has of the segment.
    pub(crate) code: Vec<u8>,
}

impl Elf {
    /// A valid file, of undefined instructions.
    pub(crate) fn valid() -> Self {
        let code = [0x0f, 0x0b].repeat(8);
        Elf { machine: 62, entry: LOAD, gpa: LOAD, in_file: 16, in_memory: 0x1000, code }
    }

    /// Elf64_Ehdr, one Elf64_Phdr and the code (System V ABI, "Object Files").
    pub(crate) fn bytes(&self) -> Vec<u8> {
        const HEADER: u16 = 64;
        const SEGMENT_HEADER: u16 = 56;
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        for half in [2, self.machine] {
            file.extend(half.to_le_bytes()); // e_type: executable; e_machine
        }
        file.extend(1_u32.to_le_bytes()); // e_version
        for word in [self.entry, HEADER.into(), 0] {
            file.extend(word.to_le_bytes()); // e_entry, e_phoff, e_shoff
        }
        file.extend(0_u32.to_le_bytes()); // e_flags
        for half in [HEADER, SEGMENT_HEADER, 1, 0, 0, 0] {
            file.extend(half.to_le_bytes()); // e_ehsize, e_phentsize, e_phnum and no sections
        }
        file.extend([1_u32, 5].map(u32::to_le_bytes).concat()); // p_type: PT_LOAD; p_flags
        let offset = u64::from(HEADER + SEGMENT_HEADER);
        for word in [offset, self.gpa, self.gpa, self.in_file, self.in_memory, 8] {
            file.extend(word.to_le_bytes()); // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
        }
        file.extend(&self.code);
        file
    }
}

/// A 32-bit ELF file with one segment.
pub(crate) struct Elf32 {
    /// `e_machine`: 3 for i386.
    pub(crate) machine: u16,
    /// The entry of a PVH note. `None`: without one.
    pub(crate) pvh: Option<u32>,
    pub(crate) code: Vec<u8>,
}

impl Elf32 {
    /// Elf32_Ehdr, two Elf32_Phdr, a note and the code (System V ABI, "Object Files"; Xen, public/elfnote.h).
    pub(crate) fn bytes(&self) -> Vec<u8> {
        const HEADER: u16 = 52;
        const SEGMENT_HEADER: u16 = 32;
        let load = LOAD as u32;
        // n_namesz, n_descsz, n_type (XEN_ELFNOTE_PHYS32_ENTRY, or one that is not read), the name, the descriptor.
        let kind = if self.pvh.is_some() { 18_u32 } else { 5 };
        let mut note = [4, 4, kind].map(u32::to_le_bytes).concat();
        note.extend(b"Xen\0");
        note.extend(self.pvh.unwrap_or_default().to_le_bytes());
        let mut file = b"\x7fELF\x01\x01\x01".to_vec();
        file.resize(16, 0);
        for half in [2, self.machine] {
            file.extend(half.to_le_bytes()); // e_type: executable; e_machine
        }
        // e_version, e_entry, e_phoff, e_shoff, e_flags
        file.extend([1, load, HEADER.into(), 0, 0].map(u32::to_le_bytes).concat());
        for half in [HEADER, SEGMENT_HEADER, 2, 0, 0, 0] {
            file.extend(half.to_le_bytes()); // e_ehsize, e_phentsize, e_phnum and no sections
        }
        let notes = u32::from(HEADER + 2 * SEGMENT_HEADER);
        let (code, len) = (notes + note.len() as u32, self.code.len() as u32);
        // p_type, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_flags, p_align
        file.extend([1, code, 0xc000_0000, load, len, 0x1000, 5, 16].map(u32::to_le_bytes).concat());
        file.extend([4, notes, 0, 0, note.len() as u32, 0, 4, 4].map(u32::to_le_bytes).concat());
        file.extend(note);
        file.extend(&self.code);
        file
    }
}

//! Kernels and initrds: valid ones are loaded unchanged, others are refused with their key and the numbers that do not fit.

use std::os::unix::fs::symlink;

use libtest_mimic::Trial;
use linux_loader::loader::bootparam::setup_header;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::harness::kernels::{self, Elf, Elf32, LOAD, MULTIBOOT};
use crate::harness::{Checked, Ghest, Profile, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        initrd_arrives,
        missing_kernel,
        kernel_is_a_directory,
        kernel_is_a_fifo,
        kernel_of_garbage,
        empty_kernel,
        truncated_bz_image,
        bz_image_of_only_its_header,
        bz_image_without_64_bit_entry,
        bz_image_and_pvh,
        bz_image_that_unpacks_beyond_memory,
        bz_image_larger_than_memory,
        elf_below_1_mib,
        elf_beyond_memory,
        elf_across_the_end_of_addresses,
        elf_truncated,
        elf_truncated_in_its_headers,
        elf_entry_outside,
        elf_without_pvh_note,
        elf_of_another_architecture,
        elf_of_32_bits_by_pvh,
        elf_of_32_bits_without_pvh,
        elf_of_32_bits_and_linux,
        elf_for_multiboot_loaders,
        compressed_elf,
        bz_image_of_an_old_protocol,
        command_line_limit_of_the_kernel,
        command_line_limit_is_left_to_the_kernel,
        missing_initrd,
        empty_initrd,
        initrd_is_a_directory,
        initrd_too_large,
        initrd_over_the_kernel,
    ]
}

fn initrd_arrives() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    // An odd length, and no line ends that could be translated.
    let initrd = kernels::pattern(40_001);
    scratch.file("initrd", &initrd);
    scratch.file("kernel", kernels::prints_initrd());
    let profile = scratch.machine("kernel = \"kernel\"\ninitrd = \"initrd\"");
    let outcome = Ghest::boot(&profile).finish().expect(0);
    assert!(outcome.stdout == initrd, "{} bytes came, not the {} sent", outcome.stdout.len(), initrd.len());
    Ok(())
}

fn missing_kernel() -> Checked {
    let scratch = Scratch::new();
    let path = scratch.path("kernel");
    refused_kernel(&scratch, &format!("{}: No such file or directory (os error 2)", path.display()))
}

fn kernel_is_a_directory() -> Checked {
    let scratch = Scratch::new();
    let path = scratch.path("kernel");
    std::fs::create_dir(&path).expect("a new directory");
    refused_kernel(&scratch, &format!("{}: not a regular file", path.display()))
}

/// Opening a FIFO must not wait for a writer.
fn kernel_is_a_fifo() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    mknodat(CWD, scratch.path("kernel"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a new FIFO");
    let profile = scratch.machine("kernel = \"kernel\"");
    Ghest::boot(&profile).finish().expect(2).expect_said(&profile.place("kernel"));
    Ok(())
}

fn kernel_of_garbage() -> Checked {
    let what = "expected a bzImage or an ELF file, found a file of 1000 bytes that starts with aa aa aa aa aa aa aa aa";
    refuses_kernel(&[0xaa; 1000], what)
}

fn empty_kernel() -> Checked {
    refuses_kernel(&[], "the file is empty: expected a bzImage or an ELF file")
}

fn truncated_bz_image() -> Checked {
    let whole = kernels::bz_image(&[0xf4; 4096]);
    let part = &whole[..whole.len() - 2048];
    let what = format!(
        "the file is truncated: syssize (offset 0x1f4) needs {} bytes, the file has {}",
        whole.len(),
        part.len()
    );
    refuses_kernel(part, &what)
}

fn bz_image_of_only_its_header() -> Checked {
    let part = &kernels::bz_image(&[0xf4])[..0x210];
    refuses_kernel(part, "the file is truncated: the setup header needs 640 bytes, the file has 528")
}

fn bz_image_without_64_bit_entry() -> Checked {
    no_64_bit_entry(setup_header { xloadflags: 0x3e, ..kernels::valid_header() }, "2.15, xloadflags 0x3e")
}

/// The loader of iPXE has a setup header of an early protocol, whose fields are not those of Linux.
fn bz_image_of_an_old_protocol() -> Checked {
    let header = setup_header { version: 0x203, code32_start: 0x1_0000, ..kernels::valid_header() };
    no_64_bit_entry(header, "2.03, xloadflags 0x0")
}

/// The remedy is another kernel: `auto` has tried every protocol.
fn no_64_bit_entry(header: setup_header, has: &str) -> Checked {
    let scratch = Scratch::new();
    let path = scratch.file("kernel", kernels::bz_image_with(header, &[0xf4]));
    let profile = scratch.machine("kernel = \"kernel\"\nprotocol = \"auto\"");
    let what = "the kernel has no 64-bit entry: it needs boot protocol 2.12 with XLF_KERNEL_64 in xloadflags (offset 0x236), \
                and has";
    refused(&profile, "kernel", &format!("{}: {what} {has}", path.display()))
}

fn bz_image_and_pvh() -> Checked {
    let scratch = Scratch::new();
    let path = scratch.file("kernel", kernels::bz_image(&[0xf4]));
    let profile = scratch.machine("kernel = \"kernel\"\nprotocol = \"pvh\"");
    let what = "the file has no PVH entry: an ELF note with the name `Xen` and the type 18 (XEN_ELFNOTE_PHYS32_ENTRY)";
    refused(&profile, "protocol", &format!("{}: {what}", path.display()))
}

fn bz_image_that_unpacks_beyond_memory() -> Checked {
    let header = setup_header { init_size: 80 << 20, syssize: 1, ..kernels::valid_header() };
    let what =
        "the kernel needs memory from 0x100000 to 0x5100000, and the first range of memory ends at 0x3fc0000";
    too_large(&kernels::bz_image_of(header, &[0; 16]), what)
}

fn bz_image_larger_than_memory() -> Checked {
    let body = vec![0; 70 << 20];
    let header = setup_header { syssize: (body.len() / 16) as u32, ..kernels::valid_header() };
    let what =
        "the kernel needs memory from 0x100000 to 0x4700000, and the first range of memory ends at 0x3fc0000";
    too_large(&kernels::bz_image_of(header, &body), what)
}

fn elf_below_1_mib() -> Checked {
    let elf = Elf { gpa: 0x7000, entry: 0x7000, ..Elf::valid() };
    let what = "the kernel's load address is 0x7000: below 1 MiB are the tables and boot parameters";
    refuses_kernel(&elf.bytes(), what)
}

fn elf_beyond_memory() -> Checked {
    let elf = Elf { gpa: 0x400_0000, entry: 0x400_0000, ..Elf::valid() };
    let what = "the kernel needs memory from 0x4000000 to 0x4001000, and the first range of memory ends at 0x3fc0000";
    too_large(&elf.bytes(), what)
}

fn elf_across_the_end_of_addresses() -> Checked {
    let elf = Elf { in_memory: u64::MAX, ..Elf::valid() };
    let what = "the kernel needs memory from 0x100000 to 0xffffffffffffffff, and the first range of memory ends at 0x3fc0000";
    too_large(&elf.bytes(), what)
}

fn elf_truncated() -> Checked {
    let elf = Elf { in_file: 5000, in_memory: 5000, ..Elf::valid() };
    refuses_kernel(&elf.bytes(), "the file is truncated: a segment needs 5120 bytes, the file has 136")
}

fn elf_truncated_in_its_headers() -> Checked {
    refuses_kernel(
        &Elf::valid().bytes()[..100],
        "the file is truncated: the program header table needs 120 bytes, the file has 100",
    )?;
    refuses_kernel(
        &Elf::valid().bytes()[..20],
        "the file is truncated: the ELF header needs 64 bytes, the file has 20",
    )
}

fn elf_entry_outside() -> Checked {
    let elf = Elf { entry: 0x20_0000, ..Elf::valid() };
    refuses_kernel(&elf.bytes(), "the kernel's entry 0x200000 is not in its segments (0x100000 to 0x101000)")
}

fn elf_without_pvh_note() -> Checked {
    let scratch = Scratch::new();
    let path = scratch.file("kernel", Elf::valid().bytes());
    let profile = scratch.machine("kernel = \"kernel\"\nprotocol = \"pvh\"");
    let what = "the file has no PVH entry: an ELF note with the name `Xen` and the type 18 (XEN_ELFNOTE_PHYS32_ENTRY)";
    refused(&profile, "protocol", &format!("{}: {what}", path.display()))
}

fn elf_of_another_architecture() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    // 183 is EM_AARCH64.
    scratch.file("kernel", Elf { machine: 183, ..Elf::valid() }.bytes());
    let profile = scratch.machine("kernel = \"kernel\"");
    Ghest::boot(&profile)
        .finish()
        .expect(2)
        .expect_said(&profile.place("kernel"))
        .expect_said("it is a 64-bit ELF file for aarch64 (e_machine 183)");
    Ok(())
}

/// GRUB's `i386-xen_pvh` and Xen are such files.
fn elf_of_32_bits_by_pvh() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let kernel = Elf32 { machine: 3, pvh: Some(LOAD as u32), code: kernels::prints_start_info(8) };
    scratch.file("kernel", kernel.bytes());
    for protocol in ["auto", "pvh"] {
        let profile = scratch.machine(&format!("kernel = \"kernel\"\nprotocol = \"{protocol}\""));
        let outcome = Ghest::boot(&profile).finish().expect(0);
        // The magic number and version 1 of the start info.
        assert_eq!(outcome.stdout, [0x78, 0xc5, 0x6e, 0x33, 1, 0, 0, 0], "{outcome}");
    }
    Ok(())
}

fn elf_of_32_bits_without_pvh() -> Checked {
    let what = "a 32-bit ELF file (i386) is entered by PVH, and this one has no PVH entry: \
                an ELF note with the name `Xen` and the type 18 (XEN_ELFNOTE_PHYS32_ENTRY)";
    let elf = |code| Elf32 { machine: 3, pvh: None, code }.bytes();
    refuses_kernel(&elf(vec![0xf4]), what)?;
    refuses_kernel(&elf(multiboot()), &format!("{what}; it is a kernel for Multiboot loaders"))
}

fn elf_of_32_bits_and_linux() -> Checked {
    let scratch = Scratch::new();
    let kernel = Elf32 { machine: 3, pvh: Some(LOAD as u32), code: vec![0xf4] };
    let path = scratch.file("kernel", kernel.bytes());
    let profile = scratch.machine("kernel = \"kernel\"\nprotocol = \"linux\"");
    let what = "a 32-bit ELF file (i386) has no 64-bit entry";
    refused(&profile, "protocol", &format!("{}: {what}", path.display()))
}

/// Its entry is 32-bit code. In 64-bit mode it would do anything, unless the profile says that it is not.
fn elf_for_multiboot_loaders() -> Checked {
    let code = multiboot();
    // Its entry is behind the header.
    let kernel = Elf { entry: LOAD + 12, in_file: code.len() as u64, code, ..Elf::valid() }.bytes();
    let what = "it is a kernel for Multiboot loaders such as GRUB, which enter it in 32-bit mode, and it has no PVH entry: \
                an ELF note with the name `Xen` and the type 18 (XEN_ELFNOTE_PHYS32_ENTRY)";
    refuses_kernel(&kernel, what)?;
    let scratch = Scratch::new();
    scratch.file("kernel", kernel);
    Ghest::boot(&scratch.machine("kernel = \"kernel\"\nprotocol = \"linux\"")).finish().expect(4);
    Ok(())
}

/// A Multiboot header and an undefined instruction.
fn multiboot() -> Vec<u8> {
    let mut code = MULTIBOOT.map(u32::to_le_bytes).concat();
    code.extend([0x0f, 0x0b]);
    code
}

fn compressed_elf() -> Checked {
    let what = "the file is compressed with gzip: expected a bzImage or an ELF file";
    refuses_kernel(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0], what)
}

/// The kernel's own limit is in its setup header. `check` reads it too.
fn command_line_limit_of_the_kernel() -> Checked {
    let scratch = Scratch::new();
    let header = setup_header { cmdline_size: 10, ..kernels::valid_header() };
    scratch.file("kernel", kernels::bz_image_with(header, &[0x0f, 0x0b]));
    let profile = |line: &str| scratch.machine(&format!("kernel = \"kernel\"\ncmdline = \"{line}\""));
    let long = profile("0123456789a");
    let what = "the command line has 11 bytes, and the kernel takes 10 (cmdline_size in its setup header)"
        .to_owned();
    Ghest::new(["check"]).arg(&long.path).finish().expect(2).expect_said(&what);
    refused(&long, "cmdline", &what)?;
    let short = profile("0123456789");
    Ghest::new(["check"]).arg(&short.path).finish().expect(0);
    Ghest::boot(&short).finish().expect(4);
    Ok(())
}

/// `cmdline_size` is a field that the kernel writes and the boot loader reads. memtest86+ reads it again.
fn command_line_limit_is_left_to_the_kernel() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    // The field of the boot parameters, which are at 7000.
    let kernel = kernels::prints_memory_with(
        setup_header { cmdline_size: 0x1234, ..kernels::valid_header() },
        0x7000 + 0x238,
        4,
    );
    scratch.file("kernel", kernel);
    let profile = scratch.machine("kernel = \"kernel\"\ncmdline = \"quiet\"");
    assert_eq!(Ghest::boot(&profile).finish().expect(0).stdout, 0x1234_u32.to_le_bytes());
    Ok(())
}

fn missing_initrd() -> Checked {
    let scratch = Scratch::new();
    let path = scratch.path("initrd");
    refused_initrd(&scratch, "initrd", &format!("{}: No such file or directory (os error 2)", path.display()))
}

fn empty_initrd() -> Checked {
    let scratch = Scratch::new();
    let path = scratch.file("initrd", []);
    refused_initrd(&scratch, "initrd", &format!("{}: the file is empty", path.display()))
}

fn initrd_is_a_directory() -> Checked {
    let scratch = Scratch::new();
    let path = scratch.path("initrd");
    std::fs::create_dir(&path).expect("a new directory");
    refused_initrd(&scratch, "initrd", &format!("{}: not a regular file", path.display()))
}

fn initrd_too_large() -> Checked {
    let scratch = Scratch::new();
    let len = 65 << 20;
    sparse(&scratch, len);
    refused_initrd(&scratch, "memory", &does_not_fit(len))
}

/// It fits in the memory, but not beside the kernel.
fn initrd_over_the_kernel() -> Checked {
    let scratch = Scratch::new();
    let len = (62 << 20) - 0x4_0000;
    sparse(&scratch, len + 1);
    refused_initrd(&scratch, "memory", &does_not_fit(len + 1))?;
    // One byte less fits.
    sparse(&scratch, len);
    let profile = machine_with_initrd(&scratch);
    Ghest::boot(&profile).finish().expect(4);
    Ok(())
}

fn does_not_fit(len: u64) -> String {
    format!(
        "the initrd of {len} bytes does not fit: the kernel uses memory up to 0x200000, \
         and memory for an initrd ends at 0x3fc0000"
    )
}

fn sparse(scratch: &Scratch, len: u64) {
    let file = std::fs::File::create(scratch.path("initrd")).expect("a new file");
    file.set_len(len).expect("a file with a hole");
}

/// Asserts that an initrd is refused with this message, at `boot.initrd` or another key.
fn refused_initrd(scratch: &Scratch, key: &str, what: &str) -> Checked {
    refused(&machine_with_initrd(scratch), key, what)
}

/// Its kernel is an undefined instruction.
fn machine_with_initrd(scratch: &Scratch) -> Profile {
    scratch.file("kernel", kernels::bz_image(&[0x0f, 0x0b]));
    scratch.machine("kernel = \"kernel\"\ninitrd = \"initrd\"")
}

/// Asserts that a kernel with these bytes is refused at `boot.kernel`, also through a symbolic link.
fn refuses_kernel(bytes: &[u8], what: &str) -> Checked {
    let scratch = Scratch::new();
    let path = scratch.path("kernel");
    symlink(scratch.file("target", bytes), &path).expect("a new link");
    refused_kernel(&scratch, &format!("{}: {what}", path.display()))
}

fn refused_kernel(scratch: &Scratch, what: &str) -> Checked {
    refused(&scratch.machine("kernel = \"kernel\""), "kernel", what)
}

fn too_large(bytes: &[u8], what: &str) -> Checked {
    let scratch = Scratch::new();
    let path = scratch.file("kernel", bytes);
    refused(&scratch.machine("kernel = \"kernel\""), "memory", &format!("{}: {what}", path.display()))
}

/// Asserts that `ghest boot` reports this and nothing else, with the place of the key, and exits with status 2.
fn refused(profile: &Profile, key: &str, what: &str) -> Checked {
    needs::kvm()?;
    let outcome = Ghest::boot(profile).finish().expect(2);
    assert_eq!(outcome.stdout, b"", "{outcome}");
    outcome
        .expect_said(&format!("error: {what}\n"))
        .expect_said(&format!("--> {}\n", profile.place(key)))
        .expect_last(&format!("ghest: the machine cannot start: {what}"));
    Ok(())
}

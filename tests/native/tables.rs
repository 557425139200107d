//! `ghest tables` writes the tables that the guest gets.

use std::collections::BTreeSet;
use std::fs;

use libtest_mimic::Trial;
use platform::x86_64::{RESET_VECTOR, TABLES_START};
use serde_json::Value;

use crate::harness::{Checked, Ghest, Scratch, kernels, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        files_of_acpi,
        files_of_mptable,
        files_of_aarch64_acpi,
        files_of_aarch64_devicetree,
        files_of_an_error_source,
        list_for_people,
        acpi_is_where_the_guest_finds_it,
        mptable_is_where_the_guest_finds_it,
        bytes_in_the_guests_memory,
        the_machines_own_architecture,
        into_a_file,
        out_is_missing,
    ]
}

fn profile_text(firmware: &str) -> String {
    format!("[machine]\nvcpus = 3\nmemory = \"64MiB\"\nfirmware = \"{firmware}\"\n")
}

/// Runs `ghest tables --json` into the directory `out` of `scratch`, and returns its list.
fn list(scratch: &Scratch, arch: &str, firmware: &str) -> Value {
    let profile = scratch.profile(&profile_text(firmware));
    let outcome = Ghest::new(["tables", "--arch", arch, "--json", "--out"])
        .arg(scratch.path("out"))
        .arg(&profile.path)
        .finish()
        .expect(0);
    assert_eq!(outcome.stderr, "", "{outcome}");
    outcome.json()
}

fn tables(list: &Value) -> &[Value] {
    list["tables"].as_array().expect("a list of tables")
}

/// The tables in their own area, without the error records that HEST refers to.
fn below_the_reset_vector(list: &Value) -> impl Iterator<Item = &Value> {
    tables(list).iter().filter(|table| table["gpa"].as_u64().expect("a number") < RESET_VECTOR)
}

fn files_of_acpi() -> Checked {
    let written = files("x86_64", "acpi");
    let expected = [
        "apic.aml",
        "bert.aml",
        "dsdt.aml",
        "error-records.bin",
        "facp.aml",
        "hest.aml",
        "rsdp.bin",
        "spcr.aml",
        "xsdt.aml",
    ];
    assert_eq!(written, expected.map(String::from).into());
    Ok(())
}

fn files_of_mptable() -> Checked {
    assert_eq!(files("x86_64", "mptable"), ["mpfp.bin", "mptable.bin"].map(String::from).into());
    Ok(())
}

/// Tables of the other architecture include those that every arm64 guest needs.
fn files_of_aarch64_acpi() -> Checked {
    let written = files("aarch64", "acpi");
    for file in ["apic.aml", "dsdt.aml", "facp.aml", "gtdt.aml", "platform.dtb", "rsdp.bin", "xsdt.aml"] {
        assert!(written.contains(file), "{file}: {written:?}");
    }
    Ok(())
}

fn files_of_aarch64_devicetree() -> Checked {
    assert_eq!(files("aarch64", "devicetree"), ["platform.dtb"].map(String::from).into());
    Ok(())
}

/// If the profile requests it, a devicetree describes error records.
fn files_of_an_error_source() -> Checked {
    let scratch = Scratch::new();
    let profile = scratch.profile(&profile_text("devicetree"));
    let list =
        Ghest::new(["tables", "--arch", "aarch64", "--json", "--set", "ras.asynchronous=gsiv", "--out"])
            .arg(scratch.path("out"))
            .arg(&profile.path)
            .finish()
            .expect(0)
            .json();
    let files: Vec<_> = tables(&list).iter().map(|table| table["file"].as_str().expect("a name")).collect();
    assert_eq!(files, ["platform.dtb", "error-records.bin"]);
    let blob = fs::read(scratch.path("out").join("platform.dtb")).expect("the devicetree");
    assert!(blob.windows(13).any(|window| window == b"arm,ras-cper\0"));

    let plan = Ghest::new(["plan", "--arch", "aarch64", "--set", "ras.asynchronous=gsiv"]).arg(&profile.path);
    let plan = plan.finish().expect(0);
    assert!(plan.stdout().contains("\ndetected      gsiv\n"), "{plan}");
    Ok(())
}

/// The files that are written, which are those that the list names, with its lengths. Every table's own length and
/// checksum are right.
fn files(arch: &str, firmware: &str) -> BTreeSet<String> {
    let scratch = Scratch::new();
    let list = list(&scratch, arch, firmware);
    assert_eq!(list["kind"], firmware);
    let written: BTreeSet<String> = fs::read_dir(scratch.path("out"))
        .expect("the directory was made")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    let mut listed = BTreeSet::new();
    for table in tables(&list) {
        let file = table["file"].as_str().expect("a name");
        let bytes = fs::read(scratch.path("out").join(file)).expect("a table's file");
        assert_eq!(table["len"].as_u64(), Some(bytes.len() as u64), "{table}");
        if file.ends_with(".aml") {
            let signature = table["name"].as_str().expect("a name").to_uppercase();
            assert_eq!(&bytes[..4], signature.as_bytes(), "{table}");
            assert_eq!(&bytes[4..8], (bytes.len() as u32).to_le_bytes(), "{table}");
            assert_eq!(bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0, "{table}");
        }
        if file.ends_with(".dtb") {
            // Magic and total size of a flattened devicetree.
            assert_eq!(&bytes[..4], [0xd0, 0x0d, 0xfe, 0xed], "{table}");
            assert_eq!(&bytes[4..8], (bytes.len() as u32).to_be_bytes(), "{table}");
        }
        listed.insert(file.to_owned());
    }
    assert_eq!(listed, written);
    written
}

fn list_for_people() -> Checked {
    let scratch = Scratch::new();
    let list = list(&scratch, "x86_64", "acpi");
    let outcome = Ghest::new(["tables", "--out"])
        .arg(scratch.path("out"))
        .arg(scratch.path("machine.toml"))
        .finish()
        .expect(0);
    let lines: Vec<String> = tables(&list)
        .iter()
        .map(|table| {
            let gpa = table["gpa"].as_u64().expect("a number");
            let len = table["len"].as_u64().expect("a number");
            format!("{gpa:#010x} {len:>7} bytes  {}", table["file"].as_str().expect("a name"))
        })
        .collect();
    assert_eq!(outcome.stdout().lines().collect::<Vec<_>>(), lines);
    Ok(())
}

fn acpi_is_where_the_guest_finds_it() -> Checked {
    found_by_the_guest("acpi", str::to_uppercase)
}

fn mptable_is_where_the_guest_finds_it() -> Checked {
    found_by_the_guest("mptable", |name| match name {
        "mpfp" => "_MP_".into(),
        _ => "PCMP".into(),
    })
}

/// The built-in guest reports the same tables at the same addresses with the same lengths, and all sums are right.
fn found_by_the_guest(firmware: &str, signature: impl Fn(&str) -> String) -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let list = list(&scratch, "x86_64", firmware);
    let outcome = Ghest::boot(&scratch.profile(&profile_text(firmware))).finish().expect_ok();
    let expected: BTreeSet<String> = below_the_reset_vector(&list)
        .map(|table| {
            let gpa = table["gpa"].as_u64().expect("a number");
            let name = signature(table["name"].as_str().expect("a name"));
            format!("{name} at {gpa:#x} {} bytes checksum ok", table["len"])
        })
        .collect();
    assert_eq!(outcome.probe("table").into_iter().collect::<BTreeSet<_>>(), expected, "{outcome}");
    Ok(())
}

/// A guest that prints the tables' area: it contains each file, byte by byte, and nothing else.
fn bytes_in_the_guests_memory() -> Checked {
    needs::kvm()?;
    for firmware in ["acpi", "mptable"] {
        let scratch = Scratch::new();
        let list = list(&scratch, "x86_64", firmware);
        let len = RESET_VECTOR - TABLES_START;
        scratch.file("kernel", kernels::prints_memory(TABLES_START as u32, len as u32));
        let profile = scratch.profile(&(profile_text(firmware) + "\n[boot]\nkernel = \"kernel\"\n"));
        let found = Ghest::boot(&profile).finish().expect(0).stdout;

        let mut expected = vec![0; len as usize];
        for table in below_the_reset_vector(&list) {
            let bytes = fs::read(scratch.path("out").join(table["file"].as_str().expect("a name")))
                .expect("a table's file");
            let start = (table["gpa"].as_u64().expect("a number") - TABLES_START) as usize;
            expected[start..start + bytes.len()].copy_from_slice(&bytes);
        }
        assert_eq!(found.len(), expected.len());
        let differs = found.iter().zip(&expected).position(|(found, expected)| found != expected);
        assert_eq!(differs.map(|at| TABLES_START + at as u64), None, "{firmware}: {list}");
    }
    Ok(())
}

fn the_machines_own_architecture() -> Checked {
    let scratch = Scratch::new();
    let profile = scratch.profile(&profile_text("acpi"));
    let [own, named] = [&[][..], &["--arch", "x86_64"]].map(|arch| {
        let out = scratch.path("out");
        Ghest::new(["tables", "--json", "--out"])
            .arg(out)
            .args(arch)
            .arg(&profile.path)
            .finish()
            .expect(0)
            .json()
    });
    assert_eq!(own, named);
    Ghest::new(["tables", "--out", "out", "--arch", "vax"])
        .arg(&profile.path)
        .directory(&scratch.path(""))
        .finish()
        .expect(2)
        .expect_said("[possible values: aarch64, x86_64]");
    assert!(!scratch.path("out/vax").exists());
    Ok(())
}

fn into_a_file() -> Checked {
    let scratch = Scratch::new();
    let profile = scratch.profile(&profile_text("acpi"));
    let out = scratch.file("in-the-way", "");
    Ghest::new(["tables", "--out"])
        .arg(&out)
        .arg(&profile.path)
        .finish()
        .expect(1)
        .expect_last(&format!("ghest: {}: File exists (os error 17)", out.display()));
    Ok(())
}

fn out_is_missing() -> Checked {
    let scratch = Scratch::new();
    let profile = scratch.profile(&profile_text("acpi"));
    Ghest::new(["tables"]).arg(&profile.path).finish().expect(2).expect_said("--out <DIR>");
    Ok(())
}

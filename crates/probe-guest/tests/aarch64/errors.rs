//! Memory errors: addresses without memory, where the emulator raises external aborts, and records that are in the record area
//! before the guest starts.

use firmware_tables::TableSet;
use libtest_mimic::Failed;
use platform::{Platform, Range, Region, RegionKind};
use ras_core::{ErrorSource, Kind, MemoryBlocks, MemoryReport, Notification, RecordArea, Span};

use super::emulated::{Machine, Outcome};
use super::{IMAGE_AT, TABLES, assert_lines, image, machine, run, tables};

/// Described to the guest as unused memory, but not backed by memory.
const UNBACKED: Range = Range { start: 0x7000_0000, len: 0x20_0000 };
/// The record area.
const RECORDS: Range = Range { start: TABLES.start + TABLES.len, len: 0x3_0000 };

/// A machine with 512 MiB and [`UNBACKED`].
fn with_unbacked_memory(gic: u8) -> Platform {
    let mut machine = machine(gic, 2, 512 << 20);
    machine.memory.ram.push(UNBACKED);
    machine.memory.regions.push(Region { range: UNBACKED, kind: RegionKind::AcpiNvs });
    machine
}

/// Every access that aborts is abandoned, on either processor, and the following accesses are made.
pub(crate) fn abandons_accesses_that_abort(gic: u8) -> Result<(), Failed> {
    let words = "probe.touch=0x70000000 probe.store=0x70001008 probe.fetch=0x70002000 probe.touch=0x48000000 \
                 probe.store=0x48001000 probe.fetch=0x48002000 probe.timeout=100";
    for on in [0, 1] {
        let Outcome { report, ended } =
            run(TableSet::Acpi, &with_unbacked_memory(gic), &format!("{words} probe.touch-on={on}"))?;
        let from = report
            .iter()
            .position(|line| line == "probe: touching 0x70000000")
            .ok_or_else(|| format!("{report:#?}"))?;
        let lines: Vec<_> =
            report[from..].iter().map(|line| line.split(" pc ").next().unwrap_or(line)).collect();
        let abort = |esr, far| format!("probe: error abort vcpu {on} esr {esr} far {far}");
        assert_eq!(
            lines,
            [
                "probe: touching 0x70000000",
                &abort("0x96000010", "0x70000000"),
                "probe: error offlined 0x70000000",
                "probe: touching 0x70001008",
                &abort("0x96000050", "0x70001008"),
                "probe: error offlined 0x70001008",
                "probe: touching 0x70002000",
                &abort("0x96000050", "0x70002000"),
                "probe: error offlined 0x70002000",
                "probe: touching 0x48000000",
                "probe: touched 0x48000000 fine",
                "probe: touching 0x48001000",
                "probe: touched 0x48001000 fine",
                "probe: touching 0x48002000",
                "probe: touched 0x48002000 fine",
                "probe: ok",
            ],
            "{report:#?}"
        );
        assert!(ended, "the machine stays on");
    }
    Ok(())
}

/// Runs a machine with two error sources in ACPI and a record of each. Returns the report.
fn with_records(cmdline: &str, spoil: impl Fn(&mut [u8])) -> Result<Vec<String>, Failed> {
    let polled = Notification::Polled { interval_ms: 1000.try_into()? };
    let sources = vec![
        ErrorSource { id: 0, notification: Notification::Sea },
        ErrorSource { id: 7, notification: polled },
    ];
    with_records_of(TableSet::Acpi, sources, cmdline, spoil)
}

/// The same with any table set and any sources.
fn with_records_of(
    set: TableSet,
    sources: Vec<ErrorSource>,
    cmdline: &str,
    spoil: impl Fn(&mut [u8]),
) -> Result<Vec<String>, Failed> {
    let mut machine = machine(3, 2, 512 << 20);
    let [_, _, rest] = &mut machine.memory.regions[..] else { return Err("other regions".into()) };
    rest.range = Range::between(RECORDS.end(), rest.range.end());
    machine.memory.regions.push(Region { range: RECORDS, kind: RegionKind::AcpiNvs });
    machine.memory.records = Some(RECORDS);
    machine.error_sources = sources;
    let mut tables = tables(set, &machine, cmdline)?;
    let area: RecordArea = tables.record_area.clone().ok_or("no record area")?;
    let bytes = tables.tables.iter_mut().find(|table| table.name == "error-records").ok_or("no records")?;
    for (slot, span) in area.slots().zip([Span::around(0x4800_0000, 12), Span::around(0x4900_0000, 13)]) {
        let report = MemoryReport::uncorrected(Kind::ActionOptional, 1_795_446_245, 17);
        let at = |gpa: u64| (gpa - area.gpa()) as usize;
        let block = bytes.bytes.get_mut(at(slot.block_gpa)..).ok_or("no block")?;
        MemoryBlocks::new(span, report).write_next(block)?;
        spoil(block);
        bytes.bytes[at(slot.ack_gpa)] = 0;
    }
    Ok(Machine::new("gic-version=3,acpi=off", 2)?.boot(image()?, IMAGE_AT, &tables)?.run("")?.report)
}

/// Records that are present before errors are handled are processed after the report.
pub(crate) fn processes_records_of_acpi() -> Result<(), Failed> {
    let report = with_records("probe.touch=0x48000008 probe.await-errors=3", |_| ())?;
    assert_lines(
        &report,
        &[
            "probe: memory 0x404f0000-0x40520000 nvs",
            "probe: error-source 0 sea block 0x40510000 ack 0x40500000",
            "probe: error-source 7 polled block 0x40511000 ack 0x40500008",
        ],
    );
    let from = report.iter().position(|line| line == "probe: rtc none").ok_or("no rtc line")?;
    assert_eq!(
        report[from + 1..],
        [
            "probe: error record source 0 severity recoverable entries 1",
            "probe: error page 0x48000000 section-severity recoverable",
            "probe: error acknowledged source 0",
            "probe: error record source 7 severity recoverable entries 2",
            "probe: error page 0x49000000 section-severity recoverable",
            "probe: error page 0x49001000 section-severity recoverable",
            "probe: error acknowledged source 7",
            "probe: touching 0x48000008",
            "probe: error offlined 0x48000008",
            "probe: awaiting 3 errors",
            "probe: error total 3",
            "probe: ok",
        ]
    );
    Ok(())
}

/// The record area of a devicetree is reserved memory.
pub(crate) fn processes_records_of_a_devicetree() -> Result<(), Failed> {
    let sources = vec![ErrorSource { id: 1, notification: Notification::External { gsi: 37 } }];
    let report = with_records_of(TableSet::Devicetree, sources, "probe.await-errors=1", |_| ())?;
    assert_lines(
        &report,
        &[
            "probe: memory 0x40000000-0x404f0000 usable",
            "probe: memory 0x404f0000-0x40520000 nvs",
            "probe: memory 0x40520000-0x60000000 usable",
            "probe: firmware devicetree",
            "probe: error-source 0 cper block 0x40510000 ack 0x40500000",
        ],
    );
    let from = report.iter().position(|line| line.starts_with("probe: rtc ")).ok_or("no rtc line")?;
    assert_eq!(
        report[from + 1..],
        [
            "probe: error record source 0 severity recoverable entries 1",
            "probe: error page 0x48000000 section-severity recoverable",
            "probe: error acknowledged source 0",
            "probe: awaiting 1 errors",
            "probe: error total 1",
            "probe: ok",
        ]
    );
    Ok(())
}

pub(crate) fn rejects_malformed_records() -> Result<(), Failed> {
    let report = with_records("", |block| block[12] ^= 1)?;
    let result = report.last().map(String::as_str);
    assert_eq!(result, Some("probe: failed status block: broken entry at offset 0xac"));
    Ok(())
}

/// A wait for errors fails after its timeout, and words that are not memory are rejected.
pub(crate) fn a_wait_for_errors_times_out() -> Result<(), Failed> {
    let report = with_records("probe.await-errors=4 probe.timeout=200", |_| ())?;
    assert_eq!(report.last().map(String::as_str), Some("probe: failed errors reported: 3 of 4"));
    for (word, why) in [
        ("probe.touch=0x48000004", "not memory to be touched: 0x48000004"),
        ("probe.touch=0x9000000", "not memory to be touched: 0x9000000"),
        ("probe.touch=0x46600000", "not memory to be touched: 0x46600000"),
        ("probe.touch=0x48000000 probe.touch-on=2", "the tables list no processor 0x2"),
    ] {
        let Outcome { report, .. } = run(TableSet::Acpi, &machine(3, 2, 512 << 20), word)?;
        assert_eq!(report.last(), Some(&format!("probe: failed {why}")), "{word}");
    }
    Ok(())
}

//! Memory errors: addresses without memory, which the emulator answers by external aborts, and records that lie where the
//! tables say before the guest starts.

use firmware_tables::TableSet;
use libtest_mimic::Failed;
use platform::{Platform, Range, Region, RegionKind};
use ras_core::{ErrorSource, Kind, MemoryBlocks, MemoryReport, Notification, RecordArea, Span};

use super::emulated::{Machine, Outcome};
use super::{IMAGE_AT, TABLES, assert_lines, image, machine, run, tables};

/// Told to be memory that is never used, and there is none.
const NOTHING: Range = Range { start: 0x7000_0000, len: 0x20_0000 };
/// Where records lie.
const RECORDS: Range = Range { start: TABLES.start + TABLES.len, len: 0x3_0000 };

/// A machine with 512 MiB and [`NOTHING`].
fn with_nothing(gic: u8) -> Platform {
    let mut machine = machine(gic, 2, 512 << 20);
    machine.memory.ram.push(NOTHING);
    machine.memory.regions.push(Region { range: NOTHING, kind: RegionKind::AcpiNvs });
    machine
}

/// Every access is given up, on either processor, and what comes after it is made.
pub(crate) fn gives_up_what_aborts(gic: u8) -> Result<(), Failed> {
    let words = "probe.touch=0x70000000 probe.store=0x70001008 probe.fetch=0x70002000 probe.touch=0x48000000 \
                 probe.store=0x48001000 probe.fetch=0x48002000 probe.patience=100";
    for on in [0, 1] {
        let Outcome { report, ended } =
            run(TableSet::Acpi, &with_nothing(gic), &format!("{words} probe.touch-on={on}"))?;
        let from = report
            .iter()
            .position(|line| line == "probe: touching 0x70000000")
            .ok_or_else(|| format!("{report:#?}"))?;
        let said: Vec<_> =
            report[from..].iter().map(|line| line.split(" pc ").next().unwrap_or(line)).collect();
        let abort = |esr, far| format!("probe: error abort vcpu {on} esr {esr} far {far}");
        assert_eq!(
            said,
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

/// A machine with two sources of ACPI and a record of each, and what the guest says of them.
fn with_records(cmdline: &str, spoil: impl Fn(&mut [u8])) -> Result<Vec<String>, Failed> {
    let polled = Notification::Polled { interval_ms: 1000.try_into()? };
    let sources = vec![
        ErrorSource { id: 0, notification: Notification::Sea },
        ErrorSource { id: 7, notification: polled },
    ];
    with_records_of(TableSet::Acpi, sources, cmdline, spoil)
}

/// The same by tables of any kind, with these sources.
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

/// They were there before anybody listened, and are taken once the report is out.
pub(crate) fn takes_records() -> Result<(), Failed> {
    let report = with_records("probe.touch=0x48000008 probe.await-errors=3", |_| ())?;
    assert_lines(
        &report,
        &[
            "probe: memory 0x40500000-0x40530000 nvs",
            "probe: error-source 0 sea block 0x40520000 ack 0x40510000",
            "probe: error-source 7 polled block 0x40521000 ack 0x40510008",
        ],
    );
    let from = report.iter().position(|line| line == "probe: rtc none").ok_or("no clock's line")?;
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

/// By a devicetree that leads to one, which is no memory for anything else.
pub(crate) fn takes_records_of_a_devicetree() -> Result<(), Failed> {
    let sources = vec![ErrorSource { id: 1, notification: Notification::External { gsi: 37 } }];
    let report = with_records_of(TableSet::Devicetree, sources, "probe.await-errors=1", |_| ())?;
    assert_lines(
        &report,
        &[
            "probe: memory 0x40000000-0x40500000 usable",
            "probe: memory 0x40500000-0x40530000 nvs",
            "probe: memory 0x40530000-0x60000000 usable",
            "probe: firmware devicetree",
            "probe: error-source 0 cper block 0x40520000 ack 0x40510000",
        ],
    );
    let from = report.iter().position(|line| line.starts_with("probe: rtc ")).ok_or("no clock's line")?;
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

pub(crate) fn refuses_malformed_records() -> Result<(), Failed> {
    let report = with_records("", |block| block[12] ^= 1)?;
    let verdict = report.last().map(String::as_str);
    assert_eq!(verdict, Some("probe: failed status block: broken entry at offset 0xac"));
    Ok(())
}

pub(crate) fn has_patience() -> Result<(), Failed> {
    let report = with_records("probe.await-errors=4 probe.patience=200", |_| ())?;
    assert_eq!(report.last().map(String::as_str), Some("probe: failed errors told: 3 of 4"));
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

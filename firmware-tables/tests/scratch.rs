//! x
#[path = "machine/aarch64.rs"] mod machine;
use firmware_tables::*;
use platform::*;
#[test] fn dump() {
 let f2 = platform::aarch64::Features{gic:2, its:false, performance_monitors:true};
 for (n, p) in [("v3", machine::default_machine()), ("v2", machine::machine(8, f2, 3)), ("q3", machine::machine(2, machine::ALL, 0)), ("q2", machine::machine(2, f2, 0))] {
  let mut p = p;
  let mut chosen = machine::chosen();
  if n.starts_with('q') {
   p.interrupts = match p.interrupts { InterruptController::Gicv2{distributor, ..} => InterruptController::Gicv2{distributor, cpu_interface: Range{start:0x8010000,len:0x2000}}, InterruptController::Gicv3{distributor, its, ..} => InterruptController::Gicv3{distributor, its, redistributors: Range{start:0x80a0000,len:0x40000}}, x => x };
   p.devices.retain(|d| ["serial0","rtc"].contains(&d.name.as_str()));
   let t = Range{start:0x4800_0000,len:0x10_0000};
   p.memory.tables = t;
   p.memory.regions = vec![Region{range:Range::between(0x4000_0000,t.start),kind:RegionKind::Usable},Region{range:t,kind:RegionKind::AcpiReclaim},Region{range:Range::between(t.end(),0x8000_0000),kind:RegionKind::Usable}];
   chosen.initrd = None;
   chosen.command_line = "earlycon=pl011,0x9000000 efi=debug panic=-1 loglevel=8".into();
  }
  for set in ["devicetree","acpi"] { let d=format!("/tmp/fw/{n}-{set}"); std::fs::create_dir_all(&d).unwrap();
   let b = table_set(set).unwrap().build(&p, &chosen).unwrap(); let mut l=String::new(); for t in &b.tables { std::fs::write(format!("{d}/{}", t.file_name), &t.bytes).unwrap(); l+=&format!("{} {:#x}\n", t.file_name, t.gpa); } std::fs::write(format!("{d}/list"), l).unwrap();
 }}}

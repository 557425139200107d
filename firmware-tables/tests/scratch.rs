#[path = "machine/aarch64.rs"] mod machine;
use firmware_tables::*;
#[test] fn dump() {
 for (n, p) in [("v3", machine::default_machine()), ("v2", machine::machine(8, platform::aarch64::Features{gic:2, its:false, performance_monitors:true}, 3))] {
  for set in ["devicetree","acpi"] { let d=format!("/tmp/fw/{n}-{set}"); std::fs::create_dir_all(&d).unwrap();
   match table_set(set).unwrap().build(&p, &machine::chosen()) { Ok(b)=> for t in &b.tables { std::fs::write(format!("{d}/{}", t.file_name), &t.bytes).unwrap(); println!("{:20} {:x} {:x}", t.name, t.gpa, t.bytes.len()); }, Err(e)=>println!("{set} {e}") }
 }}}

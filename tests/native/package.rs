//! The Debian package: what `vmm/Cargo.toml` puts into it. `cargo lab package` builds it.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;

use crate::harness::{Checked, Ghest, Scratch, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![every_file_of_the_package_exists]
}

/// Whether a file is there; its name may have one `*`.
fn exists(path: &Path) -> bool {
    let name = path.file_name().expect("a file").to_string_lossy();
    let Some((start, end)) = name.split_once('*') else { return path.is_file() };
    let files = fs::read_dir(path.parent().expect("a directory")).into_iter().flatten().flatten();
    files.map(|file| file.file_name()).any(|name| {
        let name = name.to_string_lossy();
        name.starts_with(start) && name.ends_with(end)
    })
}

/// The unit runs the program where the package puts it, and what is generated is what the commands print.
fn every_file_of_the_package_exists() -> Checked {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("a manifest");
    let manifest: toml::Value = toml::from_str(&manifest).expect("TOML");
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().expect("assets");
    let generated = Scratch::new();
    Ghest::new(["man", "--out"]).arg(generated.path("man")).finish().expect(0);
    let lab = fs::read_to_string(root.join("../tools/lab/src/package.rs")).expect("the command of the lab");
    let mut destinations = Vec::new();
    for asset in assets {
        let [source, destination] = [0_usize, 1].map(|part| asset[part].as_str().expect("a path"));
        destinations.push(destination);
        let is_there = match source.strip_prefix("../target/dist/") {
            Some(page) if page.starts_with("man/") => exists(&generated.path(page)),
            // The lab writes it by this name.
            Some(name) => lab.contains(&format!("{}\", &[", name.replace('*', "control"))),
            None => source == "target/release/ghest" || exists(&root.join(source)),
        };
        assert!(is_there, "{source}");
    }
    for directory in ["usr/bin/", "usr/lib/systemd/system/", "usr/share/man/man1/", "usr/share/ghest/"] {
        assert!(destinations.contains(&directory), "{destinations:?}");
    }
    Ok(())
}

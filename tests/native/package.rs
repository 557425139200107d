//! The Debian package: what `vmm/Cargo.toml` puts into it. `cargo lab package` builds it.

use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;

use crate::harness::{Checked, Ghest, Scratch, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![every_file_of_the_package_exists, maintainer_scripts_are_valid_shell]
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

fn metadata() -> toml::Value {
    let manifest =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("a manifest");
    let manifest: toml::Value = toml::from_str(&manifest).expect("TOML");
    manifest["package"]["metadata"]["deb"].clone()
}

/// dpkg runs them as root: they are shell, and stop at the first error.
fn maintainer_scripts_are_valid_shell() -> Checked {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(metadata()["maintainer-scripts"].as_str().expect("a path"));
    for name in ["postinst", "prerm", "postrm"] {
        let path = directory.join(name);
        let text = fs::read_to_string(&path).expect("a script");
        assert!(text.starts_with("#!/bin/sh\nset -e\n"), "{name}: {text}");
        let checked = Command::new("sh").arg("-n").arg(&path).output().expect("sh runs");
        assert!(checked.status.success(), "{name}: {checked:?}");
    }
    Ok(())
}

/// The unit runs the program where the package puts it, and what is generated is what the commands print.
fn every_file_of_the_package_exists() -> Checked {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let metadata = metadata();
    let assets = metadata["assets"].as_array().expect("assets");
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
    for file in metadata["conf-files"].as_array().expect("a list") {
        let (directory, _) =
            file.as_str().and_then(|file| file.strip_prefix('/')?.rsplit_once('/')).expect("a path");
        assert!(destinations.contains(&format!("{directory}/").as_str()), "{file}");
    }
    Ok(())
}

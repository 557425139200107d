//! The devices of a server: what a disk, a network, a random number generator and vsock add to start and memory.

use std::fs;
use std::path::Path;

use super::native::{PROFILE, first_run};
use super::{HEADINGS, Spread, results, row};
use crate::bundle::Cache;
use crate::error::{Context, Error, Result};
use crate::report::Count;
use crate::workspace::Workspace;
use crate::{process, run, scenario, setup};

const BOOTS: usize = 20;

pub(super) fn bench(workspace: &Workspace, cache: &Cache, ghest: &Path) -> Result<()> {
    if Path::new("/dev/kvm").exists() {
        start(ghest)?;
    } else {
        println!("  SKIPPED start: this machine has no /dev/kvm");
    }
    memory(workspace, cache)
}

/// Boots the built-in guest on this machine with and without the devices, alternately.
fn start(ghest: &Path) -> Result<()> {
    let directory = tempfile::tempdir().context("cannot create a directory")?;
    let directory = directory.path();
    let tap = match Tap::new("192.0.2.8/24") {
        Ok(tap) => tap,
        Err(error) => {
            println!("  SKIPPED start: no tap ({error})");
            return Ok(());
        }
    };
    let devices = format!(
        "\n[[device]]\ntype = \"virtio-block\"\npath = \"disk\"\n\n[[device]]\ntype = \"virtio-net\"\ntap = \"{}\"\n\n\
         [[device]]\ntype = \"virtio-rng\"\n\n[[device]]\ntype = \"virtio-vsock\"\ncid = 3\nsocket = \"vsock\"\n",
        tap.name
    );
    let file = |name: &str, text: String| -> Result<_> {
        let path = directory.join(name);
        fs::write(&path, text).context(format_args!("cannot write {name}"))?;
        Ok(path)
    };
    let disk = file("disk", String::new())?;
    let opened = fs::File::options().write(true).open(disk).context("cannot open the disk")?;
    opened.set_len(16 << 20).context("cannot size the disk")?;

    let bare = file("bare.toml", PROFILE.to_owned())?;
    let server = file("server.toml", format!("{PROFILE}{devices}"))?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..BOOTS {
        without.push(first_run(ghest, &bare, directory)?);
        with.push(first_run(ghest, &server, directory)?);
    }
    let (without, with) = (Spread::new(without), Spread::new(with));
    println!("{}", row(&format!("ms from process start to first KVM_RUN, {BOOTS} boots"), HEADINGS));
    println!("{}", row("built-in guest, no device", format_args!("{without:.2}")));
    println!("{}", row("built-in guest, the four devices", format_args!("{with:.2}")));
    let ratio = with.median() / without.median();
    println!("{}", row("with : without, medians (aim: 1.20)", format_args!("{ratio:19.2}")));
    Ok(())
}

/// Boots Linux on emulated hosts, where it uses each device.
fn memory(workspace: &Workspace, cache: &Cache) -> Result<()> {
    let scenarios = scenario::load(&workspace.scenarios().join("benchmark-server"))?;
    let mut measured = Vec::new();
    let verdicts = run::measure(workspace, cache, &scenarios, &mut |verdict, transcript| {
        let kib = results(&String::from_utf8_lossy(transcript)).get("kib").cloned();
        measured.push((verdict.name.clone(), kib.unwrap_or_else(|| "not measured".to_owned())));
    })?;
    for (name, kib) in measured {
        let what = format!("KiB besides the guest's, {name} (aim: 6144)");
        println!("{}", row(&what, format_args!("{kib:>19}")));
    }
    if Count::of(&verdicts).is_good() { Ok(()) } else { Err(Error::new("not all boots were completed")) }
}

/// A tap of this machine with an address, removed when it is dropped.
struct Tap {
    name: String,
}

impl Tap {
    /// Creates a tap.
    ///
    /// # Errors
    ///
    /// Returns an error if ip(8) cannot: only root may, and the kernel needs TUN.
    fn new(address: &str) -> Result<Self> {
        let name = format!("lab{}", std::process::id());
        let ip = |arguments: &[&str]| process::output(setup::as_root("ip").args(arguments)).map(drop);
        ip(&["tuntap", "add", "dev", &name, "mode", "tap"])?;
        let tap = Self { name };
        ip(&["address", "add", address, "dev", &tap.name])?;
        ip(&["link", "set", &tap.name, "up"])?;
        Ok(tap)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let mut ip = setup::as_root("ip");
        if let Err(error) = process::output(ip.args(["tuntap", "del", "dev", &self.name, "mode", "tap"])) {
            eprintln!("{error}");
        }
    }
}

//! Every target, for the inputs of `seeds`, for changed ones, and for pseudo-random ones. `FUZZ_INPUTS` is the number of these for each
//! target.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, panic};

use fuzz::random::Random;
use fuzz::{TARGETS, Target};
use libtest_mimic::{Arguments, Failed, Trial};

/// Inputs of each target without `FUZZ_INPUTS`: a second.
const INPUTS: u32 = 2_000;
/// Bytes of the longest pseudo-random input.
const MAX_LEN: usize = 1024;

/// Panics of any thread. libFuzzer's programs end with the first one.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn main() {
    let show = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        show(panic);
    }));
    // A target checks that no descriptor is left open: one at a time.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let mut trials: Vec<_> =
        TARGETS.iter().map(|target| Trial::test(target.name, || replay(target))).collect();
    trials.push(Trial::test("every_target_has_a_program", every_target_has_a_program));
    libtest_mimic::run(&arguments, trials).exit();
}

fn replay(target: &'static Target) -> Result<(), Failed> {
    let seeds = seeds(target.name)?;
    for (index, seed) in seeds.iter().enumerate() {
        run(target, &format!("seed {index}"), seed)?;
    }
    let inputs = env::var("FUZZ_INPUTS").map_or(Ok(INPUTS), |inputs| inputs.parse())?;
    let mut random = Random::new(0x6765_7374);
    for number in 0..inputs {
        let input = if number % 2 == 0 { random.input(MAX_LEN) } else { random.changed(&seeds) };
        run(target, &format!("input {number}"), &input)?;
    }
    Ok(())
}

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The seeds of a target, of which there has to be one.
fn seeds(target: &str) -> Result<Vec<Vec<u8>>, Failed> {
    let entries = fs::read_dir(directory("seeds").join(target))?;
    let mut paths: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    paths.sort();
    if paths.is_empty() {
        return Err("no seeds".into());
    }
    Ok(paths.iter().map(fs::read).collect::<Result<_, _>>()?)
}

/// Runs a target. An input that makes it panic, or a thread of the device, is shown, and written to a file.
fn run(target: &Target, what: &str, data: &[u8]) -> Result<(), Failed> {
    let before = PANICS.load(Ordering::SeqCst);
    // A target has joined its threads at its end.
    if panic::catch_unwind(|| (target.run)(data)).is_ok() && PANICS.load(Ordering::SeqCst) == before {
        return Ok(());
    }
    let path = directory("artifacts").join(target.name);
    fs::create_dir_all(&path)?;
    let path = path.join(what.replace(' ', "-"));
    fs::write(&path, data)?;
    Err(format!("{what}, now {}, shows a fault:\n{}", path.display(), (target.show)(data)).into())
}

fn every_target_has_a_program() -> Result<(), Failed> {
    let manifest = fs::read_to_string(directory("Cargo.toml"))?;
    for Target { name, .. } in TARGETS {
        let path = format!("fuzz_targets/{name}.rs");
        if !manifest.contains(&format!("name = \"{name}\"\npath = \"{path}\"\n")) {
            return Err(format!("Cargo.toml has no program {name}").into());
        }
        if !fs::read_to_string(directory(&path))?.contains(&format!("fuzz::run(\"{name}\", data)")) {
            return Err(format!("{path} does not run {name}").into());
        }
    }
    Ok(())
}

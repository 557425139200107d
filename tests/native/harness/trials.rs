//! Tests as libtest-mimic takes them.

use libtest_mimic::{Completion, Trial};

use super::Checked;

/// A test. Where this machine lacks what it needs it counts as ignored, and says so on stderr.
pub(crate) fn trial(name: impl Into<String>, test: impl FnOnce() -> Checked + Send + 'static) -> Trial {
    let name = name.into();
    let shown = name.clone();
    Trial::ignorable_test(name, move || match test() {
        Ok(()) => Ok(Completion::Completed),
        Err(missing) => {
            // In one piece, so that what other tests write does not get into it.
            let loud = format!("\n*** NOT TESTED: {shown}: {missing} ***\n");
            eprint!("{loud}");
            Ok(Completion::ignored_with(missing))
        }
    })
}

/// The named functions of a module as tests.
macro_rules! trials {
    ($($test:ident),+ $(,)?) => {
        vec![$(
            $crate::harness::trial(
                format!("{}::{}", module_path!().trim_start_matches("native::"), stringify!($test)),
                $test,
            )
        ),+]
    };
}
pub(crate) use trials;

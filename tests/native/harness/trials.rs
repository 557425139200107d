//! Tests for libtest-mimic.

use libtest_mimic::{Completion, Trial};

use super::Checked;

/// A test. If this machine does not meet its requirements it is ignored, with a line on stderr.
pub(crate) fn trial(name: impl Into<String>, test: impl FnOnce() -> Checked + Send + 'static) -> Trial {
    let name = name.into();
    let shown = name.clone();
    Trial::ignorable_test(name, move || match test() {
        Ok(()) => Ok(Completion::Completed),
        Err(missing) => {
            // One write, so that it is not mixed with the output of other tests.
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

//! Creating a VM.

/// Calls KVM_CREATE_VM, again and again while it is interrupted: Linux takes all locks of the address space for it
/// (`mm_take_all_locks`), and gives up if a signal is pending or the kernel has work for the thread, such as that of io_uring.
///
/// # Errors
/// Returns any other error of the call.
pub fn uninterrupted<T>(
    mut create_vm: impl FnMut() -> Result<T, kvm_ioctls::Error>,
) -> Result<T, kvm_ioctls::Error> {
    loop {
        match create_vm() {
            Err(error) if error.errno() == libc::EINTR => {}
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_call_is_repeated() {
        let mut outcomes = [Err(libc::EINTR), Err(libc::EINTR), Ok(3), Ok(4)].into_iter();
        let mut call = || outcomes.next().expect("no call after success").map_err(kvm_ioctls::Error::new);
        assert_eq!(uninterrupted(&mut call).expect("success"), 3);
        assert_eq!(outcomes.next(), Some(Ok(4)));
        let refused = uninterrupted(|| Err::<(), _>(kvm_ioctls::Error::new(libc::ENOMEM)));
        assert_eq!(refused.expect_err("an error").errno(), libc::ENOMEM);
    }
}

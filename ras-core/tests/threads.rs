//! Which public types may cross threads, and be shared by them: checked at compile time.

use ras_core::abilities::HostAbilities;
use ras_core::actions::Action;
use ras_core::handshake::Handshake;
use ras_core::ledger::Ledger;
use ras_core::plan::{Plan, PlanError};
use ras_core::reporters::{BuildError, Claims, Reporter};
use ras_core::request::Request;
use ras_core::responder::{Responder, ResponderContext, ResponderOptions};
use ras_core::{DecodeError, Description, MemoryBlocks, MemoryError, RecordArea};

fn is_send<T: Send + ?Sized>() {}
fn is_sync<T: Sync + ?Sized>() {}

#[test]
fn values_may_be_sent_to_threads_and_shared_by_them() {
    macro_rules! both {
        ($($name:ty),+ $(,)?) => { $( is_send::<$name>(); is_sync::<$name>(); )+ };
    }
    both!(
        HostAbilities,
        Request,
        Plan,
        PlanError,
        RecordArea,
        Claims,
        BuildError,
        Ledger,
        MemoryError,
        MemoryBlocks,
        Action<'_>,
        Handshake<64>,
        ResponderContext,
        ResponderOptions,
        Description,
        DecodeError,
    );
}

#[test]
fn a_responder_may_be_sent_to_another_thread() {
    is_send::<Responder>();
    is_send::<dyn Reporter>();
}

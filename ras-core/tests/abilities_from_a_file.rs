//! A host that is not here: its abilities are written there and read here.

use ras_core::abilities::{
    Aarch64Abilities, ArchAbilities, Fact, HostAbilities, MachineCheckAbilities, MemoryFailure, Vendor,
    X86Abilities,
};
use ras_core::request::Arch;

#[test]
fn what_is_written_is_read() {
    let mut hosts = vec![HostAbilities::unknown(Arch::Aarch64), HostAbilities::unknown(Arch::X86_64)];
    for fact in Fact::ALL {
        let others = HostAbilities {
            arch: ArchAbilities::Aarch64(Aarch64Abilities {
                vcpu_events: fact,
                inject_serror_esr: fact,
                inject_ext_dabt: fact,
                sea_to_user: fact,
                vcpu_ras: fact,
                far_not_valid: fact,
            }),
            kvm: fact,
            memory_fault_info: fact,
            memory_failure: MemoryFailure { handled: fact, recovery: fact, early_kill: fact },
            privileged: fact,
            page_sizes: vec![4 << 10, 2 << 20, 1 << 30],
        };
        for vendor in [None, Some(Vendor::Intel), Some(Vendor::Amd)] {
            for mce in [None, Some(MachineCheckAbilities { supported: u64::MAX, banks: 32 })] {
                let arch = ArchAbilities::X86_64(X86Abilities { user_nmi: fact, mce, vendor });
                hosts.push(HostAbilities { arch, ..others.clone() });
            }
        }
        hosts.push(others);
    }
    for host in hosts {
        let text = serde_json::to_string(&host).unwrap();
        assert_eq!(serde_json::from_str::<HostAbilities>(&text).unwrap(), host, "{text}");
    }
}

#[test]
fn what_a_file_leaves_out_is_not_known_and_what_it_misspells_is_an_error() {
    let host: HostAbilities =
        serde_json::from_str(r#"{"arch": {"aarch64": {"vcpu-events": "yes"}}}"#).unwrap();
    let mut expected = HostAbilities::unknown(Arch::Aarch64);
    expected.arch =
        ArchAbilities::Aarch64(Aarch64Abilities { vcpu_events: Fact::Yes, ..Aarch64Abilities::default() });
    assert_eq!(host, expected);
    for wrong in [
        r#"{}"#,
        r#"{"arch": {"aarch64": {"vcpu-event": "yes"}}}"#,
        r#"{"arch": {"riscv64": {}}}"#,
        r#"{"arch": {"x86_64": {}}, "kvm": "maybe"}"#,
        r#"{"arch": {"x86_64": {"mce": {"supported": -1}}}}"#,
        r#"{"arch": {"x86_64": {"mce": {"banks": 300}}}}"#,
    ] {
        assert!(serde_json::from_str::<HostAbilities>(wrong).is_err(), "{wrong}");
    }
}

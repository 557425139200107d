//! Abilities of another host, written to a file there and read here.

use proptest::prelude::*;
use ras_core::abilities::{
    Aarch64Abilities, ArchAbilities, Fact, HostAbilities, MachineCheckAbilities, MemoryFailure, Vendor,
    X86Abilities,
};
use ras_core::request::Arch;

#[test]
fn abilities_survive_serialisation() {
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
            address_bits: Some(48),
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
fn an_omitted_ability_is_unknown_and_a_misspelt_one_is_an_error() {
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

/// Keys and values of such a file, and some that are not valid.
const WORDS: [&str; 28] = [
    "\"arch\"",
    "\"aarch64\"",
    "\"x86_64\"",
    "\"kvm\"",
    "\"mce\"",
    "\"supported\"",
    "\"banks\"",
    "\"vendor\"",
    "\"intel\"",
    "\"memory-failure\"",
    "\"handled\"",
    "\"page-sizes\"",
    "\"vcpu-events\"",
    "\"privileged\"",
    "\"yes\"",
    "\"no\"",
    "\"unknown\"",
    "\"perhaps\"",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "18446744073709551616",
    "-1",
    "32",
    "null",
];

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>(), words in prop::collection::vec(prop::sample::select(&WORDS[..]), 0..24)) {
        let _ = serde_json::from_str::<HostAbilities>(&text);
        let _ = serde_json::from_str::<HostAbilities>(&words.concat());
        // After a valid beginning the parser gets further.
        for arch in ["aarch64", "x86_64"] {
            let text = format!("{{\"arch\":{{\"{arch}\":{{{}", words.concat());
            let _ = serde_json::from_str::<HostAbilities>(&text);
        }
    }

    #[test]
    fn any_abilities_survive_serialisation(fact in prop::sample::select(&Fact::ALL[..]), supported: u64, banks: u8, page_sizes: Vec<u64>) {
        let mce = Some(MachineCheckAbilities { supported, banks });
        let arch = ArchAbilities::X86_64(X86Abilities { user_nmi: fact, mce, vendor: Some(Vendor::Amd) });
        let host = HostAbilities { arch, page_sizes, ..HostAbilities::unknown(Arch::X86_64) };
        let text = serde_json::to_string(&host).unwrap();
        prop_assert_eq!(serde_json::from_str::<HostAbilities>(&text).unwrap(), host);
    }
}

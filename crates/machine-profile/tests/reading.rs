//! From files and `--set` to machines, and problems that are detected after parsing.

use std::fs;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use devices::virtio_block::{BlockConfig, DiskOptions, Format};
use machine_profile::device_kind::{DeviceConfig, RateLimits};
use machine_profile::{
    Boot, BootProtocol, Budget, Corrected, Device, DeviceFile, Diagnostic, Kernel, MAX_LEN, Machine, Memory,
    MemoryBacking, Metrics, OnBudget, OnMissingSupport, OnReboot, Override, PageSize, Profile, Ras, Repair,
    Source, TableSet, conflicts, load, parse, schema,
};
use platform::Arch;
use ras_core::{Response, Threshold};
use serde_json::Value;

#[test]
fn a_header_alone_is_a_profile_and_every_default_is_filled_in() {
    let machine = read("[machine]", &[]).unwrap().machine;
    assert_eq!(
        machine,
        Machine {
            name: "web".to_owned(),
            arch: Arch::X86_64,
            vcpus: 1,
            firmware: TableSet::Acpi,
            on_reboot: OnReboot::Exit,
            memory: Memory {
                size: 256 << 20,
                backing: MemoryBacking::Anonymous,
                page_size: PageSize::Small,
                path: None,
            },
            boot: Boot {
                kernel: Kernel::BuiltinProbe,
                initrd: None,
                cmdline: String::new(),
                protocol: BootProtocol::Auto,
            },
            ras: Ras {
                synchronous: None,
                asynchronous: None,
                poll_interval: Duration::from_secs(1),
                on_missing_support: OnMissingSupport::Degrade,
                repair: Repair::OnReset,
                corrected: None,
                injection: false,
                boot_record: true,
                persistent_store: None,
                ledger: None,
                budget: None,
            },
            devices: Vec::new(),
            control_socket: None,
            metrics: None,
        }
    );
}

#[test]
fn every_key_is_honoured() {
    let text = r#"
        [machine]
        name = "db"
        vcpus = 3
        memory = "4 GiB"
        firmware = "acpi"
        on-reboot = "restart"
        [memory]
        backing = "hugetlbfs"
        page-size = "1GiB"
        path = "/dev/hugepages/db"
        [boot]
        kernel = "vmlinux"
        initrd = "/boot/initrd"
        cmdline = "quiet"
        protocol = "pvh"
        [ras]
        synchronous = "nmi"
        asynchronous = "polled"
        poll-interval = "100ms"
        on-missing-support = "refuse"
        repair = "never"
        corrected = "gsiv"
        corrected-threshold = 50
        corrected-window = "12h"
        injection = true
        boot-record = false
        persistent-store = "db.erst"
        ledger = "db.ledger"
        budget = 64
        on-budget = "stop"
        [[device]]
        type = "virtio-block"
        path = "./a.img"
        [[device]]
        type = "virtio-block"
        path = "b.img"
        read-only = true
        format = "raw"
        serial = "db 1"
        direct = true
        queues = 4
        discard = false
        rate-limit = { bandwidth = "100 MiB/s", operations = 1000 }
        [metrics]
        file = "db.prom"
        interval = "30s"
        [control]
        socket = "db.sock"
    "#;

    let every_key = Device {
        config: DeviceConfig::new(BlockConfig {
            path: "/srv/b.img".into(),
            options: DiskOptions { read_only: true, format: Some(Format::Raw), direct: true, discard: false },
            serial: Some("db 1".to_owned()),
            queues: 4,
            rate_limit: Some(RateLimits { bandwidth: Some(100 << 20), operations: Some(1000) }),
        }),
        ..disk(1, "/srv/b.img", true)
    };
    assert_eq!(
        read(text, &[]).unwrap().machine,
        Machine {
            name: "db".to_owned(),
            arch: Arch::X86_64,
            vcpus: 3,
            firmware: TableSet::Acpi,
            on_reboot: OnReboot::Restart,
            memory: Memory {
                size: 4 << 30,
                backing: MemoryBacking::Hugetlbfs,
                page_size: PageSize::Giant,
                path: Some("/dev/hugepages/db".into()),
            },
            boot: Boot {
                kernel: Kernel::File("/srv/vmlinux".into()),
                initrd: Some("/boot/initrd".into()),
                cmdline: "quiet".to_owned(),
                protocol: BootProtocol::Pvh,
            },
            ras: Ras {
                synchronous: Some(Response::Nmi),
                asynchronous: Some(Response::Polled),
                poll_interval: Duration::from_millis(100),
                on_missing_support: OnMissingSupport::Refuse,
                repair: Repair::Never,
                corrected: Some(Corrected {
                    response: Response::Gsiv,
                    threshold: Some(Threshold {
                        errors: NonZeroU32::new(50).unwrap(),
                        window_ms: NonZeroU32::new(12 * 3_600_000).unwrap(),
                    }),
                }),
                injection: true,
                boot_record: false,
                persistent_store: Some("/srv/db.erst".into()),
                ledger: Some("/srv/db.ledger".into()),
                budget: Some(Budget { pages: 64, action: OnBudget::Stop }),
            },
            devices: vec![disk(0, "/srv/a.img", false), every_key],
            control_socket: Some("/srv/db.sock".into()),
            metrics: Some(Metrics { file: "/srv/db.prom".into(), interval: Duration::from_secs(30) }),
        }
    );
}

#[test]
fn corrected_errors_have_a_threshold_unless_it_is_zero() {
    let corrected =
        |keys: &str| read(&format!("[machine]\n[ras]\n{keys}"), &[]).unwrap().machine.ras.corrected;
    assert_eq!((corrected(""), corrected("corrected = \"off\"\ncorrected-threshold = 3")), (None, None));
    let threshold = |keys| corrected(keys).unwrap().threshold.map(|it| (it.errors.get(), it.window_ms.get()));
    assert_eq!(threshold("corrected = \"polled\""), Some((10, 86_400_000)));
    assert_eq!(threshold("corrected = \"gsiv\"\ncorrected-threshold = 0"), None);
}

#[test]
fn huge_pages_are_of_2_mib_by_default() {
    let memory = read("[machine]\n[memory]\nbacking = \"hugetlbfs\"", &[]).unwrap().machine.memory;
    assert_eq!(memory.page_size, PageSize::Large);
}

#[test]
fn overrides_apply_in_their_order() {
    let sets = ["machine.vcpus=2", "machine.vcpus=4", "machine.memory=1GiB", "boot.cmdline=root=/dev/vda ro"];
    let machine = read("[machine]\nvcpus = \"many\"", &sets).unwrap().machine;
    assert_eq!((machine.vcpus, machine.memory.size), (4, 1 << 30));
    assert_eq!(machine.boot.cmdline, "root=/dev/vda ro");
}

#[test]
fn overrides_add_sections_and_devices() {
    let sets =
        ["machine.name=x", "device.0.type=virtio-block", "device.0.path=a.img", "device.0.read-only=true"];
    let machine = read("", &sets).unwrap().machine;
    assert_eq!(machine.name, "x");
    assert_eq!(machine.devices, [disk(0, "/srv/a.img", true)]);
}

#[test]
fn an_override_may_be_empty_or_quoted() {
    let text = "[machine]\n[boot]\ncmdline = \"quiet\"";
    assert_eq!(read(text, &["boot.cmdline="]).unwrap().machine.boot.cmdline, "");
    assert_eq!(read(text, &["boot.cmdline=\"1\""]).unwrap().machine.boot.cmdline, "1");
}

#[test]
fn an_empty_override_removes_a_key_that_may_be_omitted() {
    let text =
        "[machine]\nname = \"x\"\nfirmware = \"mptable\"\n[ras]\npersistent-store = \"x.erst\"\nbudget = 3";
    read(text, &[]).expect_err("an MP table has no store");
    let sets = ["ras.persistent-store=", "machine.name=", "ras.ledger="];
    let machine = read(text, &sets).unwrap().machine;
    assert_eq!((machine.name.as_str(), &machine.ras.persistent_store), ("web", &None));
    assert_eq!((machine.ras.ledger, machine.ras.budget.map(|budget| budget.pages)), (None, Some(3)));
    // A later one adds it again; the others are not without a value.
    let sets = ["ras.persistent-store=", "ras.persistent-store=y", "machine.firmware=acpi"];
    let machine = read(text, &sets).unwrap().machine;
    assert_eq!(machine.ras.persistent_store, Some("/srv/y".into()));
    read(text, &["machine.vcpus=", "machine.firmware=acpi"]).expect_err("no number");
}

#[test]
fn the_default_name_is_that_of_the_file() {
    let named = |name: &str| {
        let source = Source { name: name.to_owned(), text: "[machine]".to_owned() };
        parse(source, &[], Arch::X86_64, Path::new(""), &devices::kinds()).unwrap().machine.name
    };
    assert_eq!(named("guests/web-1.toml"), "web-1");
    assert_eq!(named("a\u{7}b.toml"), "ab");
    assert_eq!(named(""), "machine");
}

#[test]
fn a_missing_file_is_a_diagnostic() {
    let problems = load(Path::new("no/such.toml"), &[], Arch::X86_64, &devices::kinds()).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].to_string().starts_with("no/such.toml:1:1: the profile cannot be read: "),
        "{problems:?}"
    );
}

#[test]
fn a_directory_is_a_diagnostic() {
    let directory = tempfile::tempdir().unwrap();
    let problems = load(directory.path(), &[], Arch::X86_64, &devices::kinds()).unwrap_err();
    assert!(problems[0].message.starts_with("the profile cannot be read: "), "{problems:?}");
}

#[test]
fn a_file_without_an_end_is_a_diagnostic() {
    let endless = load(Path::new("/dev/zero"), &[], Arch::X86_64, &devices::kinds()).unwrap_err();
    assert_eq!(endless.len(), 1);
    assert_eq!(endless[0].message, format!("the profile has more than {MAX_LEN} bytes, the maximum"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("long.toml");
    let length = |len: u64| {
        let text = "[machine]\n".to_owned();
        fs::write(&path, text.clone() + &"\n".repeat(len as usize - text.len())).unwrap();
        load(&path, &[], Arch::X86_64, &devices::kinds())
    };
    assert!(length(MAX_LEN).is_ok());
    assert!(length(MAX_LEN + 1).is_err());
}

#[test]
fn invalid_utf_8_is_reported_at_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("latin1.toml");
    fs::write(&path, b"[machine]\nname = \"gr\xfc\xdfe\"\n").unwrap();
    let problems = load(&path, &[], Arch::X86_64, &devices::kinds()).unwrap_err();
    assert_eq!((problems[0].line(), problems[0].column()), (2, 11));
    assert_eq!(problems[0].message, "byte 20 of the profile is not UTF-8");
}

#[test]
fn paths_in_a_file_are_relative_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.toml");
    fs::write(&path, "[machine]\n[boot]\nkernel = \"vmlinuz\"\n").unwrap();
    let machine = load(&path, &[], Arch::X86_64, &devices::kinds()).unwrap().machine;
    assert_eq!(machine.boot.kernel, Kernel::File(directory.path().join("vmlinuz")));
    assert_eq!(machine.name, "web");
}

#[test]
fn machines_with_one_socket_conflict() {
    let profile = |name: &str, socket: &str| {
        let text = format!("[machine]\n[control]\nsocket = \"{socket}\"\n");
        let source = Source { name: name.to_owned(), text };
        parse(source, &[], Arch::X86_64, Path::new(""), &devices::kinds()).unwrap()
    };
    let profiles = [
        profile("a.toml", "/run/a.sock"),
        profile("b.toml", "/run/b.sock"),
        profile("c.toml", "/run/./a.sock"),
    ];
    let found: Vec<String> = conflicts(&profiles).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        ["c.toml:3:10: `control.socket` cannot be `\"/run/./a.sock\"`: `a.toml` uses that socket too\n  \
          a.toml:3:10: the same socket\n  \
          help: choose another path"]
    );
    assert_eq!(conflicts(&profiles[..2]), []);
    assert_eq!(conflicts(&[read("[machine]", &[]).unwrap(), read("[machine]", &[]).unwrap()]), []);
}

#[test]
fn machines_with_one_file_of_metrics_conflict() {
    let profile = |name: &str, file: &str| {
        let text = format!("[machine]\n[metrics]\nfile = \"{file}\"\n");
        let source = Source { name: name.to_owned(), text };
        parse(source, &[], Arch::X86_64, Path::new(""), &devices::kinds()).unwrap()
    };
    let profiles = [profile("a.toml", "/run/a.prom"), profile("b.toml", "/run/a.prom")];
    let found: Vec<String> = conflicts(&profiles).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        ["b.toml:3:8: `metrics.file` cannot be `\"/run/a.prom\"`: `a.toml` uses that file too\n  \
          a.toml:3:8: the same file\n  \
          help: choose another path"]
    );
}

/// Paths of one file are those that the caller identifies.
#[test]
fn links_to_a_shared_file_are_reported() {
    let text = |second: &str| {
        format!(
            "[machine]\n[[device]]\ntype = \"virtio-block\"\npath = \"a.img\"\nread-only = true\n\
             [[device]]\ntype = \"virtio-block\"\npath = \"other.img\"\n\
             [[device]]\ntype = \"virtio-block\"\npath = \"link.img\"\n{second}"
        )
    };
    let found = |text: &str| {
        let profile = read(text, &[]).unwrap();
        let links = |path: &Path| match path.file_name()?.to_str()? {
            "link.img" => Some("a.img".to_owned()),
            name => Some(name.to_owned()),
        };
        let problems = profile.shared_files(links).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(profile.shared_files(|_| None::<u8>), []);
        problems
    };
    assert_eq!(
        found(&text("")),
        [
            "web.toml:11:8: `device.2.path` cannot be `\"link.img\"`: another device uses that file, and at least one of the \
          two can write to it\n  web.toml:4:8: the same file\n  \
          help: choose another file; only files that both devices read can be shared (`read-only = true`)"
        ]
    );
    assert_eq!(found(&text("read-only = true\n")), [""; 0]);
}

#[test]
fn a_later_problem_points_at_its_key() {
    let profile = read("[machine]\n[boot]\nkernel = \"vmlinuz\"\n", &["machine.memory=1GiB"]).unwrap();
    let at = |key: &str| {
        let problem = profile.problem(key, "it does not exist", "");
        (problem.source().name.clone(), problem.line(), problem.value().to_owned())
    };
    let web = || "web.toml".to_owned();
    assert_eq!(at("boot.kernel"), (web(), 3, "\"vmlinuz\"".to_owned()));
    assert_eq!(at("machine.memory"), ("--set".to_owned(), 1, "1GiB".to_owned()));
    // An omitted key: its section; an omitted section: the start.
    assert_eq!(at("boot.initrd"), (web(), 2, "[boot]".to_owned()));
    assert_eq!(at("ras.synchronous"), (web(), 1, String::new()));
}

fn read(text: &str, sets: &[&str]) -> Result<Profile, Vec<Diagnostic>> {
    let overrides: Vec<Override> = sets.iter().map(|set| Override::parse(set).unwrap()).collect();
    let source = Source { name: "web.toml".to_owned(), text: text.to_owned() };
    parse(source, &overrides, Arch::X86_64, Path::new("/srv"), &devices::kinds())
}

/// No key accepts an array: a key whose array is not refused is not read.
#[test]
fn every_key_of_the_schema_is_read() {
    let schema = schema(&devices::kinds());
    let names =
        |schema: &Value| schema["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for section in names(&schema) {
        let description = &schema["properties"][&section];
        let mut texts = Vec::new();
        if description["type"] == "object" {
            texts.extend(
                names(description).into_iter().map(|key| (format!("[{section}]\n{key} = []\n"), key)),
            );
        }
        for kind in description["items"]["oneOf"].as_array().into_iter().flatten() {
            let kind_name = kind["properties"]["type"]["const"].as_str().unwrap();
            for key in names(kind) {
                let kind = if key == "type" { String::new() } else { format!("type = \"{kind_name}\"\n") };
                texts.push((format!("[[{section}]]\n{kind}{key} = []\n"), key));
            }
        }
        assert!(!texts.is_empty(), "{section}");
        for (text, key) in texts {
            let problems = read(&text, &[]).unwrap_err();
            let refused = |problem: &Diagnostic| problem.value() == "[]" && problem.key.ends_with(&key);
            assert!(problems.iter().any(refused), "{text}{problems:#?}");
        }
    }
}

/// A disk with the defaults.
fn disk(index: usize, path: &str, read_only: bool) -> Device {
    let file = DeviceFile { key: format!("device.{index}.path"), path: path.into(), writes: !read_only };
    let options = DiskOptions { read_only, format: None, direct: false, discard: true };
    let config = BlockConfig { path: path.into(), options, serial: None, queues: 1, rate_limit: None };
    Device { kind: "virtio-block", config: DeviceConfig::new(config), files: vec![file] }
}

//! From files and `--set` to machines, and problems that show later.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use machine_profile::{
    Backing, Boot, BootProtocol, Device, Diagnostic, Kernel, Machine, Memory, OnMissingSupport, OnReboot,
    Override, PageSize, Profile, Ras, Repair, Source, TableSet, clashes, load, parse,
};
use platform::Arch;
use ras_core::Response;

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
            memory: Memory { size: 256 << 20, backing: Backing::Anonymous, page_size: PageSize::Small },
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
            },
            devices: Vec::new(),
            control_socket: None,
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
        [[device]]
        type = "virtio-block"
        path = "./a.img"
        [[device]]
        type = "virtio-block"
        path = "b.img"
        read-only = true
        [control]
        socket = "db.sock"
    "#;
    let disk = |path: &str, read_only| Device::VirtioBlock { path: PathBuf::from(path), read_only };
    assert_eq!(
        read(text, &[]).unwrap().machine,
        Machine {
            name: "db".to_owned(),
            arch: Arch::X86_64,
            vcpus: 3,
            firmware: TableSet::Acpi,
            on_reboot: OnReboot::Restart,
            memory: Memory { size: 4 << 30, backing: Backing::Hugetlbfs, page_size: PageSize::Giant },
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
            },
            devices: vec![disk("/srv/a.img", false), disk("/srv/b.img", true)],
            control_socket: Some("/srv/db.sock".into()),
        }
    );
}

#[test]
fn huge_pages_are_of_2_mib_unless_told_otherwise() {
    let memory = read("[machine]\n[memory]\nbacking = \"hugetlbfs\"", &[]).unwrap().machine.memory;
    assert_eq!(memory.page_size, PageSize::Large);
}

#[test]
fn overrides_replace_in_their_order() {
    let sets = ["machine.vcpus=2", "machine.vcpus=4", "machine.memory=1GiB", "boot.cmdline=root=/dev/vda ro"];
    let machine = read("[machine]\nvcpus = \"many\"", &sets).unwrap().machine;
    assert_eq!((machine.vcpus, machine.memory.size), (4, 1 << 30));
    assert_eq!(machine.boot.cmdline, "root=/dev/vda ro");
}

#[test]
fn overrides_make_sections_and_devices() {
    let sets =
        ["machine.name=x", "device.0.type=virtio-block", "device.0.path=a.img", "device.0.read-only=true"];
    let machine = read("", &sets).unwrap().machine;
    assert_eq!(machine.name, "x");
    assert_eq!(machine.devices, [Device::VirtioBlock { path: "/srv/a.img".into(), read_only: true }]);
}

#[test]
fn an_override_may_be_empty_or_quoted() {
    let text = "[machine]\n[boot]\ncmdline = \"quiet\"";
    assert_eq!(read(text, &["boot.cmdline="]).unwrap().machine.boot.cmdline, "");
    assert_eq!(read(text, &["boot.cmdline=\"1\""]).unwrap().machine.boot.cmdline, "1");
}

#[test]
fn a_name_is_made_of_what_the_file_is_called() {
    let named = |name: &str| {
        let source = Source { name: name.to_owned(), text: "[machine]".to_owned() };
        parse(source, &[], Arch::X86_64, Path::new("")).unwrap().machine.name
    };
    assert_eq!(named("guests/web-1.toml"), "web-1");
    assert_eq!(named("a\u{7}b.toml"), "ab");
    assert_eq!(named(""), "machine");
}

#[test]
fn a_file_that_is_missing_is_a_diagnostic() {
    let problems = load(Path::new("no/such.toml"), &[], Arch::X86_64).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].to_string().starts_with("no/such.toml:1:1: the profile cannot be read: "),
        "{problems:?}"
    );
}

#[test]
fn a_directory_is_a_diagnostic() {
    let directory = tempfile::tempdir().unwrap();
    let problems = load(directory.path(), &[], Arch::X86_64).unwrap_err();
    assert!(problems[0].message.starts_with("the profile cannot be read: "), "{problems:?}");
}

#[test]
fn what_is_not_utf_8_is_shown_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("latin1.toml");
    fs::write(&path, b"[machine]\nname = \"gr\xfc\xdfe\"\n").unwrap();
    let problems = load(&path, &[], Arch::X86_64).unwrap_err();
    assert_eq!((problems[0].line(), problems[0].column()), (2, 11));
    assert_eq!(problems[0].message, "byte 20 of the profile is not UTF-8");
}

#[test]
fn paths_in_a_file_are_relative_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.toml");
    fs::write(&path, "[machine]\n[boot]\nkernel = \"vmlinuz\"\n").unwrap();
    let machine = load(&path, &[], Arch::X86_64).unwrap().machine;
    assert_eq!(machine.boot.kernel, Kernel::File(directory.path().join("vmlinuz")));
    assert_eq!(machine.name, "web");
}

#[test]
fn machines_that_want_one_socket_clash() {
    let profile = |name: &str, socket: &str| {
        let text = format!("[machine]\n[control]\nsocket = \"{socket}\"\n");
        let source = Source { name: name.to_owned(), text };
        parse(source, &[], Arch::X86_64, Path::new("")).unwrap()
    };
    let profiles = [
        profile("a.toml", "/run/a.sock"),
        profile("b.toml", "/run/b.sock"),
        profile("c.toml", "/run/./a.sock"),
    ];
    let found: Vec<String> = clashes(&profiles).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        ["c.toml:3:10: `control.socket` cannot be `\"/run/./a.sock\"`: `a.toml` has that socket already\n  \
          a.toml:3:10: the same socket\n  \
          help: choose another path"]
    );
    assert_eq!(clashes(&profiles[..2]), []);
    assert_eq!(clashes(&[read("[machine]", &[]).unwrap(), read("[machine]", &[]).unwrap()]), []);
}

#[test]
fn a_later_problem_points_at_what_asked_for_it() {
    let profile = read("[machine]\n[boot]\nkernel = \"vmlinuz\"\n", &["machine.memory=1GiB"]).unwrap();
    let at = |key: &str| {
        let problem = profile.problem(key, "it is not there", "");
        (problem.source().name.clone(), problem.line(), problem.value().to_owned())
    };
    let web = || "web.toml".to_owned();
    assert_eq!(at("boot.kernel"), (web(), 3, "\"vmlinuz\"".to_owned()));
    assert_eq!(at("machine.memory"), ("--set".to_owned(), 1, "1GiB".to_owned()));
    // Left out: its section; and where that is left out too, the start.
    assert_eq!(at("boot.initrd"), (web(), 2, "[boot]".to_owned()));
    assert_eq!(at("ras.synchronous"), (web(), 1, String::new()));
}

fn read(text: &str, sets: &[&str]) -> Result<Profile, Vec<Diagnostic>> {
    let overrides: Vec<Override> = sets.iter().map(|set| Override::parse(set).unwrap()).collect();
    let source = Source { name: "web.toml".to_owned(), text: text.to_owned() };
    parse(source, &overrides, Arch::X86_64, Path::new("/srv"))
}

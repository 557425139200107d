//! The control protocol of a running machine: what its schema says, clients that follow the events, and a power button that is waited for.

use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::net::UnixStream;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::harness::ghest::{Running, TIME_LIMIT};
use crate::harness::{Checked, Ghest, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        every_line_is_as_the_schema_says,
        a_follower_gets_every_event_until_the_end,
        followers_that_do_not_read,
        ctl_follows_the_events,
        a_balloon_keeps_its_size,
        a_power_button_that_the_guest_obeys,
        a_power_button_that_is_pressed_while_the_guest_boots,
        a_power_button_that_the_guest_ignores,
    ]
}

/// A machine that runs until it is stopped, and listens at `control`.
fn machine(scratch: &Scratch) -> Running {
    scratch.file("disk.img", [0; 4096]);
    let profile = scratch.profile(
        "[machine]\nname = \"protocol\"\nvcpus = 2\nmemory = \"64MiB\"\nfirmware = \"acpi\"\n\n\
         [boot]\ncmdline = \"probe.exit=hang\"\n\n[[device]]\ntype = \"virtio-block\"\npath = \"disk.img\"\n\n\
         [[device]]\ntype = \"virtio-console\"\nsocket = \"console\"\n\n\
         [[device]]\ntype = \"virtio-balloon\"\n",
    );
    let mut running = Ghest::boot(&profile).arg("--control").arg(scratch.path("control")).start();
    running.wait_for("probe: ok");
    running
}

fn ctl(scratch: &Scratch, words: &[&str]) -> Ghest {
    Ghest::new(["ctl", "--timeout", "20s"]).arg(scratch.path("control")).args(words)
}

/// A client, and the lines that it gets.
struct Client {
    stream: UnixStream,
    lines: Lines<BufReader<UnixStream>>,
}

impl Client {
    fn connect(scratch: &Scratch) -> Self {
        let stream = UnixStream::connect(scratch.path("control")).expect("listens");
        stream.set_read_timeout(Some(TIME_LIMIT)).expect("a socket");
        let lines = BufReader::new(stream.try_clone().expect("a descriptor")).lines();
        Client { stream, lines }
    }

    /// The next line. `None` at the end.
    fn line(&mut self) -> Option<Value> {
        let line = self.lines.next()?.ok()?;
        Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
    }

    fn request(&mut self, request: &Value) -> Value {
        writeln!(self.stream, "{request}").expect("a socket");
        self.line().expect("a response")
    }
}

fn schema() -> Value {
    Ghest::new(["schema", "--control"]).finish().expect(0).json()
}

/// A validator of one kind of line.
fn validator(definition: &str) -> jsonschema::Validator {
    let mut schema = schema();
    jsonschema::meta::validate(&schema).expect("a schema that is one");
    if !definition.is_empty() {
        schema.as_object_mut().expect("a schema").remove("oneOf");
        schema["$ref"] = format!("#/$defs/{definition}").into();
    }
    jsonschema::draft202012::new(&schema).expect("a schema that can be used")
}

#[track_caller]
fn assert_valid(validator: &jsonschema::Validator, value: &Value) {
    let errors: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{value}: {errors:?}");
}

/// Every command of the schema is requested, and every kind of line is compared with it.
fn every_line_is_as_the_schema_says() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = machine(&scratch);
    let mut client = Client::connect(&scratch);
    let greeting = client.line().expect("a greeting");
    assert_valid(&validator("Greeting"), &greeting);
    assert_eq!((&greeting["version"], &greeting["machine"]), (&1.into(), &"protocol".into()));
    let requests = [
        json!({ "command": "status" }),
        json!({ "command": "pause" }),
        json!({ "command": "resume" }),
        json!({ "command": "power-button" }),
        json!({ "command": "inject", "gpa": 0x200_0000, "log2-len": 12, "kind": "AO", "via": "simulate" }),
        json!({ "command": "new-generation" }),
        json!({ "command": "balloon", "size": 8 << 20 }),
        json!({ "command": "retire", "gpa": 0x300_0000 }),
        json!({ "command": "ledger" }),
        json!({ "command": "metrics" }),
        json!({ "command": "memory-map" }),
        json!({ "command": "dump", "file": scratch.path("core") }),
        json!({ "command": "plan" }),
        json!({ "command": "devices" }),
        json!({ "command": "console-size", "columns": 132, "rows": 43 }),
        json!({ "command": "reset" }),
        json!({ "command": "stop" }),
        json!({ "command": "events", "follow": true }),
    ];
    let commands = schema();
    let commands: Vec<_> = commands["oneOf"].as_array().expect("exchanges").iter().collect();
    assert_eq!(commands.len(), requests.len(), "{commands:?}");
    let exchanges = validator("");
    let mut responses = std::collections::BTreeMap::new();
    let (to_the_end, others): (Vec<_>, Vec<_>) =
        requests.iter().partition(|it| ["reset", "stop", "events"].iter().any(|last| it["command"] == *last));
    for request in others {
        let exchange = json!({ "request": request, "response": client.request(request) });
        // Whether the host can retire a page, and has it, depends on the host.
        assert!(exchange["response"]["ok"] == true || request["command"] == "retire", "{exchange}");
        assert_valid(&exchanges, &exchange);
        responses.insert(request["command"].to_string(), exchange["response"].clone());
    }
    for refused in [
        json!({ "command": "inject", "gpa": u64::MAX, "log2-len": 12, "kind": "AR", "via": "simulate" }),
        json!({ "command": "inject", "record": "00", "source": 1, "force": false }),
        json!({ "command": "inject", "record": "00", "source": "corrected" }),
    ] {
        let exchange = json!({ "request": refused, "response": client.request(&refused) });
        assert_eq!(exchange["response"]["ok"], false, "{exchange}");
        assert_valid(&exchanges, &exchange);
    }
    for invalid in [
        json!({ "request": { "command": "status" }, "response": { "ok": true } }),
        json!({ "request": { "command": "events" }, "response": { "ok": true } }),
        json!({ "request": { "command": "self-destruct" }, "response": { "ok": false, "error": "no" } }),
        json!({ "request": { "command": "inject", "record": "00" }, "response": { "ok": false, "error": "no" } }),
    ] {
        assert!(!exchanges.is_valid(&invalid), "{invalid}");
    }

    // What the answers say.
    let plan = &responses["\"plan\""];
    assert_eq!((&plan["machine"], &plan["firmware"]), (&"protocol".into(), &"acpi".into()), "{plan}");
    let devices = responses["\"devices\""]["devices"].as_array().expect("devices");
    let disk = devices.iter().find(|device| device["name"] == "virtio0").expect("a disk");
    assert_eq!(disk["type"], "virtio-block");
    assert_eq!(disk["files"][0]["path"].as_str(), scratch.path("disk.img").to_str());
    assert_eq!(
        (&disk["registers"][0]["space"], &disk["interrupts"][0]["trigger"]),
        (&"memory".into(), &"edge".into())
    );
    assert!(
        devices.iter().any(|device| device["name"] == "serial0" && device.get("type").is_none()),
        "{devices:?}"
    );

    // A connection outlives a reset, and followers the boot in which they came.
    let mut follower = Client::connect(&scratch);
    follower.line().expect("a greeting");
    for request in [to_the_end[2], to_the_end[0], to_the_end[1]] {
        let machine = if request["command"] == "events" { &mut follower } else { &mut client };
        let exchange = json!({ "request": request, "response": machine.request(request) });
        assert_valid(&exchanges, &exchange);
    }
    let events = validator("Event");
    let mut last = Value::Null;
    while let Some(event) = follower.line() {
        assert_valid(&events, &event);
        last = event;
    }
    assert_eq!(last["event"], "stopped", "{last}");
    running.finish().expect(0);
    Ok(())
}

/// The built-in guest has no driver: the balloon stays empty.
fn a_balloon_keeps_its_size() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let mut running = machine(&scratch);
    let balloon = |words: &[&str], status| {
        ctl(&scratch, &[&["balloon"], words].concat()).finish().expect(status).json()
    };
    let empty = |target: u64| json!({ "ok": true, "target": target, "actual": 0, "statistics": null });
    assert_eq!(balloon(&[], 0), empty(0));
    assert_eq!(balloon(&["16MiB"], 0), empty(16 << 20));
    ctl(&scratch, &["balloon", "1.5MiB"])
        .finish()
        .expect(2)
        .expect_said("expected a size, for example `512MiB`");
    let refusal = balloon(&["67108865"], 1);
    let reason = "the machine has 64 MiB of memory, and the balloon cannot take 65 MiB of it";
    assert_eq!(refusal["error"], reason);
    ctl(&scratch, &["reset"]).finish().expect(0);
    running.wait_for_times("probe: ok", 2);
    assert_eq!(balloon(&[], 0), empty(16 << 20));
    assert_eq!(balloon(&["0"], 0), empty(0));
    ctl(&scratch, &["stop"]).finish().expect(0);
    running.finish().expect(0);
    Ok(())
}

fn inject(client: &mut Client, times: usize) {
    let request =
        json!({ "command": "inject", "gpa": 0x200_0000, "log2-len": 12, "kind": "AO", "via": "notice" });
    for _ in 0..times {
        assert_eq!(client.request(&request)["ok"], true);
    }
}

/// From the response on, none is missing, and the last one says how the machine ended.
fn a_follower_gets_every_event_until_the_end() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = machine(&scratch);
    let [mut follower, mut client] = [(), ()].map(|()| {
        let mut client = Client::connect(&scratch);
        client.line().expect("a greeting");
        client
    });
    inject(&mut client, 1);
    assert_eq!(follower.request(&json!({ "command": "events", "follow": true })), json!({ "ok": true }));
    inject(&mut client, 20);
    assert_eq!(client.request(&json!({ "command": "stop" }))["state"], "stopping");
    let mut events = Vec::new();
    while let Some(event) = follower.line() {
        events.push(event);
    }
    let errors = events.iter().filter(|event| event["event"] == "memory-error").count();
    assert_eq!(errors, 20, "{events:?}");
    let last = events.last().expect("events");
    assert_eq!((&last["event"], &last["status"]), (&"stopped".into(), &0.into()), "{last}");
    running.finish().expect(0);
    Ok(())
}

/// They cost the machine, its end and other clients nothing.
fn followers_that_do_not_read() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = machine(&scratch);
    let followers: Vec<_> = (0..8)
        .map(|_| {
            let mut follower = Client::connect(&scratch);
            follower.line().expect("a greeting");
            let response = follower.request(&json!({ "command": "events", "follow": true }));
            assert_eq!(response["ok"], true, "{response}");
            follower
        })
        .collect();
    let mut client = Client::connect(&scratch);
    client.line().expect("a greeting");
    let refused = client.request(&json!({ "command": "events", "follow": true }));
    assert_eq!(refused["error"], "8 clients follow the events already, the maximum");
    let refused = client.request(&json!({ "command": "events", "follow": false }));
    assert_eq!(refused["error"], "past events are not kept: `follow` has to be true");
    // More than a socket holds: each of them causes several events.
    inject(&mut client, 1500);
    let metrics = client.request(&json!({ "command": "metrics" }));
    assert_eq!(metrics["events"]["memory-error"], 1500, "{metrics}");
    client.request(&json!({ "command": "stop" }));
    running.finish().expect(0);
    drop(followers);
    Ok(())
}

/// One line for each event, until the machine ends.
fn ctl_follows_the_events() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = machine(&scratch);
    let follower = ctl(&scratch, &["events", "--follow"]).start();
    // It follows when its first event is printed.
    let mut client = Client::connect(&scratch);
    client.line().expect("a greeting");
    let printed = |text: &str| String::from_utf8_lossy(&follower.stdout.so_far()).contains(text);
    let deadline = std::time::Instant::now() + TIME_LIMIT;
    while !printed("memory-error") {
        assert!(std::time::Instant::now() < deadline, "no event is printed");
        inject(&mut client, 1);
    }
    ctl(&scratch, &["stop"]).finish().expect(0);
    let outcome = follower.finish().expect(0);
    let last = outcome.stdout().lines().last().map(str::to_owned).expect("a line");
    assert!(last.contains("\"event\":\"stopped\""), "{outcome}");
    running.finish().expect(0);
    ctl(&scratch, &["events"]).finish().expect(2).expect_said("--follow");
    Ok(())
}

fn a_power_button_that_the_guest_obeys() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.machine("cmdline = \"probe.exit=power-button\"");
    let mut running = Ghest::boot(&profile).arg("--control").arg(scratch.path("control")).start();
    running.wait_for("probe: ok");
    let pressed = ctl(&scratch, &["power-button", "--wait", "20s"]).finish().expect(0).json();
    let expected = json!({ "ok": true, "reason": "the guest switched its machine off", "status": 0 });
    assert_eq!(pressed, expected);
    running.finish().expect(0).expect_last("ghest: the guest switched its machine off");
    Ok(())
}

/// The press is not taken for the guest's test of the event device, whichever is first.
fn a_power_button_that_is_pressed_while_the_guest_boots() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.machine("cmdline = \"probe.exit=power-button\"");
    let mut running = Ghest::boot(&profile).arg("--control").arg(scratch.path("control")).start();
    running.wait_for("probe:");
    ctl(&scratch, &["power-button", "--wait", "20s"]).finish().expect(0);
    running.finish().expect(0).expect_last("ghest: the guest switched its machine off");
    Ok(())
}

fn a_power_button_that_the_guest_ignores() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = machine(&scratch);
    let pressed = ctl(&scratch, &["power-button", "--wait", "50ms"]).finish().expect(1).json();
    assert_eq!(pressed, json!({ "ok": false, "error": "the machine has not ended within 50ms" }));
    ctl(&scratch, &["stop"]).finish().expect(0);
    running.finish().expect(0);
    Ok(())
}

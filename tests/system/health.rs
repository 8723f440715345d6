//! A Pi that is not well: a weak power supply, heat, a clock that is wrong, a disk that is not mounted, a Wi-Fi that drops.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{Agent, Config, Discord, Faults, Garage, Household, Scratch, Size, TlsProxy, descendants, privately, sh};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Where the kernel tells voltage and temperature. What a test writes there is seen by that test and its programs alone.
const SENSORS: &str = "/sys/class";

fn sensors(voltage_is_low: bool, celsius: u32) {
    let write = |path: &str, text: &str| {
        let file = Path::new(SENSORS).join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    write("hwmon/hwmon0/name", "rpi_volt\n");
    write("hwmon/hwmon0/in0_lcrit_alarm", if voltage_is_low { "1\n" } else { "0\n" });
    write("thermal/thermal_zone0/type", "cpu-thermal\n");
    write("thermal/thermal_zone0/temp", &format!("{celsius}000\n"));
}

pub(crate) fn alarms(agent: &Agent) -> Vec<String> {
    let ran = agent.ok(["alarms", "--json"]);
    let names = |alarm: &Value| alarm["name"].as_str().unwrap().to_owned();
    ran.json()["alarms"].as_array().unwrap().iter().map(names).collect()
}

/// What was wrong with the machine, as people read it.
fn machine(step: &Value) -> String {
    let texts: Vec<_> = step["machine"].as_array().unwrap().iter().map(|it| it["text"].as_str().unwrap()).collect();
    texts.join("; ")
}

fn house(scratch: &Scratch, alarms: &str) -> Config {
    let source = scratch.directory("srv/foundry");
    fs::write(source.join("world.json"), "{}").unwrap();
    Config::local(scratch.path()).directory("foundry", &[&source], "").table(&format!("[alarms]\n{alarms}"))
}

#[test]
fn a_run_waits_for_its_voltage_obeys_a_signal_and_tells_what_was_wrong() {
    privately(&[SENSORS], || {
        let scratch = Scratch::new();
        let agent = house(&scratch, "rest-at-most = \"2m\"").write();
        sensors(true, 45);
        let run = agent.start(["run", "--json"]);
        std::thread::sleep(Duration::from_secs(4));
        run.signal(Signal::SIGTERM);
        let stopped = run.wait().expect(3);
        assert!(stopped.took < Duration::from_secs(12), "{stopped}");
        assert_eq!(stopped.step("foundry")["outcome"], "interrupted", "{stopped}");

        let mut run = agent.start(["run", "--json"]);
        std::thread::sleep(Duration::from_secs(5));
        assert!(!run.has_ended());
        sensors(false, 45);
        let ran = run.wait().expect(0);
        ran.says("too little voltage: waiting until it is well again");
        let foundry = ran.step("foundry");
        assert_eq!(foundry["outcome"], "succeeded");
        let told = machine(&foundry);
        assert!(told.contains("under-voltage ") && told.contains("held back for 1"), "{told}");
        assert_eq!(foundry["machine"][0]["what"], "under-voltage", "{foundry}");
        assert_eq!(machine(&ran.step("agent")), "", "it was well by then");

        // The alarm outlives the moment, and ends with the next good night.
        assert_eq!(machine(&agent.ok(["status", "--json"]).step("foundry")), told);
        agent.ok(["status"]).says("foundry: the machine: under-voltage");
        assert!(alarms(&agent).contains(&"power".to_owned()));
        agent.ok(["run"]);
        assert!(!alarms(&agent).contains(&"power".to_owned()));
    });
}

#[test]
fn heat_that_does_not_end_fails_the_step_clearly() {
    privately(&[SENSORS], || {
        let scratch = Scratch::new();
        let config = house(&scratch, "rest-at-most = \"3s\"\ntemperature = 70");
        let agent = config.write();
        let discord = Discord::start();
        config.secret("discord.env", &format!("DISCORD_WEBHOOK_URL={}", discord.url()));
        sensors(false, 72);
        let failed = agent.run(["run", "--json"]).expect(3);
        for step in ["foundry", "agent"] {
            let step = failed.step(step);
            let error = &step["error"];
            assert_eq!(step["outcome"], "failed");
            assert!(error["message"].as_str().unwrap().contains("at 72 °C, and the limit is 70 °C"), "{error}");
            assert!(error["hint"].as_str().unwrap().contains("a fan"), "{error}");
            assert!(machine(&step).contains("72 °C "), "{step}");
        }
        assert!(!config.storage_folder().join("foundry").exists(), "nothing was done");
        let message =
            discord.messages().iter().map(Value::to_string).find(|it| it.contains("foundry: the backup failed"));
        let message = message.expect("it is told at once");
        assert!(message.contains("the machine: ") && message.contains("72 °C "), "{message}");
        assert!(alarms(&agent).contains(&"temperature".to_owned()));
        agent.run(["doctor"]).expect(1).says("the processor is at 72 °C; runs rest from 70 °C on");

        sensors(false, 50);
        agent.ok(["run"]);
        let left = alarms(&agent);
        assert!(!left.contains(&"temperature".to_owned()) && !left.contains(&"backup".to_owned()), "{left:?}");
        agent.run(["doctor"]).says("ok       power: the voltage is as it should be");
    });
}

#[test]
fn a_step_at_work_is_held_back_while_it_is_too_hot_and_then_goes_on() {
    privately(&[SENSORS], || {
        let (garage, scratch) = (Garage::start(), Scratch::new());
        let proxy = TlsProxy::before(&garage);
        let household = Household::make(scratch.join("srv"), Size { bytes: 60_000_000, files: 300 }, 1);
        let keys = (Garage::KEY_ID, Garage::KEY);
        // With a patience that is shorter than what it stands still.
        let agent = Config::s3(scratch.path(), "s3://backups/host", &proxy.endpoint(), proxy.ca_file(), keys)
            .directory("foundry", &[&household.foundry()], "stall = \"15s\"")
            .write();
        sensors(false, 50);
        proxy.set(Faults::slow(600_000));
        let run = agent.start(["run", "--json"]);
        wait_for(|| proxy.traffic().bytes_up > 5_000_000);
        sensors(false, 90);
        // Not by what arrives: the kernel still sends what the step had given it.
        let step =
            descendants(run.pid()).into_iter().find(|it| it.arguments().iter().any(|word| word == "step")).unwrap();
        wait_for(|| step.stands_still());
        let looks = 250;
        let standing = (0..looks).filter(|_| {
            std::thread::sleep(Duration::from_millis(100));
            step.stands_still()
        });
        let standing = standing.count();
        assert!(standing > looks * 4 / 5, "it stood still at {standing} of {looks} looks");
        sensors(false, 60);
        // It looks every ten seconds and wants ten of calm: with a fast link sooner, it would end in the one second of
        // twenty and never be told to go on.
        std::thread::sleep(Duration::from_secs(30));
        proxy.set(Faults::none());
        let ran = run.wait().expect(0);
        ran.says("the step is held back until it is well again").says("the step goes on");
        let told = machine(&ran.step("foundry"));
        assert!(told.contains("90 °C ") && told.contains("held back for "), "{told}");
        assert_eq!(ran.step("foundry")["outcome"], "succeeded");
    });
}

fn wait_for(mut it: impl FnMut() -> bool) {
    let started = Instant::now();
    while !it() {
        assert!(started.elapsed() < Duration::from_secs(180), "it does not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The same agent on a machine whose clock shows that much more or less.
pub(crate) fn with_clock(scratch: &Scratch, agent: &Agent, skew: &str) -> Agent {
    let wrapper = scratch.join(format!("pi-agent{skew}"));
    let binary = Agent::binary();
    let script = format!(
        "#!/bin/sh\nrm -f /dev/shm/sem.faketime_sem_$$ /dev/shm/faketime_shm_$$\nNO_FAKE_STAT=1 exec faketime -m --exclude-monotonic -f '{skew}' {} \"$@\"\n",
        binary.display()
    );
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, Permissions::from_mode(0o755)).unwrap();
    agent.clone().program(wrapper)
}

/// Does the work on a machine where systemd says that the network has set the clock.
pub(crate) fn with_network_time<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    const PROGRAMS: &str = "/usr/local/sbin";
    privately(&["/run/systemd", PROGRAMS], || {
        fs::create_dir("/run/systemd/system").unwrap();
        let program = Path::new(PROGRAMS).join("timedatectl");
        fs::write(&program, "#!/bin/sh\necho NTP=yes\necho NTPSynchronized=yes\n").unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        work()
    })
}

fn points(agent: &Agent) -> usize {
    agent.ok(["points", "foundry", "--json"]).json()["points"].as_array().unwrap().len()
}

#[test]
fn a_clock_that_is_earlier_than_the_newest_restore_point_stops_forget_and_prune_but_not_the_backup() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/foundry");
    fs::write(source.join("world.json"), "{}").unwrap();
    let config = |keep: &str| Config::local(scratch.path()).directory("foundry", &[&source], keep).write();
    let agent = config("keep = \"forever\"");
    for skew in ["-20d", "-15d", "+3h"] {
        with_clock(&scratch, &agent, skew).ok(["run"]);
    }
    // A new card: the history that knows of the last run is gone, and only the repository is left to contradict.
    fs::remove_dir_all(agent.state()).unwrap();
    fs::remove_dir_all(scratch.join("storage/agent")).unwrap();
    let agent = config("keep = { last = 1 }");
    let night = agent.ok(["run", "--json"]);
    let told = machine(&night.step("foundry"));
    assert!(told.contains("the newest restore point is of"), "{night}");
    assert!(machine(&night.step("agent")).contains("the newest restore point is of"), "known for the rest of the run");
    assert_eq!(points(&agent), 4, "nothing was forgotten");
    assert!(alarms(&agent).contains(&"clock".to_owned()));
    let refused = agent.run(["prune", "foundry", "--json"]).expect(3);
    let error = refused.step("foundry")["error"].clone();
    assert!(error["message"].as_str().unwrap().starts_with("nothing is removed: the clock shows"), "{error}");

    let later = with_clock(&scratch, &agent, "+5h");
    later.ok(["run"]);
    assert_eq!(points(&later), 3, "those of the last two days");
    later.ok(["prune"]);
}

/// One night by a clock that was wrong; then it is right again, and somebody says so.
#[test]
fn a_restore_point_of_the_future_is_told_and_counts_for_nothing_by_a_clock_that_is_right() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/foundry");
    let world = source.join("world.json");
    let write = |text: &str| fs::write(&world, text).unwrap();
    let config =
        Config::local(scratch.path()).directory("foundry", &[&source], "keep = { last = 1 }\nprune-every = \"1d\"");
    let agent = config.write();
    write("old");
    for skew in ["-20d", "-15d", "+4300d"] {
        let _ = with_clock(&scratch, &agent, skew).run(["run"]);
    }
    write("new");
    assert_eq!(points(&agent), 2, "a clock that is years ahead removes nothing");
    let night = agent.ok(["run", "--json"]);
    assert!(machine(&night.step("foundry")).contains("but the newest restore point is of 20"), "{night}");
    assert_eq!(points(&agent), 3, "nobody says which of them is wrong");
    let done = night.step("foundry")["maintenance"].to_string();
    assert!(done.contains("check") && !done.contains("forget"), "a check removes nothing: {done}");
    agent.run(["prune", "foundry"]).expect(3).says("nothing is removed: the clock shows");
    let to = scratch.join("by-time");
    agent
        .ok(["restore", "foundry", "--to", to.to_str().unwrap()])
        .says("if the clock is right, the newest is another one: --at ");

    with_network_time(|| {
        let night = agent.run(["run", "--json"]).expect(5);
        let step = night.step("foundry");
        let (message, hint) =
            (step["error"]["message"].to_string(), step["error"]["hint"].as_str().unwrap().to_owned());
        assert!(message.contains("is of 20") && message.contains("a clock that was wrong made it"), "{night}");
        assert_eq!((step["outcome"].as_str(), machine(&step)), (Some("degraded"), String::new()), "{night}");
        assert_eq!(machine(&night.step("agent")), "", "{night}");
        assert_eq!(points(&agent), 3, "the future one, and those of today");
        let done = step["maintenance"].to_string();
        assert!(done.contains("forget") && done.contains("prune"), "{done}");
        assert!(!alarms(&agent).contains(&"clock".to_owned()));
        agent.run(["prune", "foundry"]).expect(5).says("a clock that was wrong made it");

        let restored = |to: &Path| fs::read_to_string(to.join(world.strip_prefix("/").unwrap())).unwrap();
        let to = scratch.join("newest");
        let said = agent.ok(["restore", "foundry", "--to", to.to_str().unwrap()]);
        said.says("the newest of the others is taken; for that one: --at ");
        assert_eq!(restored(&to), "new");
        let test = agent.run(["restore-test", "foundry", "--json"]).expect(5);
        test.says("the newest of the others is taken");
        write("spoilt");
        agent.ok(["restore", "foundry", "--in-place", "--yes"]).says("the newest of the others is taken");
        assert_eq!(fs::read_to_string(&world).unwrap(), "new");

        // As it is told.
        for step in ["foundry", "agent"] {
            let hint = night.step(step)["error"]["hint"].as_str().unwrap().to_owned();
            let command = hint.split_once("restic -r ").unwrap().1.split(' ').map(str::to_owned).collect::<Vec<_>>();
            let [repository, forget, id] = &command[..] else { panic!("{hint}") };
            assert_eq!(Path::new(repository), scratch.join("storage").join(step), "{hint}");
            sh(config.restic(step).args([forget, id]));
        }
        assert!(hint.contains("restic -r "), "{hint}");
        let night = agent.ok(["run", "--json"]);
        assert_eq!(night.step("foundry")["problems"].to_string(), "[]", "{night}");
    });
}

/// One directory, backed up into a bucket behind the proxy.
fn in_a_bucket(scratch: &Scratch, proxy: &TlsProxy) -> Agent {
    let source = scratch.directory("srv/foundry");
    fs::write(source.join("world.json"), "{}").unwrap();
    let keys = (Garage::KEY_ID, Garage::KEY);
    Config::s3(scratch.path(), "s3://backups/host", &proxy.endpoint(), proxy.ca_file(), keys)
        .directory("foundry", &[&source], "")
        .write()
}

#[test]
fn the_storage_servers_date_confirms_a_clock_against_points_and_records() {
    let (garage, scratch) = (Garage::start(), Scratch::new());
    let proxy = TlsProxy::before(&garage);
    let agent = in_a_bucket(&scratch, &proxy);
    // Ahead by what a server bears, with a server that agrees; then both show what is right.
    proxy.set(Faults::clock(720));
    with_clock(&scratch, &agent, "+12m").ok(["run"]);
    proxy.set(Faults::none());
    let night = agent.run(["run", "--json"]).expect(5);
    for step in ["foundry", "agent"] {
        let step = night.step(step);
        assert!(step["error"]["message"].as_str().unwrap().contains("a clock that was wrong made it"), "{night}");
        // Nor does the record of the later run say anything against the clock, which the server confirms.
        assert_eq!(machine(&step), "", "{night}");
    }
    agent.run(["prune", "foundry"]).expect(5).says("a clock that was wrong made it");
    proxy.set(Faults::clock(300));
    agent.run(["prune", "foundry"]).expect(3).says("behind the storage server's");
}

#[test]
fn anothers_restore_point_of_the_future_is_its_own_affair() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/foundry");
    fs::write(source.join("world.json"), "{}").unwrap();
    let config = Config::local(scratch.path()).directory("foundry", &[&source], "");
    let agent = config.write();
    agent.ok(["run"]);
    sh(config.restic("foundry").args(["backup", "--host", "laptop", "--time", "2038-01-19 03:14:07"]).arg(&source));
    let night = agent.ok(["run", "--json"]);
    assert_eq!(
        (machine(&night.step("foundry")), night.step("foundry")["problems"].to_string()),
        (String::new(), "[]".into())
    );
    agent.ok(["prune", "foundry"]);
    let to = scratch.join("to");
    let said = agent.ok(["restore", "foundry", "--to", to.to_str().unwrap()]);
    assert!(!said.stdout.contains("2038"), "{said}");
}

#[test]
fn a_clock_far_from_the_storage_servers_stops_forget_and_prune_but_not_the_backup() {
    let (garage, scratch) = (Garage::start(), Scratch::new());
    let proxy = TlsProxy::before(&garage);
    let agent = in_a_bucket(&scratch, &proxy);
    proxy.set(Faults::clock(40));
    assert_eq!(machine(&agent.ok(["run", "--json"]).step("foundry")), "", "less than a minute");
    agent.ok(["prune", "foundry"]);
    for (seconds, words) in [(300, "behind the storage server's"), (-300, "ahead of the storage server's")] {
        proxy.set(Faults::clock(seconds));
        let night = agent.ok(["run", "--json"]);
        assert_eq!(night.step("foundry")["outcome"], "succeeded");
        assert!(machine(&night.step("foundry")).contains(words), "{night}");
        assert!(machine(&night.step("agent")).contains(words), "{night}");
        assert!(alarms(&agent).contains(&"clock".to_owned()));
        agent.run(["prune", "foundry"]).expect(3).says("nothing is removed: the clock shows").says(words);
    }
    proxy.set(Faults::none());
    agent.ok(["run"]);
    assert!(!alarms(&agent).contains(&"clock".to_owned()), "the clock is right again");
    agent.ok(["prune", "foundry"]);
}

/// An ext4 file system in a file, and its UUID.
fn disk(scratch: &Scratch, name: &str) -> (PathBuf, String) {
    let image = scratch.join(name);
    fs::File::create(&image).unwrap().set_len(200 << 20).unwrap();
    sh(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
    let uuid = sh(Command::new("blkid").args(["-p", "-s", "UUID", "-o", "value"]).arg(&image));
    (image, uuid.trim().to_owned())
}

/// Plugs it in: as udev would, with a link by its UUID.
fn plug(image: &Path, uuid: &str, at: &Path) {
    let device = sh(Command::new("losetup").args(["--find", "--show"]).arg(image));
    let links = Path::new("/dev/disk/by-uuid");
    fs::create_dir_all(links).unwrap();
    let _ = fs::remove_file(links.join(uuid));
    symlink(device.trim(), links.join(uuid)).unwrap();
    sh(Command::new("mount").arg(device.trim()).arg(at));
    // Gone with its last use.
    sh(Command::new("losetup").args(["--detach", device.trim()]));
}

fn pull(at: &Path) {
    sh(Command::new("umount").arg(at));
    fs::remove_dir_all("/dev/disk/by-uuid").unwrap();
}

fn entries(path: &Path) -> usize {
    fs::read_dir(path).unwrap().count()
}

#[test]
fn a_usb_disk_that_is_not_mounted_or_another_never_gets_a_backup() {
    privately(&["/dev/disk"], || {
        let scratch = Scratch::new();
        let usb = scratch.directory("storage");
        let ((ours, our_uuid), (other, other_uuid)) = (disk(&scratch, "ours.img"), disk(&scratch, "other.img"));
        let source = scratch.directory("srv/foundry");
        fs::write(source.join("world.json"), "{}").unwrap();
        let config = Config::local(scratch.path());
        let agent = config.clone().directory("foundry", &[&source], "").write();
        plug(&ours, &our_uuid, &usb);
        // A new file system's own folder would make it a place that is not empty.
        let _ = fs::remove_dir(usb.join("lost+found"));
        agent.ok(["run"]);
        let marker = fs::read_to_string(usb.join("host.json")).unwrap();
        assert!(marker.contains(&our_uuid), "{marker}");
        pull(&usb);

        // Also with a step that has no past: the place must not be taken for a new one.
        let agent = config.directory("new", &[&source], "").directory("foundry", &[&source], "").write();
        let night = agent.run(["run", "--json"]).expect(3);
        for step in ["new", "foundry", "agent"] {
            let error = night.step(step)["error"].clone();
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("nothing is mounted at") && message.contains(&our_uuid), "{night}");
            assert!(error["hint"].as_str().unwrap().contains("pi-agent adopt"), "{error}");
        }
        assert_eq!(entries(&usb), 0, "nothing on the system's own disk");
        agent.run(["doctor"]).expect(1).says("nothing is mounted at");
        assert_eq!(entries(&usb), 0);

        // Another disk, even with a copy of the marker.
        plug(&other, &other_uuid, &usb);
        fs::write(usb.join("host.json"), &marker).unwrap();
        agent.run(["run"]).expect(3).says("another disk is mounted there");
        // And where nobody remembers: the marker itself says which disk it belongs to.
        fs::rename(agent.state(), scratch.join("away")).unwrap();
        agent.run(["run"]).expect(3).says("another disk is mounted there");
        assert!(!usb.join("foundry").exists() && !usb.join("new").exists());
        fs::remove_dir_all(agent.state()).unwrap();
        fs::rename(scratch.join("away"), agent.state()).unwrap();
        pull(&usb);

        plug(&ours, &our_uuid, &usb);
        agent.ok(["run"]);
        pull(&usb);
        // Given up on purpose.
        agent.ok(["adopt"]);
        agent.run(["run"]).expect(5).says("held restore points before");
        assert!(usb.join("foundry").exists());
    });
}

#[test]
fn a_wifi_that_drops_costs_only_the_time_it_was_away() {
    let (garage, scratch) = (Garage::start(), Scratch::new());
    let proxy = TlsProxy::before(&garage);
    let household = Household::make(scratch.join("srv"), Size { bytes: 60_000_000, files: 300 }, 1);
    let keys = (Garage::KEY_ID, Garage::KEY);
    let agent = Config::s3(scratch.path(), "s3://backups/host", &proxy.endpoint(), proxy.ca_file(), keys)
        .directory("foundry", &[&household.foundry()], "")
        .write();
    proxy.set(Faults::slow(2_000_000));
    let run = agent.start(["run", "--json"]);
    wait_for(|| proxy.traffic().bytes_up > 25_000_000);
    proxy.set_down(true);
    std::thread::sleep(Duration::from_secs(45));
    let before = proxy.traffic().bytes_up;
    proxy.set_down(false);
    let ran = run.wait().expect(0);
    let step = ran.step("foundry");
    assert_eq!(step["outcome"], "succeeded", "{ran}");
    assert!(step["requests"]["retried"].as_u64().unwrap() > 0, "{ran}");
    let (stored, sent) = (step["bytes_added_stored"].as_u64().unwrap(), proxy.take_traffic().bytes_up);
    assert!(stored > before + 10_000_000, "cut too late to prove anything: {stored}, {before}");
    // What was under way when it dropped goes again, a pack for each connection; nothing else does.
    assert!(sent < stored + 24_000_000 && sent < stored + before, "{sent} sent of {stored}, {before} before the drop");
    proxy.set(Faults::none());
    assert_eq!(agent.ok(["run", "--json"]).step("foundry")["files_changed"], 0);
}

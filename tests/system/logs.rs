//! What `logs audit` finds: on a real disk, of real writers, of a real Docker engine.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Child, Command, Stdio};

use harness::{Config, DockerEngine, Scratch};

const MIB: usize = 1 << 20;

/// A program that holds a log open. Ended when dropped.
struct Writer(Child);

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_log_is_named_with_its_writer_and_what_bounds_it() {
    let engine = DockerEngine::start();
    let scratch = Scratch::new();
    let logs = scratch.directory("srv/logs");
    fs::write(logs.join("small.log"), "a line\n").unwrap();
    fs::write(logs.join("rotated.log"), "a line\n").unwrap();
    fs::write(logs.join("rotated.log.1"), vec![b'x'; MIB]).unwrap();
    fs::write(logs.join("rotated.log.2.gz"), vec![b'x'; MIB]).unwrap();
    let mut large = File::create(logs.join("large.log")).unwrap();
    large.write_all(&vec![b'x'; 3 * MIB]).unwrap();
    let writer = Writer(Command::new("sleep").arg("600").stdin(Stdio::null()).stdout(large).spawn().unwrap());

    let (place, image) = (format!("{}:/logs", logs.display()), DockerEngine::IMAGE);
    let talk = "head -c 2000000 /dev/zero | base64; exec sleep 600 >>/logs/web.log";
    for (name, options) in
        [("web", &["--volume", &*place][..]), ("tame", &["--log-opt", "max-size=1m", "--log-opt", "max-file=2"])]
    {
        let run = ["run", "--detach", "--network", "none", "--name", name];
        engine.docker(run.into_iter().chain(options.iter().copied()).chain([image, "bash", "-c", talk]));
    }
    let agent = Config::local(scratch.path()).directory("logs", &[&logs], "").write();
    let agent = agent.env("DOCKER_HOST", engine.host());
    let mut ran = agent.ok(["logs", "audit", "--json"]);
    // What it says has to arrive.
    for _ in 0..100 {
        if ran.json()["containers"][1]["bytes"].as_u64() > Some(2_000_000) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        ran = agent.ok(["logs", "audit", "--json"]);
    }

    let found = ran.json();
    assert_eq!(found["problems"], serde_json::json!([]), "{ran}");
    let all = found["places"][0]["logs"].as_array().unwrap();
    let log = |name: &str| all.iter().find(|log| log["path"].as_str().unwrap().ends_with(name)).unwrap();
    let large = log("/large.log");
    assert_eq!((large["bytes"].as_u64(), &large["rotation"]), (Some(3 << 20), &"none".into()), "{ran}");
    assert_eq!(large["writers"], serde_json::json!(["sleep"]));
    let rotated = log("/rotated.log");
    assert_eq!((rotated["older"].as_u64(), &rotated["rotation"]), (Some(2), &"itself".into()), "{ran}");
    assert_eq!(log("/web.log")["writers"], serde_json::json!(["web/sleep"]), "{ran}");
    let containers = &found["containers"];
    assert_eq!((&containers[0]["container"], &containers[0]["limit"]["driver"]), (&"tame".into(), &"1m x 2".into()));
    assert_eq!((&containers[1]["container"], &containers[1]["limit"]), (&"web".into(), &"none".into()));

    let text = agent.ok(["logs", "audit"]);
    text.says("large.log").says("NOTHING").says("web/sleep").says("into /etc/logrotate.d/household").says("  web:\n");
    assert!(!text.stdout.contains("  tame:\n") && !text.stdout.contains("\"/small.log"), "{text}");
    // What it gives to paste is what logrotate understands.
    let rules = found["to_paste"][0][1].as_str().unwrap();
    assert_eq!(rules.matches('{').count(), 1, "{rules}");
    fs::write(scratch.join("rules"), rules).unwrap();
    let state = scratch.join("logrotate.state");
    let logrotate =
        Command::new("logrotate").arg("--debug").arg("--state").arg(state).arg(scratch.join("rules")).output();
    let said = logrotate.expect("logrotate can be started");
    assert!(said.status.success() && !String::from_utf8_lossy(&said.stderr).contains("error:"), "{said:?}");
    drop(writer);
}

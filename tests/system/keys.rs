//! A key that opens nothing of what is stored is found before anybody relies on it, and none is made in the place of one that is lost.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};

use harness::{Agent, Config, Scratch};

/// A step, backed up twice.
fn backed_up(scratch: &Scratch) -> (Config, Agent) {
    let source = scratch.directory("srv/data");
    fs::write(source.join("file"), "content").unwrap();
    let config = Config::local(scratch.path()).directory("data", &[&source], "");
    let agent = config.write();
    agent.ok(["run"]);
    agent.ok(["run"]);
    (config, agent)
}

#[test]
fn a_password_that_opens_nothing_is_told_by_whoever_is_asked_and_comes_into_no_kit() {
    let scratch = Scratch::new();
    let (config, agent) = backed_up(&scratch);
    let kit = scratch.join("kit");
    let kit = kit.to_str().unwrap();
    agent.ok(["recovery-kit", "--to", kit]);
    let before = fs::read(kit).unwrap();

    config.secret("restic.key", "nonsense");
    agent.run(["doctor"]).expect(1).says("the password in restic.key is not this repository's");
    agent.run(["check", "data"]).expect(3).says("restic.key opens none of the key files");
    agent.run(["recovery-kit", "--to", kit]).expect(2).says("no kit was made").says("keep the kit that you have");
    assert_eq!(fs::read(kit).unwrap(), before, "the good one is still there");

    // One that is lost comes from the kit, and is not made anew.
    let key = config.secrets().join("restic.key");
    fs::remove_file(&key).unwrap();
    agent.run(["setup", "--unattended"]).expect(2).says("restic.key is missing, and there are backups in");
    assert!(!key.exists());
    agent.run(["doctor"]).expect(1).says("recover --kit FILE --only-files");
}

#[test]
fn all_contents_are_read_when_that_is_wanted() {
    let scratch = Scratch::new();
    let (_, agent) = backed_up(&scratch);
    let packs = fs::read_dir(scratch.join("storage/data/data")).unwrap();
    let pack = packs.flatten().find_map(|folder| fs::read_dir(folder.path()).unwrap().flatten().next()).unwrap().path();
    agent.ok(["check", "data", "--read-data"]);
    let mut bytes = fs::read(&pack).unwrap();
    bytes[20] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let _ = agent.run(["check", "data", "--read-data"]).expect(3);
}

#[test]
fn a_configuration_that_others_may_write_to_is_refused() {
    let scratch = Scratch::new();
    let (config, agent) = backed_up(&scratch);
    let file = config.file();
    fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    agent.run(["run"]).expect(2).says("others than root may write to it: chown root: ");
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    chown(&file, Some(65534), None).unwrap();
    agent.run(["run"]).expect(2).says("others than root may write to it");
    chown(&file, Some(0), None).unwrap();
    agent.ok(["run"]);
    fs::remove_file(&file).unwrap();
    agent.run(["status"]).expect(2).says("pi-agent setup writes it");
}

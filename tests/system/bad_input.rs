//! What people get wrong: each is told plainly, costs nothing that was there, and is over once it is put right.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};

use harness::{Agent, Config, Household, Scratch, Size, Tree};

struct Host {
    scratch: Scratch,
    household: Household,
    config: Config,
    agent: Agent,
}

fn host() -> Host {
    let scratch = Scratch::new();
    let household = Household::make(scratch.join("srv"), Size::SMALL, 1);
    let config = Config::local(scratch.path()).directory("foundry", &[&household.foundry()], "").directory(
        "logs",
        &[&household.logs()],
        "",
    );
    let agent = config.write();
    Host { scratch, household, config, agent }
}

#[test]
fn several_mistakes_in_the_configuration_are_told_at_once() {
    let host = host();
    let text = host.config.text().replace("[storage]", "[storage]\nregoin = \"x\"");
    let text = text.replace("kind = \"directory\"\npaths", "kind = \"directory\"\nstall = \"soon\"\npaths");
    fs::write(host.config.file(), format!("{text}\n[[step]]\nname = \"third\"\nkind = \"floppy\"\n")).unwrap();
    let ran = host.agent.run(["run"]).expect(2);
    let file = host.config.file().display().to_string();
    ran.says(&file).says("regoin").says("region").says("\"soon\"").says("\"floppy\"");
    assert!(!host.agent.state().exists(), "nothing was begun");
    assert!(fs::read_dir(host.config.storage_folder()).unwrap().next().is_none(), "nothing was written");

    fs::remove_file(host.config.file()).unwrap();
    host.agent.run(["run"]).expect(2).says(&file);
    host.config.write();
    host.agent.run(["run", "no-such-step"]).expect(2).says("no-such-step");
    host.agent.ok(["run"]);
}

#[test]
fn secrets_that_are_missing_open_or_empty_are_refused_with_what_to_do() {
    let host = host();
    let key = host.config.secrets().join("restic.key");
    let refused = |what: &str, hint: &str| {
        let ran = host.agent.run(["run", "--json"]);
        assert!(matches!(ran.code(), Some(2 | 3)), "{what}: {ran}");
        ran.says("restic.key").says(hint);
        assert!(!ran.stderr.contains(Config::PASSWORD), "{what}: the secret is shown: {ran}");
    };

    fs::remove_file(&key).unwrap();
    refused("missing", "does not exist");

    host.config.secret("restic.key", Config::PASSWORD);
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    refused("world-readable", "chmod 600");

    host.config.secret("restic.key", Config::PASSWORD);
    chown(&key, Some(1234), None).unwrap();
    refused("another user's", "chown root");
    chown(&key, Some(0), None).unwrap();

    host.config.secret("restic.key", "");
    refused("empty", "is empty");

    host.config.secret("restic.key", Config::PASSWORD);
    fs::set_permissions(host.config.secrets(), Permissions::from_mode(0o755)).unwrap();
    // Not 3: whom to tell stands in there as well, so that nobody can be told.
    host.agent.run(["run"]).expect(1).says("chmod 700");

    fs::set_permissions(host.config.secrets(), Permissions::from_mode(0o700)).unwrap();
    host.agent.ok(["run"]);
}

#[test]
fn a_wrong_password_opens_nothing_and_breaks_nothing() {
    let host = host();
    host.agent.ok(["run"]);
    let tree = Tree::read(host.household.foundry());
    let before = Tree::read(host.config.storage_folder());

    host.config.secret("restic.key", "another password");
    fs::remove_dir_all(host.config.secrets().join("master-keys")).unwrap();
    let ran = host.agent.run(["run", "foundry", "--json"]).expect(3);
    let step = ran.step("foundry");
    assert_eq!(step["outcome"], "failed", "{ran}");
    assert!(step["error"]["message"].as_str().unwrap().contains("password"), "{ran}");
    assert!(step["restore_point"].is_null(), "{ran}");
    before.assert_equals(host.config.storage_folder());

    host.config.secret("restic.key", Config::PASSWORD);
    let target = host.scratch.join("restored");
    host.agent.ok(["restore", "foundry", "--to", target.to_str().unwrap()]);
    tree.assert_equals(restored(&target, &host.household));
}

#[test]
fn the_place_of_another_machine_is_not_written_to_until_adopted() {
    let host = host();
    host.agent.ok(["run"]);
    let owner = host.config.storage_folder().join("host.json");
    let text = fs::read_to_string(&owner).unwrap();
    let id = fs::read_to_string("/etc/machine-id").unwrap();
    assert!(text.contains(id.trim()), "{text}");
    fs::write(&owner, text.replace(id.trim(), "0123456789abcdef0123456789abcdef")).unwrap();
    // Another machine has no history of this place either.
    fs::remove_dir_all(host.agent.state()).unwrap();

    let before = Tree::read(host.config.storage_folder());
    let ran = host.agent.run(["run", "--json"]).expect(3);
    for name in ["foundry", "logs", "agent"] {
        assert_eq!(ran.step(name)["outcome"], "failed", "{ran}");
    }
    ran.says("belongs to").says("pi-agent adopt");
    before.assert_equals(host.config.storage_folder());

    let target = host.scratch.join("restored");
    host.agent.ok(["restore", "foundry", "--to", target.to_str().unwrap()]);
    Tree::read(host.household.foundry()).assert_equals(restored(&target, &host.household));

    host.agent.ok(["adopt"]);
    host.agent.ok(["run"]);
}

#[test]
fn a_restore_never_goes_where_something_is() {
    let host = host();
    host.agent.ok(["run"]);
    let target = host.scratch.directory("restored");
    fs::write(target.join("mine"), "precious").unwrap();
    let ran = host.agent.run(["restore", "foundry", "--to", target.to_str().unwrap()]).expect(2);
    ran.says("not empty").says("--overwrite");
    assert_eq!(fs::read_dir(&target).unwrap().count(), 1);

    host.agent.ok(["restore", "foundry", "--to", target.to_str().unwrap(), "--overwrite"]);
    assert_eq!(fs::read_to_string(target.join("mine")).unwrap(), "precious");
    Tree::read(host.household.foundry()).assert_equals(restored(&target, &host.household));

    for (at, code) in [("1999-12-31 23:59", 1), ("00000000", 1), ("no-such-id", 2)] {
        let target = host.scratch.join("elsewhere");
        let ran = host.agent.run(["restore", "foundry", "--at", at, "--to", target.to_str().unwrap()]).expect(code);
        ran.says("pi-agent points");
    }
}

/// A restored path lies below the target as it lay below `/`.
fn restored(target: &std::path::Path, household: &Household) -> std::path::PathBuf {
    target.join(household.foundry().strip_prefix("/").unwrap())
}

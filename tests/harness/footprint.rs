//! How much memory each command takes on a source tree of some size.

use crate::{Agent, Config, Household, MemoryLimit, Scratch, Tree, sh};

/// What a machine of the smallest kind has.
const MACHINE: u64 = 512 << 20;

/// A command, and the memory of its largest process at its peak, in bytes.
pub type Footprint = (&'static str, u64);

/// Every command once, each in a machine of 512 MiB in which nothing else runs: none is killed.
pub fn footprints(agent: &Agent, config: &Config, household: &mut Household, scratch: &Scratch) -> Vec<Footprint> {
    let machine = MemoryLimit::of(MACHINE, &format!("machine-{}", std::process::id()));
    let mut found = Vec::new();
    let mut measure = |name, arguments: &[&str]| found.push((name, machine.run(agent, arguments)));
    measure("first", &["run", "foundry"]);
    measure("unchanged", &["run", "foundry"]);
    household.change(0.005);
    measure("changed", &["run", "foundry"]);
    let to = scratch.join("restored");
    measure("restore", &["restore", "foundry", "--to", to.to_str().expect("our own name")]);
    let source = household.foundry();
    Tree::read(&source).assert_equals(to.join(source.strip_prefix("/").expect("is absolute")));
    std::fs::remove_dir_all(&to).expect("it is ours");
    measure("check", &["check", "foundry"]);
    // A third of everything changes, and the first nights are forgotten: packs to be thrown away, and some to be repacked.
    household.change(0.3);
    agent.ok(["run", "foundry"]);
    sh(config.restic("foundry").args(["forget", "--keep-last", "1", "--group-by", ""]));
    measure("prune", &["prune", "foundry"]);
    assert_eq!(machine.kills(), 0, "{found:?}");
    found
}

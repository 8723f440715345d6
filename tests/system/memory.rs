//! A machine of 512 MiB.

use harness::{Config, Household, Package, Scratch, Size, by_effort, footprints};

/// MiB, as in docs/performance.md, with room for what two runs differ by.
const ALLOWED: [(&str, u64); 6] =
    [("first", 72), ("unchanged", 16), ("changed", 32), ("restore", 72), ("check", 32), ("prune", 64)];

#[test]
fn slow_a_backup_and_a_restore_need_little() {
    let scratch = Scratch::new();
    let size = by_effort(Size { bytes: 200_000_000, files: 2_000 }, Size { bytes: 4_000_000_000, files: 50_000 });
    let mut household = Household::make(scratch.directory("srv"), size, 1);
    // All of the data is read by the one check.
    let config = Config::local(scratch.path()).directory(
        "foundry",
        &[&household.foundry()],
        "read-all-months = 1\ncheck-every = \"30d\"",
    );
    // In a full run it is the program that is shipped; in a short one it is compiled for tests, and its code alone
    // takes 14 MiB more.
    let agent = config.write().program(Package::native().program(&scratch));
    let found = footprints(&agent, &config, &mut household, &scratch);
    for ((name, peak), (expected, mib)) in found.iter().zip(ALLOWED) {
        assert_eq!(*name, expected);
        let allowed = by_effort(mib + 16, mib) << 20;
        assert!(*peak <= allowed, "{name}: {peak} bytes, allowed {allowed}: {found:?}");
    }
}

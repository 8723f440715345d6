//! A machine of 512 MiB.

use harness::{Config, Household, Package, Scratch, Size, footprints};

/// MiB, as promised in docs/performance.md.
const PROMISED: [(&str, u64); 6] =
    [("first", 72), ("unchanged", 20), ("changed", 36), ("restore", 80), ("check", 38), ("prune", 72)];

#[test]
fn slow_four_gigabytes_in_fifty_thousand_files_need_little() {
    let scratch = Scratch::new();
    let mut household = Household::make(scratch.directory("srv"), Size { bytes: 4_000_000_000, files: 50_000 }, 1);
    // All of the data is read by the one check.
    let config = Config::local(scratch.path()).directory(
        "foundry",
        &[&household.foundry()],
        "read-all-months = 1\ncheck-every = \"30d\"",
    );
    // Built as it is shipped: what the tests are made of is not as small.
    let agent = config.write().program(Package::native().program(&scratch));
    let found = footprints(&agent, &config, &mut household, &scratch);
    for ((name, peak), (promised, mib)) in found.iter().zip(PROMISED) {
        assert_eq!(*name, promised);
        assert!(*peak <= mib << 20, "{name}: {} MiB, promised {mib}: {found:?}", peak >> 20);
    }
}

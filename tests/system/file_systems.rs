//! Every file system that this machine can mount, as a source, a restore target and a storage: docs/file-systems.md.

use std::path::Path;
use std::process::Command;

use harness::{Agent, sh};

#[test]
fn each_file_system_keeps_what_it_can_and_the_rest_is_told() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("file-systems.sh");
    let names = ["ext4", "xfs", "btrfs", "tmpfs", "exfat"];
    let said = sh(Command::new(script).arg(Agent::binary()).args(names));
    for name in names {
        for role in ["source", "target", "storage"] {
            assert!(said.contains(&format!("{name} as {role}: ")), "{name} as {role} was not tried:\n{said}");
        }
    }
}

//! What stands in the way of a backup of PostgreSQL: it goes on without it, or says what it is.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::postgres::Host;

#[test]
fn what_the_servers_user_cannot_read_is_left_out_and_named() {
    let host = Host::local();
    host.insert("one");
    let closed = |name: &str| {
        let path = host.cluster.data().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        path.display().to_string()
    };
    let (lost, notes) = (closed("lost+found"), closed("my notes"));
    let ran = host.run().expect(5);
    let step = ran.step("database");
    assert_eq!(step["outcome"], "degraded", "{ran}");
    for path in [lost, notes] {
        ran.says(&format!("{path} is not in the backup: the server's user postgres cannot read it"));
    }
    // It is whole without them.
    assert_eq!(host.restored("back", step["restore_point"].as_str().unwrap()), host.cluster.dump());
}

#[test]
fn a_closed_way_to_the_spool_is_named() {
    let host = Host::local();
    host.good_run();
    let above = host.scratch.join("spool");
    fs::set_permissions(&above, Permissions::from_mode(0o700)).unwrap();
    let what = format!("the server's user postgres may not enter {}", above.display());
    let cure = format!("chmod o+x {}", above.display());
    let doctor = host.agent.run(["doctor"]).expect(1);
    doctor.says(&what).says(&cure);
    assert!(!doctor.stdout.contains("SET archive_command"), "what is set is no cure: {doctor}");
    let (message, hint) = host.failed_run();
    assert!(message.contains(&what) && hint == cure, "{message} {hint}");
}

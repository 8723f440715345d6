//! How pgBackRest's bytes come to pass the relay that limits the bandwidth. It knows no proxy, and the name that it connects
//! to is also the one that the server's certificate must have. So it is shown an `/etc/hosts` in which the server is on
//! loopback, and told the relay's port; TLS is between it and the server, as ever.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Once;

use super::files::{Files, replace};
use crate::config::{Location, Storage};
use crate::error::{Context, Error, Result};
use crate::mounts::Bind;
use crate::process::{Program, User};
use crate::storage::shaper::{self, Relay};

const HOSTS: &str = "/etc/hosts";
const NSSWITCH: &str = "/etc/nsswitch.conf";

/// A relay, and the files that lead to it.
#[derive(Debug)]
pub(super) struct Detour {
    relay: Relay,
    binds: [Bind; 2],
}

impl Detour {
    /// `None`: nothing is limited, or it cannot be here, which is told: late is better than never, and unlimited, too.
    pub(super) fn prepare(storage: &Storage, files: &Files, user: &User) -> Result<Option<Self>> {
        let Location::S3(s3) = &storage.location else { return Ok(None) };
        let server = s3.server();
        let name = server.0.clone();
        let Some(relay) = Relay::start(storage, server)? else { return Ok(None) };
        if nix::unistd::Uid::effective().is_root() {
            shaper::share(&storage.limits, user.gid);
        }
        let led = if name.parse::<IpAddr>().is_ok() {
            Err(Error::new(format!("{name} is no name that can be led elsewhere")))
        } else {
            Self::lead_to(relay, &name, files, user)
        };
        match led {
            Ok(detour) => Ok(Some(detour)),
            Err(error) => {
                static TOLD: Once = Once::new();
                TOLD.call_once(|| log::warn!("pgBackRest's transfers are not limited: {}", error.chain()));
                Ok(None)
            }
        }
    }

    fn lead_to(relay: Relay, name: &str, files: &Files, user: &User) -> Result<Self> {
        let show = |at: &str, change: &dyn Fn(&str) -> String| -> Result<Bind> {
            let original = std::fs::read_to_string(at).context(|| format!("read {at}"))?;
            let from = files.home.join(Path::new(at).file_name().unwrap_or_default());
            replace(&from, &change(&original), user)?;
            Ok(Bind { from, at: at.into() })
        };
        let binds = [show(HOSTS, &|text| hosts(text, name))?, show(NSSWITCH, &nsswitch)?];
        let detour = Self { relay, binds };
        // Not every kernel lets everybody.
        detour.lead(Program::new("true", [""; 0])).run(&mut |_, _| ())?;
        Ok(detour)
    }

    /// The program with its way to the storage.
    pub(super) fn lead(&self, program: Program) -> Program {
        program.env("PGBACKREST_REPO1_STORAGE_PORT", self.relay.port().to_string()).seeing(&self.binds)
    }

    /// Why the server cannot be reached, if it could not be the last time.
    pub(super) fn trouble(&self) -> Option<String> {
        self.relay.trouble()
    }
}

/// The file with that name on loopback, and nowhere else.
fn hosts(original: &str, name: &str) -> String {
    let mut text = format!("127.0.0.1 {name}\n");
    for line in original.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next() else { continue };
        let others: Vec<_> = words.filter(|word| !word.eq_ignore_ascii_case(name)).collect();
        if !others.is_empty() {
            text.push_str(&format!("{address} {}\n", others.join(" ")));
        }
    }
    text
}

/// The file with `/etc/hosts` first of all: some machines ask a service that has its own opinion.
fn nsswitch(original: &str) -> String {
    let others = original.lines().filter(|line| !line.trim_start().starts_with("hosts:"));
    others.chain(["hosts: files dns"]).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_on_loopback_and_nowhere_else() {
        let original = "127.0.0.1\tlocalhost\n# a note\n10.0.0.5 garage.home Garage  # s3\n::1 GARAGE.home\n\n";
        assert_eq!(hosts(original, "garage.home"), "127.0.0.1 garage.home\n127.0.0.1 localhost\n10.0.0.5 Garage\n");
        assert_eq!(hosts("", "s3.home"), "127.0.0.1 s3.home\n");
        let original = "passwd: files\nhosts:          mdns4_minimal [NOTFOUND=return] dns\nnetworks: files\n";
        assert_eq!(nsswitch(original), "passwd: files\nnetworks: files\nhosts: files dns\n");
    }
}

//! The HTTP client: who vouches for the server, and by which way it is reached.

use std::time::Duration;

use reqwest::Client;

use crate::config::S3Location;
use crate::error::Context;
use crate::storage::shaper::Relay;
use crate::{Error, Result};

pub(in crate::storage) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The same through a relay, where the greetings of TLS wait for their turn.
const RELAYED_CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn client(location: &S3Location, timeout: Duration, relay: Option<&Relay>) -> Result<Client> {
    let mut builder = Client::builder()
        .connect_timeout(if relay.is_some() { RELAYED_CONNECT_TIMEOUT } else { CONNECT_TIMEOUT })
        .tcp_user_timeout(timeout)
        // A signature is good for one address only.
        .redirect(reqwest::redirect::Policy::none())
        .tls_info(true)
        .no_proxy();
    if let Some(relay) = relay {
        let proxy = reqwest::Proxy::all(format!("http://127.0.0.1:{}", relay.port()));
        builder = builder.proxy(proxy.context(|| "use the relay that limits the bandwidth".into())?);
    }
    if let Some(file) = &location.ca_file {
        let hint = "[storage] ca-file names a PEM file with one or more certificates";
        let pem = std::fs::read(file)
            .map_err(|error| Error::usage(format!("cannot read {}", file.display())).hint(hint).caused_by(error))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| {
            Error::usage(format!("no certificate in {}", file.display())).hint(hint).caused_by(error)
        })?;
        if certificates.is_empty() {
            return Err(Error::usage(format!("no certificate in {}", file.display())).hint(hint));
        }
        for certificate in certificates {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().context(|| "cannot set up HTTPS".into())
}

//! A certificate authority of our own and a certificate for `localhost`, made anew for each test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::sh;

/// Makes `ca.pem`, `server.pem` and `server.key` in `directory`; returns the authority's file.
pub fn make(directory: &Path) -> PathBuf {
    let path = |name: &str| directory.join(name);
    let request = |subject: &str, key: &str, certificate: &str| {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
        openssl.args(["-subj", subject, "-keyout"]).arg(path(key)).arg("-out").arg(path(certificate));
        openssl
    };
    sh(request("/CN=pi-agent test authority", "ca.key", "ca.pem")
        .args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"]));
    sh(request("/CN=localhost", "server.key", "server.pem")
        .arg("-CA")
        .arg(path("ca.pem"))
        .arg("-CAkey")
        .arg(path("ca.key"))
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"]));
    path("ca.pem")
}

/// What a TLS server needs of them.
pub fn server(directory: &Path) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(directory.join("server.pem")).expect("openssl writes PEM");
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).expect("openssl writes PEM");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring knows TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("the key belongs to the certificate");
    Arc::new(config)
}

//! A real S3 server: Garage, one node, on loopback, gone with the test.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Scratch, sh};

/// A running Garage with one bucket and one key. Ended and removed when dropped.
#[derive(Debug)]
pub struct Garage {
    child: Child,
    address: SocketAddr,
    scratch: Scratch,
}

impl Garage {
    /// The bucket.
    pub const BUCKET: &str = "backups";
    /// The region in signatures.
    pub const REGION: &str = "garage";
    /// AWS_ACCESS_KEY_ID.
    pub const KEY_ID: &str = "GK0123456789abcdef01234567";
    /// AWS_SECRET_ACCESS_KEY.
    pub const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        // Another program may take a port between our look and Garage's bind: then it ends, and we look again.
        for _ in 0..5 {
            if let Some(garage) = Self::try_start() {
                return garage;
            }
        }
        panic!("garage did not start five times in a row");
    }

    /// Where its S3 service listens, without TLS.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn try_start() -> Option<Self> {
        let scratch = Scratch::new();
        let ports: Vec<_> = (0..2).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port")).collect();
        let [s3, rpc] = [0, 1].map(|at: usize| ports[at].local_addr().expect("is bound"));
        drop(ports);
        let config = write_config(&scratch, s3, rpc);
        let log = File::create(scratch.join("garage.log")).expect("our own directory");
        let mut child = Command::new(binary())
            .arg("--config")
            .arg(&config)
            .args(["server", "--single-node", "--default-bucket"])
            .env("GARAGE_DEFAULT_BUCKET", Self::BUCKET)
            .env("GARAGE_DEFAULT_ACCESS_KEY", Self::KEY_ID)
            .env("GARAGE_DEFAULT_SECRET_KEY", Self::KEY)
            .env("RUST_LOG", "garage=warn")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("our own file"))
            .stderr(log)
            .spawn()
            .expect("garage can be started");
        wait_for(&mut child, s3, &scratch.join("garage.log")).then_some(Self { child, address: s3, scratch })
    }

    /// Makes another key for the bucket.
    pub fn add_key(&self, id: &str, key: &str) {
        let garage = |arguments: &[&str]| {
            sh(Command::new(binary()).arg("--config").arg(self.scratch.join("garage.toml")).args(arguments));
        };
        garage(&["key", "import", "--yes", "-n", id, id, key]);
        garage(&["bucket", "allow", "--read", "--write", "--key", id, Self::BUCKET]);
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.scratch.join("garage.log")).expect("our own file")
    }
}

impl Drop for Garage {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `PI_AGENT_TEST_CACHE` is where `tests/setup.sh` puts what takes long to build.
fn binary() -> PathBuf {
    let cache = std::env::var_os("PI_AGENT_TEST_CACHE").unwrap_or_else(|| "/var/cache/pi-agent-tests".into());
    let path = Path::new(&cache).join("garage/bin/garage");
    assert!(path.is_file(), "{} is missing: run tests/setup.sh", path.display());
    path
}

fn write_config(scratch: &Scratch, s3: SocketAddr, rpc: SocketAddr) -> PathBuf {
    let (meta, data) = (scratch.join("meta"), scratch.join("data"));
    let text = format!(
        r#"metadata_dir = "{}"
data_dir = "{}"
db_engine = "sqlite"
replication_factor = 1
compression_level = "none"
rpc_bind_addr = "{rpc}"
rpc_public_addr = "{rpc}"
rpc_secret = "{}"

[s3_api]
s3_region = "{}"
api_bind_addr = "{s3}"
"#,
        meta.display(),
        data.display(),
        Garage::KEY,
        Garage::REGION,
    );
    let path = scratch.join("garage.toml");
    fs::write(&path, text).expect("our own directory");
    path
}

/// False when it ended instead.
fn wait_for(child: &mut Child, address: SocketAddr, log: &Path) -> bool {
    let started = Instant::now();
    while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
        if let Some(status) = child.try_wait().expect("our own child") {
            eprintln!("garage ended with {status}:\n{}", fs::read_to_string(log).unwrap_or_default());
            return false;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "garage does not listen on {address} after a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

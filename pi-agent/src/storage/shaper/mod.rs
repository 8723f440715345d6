//! Limits of upload and download: a relay on loopback that every byte to and from a server passes, ours and pgBackRest's,
//! in turns and in small chunks. TLS goes through it as it is, from end to end.
//!
//! A relay belongs to who uses it; all relays of this machine share one [`line`]. One rule serves every client: what begins
//! with `CONNECT` is a client that knows of the proxy and is answered as by one; anything else is passed on as it came.
//! In any case it goes to the storage's server and nowhere else.

mod bucket;
mod line;
mod reading;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;

use self::line::{Line, Way};
pub use self::reading::Reading;
use super::s3::CONNECT_TIMEOUT;
use crate::Result;
use crate::config::{Limits, Storage};
use crate::error::Context;

/// What the kernel may hold of a client's bytes before the client is made to wait: little, so that what a client has
/// handed over has nearly left.
const HELD: u32 = 32 << 10;

/// A relay to the storage's server, on a thread of its own. It ends when dropped, and its connections with it.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

#[derive(Debug)]
struct Shared {
    /// Host and port.
    server: (String, u16),
    line: Line,
    /// A server that takes nothing for so long is away.
    patience: Duration,
    connections: AtomicUsize,
    /// Why the server could not be reached, the last time that it was tried.
    trouble: Mutex<Option<String>>,
}

impl Relay {
    /// Starts one to that server; `None`: nothing is limited, so that none is needed.
    ///
    /// # Errors
    /// There is no port or no thread for it.
    pub fn start(storage: &Storage, server: (String, u16)) -> Result<Option<Self>> {
        if storage.limits.is_none() {
            return Ok(None);
        }
        let doing = || "start the relay that limits the bandwidth".to_owned();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("shaper")
            .enable_all()
            .build()
            .context(doing)?;
        let listener = {
            let _inside = runtime.enter();
            listen().context(doing)?
        };
        let port = listener.local_addr().context(doing)?.port();
        let shared = Arc::new(Shared {
            server,
            line: Line::new(&storage.limits),
            patience: storage.timeout,
            connections: AtomicUsize::new(0),
            trouble: Mutex::new(None),
        });
        runtime.spawn(serve(listener, shared.clone()));
        Ok(Some(Self { port, shared, runtime: Some(runtime) }))
    }

    /// Where it listens on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Why the server cannot be reached, if it could not be the last time.
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes per second that one of the connections may count on for its upload at this moment, beside all others and
    /// as many of another process; `None`: there is no limit now.
    pub(super) fn upload_share(&self) -> Option<f64> {
        let rate = self.shared.line.rate(Way::Up)?;
        Some(rate as f64 / (2 * self.shared.connections.load(Relaxed).max(1)) as f64)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lets processes of that group share the line of those of root.
pub fn share(limits: &Limits, group: u32) {
    // What cannot be shared is counted apart: bytes still go, and each process keeps to the limit.
    if !limits.is_none() && chown(&limits.shared, None, Some(group)).is_ok() {
        let _ = std::fs::set_permissions(&limits.shared, std::fs::Permissions::from_mode(0o660));
    }
}

fn listen() -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // Connections inherit it, and only what is set before they come counts for their first window.
    socket.set_recv_buffer_size(HELD)?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    socket.listen(128)
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    shared.connections.fetch_add(1, Relaxed);
                    // Its client sees that it ended, and judges.
                    let _ = shared.relay(client).await;
                    shared.connections.fetch_sub(1, Relaxed);
                });
            }
            // Too many open files: some will be closed.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

impl Shared {
    async fn relay(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let first = beginning(&mut client).await?;
        let connected = self.connect().await;
        let told = connected.as_ref().err().map(ToString::to_string);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = told;
        let mut server = connected?;
        match first {
            First::Connect => client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?,
            First::Bytes(bytes) => {
                self.line.pass(Way::Up, bytes.len()).await;
                server.write_all(&bytes).await?;
            }
        }
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::try_join!(self.pump(Way::Up, from_client, to_server), self.pump(Way::Down, from_server, to_client))?;
        Ok(())
    }

    async fn pump(&self, way: Way, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        let mut counted = 0;
        loop {
            let chunk = self.line.chunk(way).min(buffer.len());
            let length = from.read(&mut buffer[..chunk]).await?;
            if length == 0 {
                return to.shutdown().await;
            }
            // What the kernel holds of the server's has used the line, and several new connections at once are several windows.
            // What it holds of a client's has not.
            let held = match way {
                Way::Down => rustix::io::ioctl_fionread(from.as_ref())? as usize,
                Way::Up | Way::Read => 0,
            };
            self.line.pass(way, (length + held).saturating_sub(counted)).await;
            counted = held;
            let written = to.write_all(&buffer[..length]);
            match way {
                Way::Up => tokio::time::timeout(self.patience, written).await??,
                // Ours may have a reason to take nothing, such as a slow disk.
                Way::Down | Way::Read => written.await?,
            }
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::other(format!("{} has no address", self.server.0));
        for address in tokio::net::lookup_host((self.server.0.as_str(), self.server.1)).await? {
            match tokio::time::timeout(CONNECT_TIMEOUT, self.connect_to(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // What the kernel holds goes at the line's own speed when a server that stood still moves again, and what it takes in
        // comes so; it makes it twice what is asked for. At higher rates it must reach further than we may set.
        let rate = |way| self.line.rate(way).filter(|rate| *rate <= 1 << 20);
        if let Some(rate) = rate(Way::Up) {
            socket.set_send_buffer_size((rate / 8).max(8 << 10) as u32)?;
        }
        if let Some(rate) = rate(Way::Down) {
            // A restore has three connections: together they hold half a second.
            socket.set_recv_buffer_size((rate / 12).max(8 << 10) as u32)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// How a client begins.
enum First {
    /// With `CONNECT`, whose head has been read.
    Connect,
    /// With what is for the server.
    Bytes(Vec<u8>),
}

async fn beginning(client: &mut TcpStream) -> io::Result<First> {
    const METHOD: &[u8] = b"CONNECT ";
    const LONGEST: usize = 8 << 10;
    let mut bytes = Vec::with_capacity(1024);
    while client.read_buf(&mut bytes).await? > 0 {
        let length = bytes.len().min(METHOD.len());
        if bytes[..length] != METHOD[..length] {
            return Ok(First::Bytes(bytes));
        }
        // A client says no more until it is answered.
        if bytes.ends_with(b"\r\n\r\n") {
            return Ok(First::Connect);
        }
        if bytes.len() > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

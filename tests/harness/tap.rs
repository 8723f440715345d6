//! A counter on the way to a server: what passes, and when.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A port on loopback that leads to another one. Ends when dropped.
pub struct Tap {
    port: u16,
    flow: Arc<Mutex<(Instant, Flow)>>,
    runtime: Option<tokio::runtime::Runtime>,
}

/// What passed, TLS and heads included, in each tenth of a second.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    /// Towards the server.
    pub up: Vec<u64>,
    /// From the server.
    pub down: Vec<u64>,
}

impl Tap {
    /// On the way to that port of loopback.
    pub fn on(port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("threads can be started");
        let listener = runtime.block_on(async { listen() }).expect("a port");
        let here = listener.local_addr().expect("is bound").port();
        let flow = Arc::new(Mutex::new((Instant::now(), Flow::default())));
        runtime.spawn(serve(listener, (Ipv4Addr::LOCALHOST, port).into(), flow.clone()));
        Self { port: here, flow, runtime: Some(runtime) }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What has passed since the start or the last call.
    pub fn take(&self) -> Flow {
        std::mem::replace(&mut *lock(&self.flow), (Instant::now(), Flow::default())).1
    }
}

impl Flow {
    /// Bytes towards the server.
    pub fn sent(&self) -> u64 {
        self.up.iter().sum()
    }

    /// Bytes from the server.
    pub fn received(&self) -> u64 {
        self.down.iter().sum()
    }
}

/// Bytes in the second that holds most.
pub fn peak(tenths: &[u64]) -> u64 {
    tenths.windows(10.min(tenths.len().max(1))).map(|second| second.iter().sum()).max().unwrap_or_default()
}

/// Bytes a second in the `seconds` that hold most.
pub fn best(tenths: &[u64], seconds: usize) -> u64 {
    let most = tenths.windows((seconds * 10).min(tenths.len().max(1))).map(|part| part.iter().sum::<u64>()).max();
    most.unwrap_or_default() / seconds as u64
}

impl Drop for Tap {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn listen() -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // Loopback would take megabytes at once from a server, long before they arrive.
    socket.set_send_buffer_size(16 << 10)?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    socket.listen(128)
}

async fn serve(listener: TcpListener, server: SocketAddr, flow: Arc<Mutex<(Instant, Flow)>>) {
    while let Ok((client, _)) = listener.accept().await {
        let flow = flow.clone();
        tokio::spawn(async move {
            let server = TcpStream::connect(server).await?;
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            tokio::try_join!(
                pass(from_client, to_server, &flow, |flow| &mut flow.up),
                pass(from_server, to_client, &flow, |flow| &mut flow.down),
            )?;
            std::io::Result::Ok(())
        });
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    flow: &Mutex<(Instant, Flow)>,
    way: fn(&mut Flow) -> &mut Vec<u64>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
        {
            let (since, flow) = &mut *lock(flow);
            let tenth = usize::try_from(since.elapsed().as_millis() / 100).expect("a test is short");
            let tenths = way(flow);
            tenths.resize(tenths.len().max(tenth + 1), 0);
            tenths[tenth] += length as u64;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A counter on the way to a server: what passes, and when.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;

const CHUNK: usize = 16 << 10;

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
    socket.set_send_buffer_size(4 << 10)?;
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
            tokio::try_join!(up(from_client, to_server, &flow), down(from_server, to_client, &flow))?;
            std::io::Result::Ok(())
        });
    }
}

/// What leaves the client counts when it leaves. A server far away takes in a window full of bytes before it makes its
/// client wait, and so does this one.
async fn up(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    flow: &Mutex<(Instant, Flow)>,
) -> std::io::Result<()> {
    const WINDOW: usize = 64;
    let (arrived, mut waiting) = mpsc::channel::<Vec<u8>>(WINDOW);
    let receive = async move {
        loop {
            let mut bytes = Vec::with_capacity(CHUNK);
            if client.read_buf(&mut bytes).await? == 0 {
                drop(arrived);
                return Ok(());
            }
            count(flow, |flow| &mut flow.up, bytes.len());
            // Its end has ended, and says why.
            let _ = arrived.send(bytes).await;
        }
    };
    let deliver = async {
        while let Some(bytes) = waiting.recv().await {
            server.write_all(&bytes).await?;
        }
        server.shutdown().await
    };
    tokio::try_join!(receive, deliver).map(|_| ())
}

/// What comes to the client counts when it has arrived there.
async fn down(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    flow: &Mutex<(Instant, Flow)>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = server.read(&mut buffer).await?;
        if length == 0 {
            return client.shutdown().await;
        }
        client.write_all(&buffer[..length]).await?;
        count(flow, |flow| &mut flow.down, length);
    }
}

fn count(flow: &Mutex<(Instant, Flow)>, way: fn(&mut Flow) -> &mut Vec<u64>, bytes: usize) {
    let (since, flow) = &mut *lock(flow);
    let tenth = usize::try_from(since.elapsed().as_millis() / 100).expect("a test is short");
    let tenths = way(flow);
    tenths.resize(tenths.len().max(tenth + 1), 0);
    tenths[tenth] += bytes as u64;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

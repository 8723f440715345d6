//! TLS and a bad line in front of an S3 server.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::faults::{Fault, Faults, Traffic};
use crate::http::{Body, Head, Length, Source};
use crate::{Garage, Scratch, certificates};

/// `https://localhost:PORT`, forwarding to an HTTP server on loopback. Ends when dropped.
pub struct TlsProxy {
    port: u16,
    ca_file: PathBuf,
    line: Arc<Line>,
    up: watch::Sender<bool>,
    runtime: Option<tokio::runtime::Runtime>,
    _scratch: Scratch,
}

/// What all connections share.
struct Line {
    server: SocketAddr,
    faults: Mutex<Faults>,
    traffic: Mutex<Traffic>,
    policies: Mutex<BTreeMap<&'static str, Vec<String>>>,
}

type Client = Source<TlsStream<TcpStream>>;

impl TlsProxy {
    /// In front of a Garage, with nothing going wrong yet.
    pub fn before(garage: &Garage) -> Self {
        Self::new(garage.address())
    }

    /// In front of `server`.
    pub fn new(server: SocketAddr) -> Self {
        let scratch = Scratch::new();
        let ca_file = certificates::make(scratch.path());
        let acceptor = TlsAcceptor::from(certificates::server(scratch.path()));
        let line =
            Line { server, faults: Mutex::new(Faults::none()), traffic: Mutex::default(), policies: Mutex::default() };
        let line = Arc::new(line);
        let (up, up_seen) = watch::channel(true);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("threads can be started");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        let port = listener.local_addr().expect("is bound").port();
        runtime.spawn(serve(listener, acceptor, Arc::clone(&line), up_seen));
        Self { port, ca_file, line, up, runtime: Some(runtime), _scratch: scratch }
    }

    /// `https://localhost:PORT`.
    pub fn endpoint(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The authority that vouches for it (PEM).
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// From now on the line behaves like this.
    pub fn set(&self, faults: Faults) {
        *lock(&self.line.faults) = faults;
    }

    /// A policy as AWS knows them, and Garage does not: what is signed with that key is denied, unless `METHOD /BUCKET/OBJECT` (of a listing `LIST
    /// /BUCKET/PREFIX`) begins with one of these.
    pub fn allow_only(&self, key_id: &'static str, allowed: Vec<String>) {
        lock(&self.line.policies).insert(key_id, allowed);
    }

    /// Down: connections are refused, and the open ones are cut.
    pub fn set_down(&self, down: bool) {
        self.up.send_replace(!down);
        // The listener follows at once, but not in no time.
        std::thread::sleep(Duration::from_millis(100));
    }

    /// What has passed since the start or the last call.
    pub fn take_traffic(&self) -> Traffic {
        std::mem::take(&mut lock(&self.line.traffic))
    }

    /// What has passed since the start or the last [`Self::take_traffic`].
    pub fn traffic(&self) -> Traffic {
        lock(&self.line.traffic).clone()
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, line: Arc<Line>, mut up: watch::Receiver<bool>) {
    let address = listener.local_addr().expect("is bound");
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => pending().await,
            }
        };
        tokio::select! {
            changed = up.changed() => {
                if changed.is_err() {
                    return;
                }
                connections.abort_all();
                // Dropped before it is bound again.
                listener = None;
                if *up.borrow() {
                    listener = Some(TcpListener::bind(address).await.expect("the port is still ours"));
                }
            }
            accepted = accept => {
                if let Ok((stream, _)) = accepted {
                    let (acceptor, line) = (acceptor.clone(), Arc::clone(&line));
                    connections.spawn(async move {
                        let _ = stream.set_nodelay(true);
                        if let Ok(stream) = acceptor.accept(stream).await {
                            // Its end, however it comes, is the client's to judge.
                            let _ = line.connection(Source::new(stream)).await;
                        }
                    });
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Whether the client's connection can take another request.
#[derive(PartialEq)]
enum Then {
    KeepAlive,
    Close,
}

impl Line {
    async fn connection(&self, mut client: Client) -> io::Result<()> {
        while let Some(head) = client.head().await? {
            let fault = self.fate(&head);
            match self.exchange(&mut client, head, fault).await {
                Ok(Then::KeepAlive) => {}
                Ok(Then::Close) => return tokio::io::AsyncWriteExt::shutdown(client.stream()).await,
                Err(error) => {
                    reset(&mut client);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Counts the request and says what happens to it.
    fn fate(&self, head: &Head) -> Option<Fault> {
        let mut traffic = lock(&self.traffic);
        let number = traffic.total();
        let listing = head.method() == "GET" && head.second().contains("list-type=");
        let method = if listing { "LIST" } else { head.method() };
        *traffic.requests.entry(method.to_owned()).or_default() += 1;
        let (path, query) = head.second().split_once('?').unwrap_or((head.second(), ""));
        let prefix = query.split('&').find_map(|part| part.strip_prefix("prefix=")).unwrap_or_default();
        let bucket = path.trim_end_matches('/');
        let object = if listing { format!("{bucket}/{}", prefix.replace("%2F", "/")) } else { path.to_owned() };
        let asked = format!("{method} {object}");
        let fault = match self.is_denied(head, &asked) {
            true => Some(Fault::Denied),
            false => lock(&self.faults).of(number, &format!("{method} {}", head.second())),
        };
        traffic.asked.push(asked);
        if let Some(fault) = fault {
            *traffic.faults.entry(fault).or_default() += 1;
        }
        fault
    }

    fn is_denied(&self, head: &Head, asked: &str) -> bool {
        // In the header, or in a signed address.
        let signed =
            format!("{} {}", head.header("authorization").unwrap_or_default(), head.second()).replace("%2F", "/");
        let policies = lock(&self.policies);
        let mut of_key = policies.iter().filter(|(key_id, _)| signed.contains(&format!("Credential={key_id}/")));
        of_key.any(|(_, allowed)| !allowed.iter().any(|allowed| asked.starts_with(allowed)))
    }

    async fn exchange(&self, client: &mut Client, mut head: Head, fault: Option<Fault>) -> io::Result<Then> {
        let stall = lock(&self.faults).stall;
        match fault {
            Some(Fault::ResetBefore) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(Fault::Stall) => {
                tokio::time::sleep(stall).await;
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            _ => {}
        }
        if head.header("expect").is_some() {
            client.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            head.remove(&["expect"]);
        }
        let closes = head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let mut body = Body::new(head.length(Length::Known(0)));
        if let Some(status) = match fault {
            Some(Fault::InternalError) => Some("500 InternalError"),
            Some(Fault::SlowDown) => Some("503 SlowDown"),
            Some(Fault::Denied) => Some("403 AccessDenied"),
            _ => None,
        } {
            while client.piece(&mut body).await?.is_some() {}
            client.write(&refusal(status, head.method())).await?;
            return Ok(if closes { Then::Close } else { Then::KeepAlive });
        }

        // One connection a request: a kept one could be closed by the server just when it is needed.
        let server = TcpStream::connect(self.server).await?;
        server.set_nodelay(true)?;
        let mut server = Source::new(server);
        let method = head.method().to_owned();
        head.remove(&["connection", "keep-alive"]);
        head.headers.push(("Connection".into(), "close".into()));
        let sent = self.send(client, &mut server, &head, &mut body).await?;
        let then = self.answer(client, &mut server, &method, fault).await?;
        Ok(if closes || sent == Then::Close { Then::Close } else { then })
    }

    /// Passes the request on. A server may answer and close before it has read the whole body: `Close`.
    async fn send(
        &self,
        client: &mut Client,
        server: &mut Source<TcpStream>,
        head: &Head,
        body: &mut Body,
    ) -> io::Result<Then> {
        server.write(&head.bytes()).await?;
        while let Some(piece) = client.piece(body).await? {
            lock(&self.traffic).bytes_up += piece.len() as u64;
            if server.write(&piece).await.is_err() {
                return Ok(Then::Close);
            }
            let limit = lock(&self.faults).upload;
            if let Some(limit) = limit {
                tokio::time::sleep(Duration::from_micros(piece.len() as u64 * 1_000_000 / limit.max(1))).await;
            }
        }
        Ok(Then::KeepAlive)
    }

    async fn answer(
        &self,
        client: &mut Client,
        server: &mut Source<TcpStream>,
        method: &str,
        fault: Option<Fault>,
    ) -> io::Result<Then> {
        let mut head = server.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let bodyless = method == "HEAD" || matches!(head.second(), "204" | "304");
        let length = if bodyless { Length::Known(0) } else { head.length(Length::ToTheEnd) };
        let broken_off = match (fault, length) {
            (Some(Fault::Truncate), Length::Known(length)) if length > 0 => Some(length / 2),
            (Some(Fault::Truncate), Length::Chunked) => Some(1),
            (Some(Fault::Truncate | Fault::ResetAfter), _) => return Err(io::ErrorKind::ConnectionReset.into()),
            _ => None,
        };
        head.remove(&["connection", "keep-alive"]);
        let clock = lock(&self.faults).clock;
        if clock != 0 {
            head.remove(&["date"]);
            let date = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(clock);
            head.headers.push(("Date".into(), date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()));
        }
        client.write(&head.bytes()).await?;
        let mut body = Body::new(length);
        let mut passed = 0;
        while let Some(mut piece) = server.piece(&mut body).await? {
            let left = broken_off.map_or(u64::MAX, |limit| limit - passed);
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            passed += piece.len() as u64;
            lock(&self.traffic).bytes_down += piece.len() as u64;
            client.write(&piece).await?;
            if broken_off == Some(passed) {
                return Ok(Then::Close);
            }
        }
        Ok(if length == Length::ToTheEnd { Then::Close } else { Then::KeepAlive })
    }
}

/// Closes so that the client sees a reset rather than an orderly end.
fn reset(client: &mut Client) {
    let _ = client.stream().get_ref().0.set_zero_linger();
}

fn refusal(status: &str, method: &str) -> Vec<u8> {
    let code = status.split(' ').nth(1).unwrap_or_default();
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code>\
         <Message>injected by the test</Message><RequestId>0</RequestId></Error>"
    );
    let body = if method == "HEAD" { "" } else { text.as_str() };
    let length = text.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Command, Output, Stdio};
    use std::time::Instant;

    use super::*;
    use crate::{Household, Random, Size, Tree, sh};

    fn restic(proxy: &TlsProxy, scratch: &Scratch) -> Command {
        let mut restic = Command::new("restic");
        restic.arg("--cacert").arg(proxy.ca_file()).arg("--no-cache");
        restic.env("RESTIC_REPOSITORY", format!("s3:{}/{}/restic", proxy.endpoint(), Garage::BUCKET));
        restic.env("RESTIC_PASSWORD", "password").env("AWS_DEFAULT_REGION", Garage::REGION);
        restic.env("AWS_ACCESS_KEY_ID", Garage::KEY_ID).env("AWS_SECRET_ACCESS_KEY", Garage::KEY);
        restic.current_dir(scratch.path()).stdin(Stdio::null());
        restic
    }

    /// `repo-put` and `repo-get` of the 12 MB file `in`, in parts of 5 MiB.
    fn pgbackrest(proxy: &TlsProxy, scratch: &Scratch) -> Command {
        let text = format!(
            "[global]\nrepo1-type=s3\nrepo1-path=/pgbackrest\nrepo1-s3-bucket={}\nrepo1-s3-endpoint=localhost\n\
             repo1-s3-region={}\nrepo1-s3-key={}\nrepo1-s3-key-secret={}\nrepo1-s3-uri-style=path\n\
             repo1-storage-port={}\nrepo1-storage-ca-file={}\nlog-level-file=off\nlog-level-console=off\n",
            Garage::BUCKET,
            Garage::REGION,
            Garage::KEY_ID,
            Garage::KEY,
            proxy.port(),
            proxy.ca_file().display()
        );
        let config = scratch.join("pgbackrest.conf");
        fs::write(&config, text).unwrap();
        let mut pgbackrest = Command::new("pgbackrest");
        pgbackrest.arg(format!("--config={}", config.display())).env_clear();
        pgbackrest
    }

    #[test]
    fn restic_and_pgbackrest_work_through_it() {
        let (garage, scratch) = (Garage::start(), Scratch::new());
        let proxy = TlsProxy::before(&garage);
        Household::make(scratch.join("source"), Size { bytes: 20_000_000, files: 100 }, 1);
        let tree = Tree::read(scratch.join("source"));
        sh(restic(&proxy, &scratch).arg("init"));
        sh(restic(&proxy, &scratch).args(["backup", "source"]));
        sh(restic(&proxy, &scratch).args(["check", "--read-data"]));
        sh(restic(&proxy, &scratch).args(["restore", "latest", "--target", "restored"]));
        tree.assert_equals(scratch.join("restored/source"));

        let bytes = Random::new(3).bytes(12_000_000);
        fs::write(scratch.join("in"), &bytes).unwrap();
        let input = fs::File::open(scratch.join("in")).unwrap();
        sh(pgbackrest(&proxy, &scratch).args(["repo-put", "file"]).stdin(input));
        let output: Output = pgbackrest(&proxy, &scratch).args(["repo-get", "file"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == bytes, "pgBackRest got back something else");

        let traffic = proxy.take_traffic();
        assert!(traffic.of("PUT") > 5 && traffic.of("GET") > 5 && traffic.of("LIST") > 1, "{traffic:?}");
        assert!(traffic.bytes_up > 25_000_000 && traffic.bytes_down > 25_000_000, "{traffic:?}");
        assert_eq!(traffic.faulty(), 0);
    }

    #[test]
    fn restic_survives_quick_faults_and_refuses_to_go_on_without_a_server() {
        let (garage, scratch) = (Garage::start(), Scratch::new());
        let proxy = TlsProxy::before(&garage);
        Household::make(scratch.join("source"), Size { bytes: 20_000_000, files: 100 }, 1);
        sh(restic(&proxy, &scratch).arg("init"));
        proxy.take_traffic();
        proxy.set(Faults::some(5, 0.2, &Fault::QUICK));
        sh(restic(&proxy, &scratch).args(["backup", "source"]));
        let traffic = proxy.take_traffic();
        assert!(traffic.faulty() > 0, "{traffic:?}");
        proxy.set(Faults::none());
        sh(restic(&proxy, &scratch).args(["check", "--read-data"]));

        proxy.set_down(true);
        assert!(std::net::TcpStream::connect(("127.0.0.1", proxy.port())).is_err());
        proxy.set_down(false);
        sh(restic(&proxy, &scratch).arg("snapshots"));
    }

    #[test]
    fn each_fault_looks_as_it_should() {
        let (garage, scratch) = (Garage::start(), Scratch::new());
        let proxy = TlsProxy::before(&garage);
        let curl = || {
            let mut curl = Command::new("curl");
            curl.arg("--cacert").arg(proxy.ca_file()).args(["-sS", "-m", "2", "-w", "%{http_code}", "-o"]);
            let output = curl.arg(scratch.join("body")).arg(proxy.endpoint()).output().unwrap();
            (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
        };
        // Nobody without a key is let in, which is an answer with a body as good as any.
        assert_eq!(curl(), (0, "403".into()));
        // curl's exit codes: 18 partial file, 28 timeout, 35/52/56 the connection broke without an answer.
        for (fault, exits, status) in [
            (Fault::InternalError, &[0][..], "500"),
            (Fault::SlowDown, &[0], "503"),
            (Fault::ResetBefore, &[35, 52, 56], "000"),
            (Fault::ResetAfter, &[35, 52, 56], "000"),
            (Fault::Stall, &[28], "000"),
            (Fault::Truncate, &[18, 56], "403"),
        ] {
            proxy.set(Faults::some(1, 1.0, &[fault]));
            let (exit, code) = curl();
            assert!(exits.contains(&exit) && code == status, "{fault:?}: curl ended with {exit}, status {code}");
        }
        proxy.set(Faults::none());
        sh(restic(&proxy, &scratch).arg("init"));
        proxy.set(Faults::slow(1_000_000));
        fs::write(scratch.join("source"), Random::new(1).bytes(2_000_000)).unwrap();
        let started = Instant::now();
        sh(restic(&proxy, &scratch).args(["backup", "source"]));
        assert!(started.elapsed() > Duration::from_millis(1500), "{:?}", started.elapsed());
    }
}

//! An endpoint shaped like Discord's webhooks, on loopback: its limits, its rate limit, its answers, and what goes wrong.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::http::{Body, Head, Length, Source};

/// The server; it ends with this value.
pub struct Discord {
    port: u16,
    shared: Arc<Mutex<Shared>>,
    _runtime: Runtime,
}

#[derive(Default)]
struct Shared {
    messages: Vec<Value>,
    requests: Vec<String>,
    trouble: VecDeque<Trouble>,
    down: bool,
    limit: Option<u32>,
    window: Option<(Instant, u32)>,
}

/// What can happen to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The connection is closed without an answer; the message is not there.
    Reset,
    /// The message is there, and the connection is closed without an answer.
    LostAnswer,
    /// No answer until the client gives up.
    Stall,
    /// This status, with a text that says nothing.
    Status(u16),
    /// 200 from something in between that is not Discord.
    LoginPage,
    /// 429 with that many milliseconds.
    TooMany(u64),
}

/// Messages in [`WINDOW`], as Discord allows a webhook.
const ALLOWED: u32 = 5;
const WINDOW: Duration = Duration::from_secs(2);

impl Discord {
    /// Starts it. No rate limit yet.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::<Mutex<Shared>>::default();
        let of_server = shared.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, of_server.clone()));
            }
        });
        Self { port, shared, _runtime: runtime }
    }

    /// The incident that a message is of, by its footer.
    pub fn incident(message: &Value) -> String {
        let footer = message["embeds"][0]["footer"]["text"].as_str().unwrap_or_default();
        footer.split(" · ").next().unwrap_or_default().to_owned()
    }

    /// The webhook's address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/api/webhooks/112233/T0kenT0kenT0ken", self.port)
    }

    /// The address of any other service: it takes what comes.
    pub fn other(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// From now on as many messages as the real one takes.
    pub fn limit_rate(&self) {
        self.lock().limit = Some(ALLOWED);
    }

    /// The next requests meet these, one each.
    pub fn trouble(&self, trouble: impl IntoIterator<Item = Trouble>) {
        self.lock().trouble.extend(trouble);
    }

    /// Every connection is closed at once, until told otherwise.
    pub fn set_down(&self, down: bool) {
        self.lock().down = down;
    }

    /// The messages that were taken, in order.
    pub fn messages(&self) -> Vec<Value> {
        self.lock().messages.clone()
    }

    /// What was asked of other paths: method, target and body.
    pub fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    /// Forgets both.
    pub fn forget(&self) {
        let mut shared = self.lock();
        shared.messages.clear();
        shared.requests.clear();
    }

    /// Titles of the embeds, in order; plain messages by their content.
    pub fn titles(&self) -> Vec<String> {
        let title = |message: &Value| {
            let title = message["embeds"][0]["title"].as_str().or(message["content"].as_str());
            title.unwrap_or_default().to_owned()
        };
        self.messages().iter().map(title).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }
}

async fn serve(stream: TcpStream, shared: Arc<Mutex<Shared>>) -> io::Result<()> {
    let mut source = Source::new(stream);
    while let Some(head) = source.head().await? {
        let mut body = Body::new(head.length(Length::Known(0)));
        let mut bytes = Vec::new();
        while let Some(piece) = source.piece(&mut body).await? {
            bytes.extend(piece);
        }
        let trouble = {
            let mut shared = shared.lock().unwrap();
            if shared.down {
                return Ok(());
            }
            shared.trouble.pop_front()
        };
        let answer = match trouble {
            Some(Trouble::Reset) => return Ok(()),
            Some(Trouble::LostAnswer) => {
                take(&shared, &head, &bytes);
                return Ok(());
            }
            Some(Trouble::Stall) => {
                tokio::time::sleep(Duration::from_secs(120)).await;
                return Ok(());
            }
            Some(Trouble::Status(status)) => (status, "trouble".to_owned(), String::new()),
            Some(Trouble::LoginPage) => (200, "<html>Welcome to our Wi-Fi</html>".to_owned(), String::new()),
            Some(Trouble::TooMany(wait)) => too_many(wait),
            None => take(&shared, &head, &bytes),
        };
        let (status, text, headers) = answer;
        let length = text.len();
        let answer = format!("HTTP/1.1 {status} Said\r\nContent-Length: {length}\r\n{headers}\r\n{text}");
        source.write(answer.as_bytes()).await?;
    }
    Ok(())
}

type Answer = (u16, String, String);

fn too_many(wait: u64) -> Answer {
    #[allow(clippy::cast_precision_loss)]
    let seconds = wait as f64 / 1000.0;
    let body = json!({ "message": "You are being rate limited.", "retry_after": seconds, "global": false });
    (429, body.to_string(), format!("Retry-After: {}\r\n", wait.div_ceil(1000)))
}

fn take(shared: &Mutex<Shared>, head: &Head, body: &[u8]) -> Answer {
    let mut shared = shared.lock().unwrap();
    let target = head.second().to_owned();
    if !target.starts_with("/api/webhooks/") {
        shared.requests.push(format!("{} {target} {}", head.method(), String::from_utf8_lossy(body)));
        return (200, r#"{"id":"other"}"#.into(), String::new());
    }
    if head.method() == "GET" {
        return (200, r#"{"id":"112233","name":"attic"}"#.into(), String::new());
    }
    if let Some(allowed) = shared.limit {
        let (since, count) = shared.window.filter(|(since, _)| since.elapsed() < WINDOW).unwrap_or((Instant::now(), 0));
        shared.window = Some((since, count + 1));
        if count >= allowed {
            let left = WINDOW.saturating_sub(since.elapsed()).as_millis();
            return too_many(u64::try_from(left).unwrap());
        }
    }
    let message: Value = match serde_json::from_slice(body) {
        Ok(message) => message,
        Err(error) => return (400, json!({ "code": 50109, "message": error.to_string() }).to_string(), String::new()),
    };
    let wrong = mistakes(&message);
    if !wrong.is_empty() {
        let body = json!({ "code": 50035, "message": "Invalid Form Body", "errors": wrong });
        return (400, body.to_string(), String::new());
    }
    shared.messages.push(message);
    let id = 1_000_000_000_000_000_000_u64 + shared.messages.len() as u64;
    if target.contains("wait=true") {
        (200, json!({ "id": id.to_string() }).to_string(), String::new())
    } else {
        (204, String::new(), String::new())
    }
}

/// What Discord would refuse, by its documented limits.
fn mistakes(message: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut together = 0;
    let mut check = |what: &str, value: &Value, most: usize, needed: bool| {
        let text = value.as_str().unwrap_or_default();
        let length = text.encode_utf16().count();
        if length > most {
            wrong.push(format!("{what}: {length} of at most {most}"));
        }
        if needed && text.trim().is_empty() {
            wrong.push(format!("{what}: is required"));
        }
        length
    };
    check("content", &message["content"], 2000, false);
    for embed in message["embeds"].as_array().into_iter().flatten() {
        together += check("title", &embed["title"], 256, false);
        together += check("description", &embed["description"], 4096, false);
        together += check("footer", &embed["footer"]["text"], 2048, false);
        for field in embed["fields"].as_array().into_iter().flatten() {
            together += check("field name", &field["name"], 256, true);
            together += check("field value", &field["value"], 1024, true);
        }
    }
    if together > 6000 {
        wrong.push(format!("embeds: {together} of at most 6000"));
    }
    let count = |value: &Value| value.as_array().map_or(0, Vec::len);
    if count(&message["embeds"]) > 10 || count(&message["embeds"][0]["fields"]) > 25 {
        wrong.push("too many embeds or fields".into());
    }
    if count(&message["embeds"]) == 0 && message["content"].as_str().unwrap_or_default().is_empty() {
        wrong.push("cannot send an empty message".into());
    }
    wrong
}

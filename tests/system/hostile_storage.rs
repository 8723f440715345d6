//! A server that is asked for a bucket and answers as it likes: no command waits for ever, takes all memory, or shows a key.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use harness::{Agent, Config, Ran, Scratch};

const KEYS: (&str, &str) = ("AKIAHOSTILE", "S3cretS3cretS3cret");

/// Answers a request, which begins with this line and has these header lines; the connection ends with it.
type Answers = fn(&str, &[String], &mut TcpStream) -> std::io::Result<()>;

/// A server of the test's own, as long as the process lives; its address.
fn serve(answers: Answers) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            std::thread::spawn(move || {
                let mut connection = connection?;
                let lines = BufReader::new(&connection).lines().map_while(Result::ok);
                let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
                match head.split_first() {
                    Some((first, rest)) => answers(first, rest, &mut connection),
                    None => Ok(()),
                }
            });
        }
    });
    format!("http://{address}")
}

fn whole(connection: &mut TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    write!(connection, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn nothing(connection: &mut TcpStream) -> std::io::Result<()> {
    whole(connection, "404 Not Found", "<Error><Code>NoSuchKey</Code></Error>")
}

/// An empty page of a listing, which another one follows.
fn page(connection: &mut TcpStream, next: &str) -> std::io::Result<()> {
    let next = format!("<NextContinuationToken>{next}</NextContinuationToken>");
    whole(
        connection,
        "200 OK",
        &format!(
            "<ListBucketResult><Name>bucket</Name><Prefix></Prefix><KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys>\
         <IsTruncated>true</IsTruncated>{next}</ListBucketResult>"
        ),
    )
}

/// Answers that do not end: so many bytes each time.
fn endless(connection: &mut TcpStream, piece: usize, pause: Duration) -> std::io::Result<()> {
    write!(connection, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
    loop {
        connection.write_all(&vec![b'x'; piece])?;
        std::thread::sleep(pause);
    }
}

/// Asks for the points of a step.
fn asked(answers: Answers) -> (Ran, Duration) {
    let scratch = Scratch::new();
    let endpoint = serve(answers);
    let config =
        Config::s3(scratch.path(), "s3://bucket/host", &endpoint, "/etc/ssl/certs/ca-certificates.crt".as_ref(), KEYS)
            .storage("timeout = \"2s\"\nretry-for = \"3s\"")
            .directory("data", &[&scratch.directory("srv")], "");
    let agent: Agent = config.write();
    let began = Instant::now();
    let ran = agent.run(["points", "data"]);
    (ran, began.elapsed())
}

#[track_caller]
fn is_told(answers: Answers, words: &str) {
    let (ran, took) = asked(answers);
    let ran = ran.expect(1);
    ran.says(words);
    assert!(took < Duration::from_secs(60), "{took:?}: {ran}");
}

#[test]
fn an_answer_without_an_end_is_refused() {
    is_told(|_, _, connection| endless(connection, 1 << 16, Duration::ZERO), "does not end after");
}

#[test]
fn an_answer_that_comes_by_drops_is_given_up() {
    is_told(|_, _, connection| endless(connection, 1, Duration::from_millis(100)), "or hardly anything");
}

#[test]
fn a_listing_without_an_end_is_refused() {
    static PAGES: AtomicU32 = AtomicU32::new(0);
    is_told(
        |first, _, connection| match first.contains("list-type") {
            true => page(connection, &PAGES.fetch_add(1, Ordering::Relaxed).to_string()),
            false => nothing(connection),
        },
        "has no end",
    );
    is_told(
        |first, _, connection| match first.contains("list-type") {
            true => page(connection, "the same"),
            false => nothing(connection),
        },
        "has no end",
    );
}

#[test]
fn no_key_is_shown_whatever_a_server_says() {
    let (ran, _) = asked(|first, headers, connection| {
        let (id, key) = KEYS;
        let said = format!("{id} {key} {first} {}", headers.join(" ")).replace('&', "+");
        whole(connection, "403 Forbidden", &format!("<Error><Code>{key}</Code><Message>{said}</Message></Error>"))
    });
    let ran = ran.expect(1);
    assert!(!ran.to_string().contains(KEYS.0) && !ran.to_string().contains(KEYS.1), "{ran}");
    ran.says("the server answered 403");
}

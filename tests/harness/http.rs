//! As much of HTTP/1.1 as a forwarding proxy needs: heads, and bodies passed on as they come.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A stream and what was read from it too far.
pub struct Source<S> {
    stream: S,
    ahead: Vec<u8>,
}

/// A request's or an answer's head.
#[derive(Clone, Debug)]
pub struct Head {
    /// The first line, without its end.
    pub first: String,
    /// Names as sent, and values.
    pub headers: Vec<(String, String)>,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// That many bytes; 0: no body.
    Known(u64),
    /// In chunks that say when they end.
    Chunked,
    /// Until the connection is closed.
    ToTheEnd,
}

impl Head {
    /// A header's value; names match in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Takes headers away.
    pub fn remove(&mut self, names: &[&str]) {
        self.headers.retain(|(key, _)| !names.iter().any(|name| key.eq_ignore_ascii_case(name)));
    }

    /// The second word of the first line: a request's target, an answer's status.
    pub fn second(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }

    /// The first word: a request's method.
    pub fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    /// The body's length as the headers tell it, or `otherwise`.
    pub fn length(&self, otherwise: Length) -> Length {
        if self.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Length::Chunked;
        }
        self.header("content-length").map_or(otherwise, |value| Length::Known(value.trim().parse().unwrap_or(0)))
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Source<S> {
    /// Nothing is read yet.
    pub fn new(stream: S) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    /// The stream, to write to it.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The next head; `None` when the other side has closed instead.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        let mut searched = 0;
        let end = loop {
            if let Some(at) = self.ahead[searched..].windows(4).position(|four| four == b"\r\n\r\n") {
                break searched + at;
            }
            searched = self.ahead.len().saturating_sub(3);
            if self.ahead.len() > 64 << 10 {
                return Err(io::Error::other("a head of more than 64 KiB"));
            }
            if self.fill().await? == 0 {
                return if self.ahead.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        };
        let text = String::from_utf8_lossy(&self.ahead[..end]).into_owned();
        self.ahead.drain(..end + 4);
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        Ok(Some(Head { first, headers }))
    }

    /// The next piece of the body, exactly as it goes over the wire; `None` at its end.
    pub async fn piece(&mut self, body: &mut Body) -> io::Result<Option<Vec<u8>>> {
        loop {
            if body.length == Length::Known(0) {
                return Ok(None);
            }
            if self.ahead.is_empty() && self.fill().await? == 0 {
                return if body.length == Length::ToTheEnd {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
            let taken = body.take(&self.ahead);
            if taken > 0 {
                let rest = self.ahead.split_off(taken);
                return Ok(Some(std::mem::replace(&mut self.ahead, rest)));
            }
            // A chunk's size line that is not all there yet.
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.ahead.reserve(64 << 10);
        self.stream.read_buf(&mut self.ahead).await
    }

    /// Writes and sends.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }
}

/// How far a body has been read.
#[derive(Debug)]
pub struct Body {
    length: Length,
    /// Of the current chunk with the line end behind it.
    chunk: u64,
    last_chunk: bool,
}

impl Body {
    /// At its beginning.
    pub fn new(length: Length) -> Self {
        Self { length, chunk: 0, last_chunk: false }
    }

    /// How many of the waiting bytes belong to it; 0 when that cannot be told yet.
    fn take(&mut self, waiting: &[u8]) -> usize {
        let at_most = |count: u64| usize::try_from(count).unwrap_or(usize::MAX).min(waiting.len());
        match self.length {
            Length::ToTheEnd => waiting.len(),
            Length::Known(left) => {
                let taken = at_most(left);
                self.length = Length::Known(left - taken as u64);
                taken
            }
            Length::Chunked if self.chunk > 0 => {
                let taken = at_most(self.chunk);
                self.chunk -= taken as u64;
                taken
            }
            Length::Chunked => self.take_line(waiting),
        }
    }

    /// A chunk's size line; behind the last chunk, trailers up to the empty line.
    fn take_line(&mut self, waiting: &[u8]) -> usize {
        let Some(end) = waiting.windows(2).position(|two| two == b"\r\n") else { return 0 };
        if self.last_chunk {
            if end == 0 {
                self.length = Length::Known(0);
            }
        } else {
            let line = String::from_utf8_lossy(&waiting[..end]);
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(digits, 16).unwrap_or(0);
            self.last_chunk = size == 0;
            self.chunk = if size == 0 { 0 } else { size + 2 };
        }
        end + 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &'static str, portion: usize) -> Vec<u8> {
        let (mut far, near) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move {
            for part in text.as_bytes().chunks(portion) {
                far.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut source = Source::new(near);
        let head = source.head().await.unwrap().unwrap();
        let mut body = Body::new(head.length(Length::Known(0)));
        let mut bytes = Vec::new();
        while let Some(piece) = source.piece(&mut body).await.unwrap() {
            bytes.extend(piece);
        }
        let next = source.head().await.unwrap().unwrap();
        assert_eq!((next.method(), next.second()), ("GET", "/next"), "{text:?} by {portion}");
        bytes
    }

    #[tokio::test]
    async fn bodies_end_where_they_end_however_they_are_cut() {
        let known = "PUT /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET /next HTTP/1.1\r\n\r\n";
        let chunked = "PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
                       5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: t\r\n\r\nGET /next HTTP/1.1\r\n\r\n";
        let none = "GET /a HTTP/1.1\r\n\r\nGET /next HTTP/1.1\r\n\r\n";
        for portion in [1, 2, 3, 7, 1000] {
            assert_eq!(read(known, portion).await, b"hello");
            assert_eq!(read(chunked, portion).await, b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: t\r\n\r\n");
            assert_eq!(read(none, portion).await, b"");
        }
    }
}

//! What goes wrong on the way to a server, how often, and what was asked of it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Random;

/// What can happen to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// 500; the server never sees it.
    InternalError,
    /// 503 with S3's `SlowDown`; the server never sees it.
    SlowDown,
    /// 403 with S3's `AccessDenied`; the server never sees it.
    Denied,
    /// The connection is reset as soon as the request's head is there.
    ResetBefore,
    /// The server does what is asked, and the connection is reset instead of the answer.
    ResetAfter,
    /// Nothing moves any more, and the connection stays.
    Stall,
    /// The answer's body breaks off in the middle; without a body as [`Fault::ResetAfter`].
    Truncate,
}

impl Fault {
    /// All that passes quickly: everything but a stall.
    pub const QUICK: [Self; 5] =
        [Self::InternalError, Self::SlowDown, Self::ResetBefore, Self::ResetAfter, Self::Truncate];
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::InternalError, Self::SlowDown, Self::ResetBefore, Self::ResetAfter, Self::Stall, Self::Truncate];
}

/// How the line behaves. The n-th request meets the same fate with the same seed.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Which requests are hit by what.
    pub seed: u64,
    /// The part of all requests that is hit, 0–1.
    pub rate: f64,
    /// With what.
    pub kinds: Vec<Fault>,
    /// Only requests whose method and target (`PUT /BUCKET/KEY…`) hold this text.
    pub only: &'static str,
    /// How long a stall lasts before the connection is closed.
    pub stall: Duration,
    /// Bytes a second that pass towards the server, on each connection.
    pub upload: Option<u64>,
    /// Seconds by which the server's answers are dated later than they are made.
    pub clock: i64,
}

impl Faults {
    /// A line on which nothing goes wrong.
    pub fn none() -> Self {
        Self { seed: 0, rate: 0.0, kinds: Vec::new(), only: "", stall: Duration::from_mins(10), upload: None, clock: 0 }
    }

    /// `rate` of all requests meets one of `kinds`.
    pub fn some(seed: u64, rate: f64, kinds: &[Fault]) -> Self {
        Self { seed, rate, kinds: kinds.to_vec(), ..Self::none() }
    }

    /// A line that takes this many bytes a second from each connection.
    pub fn slow(upload: u64) -> Self {
        Self { upload: Some(upload), ..Self::none() }
    }

    /// A server whose clock shows so many seconds more.
    pub fn clock(seconds: i64) -> Self {
        Self { clock: seconds, ..Self::none() }
    }

    /// The fate of request `number`, which asks for that.
    pub(crate) fn of(&self, number: u64, asked: &str) -> Option<Fault> {
        if !asked.contains(self.only) {
            return None;
        }
        let mut random = Random::new(self.seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        random.chance(self.rate).then(|| *random.pick(&self.kinds))
    }
}

/// What passed through.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Requests by method; listings as `LIST`.
    pub requests: BTreeMap<String, u64>,
    /// Each as `METHOD /PATH`, in order; of a listing `LIST /PREFIX`.
    pub asked: Vec<String>,
    /// Faults that happened.
    pub faults: BTreeMap<Fault, u64>,
    /// Body bytes towards the server.
    pub bytes_up: u64,
    /// Body bytes from the server.
    pub bytes_down: u64,
}

impl Traffic {
    /// Requests with that method.
    pub fn of(&self, method: &str) -> u64 {
        self.requests.get(method).copied().unwrap_or_default()
    }

    /// Requests for something below a prefix in the bucket, as `METHOD NAME` without the prefix.
    pub fn below(&self, prefix: &str) -> Vec<String> {
        let below = |asked: &String| {
            let (method, path) = asked.split_once(' ')?;
            Some(format!("{method} {}", path.strip_prefix('/')?.strip_prefix(prefix)?))
        };
        self.asked.iter().filter_map(below).collect()
    }

    /// All requests.
    pub fn total(&self) -> u64 {
        self.requests.values().sum()
    }

    /// All faults.
    pub fn faulty(&self) -> u64 {
        self.faults.values().sum()
    }
}

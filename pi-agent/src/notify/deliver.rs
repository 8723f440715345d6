//! Sending what waits in the outbox.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use log::{info, warn};

use super::http::{Answer, Http, Post};
use super::outbox::{Entry, Queue};
use super::service::Service;
use crate::config::{Settings, StateDirectory};
use crate::error::{Error, Result};

/// How sending went, for one service.
#[derive(Debug)]
pub struct Delivery {
    /// The service, as a person knows it.
    pub service: String,
    /// Messages that it has now.
    pub sent: usize,
    /// Messages that still wait.
    pub waiting: usize,
    /// Why they wait, when it is not that another process is sending them.
    pub problem: Option<Error>,
}

/// Sends what waits to each service, in order, trying again until that much time is over. What is left stays for the next
/// time. The services do not wait for each other.
///
/// # Errors
/// A service's secret cannot be read.
pub fn deliver(settings: &Settings, directory: &StateDirectory, patience: Duration) -> Result<Vec<Delivery>> {
    let services = Service::all(settings)?;
    let until = Instant::now() + patience;
    Ok(std::thread::scope(|scope| {
        let senders: Vec<_> = services
            .iter()
            .map(|service| scope.spawn(move || Sender::new(service, directory, until).deliver()))
            .collect();
        senders.into_iter().map(|sender| sender.join().expect("a sender does not panic")).collect()
    }))
}

struct Sender<'a> {
    service: &'a Service,
    queue: Queue,
    until: Instant,
    sent: usize,
}

/// What became of one message.
enum Ended {
    /// The service has it, or never will: the next.
    Gone,
    /// It stays, and those after it.
    Stays(Error),
}

impl<'a> Sender<'a> {
    fn new(service: &'a Service, directory: &StateDirectory, until: Instant) -> Self {
        Self { service, queue: Queue::new(directory, &service.queue()), until, sent: 0 }
    }

    fn deliver(mut self) -> Delivery {
        let problem = self.send_all().err();
        Delivery { service: self.service.name(), sent: self.sent, waiting: self.queue.count(), problem }
    }

    fn send_all(&mut self) -> Result<()> {
        if self.queue.count() == 0 {
            return Ok(());
        }
        let Some(_lock) = self.queue.sender()? else { return Ok(()) };
        if let Some(rest) = self.queue.resting() {
            self.rest(rest)?;
        }
        let http = Http::new()?;
        for entry in self.queue.waiting()? {
            if let Ended::Stays(error) = self.send(&http, &entry)? {
                return Err(error);
            }
        }
        Ok(())
    }

    fn send(&mut self, http: &Http, entry: &Entry) -> Result<Ended> {
        let Some(mut post) = self.service.post(&entry.notice, Timestamp::now()) else {
            self.queue.done(entry, "too late to matter")?;
            return Ok(Ended::Gone);
        };
        let mut plainer = self.service.plainer(&entry.notice);
        let mut pause = Duration::from_secs(1);
        loop {
            match self.ask(http, &post) {
                Answer::Taken { body, rest } => {
                    let receipt = self.service.receipt(&body).unwrap_or_default();
                    self.queue.done(entry, &receipt)?;
                    self.sent += 1;
                    info!("told {}: {} ({})", self.service.name(), entry.notice.title, entry.notice.key);
                    if let Some(rest) = rest {
                        self.rest(rest)?;
                    }
                    return Ok(Ended::Gone);
                }
                Answer::Wait(time) => self.rest(time)?,
                Answer::NotNow(why) => {
                    if Instant::now() + pause >= self.until {
                        return Ok(Ended::Stays(self.error(&why)));
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_secs(30));
                }
                Answer::Malformed(why) => match plainer.take() {
                    Some(simple) => {
                        warn!(
                            "{} refused the form of {}: {why}; sending it plain",
                            self.service.name(),
                            entry.notice.key
                        );
                        post = simple;
                    }
                    None => {
                        warn!("{} refused {}, which is set aside: {why}", self.service.name(), entry.notice.key);
                        self.queue.refuse(entry)?;
                        return Ok(Ended::Gone);
                    }
                },
                Answer::Unknown(why) => {
                    let hint =
                        "its address is wrong or was revoked: put the right one in place; what waits is then sent";
                    return Ok(Ended::Stays(self.error(&why).hint(hint)));
                }
            }
        }
    }

    /// One request; an answer that is not the service's own is none.
    fn ask(&self, http: &Http, post: &Post) -> Answer {
        match http.post(post) {
            Answer::Taken { body, .. } if self.service.receipt(&body).is_none() => {
                Answer::NotNow("the answer is not the service's own: something else in between gave it".into())
            }
            answer => answer,
        }
    }

    /// Leaves the service alone for so long; on record when this process will not live to see it.
    fn rest(&self, time: Duration) -> Result<()> {
        if Instant::now() + time >= self.until {
            self.queue.rest(time)?;
            return Err(self.error(&format!("it wants to be left alone for {} s", time.as_secs() + 1)));
        }
        std::thread::sleep(time);
        Ok(())
    }

    fn error(&self, why: &str) -> Error {
        Error::transient(format!("tell {}: {why}", self.service.name()))
    }
}

//! A wire from a machine, which has no network, to a server of this machine: the same port on both loopbacks.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::Machine;

/// Cut when dropped.
#[derive(Debug)]
pub struct Wire {
    cut: Arc<AtomicBool>,
    carrier: Option<JoinHandle<()>>,
}

impl Wire {
    /// Until the machine is switched off, a program in it that connects to that port of its loopback reaches ours.
    pub fn to(machine: &Machine, port: u16) -> Self {
        let network = File::open(machine.network()).expect("a machine that is on has a network");
        // A socket belongs to the network it was made in, whoever uses it afterwards.
        let bind = move || {
            setns(&network, CloneFlags::CLONE_NEWNET).expect("root may");
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a port of a fresh machine")
        };
        let listener = thread::spawn(bind).join().expect("bound");
        listener.set_nonblocking(true).expect("a socket");
        let cut = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&cut);
        let carrier = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((inside, _)) => carry(inside, port),
                    Err(_) => thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        Self { cut, carrier: Some(carrier) }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.cut.store(true, Ordering::Relaxed);
        if let Some(carrier) = self.carrier.take() {
            let _ = carrier.join();
        }
    }
}

/// Both ways, until either side has said all.
fn carry(inside: TcpStream, port: u16) {
    let Ok(outside) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return };
    inside.set_nonblocking(false).expect("a socket");
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    };
    let (Ok(inside_too), Ok(outside_too)) = (inside.try_clone(), outside.try_clone()) else { return };
    copy(inside, outside);
    copy(outside_too, inside_too);
}

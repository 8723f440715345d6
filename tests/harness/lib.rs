//! What the tests on real parts stand on: the built program, households to back up, an S3 server, a bad network.
//!
//! * [`Scratch`] is a place to work in, [`Config`] the configuration of one host in it, [`Agent`] runs the program.
//! * [`Household`] makes source trees and changes them; [`oddities`] what file systems allow and backups get wrong.
//! * [`Tree`] reads a tree whole and tells every difference to another.
//! * [`Cluster`] is a throwaway PostgreSQL.
//! * [`LoopDisk`] and [`Tmpfs`] are disks, which only the test sees ([`mounts_of_our_own`]).
//! * [`privately`] gives a test usual places of a machine.
//! * [`document`] is the household of docs/docker.md, [`leveldb`] what is written to in it.
//! * [`DockerEngine`] runs containers, [`Official`] is an image for them.
//! * [`Machine`] is a whole machine with systemd, [`Package`] what is installed in one.
//! * [`MemoryLimit`] is a small machine, [`footprints`] what each command takes in one.
//! * [`nights`] makes histories to look at.
//! * [`generated`] is what of the package is made from the sources.
//! * [`Discord`] takes messages as Discord's webhooks do.
//! * [`Garage`] is an S3 server, [`TlsProxy`] the TLS and the faults in front of it, [`Tap`] counts on the way to it, and a
//!   [`Wire`] leads to it from a machine.
//!
//! [`by_effort`] is how much a slow test does.
//!
//! Everything panics with a readable message: it is for tests only.
#![allow(clippy::unwrap_used)]

pub mod agent;
pub mod certificates;
pub mod cluster;
pub mod config;
pub mod discord;
pub mod docker;
pub mod document;
pub mod effort;
pub mod faults;
pub mod footprint;
pub mod garage;
pub mod generated;
pub mod household;
mod http;
pub mod leveldb;
pub mod loop_disk;
pub mod machine;
pub mod memory;
pub mod mounts;
pub mod nights;
pub mod oddities;
pub mod official;
pub mod package;
pub mod privately;
pub mod processes;
pub mod random;
pub mod scratch;
pub mod shell;
pub mod tap;
pub mod terminal;
pub mod tls_proxy;
pub mod tmpfs;
pub mod tree;
pub mod wire;

pub use agent::{Agent, Ran, Running};
pub use cluster::Cluster;
pub use config::Config;
pub use discord::{Discord, Trouble};
pub use docker::DockerEngine;
pub use effort::by_effort;
pub use faults::{Fault, Faults, Traffic};
pub use footprint::footprints;
pub use garage::Garage;
pub use household::{Household, Size};
pub use loop_disk::LoopDisk;
pub use machine::Machine;
pub use memory::MemoryLimit;
pub use mounts::{LoopDevice, mounts_of_our_own};
pub use oddities::oddities;
pub use official::Official;
pub use package::Package;
pub use privately::privately;
pub use processes::{Census, Process, descendants};
pub use random::Random;
pub use scratch::Scratch;
pub use shell::sh;
pub use tap::{Flow, Tap};
pub use terminal::TypedInto;
pub use tls_proxy::TlsProxy;
pub use tmpfs::Tmpfs;
pub use tree::Tree;
pub use wire::Wire;

//! The backup appliance for the Raspberry Pi.
//!
//! Everything flows one way, and the modules below are listed in that order:
//!
//! ```text
//! config file -> Settings -> Plan -> run steps -> records in the state database -> RunReport
//! ```
//!
//! * [`config`] turns the file into [`config::Settings`]; nothing after it meets a raw string or a default.
//! * [`plan`] is a pure function of settings, history and the time: what the next run would do.
//! * [`run`] is the supervisor: lock, order, deadlines, records. Each step works in a process of its own,
//!   so that a panic, a hung thread or an out-of-memory kill ends one step and not the night.
//! * [`steps`] is what happens inside such a process: one file per kind of source. They stand on
//!   [`repository`] (files, restic's format), [`pgbackrest`] (PostgreSQL), [`docker`] (containers), [`live`] (who must be quiet meanwhile) and [`storage`] (a folder or S3).
//! * [`state`] remembers; [`report`] tells those who ask, [`alarms`] and [`notify`] those who do not. [`restore`] gives everything back.
//! * [`setup`] is the first hour, [`kit`] what survives the machine, and [`recover`] makes the machine of it again.

// They panic when nobody reads: see `said`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

#[macro_use]
mod said;

#[cfg(test)]
mod fuzzed;

pub mod error;
mod path_text;
pub mod shown;

pub mod config;
pub mod durable;
pub mod secrets;

pub mod plan;

pub mod lock;
pub mod process;
pub mod run;
pub mod theirs;

pub mod docker;
pub mod live;
pub mod monitor;
pub mod mounts;
pub mod steps;

pub mod pgbackrest;
pub mod repository;
pub mod retention;
pub mod storage;
pub mod wal;

pub mod state;

pub mod alarms;
pub mod events;
pub mod notify;
pub mod report;

pub mod boot;
pub mod doctor;
pub mod forecast;
pub mod health;
pub mod kit;
pub mod logs;
pub mod recover;
pub mod repair;
pub mod restore;
pub mod restore_test;
pub mod setup;

pub mod cli;
pub mod logging;
pub mod systemd;
pub mod terminal;

pub use error::{Error, Result};
pub use shown::shown;

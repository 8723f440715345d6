//! Tests on real parts: the built program as a user starts it, real files, servers and networks.
#![allow(clippy::unwrap_used)]

mod alarms;
mod bad_input;
mod bad_network;
mod compose;
mod container_postgres;
mod cost;
mod courtesy;
mod crash;
mod damage;
mod directory;
mod directory_s3;
mod doctor;
mod documents;
mod health;
mod history;
mod in_place;
mod interruptions;
mod limits;
mod live;
mod live_commands;
mod logs;
mod memory;
mod moments;
mod no_space;
mod notices;
mod packaging;
mod pitr;
mod postgres;
mod postgres_dumps;
mod postgres_upgrade;
mod recover;
mod resumed;
mod rpo;
mod setup;
mod status;

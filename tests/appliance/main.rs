//! The package in whole machines: booted by systemd, installed by apt, set up, run by its units, cut off, removed.
//!
//! Each test has a machine of its own, once as Debian 12 and once as Debian 13; those that take minutes have one of the two.
#![allow(clippy::unwrap_used)]

mod arm64;
mod docker;
mod failures;
mod home;
mod installation;
mod interruptions;
mod night;
mod recovery;
mod restores;
mod runbook;
mod wal;

/// Each story once as Debian 12 and once as Debian 13. `make test` tells it in the one that is named here; what begins with
/// `long_` is for `make test-long`.
macro_rules! in_each {
    ($($first:ident, $second:ident: $module:ident::$test:ident),* $(,)?) => {
        $(mod $test {
            #[test] fn $first() { super::$module::$test(stringify!($first)); }
            mod long_run { #[test] fn $second() { super::super::$module::$test(stringify!($second)); } }
        })*
    };
}

in_each![
    bookworm, trixie: installation::without_a_configuration_nothing_runs_and_nothing_fails,
    trixie, bookworm: installation::removing_keeps_the_state_and_purging_keeps_repositories_and_keys,
    bookworm, trixie: night::the_timer_makes_a_backup_that_restores,
    trixie, bookworm: wal::a_finished_segment_is_pushed_at_once,
    bookworm, trixie: wal::its_sandbox_lets_a_limit_be_kept,
    trixie, bookworm: interruptions::stopping_ends_the_run_in_time_and_leaves_nothing,
    bookworm, trixie: interruptions::an_upgrade_lets_the_run_go_on,
    trixie, bookworm: interruptions::a_power_cut_is_caught_up_at_the_next_boot,
];

#[test]
fn containers_are_backed_up_by_the_units() {
    docker::containers_are_backed_up_by_the_units("bookworm-docker");
}

#[test]
fn slow_a_dead_card_is_no_disaster() {
    recovery::a_dead_card_is_no_disaster("bookworm-docker");
}

#[test]
fn a_server_of_the_machine_serves_again() {
    recovery::a_server_of_the_machine_serves_again("trixie");
}

#[test]
fn long_a_machine_of_files_alone_is_back() {
    recovery::a_machine_of_files_alone_is_back("bookworm");
}

#[test]
fn the_timer_proves_that_all_comes_back() {
    restores::the_timer_proves_that_all_comes_back("trixie");
}

#[test]
fn what_fails_in_a_run_is_told_once_and_its_end_too() {
    failures::what_fails_in_a_run_is_told_once_and_its_end_too("trixie");
}

#[test]
fn what_the_agent_cannot_tell_the_script_does() {
    failures::what_the_agent_cannot_tell_the_script_does("bookworm");
}

#[test]
fn slow_every_command_of_the_runbook_is_run() {
    runbook::every_command_of_the_runbook_is_run("bookworm");
}

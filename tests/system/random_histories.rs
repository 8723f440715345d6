//! Random histories of a database against a model that knows every commit: each moment comes back exactly, or is refused for a
//! reason that the model confirms.

mod model;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::{Agent, Cluster, Random, by_effort, sh};
use jiff::Timestamp;
use serde_json::Value;

use self::model::{Backup, Commit, EXACT, Model, Outcome, Timeline};
use crate::health::with_clock;
use crate::in_place::kept;
use crate::postgres::Host;
use crate::timelines::begin_a_timeline;

/// By how many seconds a clock may be wrong, as faketime is told.
const SKEWS: [(&str, i64); 4] = [("+3h", 3 * 3600), ("-2h", -2 * 3600), ("+40h", 40 * 3600), ("-30d", -30 * 86400)];

#[test]
fn slow_random_moments_of_random_histories() {
    let (histories, steps, moments) = by_effort((1, 8, 4), (10, 16, 20));
    let seeds = match std::env::var("PI_AGENT_TEST_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (0..histories).map(|number| by_effort(22, now_here().unsigned_abs()) + number).collect(),
    };
    let mut exact = 0;
    for seed in &seeds {
        println!("history of seed {seed}");
        let mut history = History::begin(Random::new(*seed));
        for _ in 0..steps {
            history.step();
        }
        history.end();
        let verdicts: Vec<_> = (0..moments).map(|number| history.moment(number)).collect();
        exact += verdicts.iter().filter(|verdict| **verdict == Ok(EXACT)).count();
        let wrong: Vec<_> = verdicts.into_iter().filter_map(Result::err).collect();
        assert!(wrong.is_empty(), "{} of {moments} moments are wrong:\n{}", wrong.len(), wrong.join("\n"));
    }
    // Not by refusals alone. A single history may have many holes.
    let least = (seeds.len() - 1) * moments / 5;
    assert!(exact >= least, "only {exact} moments came back exactly");
}

/// A database with a past.
struct History {
    random: Random,
    host: Host,
    model: Model,
    /// The timeline on which the database is.
    timeline: u32,
    rows: u64,
    /// What the last restore in place has kept.
    old: Option<PathBuf>,
    /// How many data directories were put aside.
    left: u32,
}

impl History {
    fn begin(random: Random) -> Self {
        let host = Host::local();
        host.cluster.sql("alter system set track_commit_timestamp = on");
        host.cluster.stop();
        host.cluster.start();
        host.cluster.sql("create table commits (n bigint primary key)");
        let mut model = Model::default();
        model.timelines.insert(1, Timeline::default());
        let mut history = Self { random, host, model, timeline: 1, rows: 0, old: None, left: 0 };
        history.model.begins(1, history.now());
        history.commits();
        history.back_up();
        history.commits();
        history
    }

    fn step(&mut self) {
        match self.random.within(0..20) {
            0..2 => {}
            2..5 => self.switch(),
            5..8 => self.back_up(),
            8..13 => self.go_back(),
            13..14 => self.promote(),
            14..16 => self.lose_a_segment(),
            _ => self.take_back(),
        }
        self.commits();
    }

    /// Nothing stays where the last moments could not be had.
    fn end(&mut self) {
        self.commits();
        self.finish_segment();
        self.push();
    }

    fn number(&self, sql: &str) -> i64 {
        self.host.cluster.sql(&format!("select ({sql})::bigint")).parse().expect("a number")
    }

    fn now(&self) -> i64 {
        self.number("extract(epoch from clock_timestamp()) * 1000000")
    }

    fn position(&self) -> u64 {
        u64::try_from(self.number("pg_current_wal_insert_lsn() - '0/0'")).unwrap()
    }

    /// Sometimes the clock of the agent is wrong; by how much.
    fn agent(&mut self) -> (Agent, i64) {
        if !self.random.chance(0.2) {
            return (self.host.agent.clone(), 0);
        }
        let (skew, seconds) = *self.random.pick(&SKEWS);
        println!("  (a clock that shows {skew})");
        (with_clock(&self.host.scratch, &self.host.agent, skew), seconds)
    }

    fn commits(&mut self) {
        for _ in 0..self.random.within(1..4) {
            std::thread::sleep(Duration::from_millis(self.random.within(0..700)));
            self.rows += 1;
            let row = self.rows;
            self.host.cluster.sql(&format!("insert into commits values ({row})"));
            let time = format!(
                "select extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000000 from commits where n = {row}"
            );
            let commit = Commit { row, time: self.number(&time), position: self.position() };
            println!("  {row} on timeline {} at {} {:X}", self.timeline, moment(commit.time), commit.position);
            self.model.timelines.get_mut(&self.timeline).unwrap().commits.push(commit);
        }
    }

    /// What is in the repository now; the server has written up to that position.
    fn look(&mut self, position: u64) {
        let config = self.host.scratch.join("runtime/pgbackrest/main/repository.conf");
        let config = format!("--config={}", config.display());
        let arguments = ["-u", "postgres", "--", "pgbackrest", &config, "--stanza=main", "--output=json", "info"];
        let info: Value = serde_json::from_str(&sh(Command::new("runuser").args(arguments).current_dir("/"))).unwrap();
        let backups = info[0]["backup"].as_array().into_iter().flatten();
        let backup = |backup: &Value| Backup {
            timeline: u32::from_str_radix(&backup["archive"]["start"].as_str().unwrap()[..8], 16).unwrap(),
            stopped: backup["timestamp"]["stop"].as_i64().unwrap(),
            start: at(backup["lsn"]["start"].as_str().unwrap()),
            stop: at(backup["lsn"]["stop"].as_str().unwrap()),
        };
        self.model.backups = backups.map(backup).collect();
        self.model.look(&self.host.archive(), position);
    }

    fn finish_segment(&mut self) {
        println!("switch: {}", self.host.cluster.finish_segment());
    }

    fn push(&mut self) {
        let ran = self.host.agent.run(["wal", "push", "database"]);
        println!("push: {:?} {}", ran.code(), ran.stderr);
        let position = self.position();
        self.look(position);
    }

    fn switch(&mut self) {
        self.finish_segment();
        if self.random.chance(0.6) {
            self.push();
        }
    }

    fn back_up(&mut self) {
        let (agent, skew) = self.agent();
        let ran = agent.run(["run", "database", "--json"]);
        let step = ran.step("database");
        println!("backup: {:?} {} {}", ran.code(), step["restore_point"], step["error"]);
        assert!(skew != 0 || ran.code() == Some(0) || ran.code() == Some(5), "{ran}");
        let position = self.position();
        self.look(position);
    }

    /// Ends the server; how far it had written.
    fn stop(&mut self) -> u64 {
        let position = self.position();
        let now = self.now();
        self.model.ends(now);
        if self.random.chance(0.5) {
            println!("stop at {position:X}");
            self.host.cluster.stop();
        } else {
            println!("crash at {position:X}");
            self.host.cluster.crash();
        }
        position
    }

    /// It is at work again, on a new timeline or on one that is known.
    fn start(&mut self) {
        self.host.cluster.start();
        self.started();
    }

    fn started(&mut self) {
        let name = self.host.cluster.sql("select pg_walfile_name(pg_current_wal_insert_lsn())");
        self.timeline = u32::from_str_radix(&name[..8], 16).unwrap();
        if !self.model.timelines.contains_key(&self.timeline) {
            let history = self.host.cluster.data().join(format!("pg_wal/{:08X}.history", self.timeline));
            let history = fs::read_to_string(history).unwrap();
            let last = history.lines().rfind(|line| !line.trim().is_empty()).unwrap();
            let mut words = last.split_whitespace();
            let (from, position) = (words.next().unwrap().parse().unwrap(), words.next().unwrap());
            let left = Some((from, at(position)));
            println!("timeline {} begins: {last}", self.timeline);
            self.model.timelines.insert(self.timeline, Timeline { left, commits: Vec::new() });
        }
        self.model.begins(self.timeline, self.now());
        println!("at work on timeline {} since {}", self.timeline, moment(self.now()));
    }

    /// A restore in place, to the newest moment or an earlier one.
    fn go_back(&mut self) {
        let at = self.random.chance(0.7).then(|| self.a_moment());
        let asked = at.and_then(|_| self.a_timeline());
        let number = asked.map(|number| number.to_string());
        let (agent, skew) = self.agent();
        let position = self.stop();
        let stopped = self.timeline;
        let text = at.map(moment);
        let latest = now_here() + skew * 1_000_000;
        let mut arguments = vec!["restore", "database", "--in-place", "--yes", "--json"];
        arguments.extend(text.iter().flat_map(|at| ["--at", at]));
        arguments.extend(number.iter().flat_map(|number| ["--timeline", number]));
        let ran = agent.run(arguments);
        println!("in place to {text:?} on {number:?}: {:?}", ran.code());
        self.look(position);
        let restored = matches!(ran.code(), Some(0 | 5));
        self.start();
        let rows = restored.then(|| rows(&self.host.cluster));
        let said = restored.then(|| said(&ran.json()));
        // What the stopped server wrote last may be nowhere else: the beginning of a segment is kept once. It is told, and is no part of
        // an earlier moment.
        let of_the_old =
            |problem: &Value| problem["message"].as_str().unwrap().contains("but in the pg_wal of the server");
        let whole = at.is_some() && restored && ran.json()["problems"].as_array().unwrap().iter().all(of_the_old);
        let outcome = Outcome { code: if whole { 0 } else { ran.code().unwrap() }, rows, said };
        match at {
            Some(at) => match self.model.judge(at, asked, latest, &outcome) {
                Ok(reason) => println!("  {reason}"),
                Err(wrong) => panic!("in place to {}: {wrong}\n{outcome:?} {ran}", moment(at)),
            },
            None => {
                let wanted: Vec<_> = self.model.commits(stopped).iter().map(|commit| commit.row).collect();
                assert!(outcome.code != 0 || outcome.rows == Some(wanted), "the newest moment: {outcome:?} {ran}");
            }
        }
        if restored {
            let commits = self.model.commits(self.timeline);
            let left: Vec<_> = commits.iter().map(|commit| commit.row).collect();
            assert_eq!(outcome.rows, Some(left), "the model knows where it was left: {ran}");
            let mut old = kept(self.host.cluster.data());
            old.sort();
            self.old = old.pop();
        }
    }

    /// The restore in place was not meant: what it kept takes its place again.
    fn take_back(&mut self) {
        let Some(old) = self.old.take() else { return };
        self.stop();
        self.left += 1;
        let data = self.host.cluster.data();
        fs::rename(data, self.host.scratch.join(format!("left-{}", self.left))).unwrap();
        fs::rename(old, data).unwrap();
        println!("taken back");
        self.start();
    }

    /// A new timeline by hand, as the program advises.
    fn promote(&mut self) {
        if Some(&self.timeline) != self.model.timelines.keys().last() {
            return;
        }
        self.stop();
        begin_a_timeline(&self.host);
        println!("promotion");
        self.started();
    }

    /// A segment that never comes into the repository.
    fn lose_a_segment(&mut self) {
        self.finish_segment();
        let files = fs::read_dir(self.host.spool()).unwrap().map(|file| file.unwrap().path());
        let mut files: Vec<_> = files.filter(|file| file.file_name().unwrap().len() == 24).collect();
        files.sort();
        if files.is_empty() {
            return;
        }
        let file = self.random.pick(&files);
        println!("lost: {}", file.display());
        fs::remove_file(file).unwrap();
    }

    /// Sometimes one is asked for.
    fn a_timeline(&mut self) -> Option<u32> {
        let numbers: Vec<_> = self.model.timelines.keys().copied().collect();
        self.random.chance(0.3).then(|| *self.random.pick(&numbers))
    }

    fn a_moment(&mut self) -> i64 {
        let range = self.model.range();
        let (from, to) = (u64::try_from(range.start).unwrap(), u64::try_from(range.end).unwrap());
        let commits: Vec<_> = self.model.timelines.values().flat_map(|timeline| timeline.commits.clone()).collect();
        let near = self.random.pick(&commits).time;
        match self.random.within(0..4) {
            0 => near,
            1 => near + i64::try_from(self.random.within(0..200_000)).unwrap() - 100_000,
            _ => i64::try_from(self.random.within(from..to)).unwrap(),
        }
    }

    /// A restore beside it to a random moment: the model's verdict.
    fn moment(&mut self, number: usize) -> Result<&'static str, String> {
        let at = self.a_moment();
        let timeline = self.a_timeline();
        let (agent, skew) = self.agent();
        let latest = now_here() + skew * 1_000_000;
        let to = self.host.scratch.join(format!("moment-{number}"));
        let mut arguments: Vec<String> =
            ["restore", "database", "--json", "--to", to.to_str().unwrap(), "--at", &moment(at)].map(Into::into).into();
        arguments.extend(timeline.iter().flat_map(|number| ["--timeline".into(), number.to_string()]));
        let ran = agent.run(&arguments);
        let mut outcome = Outcome { code: ran.code().unwrap(), rows: None, said: None };
        if matches!(outcome.code, 0 | 5) {
            let clone = Cluster::existing(&self.host.scratch, &to);
            outcome.rows = Some(rows(clone.start()));
            outcome.said = Some(said(&ran.json()));
            clone.stop();
        }
        let _ = fs::remove_dir_all(&to);
        let what = format!("{} on {timeline:?}", moment(at));
        let verdict = self.model.judge(at, timeline, latest, &outcome);
        println!("{what}: {verdict:?} {outcome:?}");
        verdict.map_err(|wrong| format!("{what}: {wrong}\n{outcome:?} {ran}"))
    }
}

fn rows(cluster: &Cluster) -> Vec<u64> {
    let text = cluster.sql("select n from commits order by n");
    text.lines().map(|row| row.parse().expect("a number")).collect()
}

/// The moment that it is said to be of.
fn said(restored: &Value) -> i64 {
    restored["time"].as_str().unwrap().parse::<Timestamp>().unwrap().as_second()
}

fn moment(micros: i64) -> String {
    Timestamp::from_microsecond(micros).unwrap().to_string()
}

fn now_here() -> i64 {
    Timestamp::now().as_microsecond()
}

/// A position in the WAL, as PostgreSQL writes it.
fn at(position: &str) -> u64 {
    let (high, low) = position.split_once('/').unwrap();
    let part = |text| u64::from_str_radix(text, 16).unwrap();
    part(high) << 32 | part(low)
}

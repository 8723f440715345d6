//! A server made hostile, and what would notice that a copy of it reaches out.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::cluster::give_to_postgres;
use harness::{Cluster, Config, Scratch};

use crate::postgres::{Host, archive_setting, spool_of};

/// What is hostile about a cluster. In texts, `{canary}` and the like are paths and ports of the test.
pub(super) struct Hostile {
    /// It cannot be together with the others in one cluster.
    pub alone: bool,
    /// Lines of the step in the configuration.
    pub step: &'static str,
    /// What is done before the first start.
    pub stopped: fn(&Cluster),
    /// Settings that the original starts with.
    pub settings: &'static str,
    /// SQL in the database `shop`.
    pub script: &'static str,
    /// Settings that the original takes while it runs, when all else is there.
    pub reload: &'static str,
    /// Settings of its next start, which never comes.
    pub later: &'static str,
    /// What else is done last.
    pub also: fn(&Host),
    /// What of it cannot be tested, each `CHECK: OBJECT: WORDS`; behind `before 17: ` in versions before that.
    pub untested: &'static [&'static str],
    /// From that version on the run says that it cannot dump all of it.
    pub told_from: u32,
}

pub(super) const NOTHING: Hostile = Hostile {
    alone: false,
    step: "",
    stopped: |_| (),
    settings: "",
    script: "",
    reload: "",
    later: "",
    also: |_| (),
    untested: &[],
    told_from: u32::MAX,
};

/// The session of a script is none of the hostile ones.
const CALM: &str = r"\setenv PGOPTIONS '-c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0 -c search_path=public -c role=none -c transaction_read_only=off -c default_transaction_read_only=off -c client_encoding=utf8 -c default_tablespace= -c temp_tablespaces= -c quote_all_identifiers=off -c dynamic_library_path=$libdir -c session_preload_libraries= -c session_replication_role=replica -c default_text_search_config=pg_catalog.simple'
\c shop
";

/// What each cluster holds, to be damaged: a table of 40 pages with rows as long as indexes on them, and a sequence.
const SHOP: &str = r"create database shop;
\c shop
create table ledger (id int primary key, entry text); insert into ledger select i, md5(i::text) || repeat('x', 30) from generate_series(1, 4000) i;
create index by_entry on ledger (entry); create index by_word on ledger using gin (to_tsvector('simple', entry));
create table notes (t text); insert into notes select repeat(md5(i::text), 40) from generate_series(1, 400) i;
create sequence numbers; select nextval('numbers'); vacuum analyze; checkpoint;
";

/// Where commands would leave files, and a port that somebody would connect to.
pub(super) struct Canary {
    folder: PathBuf,
    port: TcpListener,
}

impl Canary {
    fn new(scratch: &Scratch) -> Self {
        let folder = scratch.directory("canary");
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        port.set_nonblocking(true).unwrap();
        Self { folder, port }
    }

    fn port(&self) -> u16 {
        self.port.local_addr().unwrap().port()
    }

    /// Who touched it since the last time.
    pub fn touched(&self) -> Vec<String> {
        let files = fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path());
        let mut touched: Vec<_> = files.map(|file| file.display().to_string()).collect();
        touched.iter().for_each(|file| fs::remove_file(file).unwrap());
        while let Ok((_, from)) = self.port.accept() {
            touched.push(format!("a connection from {from}"));
        }
        touched
    }
}

/// Whoever reaches the socket may be anybody.
pub(super) fn let_everybody_in(cluster: &Cluster) {
    fs::write(cluster.data().join("pg_hba.conf"), "local all all trust\n").unwrap();
}

/// A server with some hostile things, and what belongs to it.
pub(super) struct Original {
    pub host: Host,
    pub canary: Canary,
    library: PathBuf,
    /// Its configuration, with and without what keeps it from starting.
    conf: [String; 2],
    /// Files in its data directory, by the relation's name.
    pub files: BTreeMap<String, PathBuf>,
}

impl Original {
    /// Makes it, and it runs.
    pub fn new(hostile: &[&Hostile]) -> Self {
        let scratch = Scratch::new();
        let canary = Canary::new(&scratch);
        let library = scratch.join("of_another_machine.so");
        let tablespace = scratch.directory("fast");
        give_to_postgres(&tablespace);
        let archive = pi_agent::wal::archive_command(&spool_of(&scratch)).replace('\'', "''");
        let words = [
            ("{canary}", canary.folder.display().to_string()),
            ("{data}", scratch.join("server/data").display().to_string()),
            ("{socket}", scratch.join("server/socket").display().to_string()),
            ("{socket_port}", Cluster::PORT.to_string()),
            ("{port}", canary.port().to_string()),
            ("{library}", library.display().to_string()),
            ("{tablespace}", tablespace.display().to_string()),
            ("{archive}", archive),
        ];
        let filled = |text: &str| words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value));
        let together = |text: fn(&Hostile) -> &'static str| {
            hostile.iter().flat_map(|one| [filled(text(one)), "\n".into()]).collect()
        };
        let settings: String = together(|one| one.settings);
        // The first ended with 15, the others began with 18.
        let known = |line: &&str| match Cluster::newest() {
            16.. if line.starts_with("promote_trigger_file") => false,
            version => version >= 18 || !line.starts_with("max_active_replication_origins"),
        };
        let settings: String = settings.lines().filter(known).flat_map(|line| [line, "\n"]).collect();
        let cluster = Cluster::make(&scratch, "server", &(archive_setting(&spool_of(&scratch)) + "\n" + &settings));
        hostile.iter().for_each(|one| (one.stopped)(&cluster));
        let (config, step): (_, String) = (Config::local(scratch.path()), together(|one| one.step));
        let conf = cluster.data().join("postgresql.conf");
        // Not by the role that an agent is told of, which is yet to be made.
        let host = Host::of(scratch, cluster, &config, &step);
        let cluster = &host.cluster;
        cluster.script(SHOP);
        let files = cluster.sql_in(
            "shop",
            "select relname, pg_relation_filepath(oid) from pg_class where relnamespace = 'public'::regnamespace",
        );
        let files = files.lines().filter_map(|line| line.split_once('|'));
        let files = files.map(|(name, path)| (name.to_owned(), cluster.data().join(path))).collect();
        let folder = cluster.sql("select setting from pg_config where name = 'PKGLIBDIR'");
        fs::copy(Path::new(&folder).join("citext.so"), &library).unwrap();
        give_to_postgres(&library);
        for one in hostile.iter().filter(|one| !one.script.is_empty()) {
            cluster.script(&(CALM.to_owned() + &filled(one.script)));
        }
        let calm = fs::read_to_string(&conf).unwrap() + &together(|one| one.reload);
        fs::write(&conf, &calm).unwrap();
        cluster.with_data("pg_ctl", &["reload", "-s"]);
        std::thread::sleep(Duration::from_millis(500));
        let later: String = together(|one| one.later);
        let conf = [calm.clone() + &later, calm];
        hostile.iter().for_each(|one| (one.also)(&host));
        let original = Self { host, canary, library, conf, files };
        original.configure(0);
        original
    }

    fn configure(&self, which: usize) {
        fs::write(self.host.cluster.data().join("postgresql.conf"), &self.conf[which]).unwrap();
    }

    /// The machine is another one: neither the server nor its library is there.
    pub fn gone(&self) {
        self.host.cluster.stop();
        fs::rename(&self.library, self.library.with_extension("gone")).unwrap();
        self.canary.touched();
    }

    /// It is back, with something done to it while it is down. Only for its start it is without what keeps it from that.
    pub fn back(&self, broken: impl FnOnce()) {
        let cluster = &self.host.cluster;
        fs::rename(self.library.with_extension("gone"), &self.library).unwrap();
        broken();
        for signal in ["standby.signal", "recovery.signal"] {
            let _ = fs::remove_file(cluster.data().join(signal));
        }
        let access = cluster.data().join("pg_hba.conf");
        let rules = fs::read(&access).unwrap();
        let_everybody_in(cluster);
        self.configure(1);
        cluster.start();
        self.configure(0);
        fs::write(access, rules).unwrap();
    }
}

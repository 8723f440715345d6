//! The hostile clusters: each has one kind of settings or objects that could break a restored server, or one of its checks.

use std::fs;

use super::set_up::{Hostile, NOTHING, let_everybody_in};

/// `NAME: hostility`, and for each a test of its own, which `make test-long` runs.
macro_rules! hostile {
    ($($name:ident: $hostile:expr;)*) => {
        pub(super) static TABLE: &[(&str, Hostile)] = &[$((stringify!($name), $hostile)),*];

        mod long_alone {
            $(#[test]
            fn $name() {
                super::super::alone(stringify!($name));
            })*
        }
    };
}

hostile! {
    sizes_of_a_larger_machine: Hostile {
        later: "shared_buffers = '4TB'\nhuge_pages = on\nmax_connections = 200000\nwork_mem = '1TB'\nwal_buffers = '1GB'\n\
                maintenance_work_mem = '1TB'\nmin_dynamic_shared_memory = '4TB'\nmax_worker_processes = 100000",
        ..NOTHING
    };
    preloaded_libraries_that_are_not_here: Hostile {
        script: "alter role all set session_preload_libraries = '{library}';",
        later: "shared_preload_libraries = 'of_another_machine'\nlocal_preload_libraries = 'of_another_machine'\n\
                jit_provider = 'of_another_machine'",
        ..NOTHING
    };
    a_log_that_goes_elsewhere: Hostile {
        settings: "log_min_messages = panic\nlog_min_error_statement = panic\nlog_line_prefix = 'FATAL: %m ERROR: '",
        later: "logging_collector = on\nlog_destination = 'csvlog,syslog'\nlog_directory = '{canary}'\nlog_file_mode = 0644\n\
                lc_messages = 'de_DE.utf8'",
        ..NOTHING
    };
    standbys_that_commits_wait_for: Hostile {
        reload: "synchronous_standby_names = '*'\nsynchronous_commit = remote_apply",
        ..NOTHING
    };
    no_time_for_anything: Hostile {
        reload: "statement_timeout = 1\nlock_timeout = 1\nidle_in_transaction_session_timeout = 1\nidle_session_timeout = '1s'",
        script: "alter role all set statement_timeout = 2;",
        ..NOTHING
    };
    read_only_by_default: Hostile {
        reload: "default_transaction_read_only = on\ndefault_transaction_isolation = serializable\n\
                 default_transaction_deferrable = on",
        script: "alter database shop set default_transaction_read_only = on; alter role postgres set transaction_read_only = on;",
        ..NOTHING
    };
    commands_that_do_something: Hostile {
        settings: "restore_command = 'touch {canary}/restored; false'\narchive_cleanup_command = 'touch {canary}/cleaned'\n\
                   recovery_end_command = 'touch {canary}/ended'",
        reload: "archive_command = 'touch {canary}/archived && {archive}'",
        later: "ssl_passphrase_command = 'touch {canary}/asked'\narchive_library = 'basic_archive'\nrestart_after_crash = off",
        ..NOTHING
    };
    paths_of_the_original: Hostile {
        settings: "data_directory = '{data}'\nhba_file = '{data}/pg_hba.conf'\nident_file = '{data}/pg_ident.conf'\n\
                   external_pid_file = '{canary}/pid'",
        later: "unix_socket_directories = '/of/another/machine'\nlisten_addresses = '*'\nport = {port}\ninclude = '/of/another.conf'\n\
                include_dir = 'conf.d'\nssl = on\nssl_cert_file = '/of/another.crt'\nkrb_server_keyfile = '/of/another'",
        also: |host| {
            fs::create_dir(host.cluster.data().join("conf.d")).unwrap();
            fs::write(host.cluster.data().join("conf.d/a.conf"), "shared_buffers = '4TB'\nno_such_setting = 'on'\n").unwrap();
            fs::write(host.cluster.data().join("pg_hba.conf"), "local all all reject\nno such line\n").unwrap();
        },
        ..NOTHING
    };
    leftovers_of_a_recovery: Hostile {
        settings: "recovery_target_time = '2001-01-01 00:00:00+00'\nrecovery_target_timeline = '7'\nrecovery_target_action = shutdown\n\
                   primary_conninfo = 'host=127.0.0.1 port={port}'\nprimary_slot_name = 'of_another'\n\
                   recovery_min_apply_delay = '1d'\npromote_trigger_file = '{canary}/promoted'\nhot_standby = on",
        script: "alter system set recovery_target_inclusive = off; alter system set restore_command = 'touch {canary}/restored';",
        also: |host| for name in ["standby.signal", "recovery.signal", "backup_label.old", "recovery.done", "tablespace_map.old"] {
            fs::write(host.cluster.data().join(name), "").unwrap();
        },
        ..NOTHING
    };
    search_paths_with_traps: Hostile {
        script: r"create schema trap;
create function trap.format(text, name, name) returns text language plpgsql as $$ begin raise exception 'trapped'; end $$;
create function trap.json_object_agg_step(json, text, bigint) returns json language plpgsql as $$ begin raise exception 'trapped'; end $$;
create aggregate trap.json_object_agg(text, bigint) (sfunc = trap.json_object_agg_step, stype = json);
create function trap.no(name, text) returns bool language plpgsql as $$ begin raise exception 'trapped'; end $$;
create operator trap.!~ (leftarg = name, rightarg = text, function = trap.no);
create table trap.pg_class (oid int); create table trap.pg_namespace (oid int);
create view trap.pg_extension as select 'no_such' as extname; create view trap.pg_database as select 'no_such' as datname;
alter database shop set search_path = trap, pg_catalog; alter role postgres set search_path = trap, pg_catalog;",
        ..NOTHING
    };
    texts_in_other_forms: Hostile {
        reload: "quote_all_identifiers = on\nstandard_conforming_strings = off\nescape_string_warning = on\nbytea_output = escape\n\
                 datestyle = 'SQL, DMY'\nintervalstyle = sql_standard\nextra_float_digits = -15\nxmloption = document\n\
                 client_min_messages = debug1\ntimezone = 'Pacific/Apia'\narray_nulls = off",
        script: "alter role postgres set client_encoding = latin1; alter database shop set quote_all_identifiers = on;",
        ..NOTHING
    };
    other_encodings: Hostile {
        script: r"create database latin template template0 encoding latin1 locale 'C';
create database bytes template template0 encoding sql_ascii locale 'C';
\c latin
set client_encoding = utf8; create table größe (maß text); insert into größe select 'Stück ' || i from generate_series(1, 3000) i; create index on größe (maß);
analyze größe;
\c bytes
create table raw (t text); insert into raw select E'\xff\xfe' || i from generate_series(1, 3000) i; create index on raw (t); analyze raw;",
        ..NOTHING
    };
    odd_names: Hostile {
        script: r##"create database "a=b"; create database "it's 100% host=/nowhere"; create database "postgres://127.0.0.1:{port}/x";
create database "-d"; create database "#1"; create database "größe ☃"; create database "back\slash";
create schema "a.b"; create table "a.b"."c""d" (i int); insert into "a.b"."c""d" select generate_series(1, 3000);
create index "e ""f" on "a.b"."c""d" (i); create table "a.b"."it's %s
\ $$" (i int); analyze "a.b"."c""d";"##,
        ..NOTHING
    };
    closed_databases: Hostile {
        script: "create database closed; create database none is_template true;
revoke all on database none from public, postgres; alter database none connection limit 0;
alter database closed allow_connections false; revoke all on schema pg_catalog from public;
revoke execute on all functions in schema pg_catalog from public;",
        ..NOTHING
    };
    no_database_postgres: Hostile {
        alone: true,
        also: |host| drop(host.cluster.sql_in("shop", "drop database postgres")),
        ..NOTHING
    };
    another_template: Hostile {
        script: r"\c template1
create table rows as select generate_series(1, 3000) i; create extension pg_trgm; analyze;
create function refuse() returns event_trigger language plpgsql as $$ begin raise exception 'nothing is made here'; end $$;
create event trigger refused on ddl_command_start execute function refuse();",
        ..NOTHING
    };
    a_superuser_that_may_not_log_in: Hostile {
        alone: true,
        step: "user = \"chief\"",
        script: "create role chief superuser login; alter role postgres set default_transaction_read_only = on;
alter role postgres nologin connection limit 0 valid until '2001-01-01';",
        stopped: let_everybody_in,
        ..NOTHING
    };
    a_renamed_superuser: Hostile {
        alone: true,
        step: "user = \"it's \\\"chief\\\"\"",
        script: r#"create role other superuser login; \c "dbname=shop host={socket} port={socket_port} user=other"
alter role postgres rename to "it's ""chief""";"#,
        stopped: let_everybody_in,
        ..NOTHING
    };
    triggers_on_commands: Hostile {
        script: r"create function refuse() returns event_trigger language plpgsql as $$ begin raise exception 'nothing is made here'; end $$;
create event trigger refused on ddl_command_start execute function refuse();
select current_setting('server_version_num')::int >= 170000 as new \gset
\if :new
create database guarded template template0;
\c guarded
create function keep_out() returns event_trigger language plpgsql as $$ begin raise exception 'nobody gets in'; end $$;
create event trigger kept_out on login execute function keep_out(); alter event trigger kept_out enable always;
\endif",
        untested: &["dump: shop: permission denied to create event trigger"],
        told_from: 17,
        ..NOTHING
    };
    a_trigger_that_always_fires: Hostile {
        script: r"create database strict template template0;
\c strict
create function refuse() returns event_trigger language plpgsql as $$ begin raise exception 'nothing is made here'; end $$;
create event trigger refused on ddl_command_start execute function refuse(); alter event trigger refused enable always;",
        untested: &["before 17: pg_amcheck: database strict: ERROR:  nothing is made here", "dump: strict: permission denied to create event trigger"],
        ..NOTHING
    };
    functions_without_their_schema: Hostile {
        script: r"create function inner_one(t text) returns text language sql immutable as $$ select upper(t) $$;
create function outer_one(t text) returns text language plpgsql immutable as $$ begin return public.inner_one(t); end $$;
create table named (n text); insert into named select 'n' || i from generate_series(1, 3000) i; create index by_outer on named (outer_one(n));
create or replace function outer_one(t text) returns text language plpgsql immutable as $$ begin return inner_one(t); end $$;",
        untested: &["pg_amcheck: shop.public.by_outer: inner_one(text) does not exist", "dump: shop: inner_one(text) does not exist"],
        ..NOTHING
    };
    functions_that_refuse_here: Hostile {
        script: r"create function priced(t int) returns int language plpgsql immutable as $$ begin return t; end $$;
create table prices (p int); insert into prices select generate_series(1, 3000); create index by_price on prices (priced(p)); analyze prices;
create or replace function priced(t int) returns int language plpgsql immutable as $$ begin raise exception 'no rates on this machine'; end $$;",
        untested: &["pg_amcheck: shop.public.by_price: no rates on this machine", "samples: public.prices: no rates on this machine",
            "dump: shop: no rates on this machine"],
        ..NOTHING
    };
    owners_without_rights: Hostile {
        script: r"create role poor; create schema private;
create function private.plain(t text) returns text language sql immutable as $$ select upper(t) $$;
create table owned (n text); insert into owned select 'n' || i from generate_series(1, 3000) i; create index by_plain on owned (private.plain(n));
alter table owned owner to poor; revoke all on function private.plain from public;",
        untested: &["pg_amcheck: shop.public.by_plain: permission denied", "samples: public.owned: permission denied"],
        ..NOTHING
    };
    a_library_that_is_not_here: Hostile {
        script: r"create function hashed(text) returns int language c immutable strict as '{library}', 'citext_hash';
create table places (n text); insert into places values ('here'); create index by_hash on places (hashed(n));",
        untested: &["pg_amcheck: shop.public.by_hash: could not access file", "samples: public.places: could not access file",
            "dump: shop: permission denied for language c"],
        ..NOTHING
    };
    a_dictionary_and_a_locale_that_are_not_here: Hostile {
        script: r"create text search dictionary stops (template = simple, stopwords = german);
create text search configuration own (copy = simple); alter text search configuration own alter mapping for asciiword with stops;
create table texts (t text); insert into texts select 'das Wort ' || i from generate_series(1, 3000) i;
create index by_lexeme on texts using gin (to_tsvector('own'::regconfig, t)); create index by_text on texts ((to_tsvector('own'::regconfig, t)));
update pg_ts_dict set dictinitoption = 'stopwords = ''of_another_machine''' where dictname = 'stops';
create collation elsewhere (locale = 'C.utf8'); create table sorted (t text collate elsewhere);
insert into sorted select 't' || i from generate_series(1, 3000) i; create index by_order on sorted (t);
update pg_collation set collcollate = 'xx_XX.utf8', collctype = 'xx_XX.utf8' where collname = 'elsewhere';",
        untested: &["pg_amcheck: shop.public.by_text: could not open stop-word file", "pg_amcheck: shop.public.by_order: could not create locale",
            "samples: public.texts: could not open stop-word file", "samples: public.sorted: could not create locale",
            "dump: shop: could not"],
        ..NOTHING
    };
    servers_elsewhere: Hostile {
        script: r"create extension postgres_fdw; create extension dblink; create extension file_fdw;
create server away foreign data wrapper postgres_fdw options (host '{socket}', port '{socket_port}', dbname 'shop');
create user mapping for postgres server away options (user 'postgres');
create server files foreign data wrapper file_fdw;
create foreign table log (l text) server files options (program 'touch {canary}/read');
create table near_by (i int); create table parent (i int);
create foreign table child (i int) inherits (parent) server away options (table_name 'near_by');
create table parts (i int) partition by range (i); create table near partition of parts for values from (0) to (10);
create foreign table far partition of parts for values from (10) to (20) server away;
create materialized view fetched as select * from child;
alter server away options (set host '127.0.0.1', set port '{port}', add connect_timeout '5');",
        untested: &["samples: public.parent: could not connect to server", "dump: shop: permission denied for foreign-data wrapper"],
        ..NOTHING
    };
    subscriptions_and_many_origins: Hostile {
        settings: "max_replication_slots = 60\nmax_active_replication_origins = 60\nmax_wal_senders = 60\nwal_level = logical",
        script: r"create table taken (i int primary key); create publication given for table taken;
create subscription taking connection 'host=127.0.0.1 port={port} connect_timeout=1' publication given with (connect = false, slot_name = 'x');
alter subscription taking enable; select pg_create_logical_replication_slot('kept', 'pgoutput'); select pg_create_physical_replication_slot('also', true);
select pg_replication_origin_create('o' || i), pg_replication_origin_advance('o' || i, '0/1') from generate_series(1, 40) i;
checkpoint;
select pg_replication_origin_advance('o' || i, '0/2') from generate_series(1, 40) i;",
        ..NOTHING
    };
    prepared_transactions: Hostile {
        settings: "max_prepared_transactions = 150\nmax_locks_per_transaction = 200",
        script: r"create table locked (i int primary key); insert into locked select generate_series(1, 3000); analyze locked;
begin; lock table locked in share mode; prepare transaction 'it''s held';
begin; create table unfinished (i int); insert into unfinished values (1); prepare transaction 'made';",
        ..NOTHING
    };
    every_kind_of_table: Hostile {
        script: r"create unlogged table fleeting (i int primary key); insert into fleeting select generate_series(1, 3000);
create unlogged sequence fleeting_numbers; create table nothing (); insert into nothing default values;
select lo_from_bytea(0, repeat('x', 10000)::bytea);
create table tree (i int, t text default repeat('x', 10)) partition by list (i); create table leaf partition of tree for values in (1) partition by range (t);
create table leaf_of_leaf partition of leaf default; insert into tree select 1, 't' || g from generate_series(1, 3000) g; create index on tree (t);
create table secret (i int generated always as identity, d text generated always as ('x') stored); alter table secret enable row level security;
alter table secret force row level security; create policy nobody on secret using (false);
create materialized view seen as select * from tree; create unique index on seen (t); create materialized view unseen as select 1 as x with no data;
create domain positive as int check (value > 0); create type pair as (a int, b text); create table typed of pair;
create table wide as select repeat(md5(i::text), 500) as t from generate_series(1, 50) i;
create table ranges (r int4range, exclude using gist (r with &&)); create index on ranges using brin (r); create index on ranges using spgist (r);
create table deleted (i int); insert into deleted select generate_series(1, 3000); delete from deleted; vacuum deleted;
create tablespace fast location '{tablespace}'; create table quick (i int primary key) tablespace fast; insert into quick select generate_series(1, 3000);
create database quick tablespace fast; alter database shop set default_tablespace = 'no_such'; alter database shop set temp_tablespaces = 'no_such';
analyze fleeting, nothing, tree, secret, seen, typed, wide, ranges, deleted, quick;",
        ..NOTHING
    };
    no_checksums: Hostile {
        alone: true,
        stopped: |cluster| cluster.with_data( "pg_checksums", &["--disable"]),
        ..NOTHING
    };
    large_segments: Hostile {
        alone: true,
        stopped: |cluster| cluster.with_data( "pg_resetwal", &["--wal-segsize=64"]),
        settings: "wal_compression = on\nwal_log_hints = on\nfull_page_writes = off\nmin_wal_size = '128MB'\ntrack_commit_timestamp = on",
        ..NOTHING
    };
    other_collations: Hostile {
        script: r"create database sorted template template0 locale_provider icu icu_locale 'und' encoding utf8;
\c sorted
create table words (w text); insert into words select chr(65 + i % 26) || i from generate_series(1, 3000) i; create unique index on words (w);
create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
create table blindly (w text collate blind primary key); insert into blindly select 'Ä' || i from generate_series(1, 3000) i; analyze;
update pg_collation set collversion = '1' where collname = 'blind'; update pg_database set datcollversion = '1' where datname = 'sorted';",
        ..NOTHING
    };
    damage_is_passed_over: Hostile {
        reload: "zero_damaged_pages = on\nignore_checksum_failure = on\njit = on\njit_above_cost = 0\nenable_seqscan = off\n\
                 enable_indexscan = off\nrow_security = off\nsession_replication_role = replica\nallow_in_place_tablespaces = on",
        script: r#"alter role all set zero_damaged_pages = on; alter role all set ignore_checksum_failure = on; alter role all set row_security = off;
alter database shop set default_table_access_method = 'heap';
alter database shop set dynamic_library_path = '/of/another/machine'; alter database shop set default_text_search_config = 'no.such';
select 'alter database shop set extension_control_path = "/of/another/machine"' where current_setting('server_version_num')::int >= 180000 \gexec"#,
        ..NOTHING
    };
}

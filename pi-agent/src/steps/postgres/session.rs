//! What our sessions set for themselves. The configuration, `ALTER DATABASE` and `ALTER ROLE` set what suits a person's or a program's:
//! time limits, forms of texts, schemas that stand before PostgreSQL's own. libpq's `PGOPTIONS` outweighs them all.

use std::sync::LazyLock;

/// libpq's environment variable for them.
pub(crate) const VARIABLE: &str = "PGOPTIONS";

/// For pg_dump, which sets all else for itself.
pub(crate) const OF_PG_DUMP: &str =
    "-c role=none -c statement_timeout=0 -c lock_timeout=0 -c client_min_messages=warning";

/// For pgBackRest, which sets all else for itself, and whose session waits while it copies.
pub(crate) fn of_pgbackrest(version: u32) -> String {
    let idle = if version >= 14 { " -c idle_session_timeout=0" } else { "" };
    format!("{OF_PG_DUMP}{idle}")
}

/// On a live server, where we need not be a superuser. What we call is found in `pg_catalog` alone, or whoever may make a function
/// with a fitting name would have it run by us. Texts come as they are stored: names in a database without an encoding may be in none.
pub(crate) const LIVE: &str = "-c role=none -c search_path=pg_catalog -c client_encoding=SQL_ASCII -c quote_all_identifiers=off \
    -c statement_timeout=0 -c lock_timeout=0 -c client_min_messages=warning";

/// While a dump is loaded, by a role that may set little.
pub(crate) const OF_A_DUMP: &str = "-c client_encoding=SQL_ASCII -c default_transaction_read_only=off -c role=none \
    -c local_preload_libraries= -c default_tablespace= -c temp_tablespaces= -c statement_timeout=0 -c lock_timeout=0 -c client_min_messages=warning";

/// What such a role cannot set for itself, and is given. Of libraries SQL knows no empty list: this one is always there.
pub(crate) const GIVEN: [&str; 4] = [
    "session_preload_libraries = 'plpgsql'",
    "session_replication_role = replica",
    "dynamic_library_path = '$libdir'",
    "lc_messages = 'C'",
];

/// On restored data, where we may do everything. Triggers on commands do not fire, nothing is read-only or out of time, damage is not
/// passed over, and extensions are those of the programs that run it. The search path is that of the database: functions in indexes
/// may rest on it.
pub(crate) fn restored(version: u32) -> &'static str {
    static SINCE_18: LazyLock<String> = LazyLock::new(|| format!("{RESTORED} -c extension_control_path=$system"));
    if version >= 18 { &SINCE_18 } else { RESTORED }
}

const RESTORED: &str = "-c client_encoding=SQL_ASCII -c quote_all_identifiers=off -c session_replication_role=replica \
    -c default_transaction_read_only=off -c transaction_read_only=off -c role=none -c session_preload_libraries= \
    -c local_preload_libraries= -c dynamic_library_path=$libdir -c default_tablespace= -c temp_tablespaces= -c statement_timeout=0 -c lock_timeout=0 -c lc_messages=C -c zero_damaged_pages=off \
    -c ignore_checksum_failure=off -c row_security=off -c client_min_messages=warning";

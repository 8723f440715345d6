//! What PostgreSQL's programs say of a failure.

/// The lines that say what failed; where none does, the last ones.
pub(crate) fn errors(text: &str) -> String {
    const MOST: usize = 4;
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let named: Vec<_> = lines.iter().copied().filter(|line| is_error(line)).take(MOST).collect();
    let told = if named.is_empty() { &lines[lines.len().saturating_sub(MOST)..] } else { &named };
    told.join("; ")
}

fn is_error(line: &str) -> bool {
    ["ERROR:", "FATAL:", "PANIC:", "error:"].iter().any(|sign| line.contains(sign))
}

/// An extension says so that is not installed here.
pub(crate) fn needs_a_library(said: &str) -> bool {
    ["could not access file", "could not load library", "is not available", ".control\""]
        .iter()
        .any(|sign| said.contains(sign))
}

/// What was read is damaged, whatever was asked for.
pub(crate) fn is_damage(said: &str) -> bool {
    [
        "could not read",
        "could not open file",
        "could not open relation with OID",
        "could not access status",
        "invalid page",
        "cache lookup failed",
        "corrupt",
        "missing chunk",
        "unexpected",
    ]
    .iter()
    .any(|sign| said.contains(sign))
}

/// An index is not in the order that this server would have it in.
pub(crate) fn is_about_order(said: &str) -> bool {
    said.contains("invariant violated")
}

/// Each error is of code that the data brings and that does not work here or with another search path: damaged data does not say so.
pub(crate) fn is_only_missing(said: &str) -> bool {
    /// What code names that PostgreSQL looks up by name.
    const KINDS: [&str; 11] = [
        "function",
        "operator",
        "relation",
        "type",
        "schema",
        "language",
        "collation",
        "text search",
        "access method",
        "extension",
        "role",
    ];
    let names = |line: &str| KINDS.iter().any(|kind| line.contains(&format!("{kind} ")));
    let of_code = |line: &str| {
        needs_a_library(line)
            || line.contains("read-only transaction")
            || line.contains("unrecognized configuration parameter")
            || line.ends_with("does not exist") && names(line)
    };
    let mut errors = said.lines().filter(|line| line.contains("ERROR:") || line.contains("FATAL:")).peekable();
    errors.peek().is_some() && errors.all(|line| of_code(line.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_that_tell_are_kept() {
        let said = "vacuumdb: vacuuming\nERROR:  function unaccent(text) does not exist\nLINE 1: select unaccent(t)\n     ^\nHINT: a\nHINT: b\n";
        assert_eq!(errors(said), "ERROR:  function unaccent(text) does not exist");
        assert_eq!(errors("a\n\nb\nc\nd\ne\n"), "b; c; d; e");
    }

    #[test]
    fn damage_is_seen_in_any_error() {
        assert!(is_damage("ERROR:  invalid page in block 3 of relation base/5/1255"));
        assert!(is_damage("ERROR:  could not open file \"base/5/1255\": No such file or directory"));
        assert!(
            !is_damage("ERROR:  nothing is made here") && !is_damage("ERROR:  extension \"amcheck\" is not available")
        );
    }

    #[test]
    fn missing_code_is_no_damage() {
        for said in [
            "ERROR:  function unaccent(text) does not exist",
            "ERROR:  could not access file \"$libdir/postgis-3\": No such file or directory",
            "pg_restore: error: could not execute query: ERROR:  type \"geometry\" does not exist",
            "ERROR:  cannot execute CREATE EXTENSION in a read-only transaction",
        ] {
            assert!(is_only_missing(said), "{said}");
        }
        for said in [
            "",
            "ERROR:  could not open file \"base/5/16385\": No such file or directory",
            "ERROR:  invalid page in block 0 of relation base/5/16385",
            "ERROR:  cache lookup failed for function 16390",
            "ERROR:  function f() does not exist\nERROR:  could not read block 3 in file \"base/5/16385\"",
        ] {
            assert!(!is_only_missing(said), "{said}");
        }
    }
}

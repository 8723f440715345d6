//! What PostgreSQL's programs say of a failure.

/// What an error begins with.
const SIGNS: [&str; 3] = ["ERROR:", "FATAL:", "PANIC:"];

/// The lines that say what failed, and in which function of the data's; where none does, the last ones.
pub(crate) fn errors(text: &str) -> String {
    const MOST: usize = 4;
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut named: Vec<String> = Vec::new();
    for line in &lines {
        match named.last_mut() {
            _ if is_error(line) => named.push((*line).to_owned()),
            Some(error) if is_of_a_function(line) && !is_of_a_function(error) => *error += &format!(" {line}"),
            _ => {}
        }
    }
    if named.is_empty() {
        return lines[lines.len().saturating_sub(MOST)..].join("; ");
    }
    named.truncate(MOST);
    named.join("; ")
}

fn is_error(line: &str) -> bool {
    SIGNS.iter().any(|sign| line.contains(sign)) || line.contains("error:")
}

/// PostgreSQL's line that says that code of the data's was running.
fn is_of_a_function(text: &str) -> bool {
    text.contains("CONTEXT:  ") && [" function ", "PL/"].iter().any(|word| text.contains(word))
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
    /// What is said where code finds less here than where it comes from: another search path, other files, no network, fewer rights.
    const LESS: [&str; 17] = [
        "read-only transaction",
        "unrecognized configuration parameter",
        "could not create locale",
        "could not open collator",
        "could not connect to server",
        "could not establish connection",
        "permission denied for",
        "permission denied to",
        "must be superuser",
        "Must be superuser",
        "must be owner of",
        "only superuser can",
        "transition data type cannot be",
        "password is required",
        "password or GSSAPI",
        "query would be affected by row-level security",
        // Another currency is set here.
        "invalid input syntax for type money",
    ];
    /// The files of text search that lie beside PostgreSQL.
    const DICTIONARIES: [&str; 5] = ["stop-word", "dictionary", "affix", "thesaurus", "synonym"];
    let of_code = |error: &str| {
        needs_a_library(error)
            || LESS.iter().any(|sign| error.contains(sign))
            || DICTIONARIES.iter().any(|kind| error.contains(&format!("could not open {kind} file")))
            || error.contains("does not exist") && !error.contains("with OID")
            || is_of_a_function(error)
    };
    // What a function says by RAISE are words of somebody's, whatever they are.
    let is_code = |error: &str| error.contains(" at RAISE") || !is_damage(error) && of_code(error);
    let mut beginnings: Vec<_> = SIGNS.iter().flat_map(|sign| said.match_indices(sign)).map(|(at, _)| at).collect();
    beginnings.sort_unstable();
    let ends = beginnings.iter().skip(1).copied().chain([said.len()]);
    !beginnings.is_empty() && beginnings.iter().zip(ends).all(|(from, to)| is_code(&said[*from..to]))
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
    fn code_of_the_datas_is_named_and_is_no_damage() {
        let said = "ERROR:  no rates here\nCONTEXT:  PL/pgSQL function public.priced(integer) line 1 at RAISE\n";
        assert_eq!(
            errors(said),
            "ERROR:  no rates here CONTEXT:  PL/pgSQL function public.priced(integer) line 1 at RAISE"
        );
        assert!(is_only_missing(said) && is_only_missing(&errors(said)));
        assert!(is_only_missing("ERROR:  unexpected day\nCONTEXT:  PL/pgSQL function f() line 1 at RAISE\n"));
        assert!(!is_only_missing("ERROR:  no rates here"), "nobody says that it is code");
        assert!(!is_only_missing(
            "ERROR:  missing chunk number 0 for toast value 1\nCONTEXT:  SQL function \"f\" statement 1\n"
        ));
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
            "ERROR:  operator class \"gin_trgm_ops\" does not exist for access method \"gin\"",
            "ERROR:  could not open stop-word file \"/usr/share/x.stop\": No such file or directory",
            "ERROR:  could not create locale \"de_DE.utf8\": No such file or directory",
            "ERROR:  could not connect to server \"away\"",
            "ERROR:  must be superuser to create an operator class",
            "ERROR:  permission denied to create event trigger \"watch\"",
            "ERROR:  only superuser can define a leakproof function",
            "ERROR:  aggregate transition data type cannot be internal",
            "ERROR:  password is required",
            "ERROR:  query would be affected by row-level security policy for table \"users\"",
            "ERROR:  invalid input syntax for type money: \"12,34 €\"",
        ] {
            assert!(is_only_missing(said), "{said}");
        }
        for said in [
            "",
            "ERROR:  could not open file \"base/5/16385\": No such file or directory",
            "ERROR:  invalid page in block 0 of relation base/5/16385",
            "ERROR:  cache lookup failed for function 16390",
            "ERROR:  could not read block 3 in file \"base/5/16385\"; ERROR:  function f() does not exist",
            "ERROR:  relation with OID 16390 does not exist",
            "ERROR:  item order invariant violated for index \"by_name\"",
            "ERROR:  function f() does not exist\nERROR:  could not read block 3 in file \"base/5/16385\"",
        ] {
            assert!(!is_only_missing(said), "{said}");
        }
    }
}

//! `docs/security.md` says of each line who tries it.

use std::fs;
use std::path::Path;

/// The text of the tests that a name such as `notices` or `process::confined` stands for.
fn tests_of(name: &str) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let (path, function) = match name.rsplit_once("::") {
        Some((path, function)) if function.contains('_') => (path, Some(function)),
        _ => (name.trim_end_matches("::tests"), None),
    };
    let path = path.replace("::", "/");
    let places =
        [format!("tests/system/{path}.rs"), format!("pi-agent/src/{path}.rs"), format!("pi-agent/src/{path}/mod.rs")];
    let text = places.iter().find_map(|place| fs::read_to_string(root.join(place)).ok())?;
    let holds = match function {
        Some(function) => text.contains(&format!("fn {function}(")),
        None => text.contains("#[test]"),
    };
    holds.then_some(text)
}

#[test]
fn each_line_names_tests_that_there_are() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/security.md")).unwrap();
    let lines: Vec<_> = page.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(lines.len() > 8, "{page}");
    for line in lines {
        let tried_by = line.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let names: Vec<_> = tried_by.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty() || tried_by.contains("nothing here"), "{line}");
        for name in names {
            assert!(tests_of(name).is_some(), "there is no test {name} of: {line}");
        }
    }
}

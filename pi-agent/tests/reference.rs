//! `docs/configuration.md` and `packaging/config.toml` say what the code does: same keys, types and defaults, and every example is accepted.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pi_agent::config::{KEYS, Missing, parse};

const FILE: &str = "/etc/pi-agent/config.toml";

fn project_file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// (section, kind it is only for, key) -> (type, default), of every table of keys in the reference.
fn documented() -> BTreeMap<(String, String, String), (String, String)> {
    let (mut section, mut only, mut in_keys) = (String::new(), String::new(), false);
    let mut found = BTreeMap::new();
    for line in project_file("docs/configuration.md").lines() {
        if let Some(heading) = line.strip_prefix("##") {
            let heading = heading.trim_start_matches('#').trim();
            section = if heading == "The file" { String::new() } else { heading.to_owned() };
            only.clear();
        }
        if let Some(kind) = line.strip_prefix("Of `kind = \"") {
            only = kind.split('"').next().unwrap().to_owned();
        }
        if !line.starts_with('|') {
            in_keys = false;
        }
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        if in_keys && !line.starts_with("|---") {
            let name = cells[0].trim_matches('`').to_owned();
            let entry = (cells[1].to_owned(), cells[2].to_owned());
            let earlier = found.insert((section.clone(), only.clone(), name), entry);
            assert!(earlier.is_none(), "documented twice: {line}");
        }
        in_keys |= cells.first() == Some(&"key");
    }
    found
}

#[test]
fn the_reference_and_the_code_have_the_same_keys() {
    let documented = documented();
    let mut wrong = Vec::new();
    let mut known = BTreeSet::new();
    for key in KEYS {
        let place = (key.section.to_owned(), key.only.unwrap_or_default().to_owned(), key.name.to_owned());
        let default = match key.missing {
            Missing::Refused => "*required*".to_owned(),
            Missing::Is(value) => format!("`{value}`"),
            Missing::Means(words) => words.to_owned(),
            Missing::Later => "*not supported by this version*".to_owned(),
        };
        let wanted = (key.form.name().to_owned(), default);
        match documented.get(&place) {
            None => wrong.push(format!("{place:?} is not in docs/configuration.md")),
            Some(found) if *found != wanted => wrong.push(format!("{place:?} is {wanted:?}, documented as {found:?}")),
            Some(_) => {}
        }
        known.insert(place);
    }
    wrong.extend(
        documented.keys().filter(|place| !known.contains(*place)).map(|place| format!("{place:?} is not in the code")),
    );
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_example_of_the_reference_is_accepted() {
    let text = project_file("docs/configuration.md");
    let blocks: Vec<_> = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 3);
    for block in blocks {
        if let Err(errors) = parse(block, Path::new(FILE)) {
            panic!("{errors}\nin\n{block}");
        }
    }
}

#[test]
fn the_installed_example_is_accepted_as_it_is_and_with_its_comments() {
    let text = project_file("packaging/config.toml");
    parse(&text, Path::new(FILE)).unwrap_or_else(|errors| panic!("{errors}"));

    // Its comments are keys and tables, or prose; with all of the first kind it is still a good file.
    let is_toml =
        |line: &str| line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let with_comments: Vec<_> = text
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| is_toml(rest)).unwrap_or(line))
        .filter(|line| !line.starts_with("url = \"file:"))
        .collect();
    let settings = parse(&with_comments.join("\n"), Path::new(FILE)).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(settings.steps.len(), 5, "database, foundry, logs, configs and agent");
}

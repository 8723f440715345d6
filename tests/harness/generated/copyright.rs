//! `debian/copyright`: the template, with every crate that is linked into the program, grouped by licence.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use serde_json::Value;

use super::project;

/// What packages are made for.
const TARGETS: [&str; 2] = ["aarch64-unknown-linux-gnu", "x86_64-unknown-linux-gnu"];

struct Crate {
    name: String,
    version: String,
    licence: String,
    holders: BTreeSet<String>,
}

/// Fills `@CRATES@` in, and `@NAME@` with the version of the crate NAME.
pub fn render(template: &str) -> String {
    let mut groups: BTreeMap<String, Vec<Crate>> = BTreeMap::new();
    let mut page = template.to_owned();
    for linked in linked_crates() {
        page = page.replace(&format!("@{}@", linked.name), &linked.version);
        groups.entry(linked.licence.clone()).or_default().push(linked);
    }
    let mut crates = String::new();
    for (licence, group) in groups {
        let files: Vec<_> = group.iter().map(|one| format!("crates/{}-{}/*", one.name, one.version)).collect();
        let holders: BTreeSet<_> = group.into_iter().flat_map(|one| one.holders).collect();
        let holders: Vec<_> = holders.into_iter().collect();
        let (files, holders) = (files.join("\n "), holders.join("\n "));
        crates.push_str(&format!("Files:\n {files}\nCopyright:\n {holders}\nLicense: {licence}\n\n"));
        for name in licence.split(" and ").flat_map(|part| part.split(" or ")) {
            assert!(page.contains(&format!("\nLicense: {name}\n ")), "packaging/copyright.in has no text of {name}");
        }
    }
    page.replace("@CRATES@\n\n", &crates).replace("@CRATES@\n", &crates)
}

/// Crates whose code ends up in the program: neither build scripts nor macros, nor what only tests need. By name.
fn linked_crates() -> Vec<Crate> {
    let metadata = metadata();
    let list = |value: &Value| value.as_array().expect("cargo metadata has this list").clone();
    let packages: BTreeMap<String, Value> =
        list(&metadata["packages"]).into_iter().map(|package| (text(&package["id"]), package)).collect();
    let nodes: BTreeMap<String, Value> =
        list(&metadata["resolve"]["nodes"]).into_iter().map(|node| (text(&node["id"]), node)).collect();
    let is_macro = |id: &str| {
        list(&packages[id]["targets"]).iter().any(|target| list(&target["kind"]).contains(&"proc-macro".into()))
    };

    let mut pending: Vec<String> =
        packages.iter().filter(|(_, package)| package["name"] == "pi-agent").map(|(id, _)| id.clone()).collect();
    let mut seen: BTreeSet<String> = pending.iter().cloned().collect();
    while let Some(id) = pending.pop() {
        for dependency in list(&nodes[&id]["deps"]) {
            let target = text(&dependency["pkg"]);
            let linked = list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            if linked && !is_macro(&target) && seen.insert(target.clone()) {
                pending.push(target);
            }
        }
    }
    let mut crates: Vec<_> =
        seen.iter().map(|id| &packages[id]).filter(|package| !package["source"].is_null()).map(describe).collect();
    crates.sort_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
    crates
}

fn metadata() -> Value {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(project()).args(["metadata", "--locked", "--format-version", "1"]);
    for target in TARGETS {
        command.args(["--filter-platform", target]);
    }
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

fn describe(package: &Value) -> Crate {
    let name = text(&package["name"]);
    let manifest = text(&package["manifest_path"]);
    let mut holders = holders_in(Path::new(&manifest).parent().expect("a manifest lies in a directory"));
    if holders.is_empty() {
        let authors = package["authors"].as_array().into_iter().flatten().map(text);
        holders.extend(authors.map(|author| author.split(" <").next().unwrap_or_default().to_owned()));
    }
    if holders.is_empty() {
        holders.insert(format!("the authors of {name}"));
    }
    let licence = licence(&name, &text(&package["license"]));
    Crate { version: text(&package["version"]), name, licence, holders }
}

/// The notices in the crate's own licence files.
fn holders_in(directory: &Path) -> BTreeSet<String> {
    let mut holders = BTreeSet::new();
    let mut entries: Vec<_> =
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"].iter().any(|start| name.starts_with(start)) {
            let text = fs::read(&path).unwrap_or_default();
            holders.extend(String::from_utf8_lossy(&text).lines().filter_map(notice));
        }
    }
    holders
}

/// `2016 Somebody` of `Copyright (c) 2016 Somebody`; nothing for lines of a licence that only speak of copyright.
fn notice(line: &str) -> Option<String> {
    let line = line.trim_start_matches(['/', '*', '#', ' ', '\t']).trim_end();
    let rest = line.strip_prefix("Copyright").or_else(|| line.strip_prefix("COPYRIGHT"))?;
    let holder = rest.trim_start_matches([' ', ':']);
    let signs = ["(c)", "(C)", "©"];
    let bare = signs.iter().find_map(|sign| holder.strip_prefix(sign)).map(str::trim);
    let is_notice = bare.is_some() || holder.starts_with(|first: char| first.is_ascii_digit());
    let is_blank = ["[yyyy]", "{yyyy}", "<year>", "[year]"].iter().any(|blank| holder.contains(blank));
    let holder = bare.unwrap_or(holder).trim_end_matches("All rights reserved.").trim_end_matches([' ', ',']);
    (is_notice && !is_blank && !holder.is_empty()).then(|| holder.to_owned())
}

/// Debian's way to say the crate's licence; of a choice only the licences that this project is under as well.
fn licence(name: &str, expression: &str) -> String {
    assert!(!expression.contains('('), "{name}: the licence {expression} needs a closer look");
    let mut parts: Vec<String> = Vec::new();
    for part in expression.replace('/', " OR ").split(" AND ") {
        let mut choice: BTreeSet<&str> =
            part.split(" OR ").map(|one| if one.trim() == "MIT" { "Expat" } else { one.trim() }).collect();
        if choice.iter().any(|one| ours(one)) {
            choice.retain(|one| ours(one));
        }
        parts.push(choice.into_iter().collect::<Vec<_>>().join(" or "));
    }
    parts.join(" and ")
}

fn ours(licence: &str) -> bool {
    licence == "Apache-2.0" || licence == "Expat"
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

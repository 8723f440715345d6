//! The package says what the sources say.

use std::fs;
use std::process::Command;

use harness::Scratch;
use harness::generated::{self, VERSION};

fn project_file(path: &str) -> String {
    fs::read_to_string(generated::project().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn pages_completions_and_licences_are_current() {
    let old: Vec<_> = generated::files()
        .into_iter()
        .filter(|file| fs::read_to_string(generated::project().join(file.path)).ok().as_ref() != Some(&file.content))
        .map(|file| file.path)
        .collect();
    assert!(old.is_empty(), "{old:?} are not what the sources make of them now: `make generated`");
}

/// The packages of that name in Cargo.lock.
fn locked<'a>(lock: &'a str, name: &str) -> Vec<&'a str> {
    lock.split("\n\n").filter(|package| package.contains(&format!("name = \"{name}\"\n"))).collect()
}

#[test]
fn the_crates_of_our_own_are_the_ones_in_use() {
    let lock = project_file("Cargo.lock");
    for name in patches() {
        let packages = locked(&lock, &name);
        assert!(packages.len() == 1 && !packages[0].contains("source = "), "patches/{name} is of no use: {packages:?}");
    }
}

#[test]
fn each_crate_of_our_own_has_a_patch_for_the_version_in_use() {
    let lock = project_file("Cargo.lock");
    for name in patches() {
        let readme = project_file(&format!("patches/{name}/README.md"));
        assert!(readme.starts_with(&format!("# {name}: ")), "patches/{name}/README.md has another title");
        let patch = project_file(&format!("patches/{name}/upstream.patch"));
        // "Subject: [PATCH name version] ...", by `git format-patch --subject-prefix`.
        let (_, subject) = patch.split_once("\nSubject: [PATCH ").expect("a patch in the form of git format-patch");
        let (to, version) =
            subject.split(']').next().and_then(|to| to.split_once(' ')).expect("a crate and its version");
        assert!(
            locked(&lock, to)
                .iter()
                .flat_map(|package| package.lines())
                .any(|line| line == format!("version = \"{version}\"")),
            "patches/{name}/upstream.patch is for {to} {version}, which is not in Cargo.lock"
        );
        assert!(readme.contains(&format!("{to} {version}")), "patches/{name}/README.md does not name {to} {version}");
        assert!(patch.contains("\ndiff --git a/"), "patches/{name}/upstream.patch changes nothing");
    }
}

/// The folders in `patches/`.
fn patches() -> Vec<String> {
    let folders = fs::read_dir(generated::project().join("patches")).expect("a folder of the project");
    let names: Vec<_> =
        folders.map(|folder| folder.expect("readable").file_name().into_string().expect("text")).collect();
    assert!(!names.is_empty());
    names
}

#[test]
fn there_is_one_version() {
    let debian = project_file("debian/changelog");
    assert!(
        debian.starts_with(&format!("pi-agent ({VERSION}) ")),
        "debian/changelog begins with {:?}, and Cargo.toml says {VERSION}",
        debian.lines().next()
    );
    let changelog = project_file("CHANGELOG.md");
    let newest = changelog.lines().find(|line| line.starts_with("## ["));
    assert!(
        newest.is_some_and(|line| line.starts_with(&format!("## [{VERSION}]"))),
        "CHANGELOG.md begins with {newest:?}, and Cargo.toml says {VERSION}"
    );
}

#[test]
fn every_command_and_key_is_in_its_page() {
    let page = project_file("packaging/man/pi-agent.1");
    for command in pi_agent::cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        assert!(
            page.contains(&format!(".SS pi\\-agent {}", command.get_name().replace('-', "\\-"))),
            "{}",
            command.get_name()
        );
    }
    let page = project_file("packaging/man/pi-agent.toml.5");
    for key in pi_agent::config::KEYS {
        let tag = format!(".TP\n\\fB{}\\fR\n", key.name.replace('-', "\\-"));
        assert!(page.contains(&tag), "{tag}");
    }
}

#[test]
fn an_unformatted_commit_is_refused() {
    let scratch = Scratch::new();
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(scratch.path()).args(["-c", "user.name=Test", "-c", "user.email=test@localhost"]);
        command.args(["-c", &format!("core.hooksPath={}/.githooks", generated::project().display())]).args(arguments);
        command.output().unwrap()
    };
    git(&["init", "--quiet"]);
    fs::write(scratch.join("rustfmt.toml"), project_file("rustfmt.toml")).unwrap();
    let commit = |text: &str| {
        fs::write(scratch.join("a.rs"), text).unwrap();
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", "one"])
    };
    let refused = commit("fn  one( ) { }\n");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("  a.rs\n") && told.contains("cargo fmt --all"), "{told}");
    assert!(!commit("fn one( {\n").status.success(), "what is no Rust is not formatted");
    let taken = commit("fn one() {}\n");
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
}

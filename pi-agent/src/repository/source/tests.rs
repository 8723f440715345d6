//! A source is read while it changes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;

use crate::repository::any_source::Source as _;
use rustic_core::{ErrorKind, ReadSourceOpen as _, RusticError};

use super::*;
use crate::storage::shaper::Reading;

fn source(root: &Path, deadline: Option<Instant>) -> Source {
    let paths = vec![root.to_owned()];
    Source::new(Sources {
        paths,
        exclude: Vec::new(),
        one_file_system: true,
        never: Vec::new(),
        put_aside: Vec::new(),
        deadline,
        held: None,
        reading: Reading::default(),
    })
    .unwrap()
}

/// Reads everything as rustic would; the contents by name.
fn read(source: &Source, mut before: impl FnMut(&Path)) -> Vec<(String, Option<Vec<u8>>)> {
    let files = source.entries().map(Result::unwrap).filter(|entry| entry.node.is_file());
    files
        .map(|entry| {
            before(&entry.path);
            let mut content = Vec::new();
            let whole = entry.open.unwrap().open().and_then(|mut reader| {
                reader.read_to_end(&mut content).map_err(|error| RusticError::from(ErrorKind::InputOutput, error))
            });
            let name = entry.path.file_name().unwrap().to_string_lossy().into_owned();
            (name, whole.is_ok().then_some(content))
        })
        .collect()
}

#[test]
fn a_file_that_vanishes_is_only_counted() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        fs::write(directory.path().join(name), name).unwrap();
    }
    let source = source(directory.path(), None);
    let found = read(&source, |path| {
        if path.ends_with("b") {
            fs::remove_file(path).unwrap();
        }
    });
    let b = found.iter().find(|(name, _)| name == "b").unwrap();
    assert_eq!((found.len(), &b.1), (3, &None));
    assert!(source.again(&Arc::default()).is_none(), "it is gone for good");
    let tally = source.shared().tally();
    assert_eq!((tally.vanished, tally.unreadable_count, tally.handed_over, tally.failed), (1, 0, 3, 1));
    assert!(!tally.stopped && !tally.listing_incomplete);
}

/// What a second reading hands over: of each file its length by the snapshot, and its content.
fn read_again(source: &Source, mut meanwhile: impl FnMut(&Path)) -> Vec<(String, u64, Option<Vec<u8>>)> {
    let again = source.again(&Arc::default()).unwrap();
    let read = again.entries().map(Result::unwrap).map(|entry| {
        let mut content = Vec::new();
        let Some(open) = entry.open else {
            return (entry.path.file_name().unwrap().to_string_lossy().into_owned(), entry.node.meta.size, None);
        };
        let mut reader = open.open().unwrap();
        reader.by_ref().take(1 << 20).read_to_end(&mut content).unwrap();
        meanwhile(&entry.path);
        let whole = reader.read_to_end(&mut content);
        let name = entry.path.file_name().unwrap().to_string_lossy().into_owned();
        (name, entry.node.meta.size, whole.is_ok().then_some(content))
    });
    read.collect()
}

fn named(source: &Source) -> Vec<String> {
    let name = |(path, error): &(PathBuf, String)| format!("{}: {error}", path.file_name().unwrap().display());
    source.shared().tally().unreadable.iter().map(name).collect()
}

/// A link in the place of a directory, before its list is read and after: nothing of where it leads is taken for the directory's.
#[test]
fn a_link_that_takes_the_place_of_a_directory_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let (root, elsewhere) = (directory.path().join("root"), directory.path().join("elsewhere"));
    for place in ["root/before", "root/within", "elsewhere"] {
        fs::create_dir_all(directory.path().join(place)).unwrap();
        for name in ["1", "2"] {
            fs::write(directory.path().join(place).join(name), place).unwrap();
        }
    }
    let source = source(&root, None);
    let replace = |name: &str| {
        fs::rename(root.join(name), directory.path().join(name)).unwrap();
        std::os::unix::fs::symlink(&elsewhere, root.join(name)).unwrap();
    };
    let mut found = Vec::new();
    for entry in source.entries().map(Result::unwrap) {
        if entry.path.ends_with("before") {
            replace("before");
        } else if entry.path.ends_with("within/1") {
            replace("within");
        }
        let mut content = String::new();
        let open = entry.open.filter(|_| entry.node.is_file());
        if open.is_some_and(|open| open.open().is_ok_and(|mut file| file.read_to_string(&mut content).is_ok())) {
            found.push(content);
        }
    }
    assert!(found.iter().all(|content| content == "root/within"), "{found:?}");
    let again: Vec<_> = source.again(&Arc::default()).unwrap().entries().map(Result::unwrap).collect();
    assert!(again.iter().all(|entry| entry.path == root.join("before") && entry.node.is_symlink()));
    assert_eq!((again.len(), source.shared().tally().unreadable_count), (1, 0), "{:?}", named(&source));
}

#[test]
fn what_is_moved_to_where_the_walk_has_been_is_read_after_all() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir_all(at("z/moved/deep")).unwrap();
    fs::create_dir(at("a")).unwrap();
    for name in ["a/1", "z/moved/deep/file", "z/mail"] {
        fs::write(at(name), name).unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(60));
    let source = source(directory.path(), None);
    let found = read(&source, |path| {
        if path.ends_with("a/1") {
            fs::rename(at("z/moved"), at("a/moved")).unwrap();
            fs::rename(at("z/mail"), at("a/mail")).unwrap();
            fs::write(at("a/new"), "new").unwrap();
        }
    });
    assert_eq!(found, [("1".into(), Some(b"a/1".to_vec()))]);
    let again = source.again(&Arc::default()).unwrap();
    let paths: Vec<_> = again.entries().map(|entry| entry.unwrap().path).collect();
    assert_eq!(paths, ["a/mail", "a/moved", "a/moved/deep", "a/moved/deep/file"].map(at));
    assert_eq!(named(&source), [""; 0]);
}

#[test]
fn what_lies_there_decides_and_not_the_list() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["a", "b"] {
        fs::write(at(name), name).unwrap();
    }
    let found = read(&source(directory.path(), None), |path| {
        if path.ends_with("a") {
            fs::remove_file(at("b")).unwrap();
            fs::create_dir(at("b")).unwrap();
            fs::write(at("b/new"), "new").unwrap();
        }
    });
    assert_eq!(found, [("a".into(), Some(b"a".to_vec())), ("new".into(), Some(b"new".to_vec()))]);
}

#[test]
fn a_file_that_holds_more_than_it_says_is_stored_whole() {
    let file = Path::new("/proc/sys/kernel/ostype");
    let source = source(file, None);
    assert_eq!(read(&source, |_| {}), [("ostype".into(), None)]);
    assert_eq!(read_again(&source, |_| {}), [("ostype".into(), 6, Some(b"Linux\n".to_vec()))]);
    assert_eq!(named(&source), [""; 0]);
}

#[test]
fn what_is_ours_is_left_out_by_whatever_path() {
    let directory = tempfile::tempdir().unwrap();
    let (root, ours) = (directory.path().join("root"), directory.path().join("link/repository"));
    fs::create_dir_all(root.join("disk/repository")).unwrap();
    fs::write(root.join("disk/repository/config"), "x").unwrap();
    fs::write(root.join("disk/file"), "file").unwrap();
    std::os::unix::fs::symlink(root.join("disk"), directory.path().join("link")).unwrap();
    let source = Source::new(Sources { never: vec![ours], ..source(&root, None).sources }).unwrap();
    assert_eq!(read(&source, |_| {}), [("file".into(), Some(b"file".to_vec()))]);
    assert!(source.shared().tally().ours.contains(&root.join("disk/repository")));
}

#[test]
fn a_path_behind_a_link_in_another_path_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (root, elsewhere) = (directory.path().join("root"), directory.path().join("elsewhere/deep"));
    fs::create_dir_all(&elsewhere).unwrap();
    fs::create_dir(&root).unwrap();
    std::os::unix::fs::symlink(elsewhere.parent().unwrap(), root.join("link")).unwrap();
    let sources = Sources { paths: vec![root.clone(), root.join("link/deep")], ..source(&root, None).sources };
    let error = Source::new(sources).err().unwrap();
    assert!(error.advice().is_some_and(|hint| hint.contains("symbolic link")), "{error}");
}

/// A disk that goes and comes back while it is read, a directory that a file replaces, and a handle that becomes stale.
#[test]
fn what_was_not_there_for_a_while_is_read_or_named() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["d", "e", "gone"] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("inside"), name).unwrap();
    }
    for name in ["a", "b", "stale", "z"] {
        fs::write(at(name), name).unwrap();
    }
    let source = source(directory.path(), None);
    let hidden = tempfile::tempdir_in(directory.path().parent().unwrap()).unwrap();
    let moved = |names: &[&str], from: &Path, to: &Path| {
        names.iter().for_each(|name| fs::rename(from.join(name), to.join(name)).unwrap());
    };
    let found = read(&source, |path| match path.file_name().unwrap().to_str().unwrap() {
        "a" => {
            moved(&["b", "d", "gone"], directory.path(), hidden.path());
            fs::remove_dir_all(at("e")).unwrap();
            fs::write(at("e"), "a file").unwrap();
        }
        "z" => {
            moved(&["b", "d"], hidden.path(), directory.path());
            let stale = std::io::Error::from_raw_os_error(libc::ESTALE);
            source.shared().left_out(&at("stale"), &stale, false);
        }
        _ => {}
    });
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.starts_with(&["a"]) && names.ends_with(&["stale", "z"]) && !names.contains(&"b"), "{names:?}");
    let mut again: Vec<_> = read_again(&source, |_| {}).into_iter().map(|(name, _, content)| (name, content)).collect();
    again.retain(|(name, _)| name != "e");
    let whole = |name: &str| (name.to_owned(), Some(name.as_bytes().to_vec()));
    assert_eq!(again, [whole("b"), whole("stale")]);
    assert_eq!(named(&source), ["d: it was not there for a while when it was read, and is again"]);
    let tally = source.shared().tally();
    assert_eq!((tally.vanished, tally.unreadable_count), (1, 1));
    assert!(tally.listing_incomplete, "nobody knows what of it is in older snapshots alone");
}

#[test]
fn a_handle_that_stays_stale_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    let source = source(directory.path(), None);
    let stale = std::io::Error::from_raw_os_error(libc::ESTALE);
    source.shared().settle(&file, &stale, false);
    source.shared().settle(&directory.path().join("missing"), &stale, true);
    let tally = source.shared().tally();
    assert_eq!((tally.vanished, tally.unreadable_count), (1, 1));
    assert!(named(&source)[0].starts_with("file: Stale"), "{:?}", named(&source));
}

#[test]
fn a_file_that_is_another_by_its_turn_is_read_again_with_its_own_length() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["grows", "is replaced", "pipe", "stays"] {
        fs::write(directory.path().join(name), "1234").unwrap();
    }
    fs::write(directory.path().join("shrinks"), vec![7; 2 << 20]).unwrap();
    let source = source(directory.path(), None);
    let found = read(&source, |path| match path.file_name().unwrap().to_str().unwrap() {
        "grows" => fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b"56").unwrap(),
        "is replaced" => {
            fs::write(directory.path().join("stays.new"), "123456").unwrap();
            fs::rename(directory.path().join("stays.new"), path).unwrap();
        }
        "pipe" => {
            fs::remove_file(path).unwrap();
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        }
        "shrinks" => File::options().write(true).open(path).unwrap().set_len(3).unwrap(),
        _ => {}
    });
    let stays = ("stays".into(), Some(b"1234".to_vec()));
    let none = ["grows", "is replaced", "pipe", "shrinks"].map(|name| (name.into(), None));
    let [grows, replaced, pipe, shrinks] = none;
    assert_eq!(found, [grows, replaced, pipe, shrinks, stays]);
    let again = read_again(&source, |_| {});
    let six = |name: &str| (name.to_owned(), 6, Some(b"123456".to_vec()));
    let pipe = ("pipe".into(), 0, None);
    assert_eq!(again, [six("grows"), six("is replaced"), pipe, ("shrinks".into(), 3, Some(vec![7; 3]))]);
    let tally = source.shared().tally();
    assert_eq!((tally.vanished, tally.unreadable_count, tally.handed_over, tally.failed), (0, 0, 9, 4));
    assert!(source.again(&Arc::default()).is_none());
}

/// A file of 3 MiB, seen once as another and to be read again.
fn to_be_read_again(directory: &Path) -> Source {
    let file = directory.join("file");
    fs::write(&file, vec![1; 3 << 20]).unwrap();
    let source = source(directory, None);
    read(&source, |path| File::options().append(true).open(path).unwrap().write_all(&[1; 9]).unwrap());
    source
}

#[test]
fn a_log_that_grows_all_the_time_is_stored_as_long_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let source = to_be_read_again(directory.path());
    let append = |path: &Path| File::options().append(true).open(path).unwrap().write_all(&[2; 9]).unwrap();
    let length = (3 << 20) + 9;
    assert_eq!(read_again(&source, append), [("file".into(), length as u64, Some(vec![1; length]))]);
    assert_eq!(named(&source), [""; 0]);
}

#[test]
fn a_file_that_changes_again_in_its_place_is_named() {
    let change: [fn(&File); 3] = [
        |file| file.write_all_at(&[2], 2 << 20).unwrap(),
        |file| file.set_len(1 << 20).unwrap(),
        |file| {
            // What was read already, and it grows.
            file.write_all_at(&[2], 5).unwrap();
            file.write_all_at(&[2], 4 << 20).unwrap();
        },
    ];
    for change in change {
        let directory = tempfile::tempdir().unwrap();
        let source = to_be_read_again(directory.path());
        let found = read_again(&source, |path| change(&File::options().write(true).open(path).unwrap()));
        assert_eq!(found, [("file".into(), (3 << 20) + 9, None)]);
        assert_eq!(named(&source), ["file: it changed while it was read, also when it was read again"]);
    }
}

#[test]
fn a_path_inside_what_is_excluded_is_read_and_nothing_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(directory.path()).unwrap();
    for name in ["cache/keep/x.tmp", "cache/keep/deep/y", "cache/other/z", "cache/file", "srv/a", "srv/b.tmp"] {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), name).unwrap();
    }
    let mut sources = source(&root, None).sources;
    sources.exclude = vec!["cache/".into(), "*.tmp".into(), "deep".into()];
    sources.paths.extend(["cache/keep", "cache/keep/deep/y", "srv/b.tmp"].map(|name| root.join(name)));
    let source = Source::new(sources).unwrap();
    let found: Vec<_> = source.entries().map(|entry| entry.unwrap().path).collect();
    let inside: Vec<_> = found.iter().filter_map(|path| path.strip_prefix(&root).ok()?.to_str()).collect();
    let wanted = ["", "cache", "cache/keep", "cache/keep/deep", "cache/keep/deep/y", "srv", "srv/a", "srv/b.tmp"];
    assert_eq!(inside, wanted);
}

#[test]
fn the_root_of_all_has_no_entry_of_its_own() {
    let mut sources = source(Path::new("/"), None).sources;
    sources.exclude = vec!["/*".into(), "!/usr".into(), "/usr/*".into()];
    let source = Source::new(sources).unwrap();
    let found: Vec<_> = source.entries().map(|entry| entry.unwrap().path).collect();
    assert_eq!(found, [Path::new("/usr")]);
}

#[test]
fn what_a_snapshot_cannot_say_of_a_file_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ancient");
    fs::write(&file, "x").unwrap();
    let long_ago = std::time::UNIX_EPOCH - std::time::Duration::from_secs(100_000_000_000);
    File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
    if fs::metadata(&file).unwrap().modified().unwrap() != long_ago {
        return; // this file system knows no such time either
    }
    let source = source(directory.path(), None);
    assert_eq!(read(&source, |_| {}), [("ancient".into(), Some(b"x".to_vec()))]);
    let tally = source.shared().tally();
    assert_eq!(tally.without_time, [file]);
    assert_eq!((tally.unreadable_count, tally.without_attributes_count), (0, 0));
}

#[test]
fn after_the_deadline_nothing_is_handed_over_and_an_open_file_is_left_out() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        fs::write(directory.path().join(name), name).unwrap();
    }
    let deadline = Instant::now() + std::time::Duration::from_millis(300);
    let source = source(directory.path(), Some(deadline));
    let found = read(&source, |_| std::thread::sleep(std::time::Duration::from_millis(400)));
    assert_eq!(found, [("a".into(), None)]);
    let tally = source.shared().tally();
    assert!(tally.stopped);
    assert_eq!((tally.unreadable_count, tally.vanished, tally.failed), (0, 0, 1));
}

#[test]
fn directories_above_come_first_and_once() {
    let directory = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(directory.path()).unwrap();
    let paths = ["x/b", "x/a", "x/a/inside"].map(|name| root.join(name));
    paths.iter().for_each(|path| fs::create_dir_all(path).unwrap());
    let source = Source::new(Sources {
        paths: paths.to_vec(),
        exclude: Vec::new(),
        one_file_system: true,
        never: Vec::new(),
        put_aside: Vec::new(),
        deadline: None,
        held: None,
        reading: Reading::default(),
    });
    let found: Vec<_> = source.unwrap().entries().map(|entry| entry.unwrap().path).collect();
    let mut wanted: Vec<_> = root.ancestors().filter(|path| path.parent().is_some()).map(Path::to_owned).collect();
    wanted.reverse();
    wanted.extend(["x", "x/a", "x/a/inside", "x/b"].map(|name| root.join(name)));
    assert_eq!(found, wanted);
}

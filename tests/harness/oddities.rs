//! What file systems allow and backups get wrong.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Fills `root` with odd things; the sparse file is `sparse_size` long and holds three small islands of data.
/// Needs root, for other owners.
pub fn oddities(root: &Path, sparse_size: u64) {
    fs::create_dir_all(root.join("empty directory")).expect("our own directory");
    let write = |name: &[u8], text: &[u8]| {
        fs::write(root.join(OsStr::from_bytes(name)), text).expect("our own directory");
    };
    write(b"empty", b"");
    write(b" leading and trailing space ", b"spaces");
    write(b"line\nbreak\tand tab", b"control characters");
    write(b"not utf-8 \xff\xfe", b"bytes");
    write("ünïcödé 🎲".as_bytes(), b"unicode");
    write(b"*[glob]?{a,b}!", b"patterns");
    write(b"-rf", b"looks like an option");
    write(b"back\\slash \"quote\" $HOME", b"shell");
    write(&[b'n'; 255], b"the longest name");
    write(b"one byte", b"1");

    sparse(&root.join("sparse"), sparse_size);

    symlink("empty", root.join("link")).expect("our own directory");
    symlink("nowhere/at all", root.join("dangling link")).expect("our own directory");
    symlink("empty directory", root.join("link to a directory")).expect("our own directory");
    symlink(OsStr::from_bytes(b"\xff"), root.join("link to bytes")).expect("our own directory");
    fs::hard_link(root.join("one byte"), root.join("empty directory/hard link")).expect("the same file system");

    for mode in [0o000, 0o400, 0o4755, 0o2755, 0o1644] {
        let path = root.join(format!("mode {mode:o}"));
        fs::write(&path, format!("{mode:o}")).expect("our own directory");
        // The owner first: changing it clears the set-id bits.
        chown(&path, Some(1234), Some(5678)).expect("we are root");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("we are root");
    }
    lchown(root.join("link"), Some(1234), Some(5678)).expect("we are root");

    let attributes = root.join("attributes");
    fs::write(&attributes, b"has attributes").expect("our own directory");
    xattr::set(&attributes, "user.comment", b"text").expect("the file system has extended attributes");
    xattr::set(&attributes, "user.binary", b"\0\xff").expect("the file system has extended attributes");
    xattr::set(root.join("empty directory"), "user.folder", b"too").expect("the file system has extended attributes");

    let moment = |seconds: u64, nanos: u32| SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
    for (name, time) in [("old", moment(1, 1)), ("nanoseconds", moment(1_500_000_000, 123_456_789))] {
        fs::write(root.join(name), name).expect("our own directory");
        let file = File::options().write(true).open(root.join(name)).expect("our own file");
        file.set_times(FileTimes::new().set_modified(time).set_accessed(time)).expect("our own file");
    }
    let folder = File::open(root.join("empty directory")).expect("our own directory");
    folder.set_times(FileTimes::new().set_modified(moment(1_400_000_000, 987_654_321))).expect("our own directory");
}

fn sparse(path: &Path, size: u64) {
    let mut file = File::create(path).expect("our own directory");
    file.set_len(size).expect("a hole costs nothing");
    for (place, text) in [(0, "start"), (size / 2, "middle"), (size - 3, "end")] {
        file.seek(SeekFrom::Start(place)).expect("a regular file");
        file.write_all(text.as_bytes()).expect("there is space");
    }
}

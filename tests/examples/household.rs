//! Makes and changes the households of the tests, for `bench/bench.sh`:
//! `household make DIR BYTES FILES` and `household change DIR FRACTION NIGHT`.

use harness::{Household, Size};

const USAGE: &str = "usage: household make DIR BYTES FILES | household change DIR FRACTION NIGHT";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["make", root, bytes, files] => {
            let size = Size { bytes: bytes.parse().expect(USAGE), files: files.parse().expect(USAGE) };
            Household::make(root, size, 1);
        }
        ["change", root, fraction, night] => {
            let night: u64 = night.parse().expect(USAGE);
            Household::existing(root, night).change(fraction.parse().expect(USAGE));
        }
        _ => panic!("{USAGE}"),
    }
}

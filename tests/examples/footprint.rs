//! The memory of each command, for `bench/memory.sh`: `footprint local|s3 BYTES FILES [RATE]`, with a rate as `[limits] upload`.

use harness::{Config, Garage, Household, Scratch, Size, TlsProxy, footprints};

const USAGE: &str = "usage: footprint local|s3 BYTES FILES [RATE]";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (storage, bytes, files, rate) = match words[..] {
        [storage, bytes, files] => (storage, bytes, files, None),
        [storage, bytes, files, rate] => (storage, bytes, files, Some(rate)),
        _ => panic!("{USAGE}"),
    };
    let scratch = Scratch::new();
    let size = Size { bytes: bytes.parse().expect(USAGE), files: files.parse().expect(USAGE) };
    let mut household = Household::make(scratch.directory("srv"), size, 1);
    let server = (storage == "s3").then(|| {
        let garage = Garage::start();
        (TlsProxy::before(&garage), garage)
    });
    let mut config = match &server {
        None => Config::local(scratch.path()),
        Some((proxy, _)) => {
            let (url, endpoint) =
                (format!("s3://{}/bench", Garage::BUCKET), format!("https://localhost:{}", proxy.port()));
            Config::s3(scratch.path(), &url, &endpoint, proxy.ca_file(), (Garage::KEY_ID, Garage::KEY))
        }
    };
    if let Some(rate) = rate {
        config = config.table(&format!("[limits]\nupload = \"{rate}\""));
    }
    let config = config.directory("foundry", &[&household.foundry()], "read-all-months = 1\ncheck-every = \"30d\"");
    let found = footprints(&config.write(), &config, &mut household, &scratch);
    let each: Vec<_> =
        found.iter().map(|(name, bytes)| format!("{name} {:.1}", *bytes as f64 / f64::from(1 << 20))).collect();
    println!("{}: MiB at the peak: {}", words.join(" "), each.join(", "));
}

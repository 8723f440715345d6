//! "Am I safe?": the page, the files of each night, and what another host sees in storage.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::nights::Month;
use harness::{Config, Scratch};
use quick_xml::Reader;
use quick_xml::events::Event;

/// Keys that others rely on.
const KEYS: [&str; 6] = ["schema", "host", "generated_at", "healthy", "steps", "alarms"];
const STEP_KEYS: [&str; 14] = [
    "name",
    "kind",
    "last_outcome",
    "last_success",
    "age_seconds",
    "duration_seconds",
    "bytes_processed",
    "bytes_added",
    "bytes_stored",
    "files_skipped",
    "restore_points",
    "success_rate_30d",
    "last_restore_test",
    "wal",
];

/// Reads a page as strictly as XML: every tag closed in its order. Gives the names of its elements and its text.
fn parsed(html: &str) -> (BTreeSet<String>, String) {
    let mut reader = Reader::from_str(html);
    let (mut open, mut seen, mut text) = (0_i32, BTreeSet::new(), String::new());
    loop {
        let event = reader.read_event().unwrap_or_else(|error| panic!("at {}: {error}", reader.buffer_position()));
        if let Event::Start(element) | Event::Empty(element) = &event {
            seen.insert(String::from_utf8(element.name().as_ref().to_vec()).unwrap());
            for attribute in element.attributes() {
                let attribute = attribute.unwrap();
                let (key, value) = (attribute.key.as_ref(), String::from_utf8(attribute.value.to_vec()).unwrap());
                assert!(!key.starts_with(b"on") && key != b"src", "nothing is loaded and nothing runs: {value}");
                assert!(key != b"href" || value == "data:,", "{value}");
            }
        }
        match event {
            Event::Start(_) => open += 1,
            Event::End(_) => open -= 1,
            Event::Text(piece) => text.push_str(std::str::from_utf8(&piece).unwrap()),
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(open, 0, "every element is closed");
    (seen, text)
}

#[test]
fn the_page_is_whole_in_good_and_bad_months() {
    for month in [Month::None, Month::Good, Month::Bad] {
        let scratch = Scratch::new();
        let file = scratch.join("status.html");
        let agent = month.write(&scratch);
        agent.ok(["status", "--html", file.to_str().unwrap()]);
        let html = fs::read_to_string(&file).unwrap();
        let (elements, text) = parsed(&html);
        for word in ["://", "@import", "url(", "<script", "javascript:", "\u{1b}"] {
            assert!(!html.contains(word), "{word} in the page of {month:?}");
        }
        assert!(!elements.contains("script") && text.contains("test-host") && text.contains("foundry"));
        let charts = html.matches("<svg role=\"img\"").count();
        assert_eq!(charts, if month == Month::None { 0 } else { 15 }, "three for each step of {month:?}");
        assert_eq!(html.matches("<desc>").count(), charts, "each says in words what it shows");
        assert_eq!(html.contains("&lt;script&gt;alert(&quot;1&quot;)"), month == Month::Bad, "{month:?}");
        let verdict = match month {
            Month::None => "✗ not safe: 5 of 5 steps have no backup yet",
            Month::Good => "✓ safe: all 5 steps have a recent backup",
            Month::Bad => "✗ not safe: ",
        };
        assert!(text.contains(verdict), "{month:?}: {}", agent.ok(["status"]));
        if month == Month::Good {
            assert!(html.contains("monthly, for good") && html.contains("for good (14)"), "retention is seen");
        }
    }
}

#[test]
fn a_reader_of_the_page_never_sees_half_of_it() {
    let scratch = Scratch::new();
    let agent = Month::Good.write(&scratch);
    let file = scratch.join("www/status.html");
    let write = || agent.ok(["status", "--html", file.to_str().unwrap()]);
    write();
    let mode = || fs::metadata(&file).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(), 0o600);
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();

    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reads = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                let html = fs::read_to_string(&file).unwrap();
                assert!(html.starts_with("<!DOCTYPE html>") && html.ends_with("</html>\n"));
                reads += 1;
            }
            reads
        });
        for _ in 0..5 {
            write();
        }
        done.store(true, Ordering::Relaxed);
        assert!(reads.join().unwrap() > 10);
    });
    assert_eq!(mode(), 0o644, "whoever was allowed to read it still is");
    assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
}

/// A strict reader of Prometheus' text format, as far as node_exporter takes it: gives the samples.
fn samples(text: &str) -> Vec<(String, f64)> {
    let is_name = |name: &str| {
        name.starts_with("pi_agent_") && name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
    };
    let (mut family, mut seen, mut samples) = (String::new(), BTreeSet::new(), Vec::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(is_name(name) && words.ends_with('.'), "{line}");
            assert!(seen.insert(name.to_owned()), "{name} stands in one place");
            assert_eq!(lines.next().unwrap(), format!("# TYPE {name} gauge"));
            family = name.to_owned();
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert_eq!(name, family, "samples follow their help");
        let labels = labels.strip_suffix('}').unwrap();
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once('=').unwrap();
            assert!(["step", "alarm"].contains(&key) && value.starts_with('"') && value.ends_with('"'), "{line}");
        }
        assert!(!samples.iter().any(|(known, _)| known == series), "{series} once");
        samples.push((series.to_owned(), value.parse().unwrap()));
    }
    assert!(text.ends_with('\n'));
    samples
}

#[test]
fn every_night_leaves_a_page_json_and_metrics_here_and_json_in_storage() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/foundry");
    fs::write(source.join("world.json"), "{}".repeat(5000)).unwrap();
    let collector = scratch.join("node-exporter");
    let config = |extra: &str| Config::local(scratch.path()).local_lines(extra).directory("foundry", &[&source], "");
    let setting = format!("prometheus = \"{}\"", collector.display());
    let agent = config(&setting).write();

    // The collector's directory is missing: that is told, and costs nothing else.
    let night = agent.run(["run", "--json"]).expect(5);
    assert_eq!(night.step("foundry")["outcome"], "succeeded");
    assert!(night.json()["problems"][0]["message"].as_str().unwrap().contains("node-exporter"), "{night}");

    fs::create_dir(&collector).unwrap();
    agent.ok(["run"]);
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let here = |name: &str| read(&agent.state().join(name));
    let (_, text) = parsed(&here("status.html"));
    assert!(text.contains("foundry") && text.contains("restore points"));

    for document in [here("status.json"), read(&scratch.join("storage/status.json"))] {
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert!(KEYS.iter().all(|key| document.get(key).is_some()), "{document}");
        let step = &document["steps"][0];
        assert!(STEP_KEYS.iter().all(|key| step.get(key).is_some()), "{document}");
        assert_eq!((&step["last_outcome"], &step["restore_points"]), (&"succeeded".into(), &2.into()));
        assert!(step["deduplication_ratio"].as_f64().unwrap() > 0.0, "{document}");
    }

    let metrics = here("pi-agent.prom");
    assert_eq!(metrics, read(&collector.join("pi-agent.prom")));
    let mode = fs::metadata(collector.join("pi-agent.prom")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "node_exporter is another user");
    let samples = samples(&metrics);
    let of = |series: &str| samples.iter().find(|(known, _)| known == series).unwrap_or_else(|| panic!("{series}")).1;
    assert_eq!(of("pi_agent_backup_last_usable{step=\"foundry\"}"), 1.0);
    assert_eq!(of("pi_agent_backup_processed_bytes{step=\"foundry\"}"), 10_000.0);
    assert_eq!(of("pi_agent_alarm{alarm=\"recovery-kit\",step=\"\"}"), 1.0);
    let now = jiff::Timestamp::now().as_second() as f64;
    assert!((now - of("pi_agent_backup_last_success_timestamp_seconds{step=\"foundry\"}")).abs() < 60.0);
}

#[test]
fn a_status_that_cannot_be_put_into_storage_is_a_problem_and_not_more() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/foundry");
    fs::write(source.join("world.json"), "{}").unwrap();
    let agent = Config::local(scratch.path()).directory("foundry", &[&source], "").write();
    agent.ok(["run"]);
    fs::remove_file(scratch.join("storage/status.json")).unwrap();
    fs::create_dir_all(scratch.join("storage/status.json/in-the-way")).unwrap();
    let night = agent.ok(["run", "--json"]);
    let step = night.step("agent");
    assert_eq!(step["outcome"], "succeeded");
    assert!(step["problems"][0]["message"].as_str().unwrap().contains("status.json"), "{night}");
}

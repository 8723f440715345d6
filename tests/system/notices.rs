//! Notices reach Discord: every one, in order, whatever happens on the way.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use harness::processes::{CALLS, kill_at};
use harness::{Agent, Config, Discord, Household, Scratch, Size, Trouble};
use nix::sys::signal::Signal;
use serde_json::Value;

struct Host {
    discord: Discord,
    scratch: Scratch,
    household: Household,
}

fn host() -> Host {
    let scratch = Scratch::new();
    let household = Household::make(scratch.join("srv"), Size { bytes: 200_000, files: 20 }, 1);
    Host { discord: Discord::start(), scratch, household }
}

impl Host {
    fn agent(&self, notify: &str) -> Agent {
        let config =
            Config::local(self.scratch.path()).directory("foundry", &[&self.household.foundry()], "").table(notify);
        let agent = config.write();
        config.secret("discord.env", &format!("DISCORD_WEBHOOK_URL={}\n", self.discord.url()));
        // Without one there is an alarm.
        agent.ok(["recovery-kit", "--to", self.scratch.join("kit.txt").to_str().unwrap()]);
        agent
    }

    fn outbox(&self, agent: &Agent) -> Vec<PathBuf> {
        let files = fs::read_dir(agent.state().join("outbox/discord")).into_iter().flatten().flatten();
        let mut files: Vec<_> =
            files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|kind| kind == "json")).collect();
        files.sort();
        files
    }
}

/// What `notify test` sends, in order.
const KINDS: [&str; 7] = [
    "🟠 test: a step is degraded",
    "🔴 test: a step failed",
    "🔴 test: a step failed",
    "✅ test: a step is well again",
    "💚 test: all healthy",
    "🟢 test: backup succeeded in 4 min",
    "🟢 test: this is what a test says",
];

#[test]
fn a_test_sends_one_of_each_kind_within_the_rate_limit() {
    let host = host();
    host.discord.limit_rate();
    let agent = host.agent("");
    agent.ok(["notify", "test"]).says("Discord: 7 messages sent");
    agent.run(["doctor"]).says("Discord is told");
    assert_eq!(host.discord.titles(), KINDS);
    assert!(host.discord.messages().iter().all(|message| Discord::incident(message).starts_with("test-")));
    assert_eq!(host.outbox(&agent), Vec::<PathBuf>::new());
    let record = fs::read_to_string(agent.state().join("outbox/discord/sent.jsonl")).unwrap();
    assert_eq!(record.matches("\"answer\":\"1000000000000000").count(), 7, "{record}");
}

#[test]
fn every_message_arrives_in_order_after_every_fault() {
    let host = host();
    let agent = host.agent("");
    host.discord.trouble([
        Trouble::Reset,
        Trouble::Status(500),
        Trouble::TooMany(300),
        Trouble::LoginPage,
        Trouble::Status(502),
        Trouble::TooMany(1200),
    ]);
    agent.ok(["notify", "test"]).says("Discord: 7 messages sent");
    assert_eq!(host.discord.titles(), KINDS);
}

#[test]
fn an_answer_that_is_lost_costs_a_repetition_and_no_message() {
    let host = host();
    let agent = host.agent("");
    host.discord.trouble([Trouble::LostAnswer]);
    agent.ok(["notify", "test"]);
    let titles = host.discord.titles();
    assert_eq!(titles[0], KINDS[0], "twice");
    assert_eq!(titles[1..], KINDS);
    let messages = host.discord.messages();
    assert_eq!(Discord::incident(&messages[0]), Discord::incident(&messages[1]));
}

#[test]
fn a_kill_between_any_two_lines_loses_nothing() {
    let host = host();
    let agent = host.agent("");
    let mut killed = 0;
    for calls in CALLS {
        for time in 1..=25 {
            host.discord.forget();
            let before = newest_number(&agent);
            let status = kill_at(&agent.command(["notify", "test"]), calls, time);
            let posted = newest_number(&agent) - before;
            agent.ok(["notify", "deliver", "--for", "20s"]);
            assert_eq!(host.outbox(&agent), Vec::<PathBuf>::new(), "{calls} {time}");
            let mut messages: Vec<_> = host
                .discord
                .messages()
                .iter()
                .map(|message| (Discord::incident(message), message["embeds"][0]["title"].clone()))
                .collect();
            let sent = messages.len();
            messages.dedup();
            // The second and the third look alike.
            let expected = if posted >= 3 { posted - 1 } else { posted };
            assert_eq!(messages.len() as u64, expected, "{calls} {time}: {messages:#?}");
            assert!(sent as u64 <= posted + 1, "{calls} {time}: more than one repetition");
            if status.code() == Some(0) {
                break;
            }
            killed += 1;
        }
    }
    assert!(killed > 40, "killed only {killed} times");
}

/// Of all messages that ever were in the outbox.
fn newest_number(agent: &Agent) -> u64 {
    let place = agent.state().join("outbox/discord");
    let record = fs::read_to_string(place.join("sent.jsonl")).unwrap_or_default();
    let sent = record.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()?["number"].as_u64());
    let waiting = fs::read_dir(place).into_iter().flatten().flatten();
    let waiting = waiting.filter_map(|file| file.file_name().to_str()?.split_once('-')?.0.parse().ok());
    sent.chain(waiting).max().unwrap_or(0)
}

#[test]
fn what_cannot_be_sent_waits_and_is_sent_later() {
    let host = host();
    let agent = host.agent("");
    host.discord.set_down(true);
    agent.ok(["notify", "deliver", "--for", "1s"]);
    let mut test = agent.start(["notify", "test"]);
    let started = Instant::now();
    while host.outbox(&agent).len() < 7 {
        assert!(!test.has_ended() && started.elapsed() < Duration::from_secs(20), "not everything is in the outbox");
        std::thread::sleep(Duration::from_millis(20));
    }
    test.signal(Signal::SIGKILL);
    test.wait();
    agent.run(["notify", "deliver", "--for", "1s"]).expect(1).says("7 wait");
    host.discord.set_down(false);
    agent.ok(["notify", "deliver", "--for", "10s"]);
    assert_eq!(host.discord.titles(), KINDS);
}

#[test]
fn a_webhook_that_was_deleted_is_told_and_the_new_one_gets_what_waited() {
    let host = host();
    let agent = host.agent("");
    host.discord.trouble([Trouble::Status(404)]);
    let ran = agent.run(["notify", "test"]).expect(1);
    ran.says("Discord: 0 messages sent, 7 wait").says("its address is wrong or was revoked");
    assert!(!ran.stderr.contains("T0ken") && !ran.stdout.contains("T0ken"), "{ran}");
    agent.ok(["notify", "deliver", "--for", "5s"]);
    assert_eq!(host.discord.titles(), KINDS);
}

#[test]
fn a_form_that_is_refused_goes_plain_and_then_aside() {
    let host = host();
    let agent = host.agent("");
    host.discord.trouble([Trouble::Status(400), Trouble::Status(400), Trouble::Status(400)]);
    agent.ok(["notify", "test"]);
    // The first as embed and as plain text, the second as embed.
    let titles = host.discord.titles();
    assert!(titles[0].contains("a step failed") && titles[0].contains("This is a test"), "{}", titles[0]);
    assert_eq!(titles[1..], KINDS[2..]);
    let refused: Vec<_> = fs::read_dir(agent.state().join("outbox/discord/refused")).unwrap().collect();
    assert_eq!(refused.len(), 1);
}

#[test]
fn a_long_rest_is_kept_across_processes() {
    let host = host();
    let agent = host.agent("");
    host.discord.trouble([Trouble::TooMany(70_000)]);
    agent.run(["notify", "test"]).expect(1).says("left alone");
    agent.run(["notify", "deliver", "--for", "1s"]).expect(1).says("left alone");
    assert_eq!(host.discord.titles(), [""; 0]);
    fs::write(agent.state().join("outbox/discord/rest"), "0").unwrap();
    agent.ok(["notify", "deliver", "--for", "5s"]);
    assert_eq!(host.discord.titles(), KINDS);
}

#[test]
fn without_a_service_a_test_says_what_to_do() {
    let scratch = Scratch::new();
    let agent = Config::local(scratch.path()).directory("logs", &[scratch.path()], "exclude = [\"**\"]").write();
    agent.run(["notify", "test"]).expect(2).says("no service is configured").says("discord.env");
}

#[test]
fn other_services_hear_what_concerns_them() {
    let host = host();
    let notify = format!(
        "[notify]\nsummary = \"daily\"\nping-urls = [\"{}\"]\nntfy-urls = [\"{}\"]\nwebhooks = [\"{}\"]\n",
        host.discord.other("ping/uuid-1"),
        host.discord.other("attic-pi"),
        host.discord.other("hook")
    );
    let agent = host.agent(&notify);
    agent.ok(["run"]);
    let requests = host.discord.requests();
    let to = |start: &str| requests.iter().filter(|request| request.starts_with(start)).count();
    assert_eq!((to("POST /ping/uuid-1/start "), to("POST /ping/uuid-1 ")), (1, 1), "{requests:#?}");
    assert_eq!((to("POST / {"), to("POST /hook {")), (1, 1), "{requests:#?}");
    assert!(
        requests
            .iter()
            .any(|request| request.contains("\"topic\":\"attic-pi\"") && request.contains("foundry: succeeded"))
    );
    assert_eq!(host.discord.titles().len(), 1, "the summary");
    // A part of the sequence is no night.
    host.discord.forget();
    agent.ok(["run", "foundry"]);
    assert_eq!(host.discord.requests(), [""; 0]);
}

#[test]
fn the_heartbeat_comes_once_a_day_at_most() {
    let host = host();
    let agent = host.agent("");
    agent.ok(["run"]);
    agent.ok(["heartbeat"]);
    agent.ok(["heartbeat"]);
    let titles = host.discord.titles();
    assert_eq!(titles, ["💚 all healthy"], "{titles:?}");
    let text = host.discord.messages()[0]["embeds"][0]["description"].as_str().unwrap().to_owned();
    assert!(text.contains("foundry") && text.contains("100 %"), "{text}");
}

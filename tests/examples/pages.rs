//! Writes the status page of three households for looking at: `cargo run -p pi-agent-tests --example pages -- DIR`.

use std::path::Path;

use harness::nights::Month;
use harness::{Agent, Scratch};

fn main() {
    let directory = std::env::args().nth(1).expect("usage: pages DIR");
    for (name, month) in [("none", Month::None), ("good", Month::Good), ("bad", Month::Bad)] {
        let scratch = Scratch::new();
        let file = Path::new(&directory).join(format!("{name}.html"));
        let agent = month.write(&scratch).program(Agent::binary());
        agent.ok(["status", "--html", file.to_str().expect("an ordinary path")]);
        println!("{}\n{}", file.display(), agent.ok(["status"]).stdout);
    }
}

//! Writes the status page of three households for looking at: `cargo run -p pi-agent-tests --example pages -- DIR`.
//!
//! With Debian's chromium, by day (1) and by night (0): `chromium --headless --no-sandbox --enable-logging=stderr
//! --window-size=1280,900 --blink-settings=preferredColorScheme=0 --screenshot=good.png file://DIR/good.html`. A window is at least
//! 500 pixels wide: for a phone, put the page into an `<iframe style="width:320px">`. Not in the suite: the browser is 300 MB.

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

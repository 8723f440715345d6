//! pi-agent.
fn main() {}

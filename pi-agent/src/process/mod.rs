//! The only place that starts processes.
//!
//! Everything started here leads a session of its own. Ending a program means ending every process of its session,
//! found in `/proc`: pgBackRest's workers change groups and outlive a signal to their parent.

mod acting_as;
mod below;
mod confined;
mod own;
mod pipe;
mod program;
mod session;
mod system_calls;
mod tail;
mod user;

pub use acting_as::acting_as;
pub use below::{
    adopt_orphans, become_guard, descendants_io, end_descendants, end_outliving, family, go_on, read_by, stand_still,
};
pub use confined::{Inside, Place, Reach};
pub use own::{
    GIVES_BACK, MOVES_MUCH, on_end, on_sigterm, peak_memory, survive_hangup, with_little_memory, without_core_files,
};
pub use pipe::Piped;
pub use program::{Output, Program, Stop, Stream};
pub use session::{Orphaned, Priority, lead_session, prioritise};
pub use user::User;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::error::Kind;

    fn shell(script: &str) -> Program {
        Program::new("sh", ["-c", script])
    }

    #[test]
    fn who_started_it_may_ask_it_to_end() {
        let stop = Stop::default();
        let program = shell("trap 'exit 7' INT; echo ready; while :; do sleep 0.05; done").stopped_by(&stop);
        let output = program.run(&mut |_, _| stop.ask()).unwrap();
        assert_eq!(output.status.code(), Some(7));
        // Asked before, it ends as soon as it runs.
        let stop = Stop::default();
        stop.ask();
        let output = shell("sleep 30").stopped_by(&stop).run(&mut |_, _| ()).unwrap();
        assert!(!output.status.success());
    }

    #[test]
    fn output_of_both_streams_and_the_exit_code_come_back() {
        let mut seen = Vec::new();
        let output = shell("echo one; echo two >&2; exit 7")
            .run(&mut |stream, line| seen.push((stream, line.to_owned())))
            .unwrap();
        assert_eq!(output.status.code(), Some(7));
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("one\n", "two\n"));
        seen.sort_by_key(|(stream, _)| *stream == Stream::Err);
        assert_eq!(seen, [(Stream::Out, "one".into()), (Stream::Err, "two".into())]);
    }

    #[test]
    fn a_line_without_an_end_takes_no_more_memory_than_one_may_have() {
        let mut longest = 0;
        let output =
            shell("head -c 100000000 /dev/zero").run(&mut |_, line| longest = longest.max(line.len())).unwrap();
        assert!(output.status.success());
        assert_eq!((longest, output.stdout.len()), (32 << 20, 64 << 20));
    }

    #[test]
    fn a_missing_program_is_not_found() {
        let error = Program::new("no-such-program", [""; 0]).run(&mut |_, _| ()).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
    }

    #[test]
    fn the_deadline_ends_everything_it_started() {
        let marker = format!("{}", 100_000 + std::process::id());
        let script = format!("sleep {marker} & trap '' TERM; sleep {marker}");
        let started = Instant::now();
        let error = shell(&script).within(Duration::from_millis(300)).run(&mut |_, _| ()).unwrap_err();
        assert_eq!(error.kind(), Kind::Transient);
        assert!(started.elapsed() < Duration::from_secs(30));
        assert!(
            !Program::new("pgrep", ["-f", &format!("sleep {marker}")]).run(&mut |_, _| ()).unwrap().status.success()
        );
    }

    fn piped(script: &str, deadline: Duration, patience: Duration) -> (String, Option<String>) {
        let mut pipe = shell(script).within(deadline).pipe(patience).unwrap();
        let mut text = String::new();
        let error = pipe.read_to_string(&mut text).err().map(|error| error.to_string());
        (text, error)
    }

    #[test]
    fn piped_output_ends_well_only_with_exit_code_0() {
        let long = Duration::from_secs(60);
        assert_eq!(piped("echo one; echo two", long, long), ("one\ntwo\n".into(), None));
        let (text, error) = piped("echo half; echo broken >&2; exit 1", long, long);
        assert_eq!((text.as_str(), error.as_deref()), ("half\n", Some("sh ended with exit status: 1: broken")));
        let (_, error) = piped("echo half; kill -9 $$", long, long);
        assert!(error.unwrap().contains("signal: 9"));
    }

    #[test]
    fn piped_output_that_stops_coming_is_an_error_and_the_program_ends() {
        let (long, short) = (Duration::from_secs(60), Duration::from_millis(300));
        let marker = format!("{}", 200_000 + std::process::id());
        let script = format!("echo half; sleep {marker}");
        assert_eq!(piped(&script, long, short).1.as_deref(), Some("sh was silent for 0 s"));
        assert_eq!(piped(&script, short, long).1.as_deref(), Some("sh did not finish in time"));
        assert_eq!(
            piped(&format!("exec >&-; sleep {marker}"), long, short).1.as_deref(),
            Some("sh was silent for 0 s")
        );
        assert!(
            !Program::new("pgrep", ["-f", &format!("sleep {marker}")]).run(&mut |_, _| ()).unwrap().status.success()
        );
    }

    #[test]
    fn a_child_that_keeps_the_pipe_does_not_keep_us() {
        let started = Instant::now();
        let output = shell("sleep 1000 & echo done").run(&mut |_, _| ()).unwrap();
        assert_eq!(output.stdout, "done\n");
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    fn first_line(child: &mut std::process::Child) -> String {
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line
    }

    #[test]
    fn what_outlives_its_leader_is_found_by_its_arguments() {
        let marker = format!("--pid={}", std::process::id());
        let orphan = format!("tail -f /dev/null {marker} & echo $!");
        let lead = |script: &str| {
            let mut command = std::process::Command::new("setsid");
            command.args(["sh", "-c", script]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
            command.spawn().unwrap()
        };
        let alive = |pid: &str| std::path::Path::new("/proc").join(pid.trim()).join("exe").read_link().is_ok();

        let mut leader = lead(&orphan);
        let ended = first_line(&mut leader);
        leader.wait().unwrap();
        let mut living = lead(&format!("{orphan}; read line"));
        let led = first_line(&mut living);
        assert!(alive(&ended) && alive(&led));
        end_outliving("--pid=none").unwrap();
        assert!(alive(&ended), "it is another's");
        end_outliving(&marker).unwrap();
        assert_eq!((alive(&ended), alive(&led)), (false, true));

        drop(living.stdin.take());
        living.wait().unwrap();
        end_outliving(&marker).unwrap();
        assert!(!alive(&led));
    }

    #[test]
    fn secrets_of_our_environment_are_not_handed_on() {
        let output = shell("env").env("GIVEN", "yes").run(&mut |_, _| ()).unwrap();
        let mut names: Vec<&str> = output.stdout.lines().filter_map(|line| line.split('=').next()).collect();
        names.retain(|name| !matches!(*name, "PATH" | "LANG" | "TZ" | "PWD" | "SHLVL" | "_" | "OLDPWD"));
        assert_eq!(names, ["GIVEN"]);
    }
}

//! `pi-agent(1)`: the template, with the command line as clap knows it.

use clap::{Arg, Command};

use super::roff;

/// Fills `@TITLE@`, `@OPTIONS@` and `@COMMANDS@` in.
pub fn render(template: &str) -> String {
    let mut command = pi_agent::cli::command();
    command.build();
    let options: String = command.get_arguments().filter(|argument| argument.is_global_set()).map(argument).collect();
    template
        .replace("@TITLE@\n", &roff::title("pi-agent", 1))
        .replace("@OPTIONS@\n", &options)
        .replace("@COMMANDS@\n", &subcommands(&command))
}

fn subcommands(command: &Command) -> String {
    let mut page = String::new();
    for subcommand in command.get_subcommands().filter(|subcommand| shown(subcommand)) {
        if subcommand.has_subcommands() {
            page.push_str(&subcommands(subcommand));
            continue;
        }
        let usage = subcommand.clone().render_usage().to_string();
        page.push_str(&format!(".SS {}\n", roff::escape(usage.trim_start_matches("Usage: "))));
        let about = subcommand.get_long_about().or_else(|| subcommand.get_about());
        page.push_str(&format!("{}.\n", prose(&about.map(ToString::to_string).unwrap_or_default())));
        page.extend(
            subcommand
                .get_arguments()
                .filter(|argument| !argument.is_global_set() && !argument.is_hide_set())
                .filter(|argument| !["help", "version"].contains(&argument.get_id().as_str()))
                .map(argument),
        );
    }
    page
}

/// Not internal, and not clap's own `help`.
fn shown(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

fn argument(argument: &Arg) -> String {
    let help = argument.get_long_help().or_else(|| argument.get_help()).map(ToString::to_string).unwrap_or_default();
    let defaults = if argument.get_action().takes_values() { argument.get_default_values() } else { &[] };
    let default: Vec<_> = defaults.iter().map(|value| value.to_string_lossy()).collect();
    let default = if default.is_empty() { String::new() } else { format!(" [default: {}]", default.join(" ")) };
    roff::entry(&roff::bold(&argument.to_string()), &prose(&format!("{help}{default}")))
}

/// Help as clap has it: paragraphs between empty lines.
fn prose(help: &str) -> String {
    help.split("\n\n").map(roff::escape).collect::<Vec<_>>().join("\n.PP\n")
}

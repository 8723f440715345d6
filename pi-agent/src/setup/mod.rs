//! `pi-agent setup`: the first hour. [`perform`] reads as the procedure it is; each file here holds one part of it.
//!
//! Nothing is changed before every answer is known and the configuration they make is one that the agent takes. Done
//! twice, the second time changes nothing.

mod answers;
mod bucket;
mod complete;
mod detect;
mod dialogue;
mod estimate;
mod existing;
mod flags;
mod keys;
mod questions;
mod render;
mod servers;
pub(crate) mod units;
mod walk;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use crate::config::{self, Location, Settings, StateDirectory};
use crate::doctor;
use crate::error::{Context, Error, Result};
use crate::kit::record::{self, Standing, standing};
use crate::kit::{self, Marks, To};
use crate::plan::Wanted;
use crate::run::{self, Options};
use crate::secrets::{Secret, write_private};
use crate::systemd;
use crate::terminal::Terminal;

use detect::Found;

pub use dialogue::Dialogue;
pub use estimate::size_of_source;
pub use flags::Flags;
pub use render::render;

/// Something that a person still has to do: the exit code of a step that is degraded.
const LEFT_TO_DO: u8 = 5;

/// What setup works on.
struct Setup<'a> {
    flags: Flags,
    /// `/` but in tests.
    root: &'a Path,
    config: PathBuf,
    state: &'a StateDirectory,
    dialogue: Option<Dialogue>,
}

/// Does it; the exit code.
///
/// # Errors
/// A required answer is missing, a flag is wrong or contradicts the configuration that exists (kind `Usage`), or
/// something cannot be written.
pub fn perform(flags: Flags, config: &Path, state: &StateDirectory) -> Result<u8> {
    let dialogue = if flags.unattended { None } else { Dialogue::open() };
    let config = std::path::absolute(config).context(|| format!("understand {}", config.display()))?;
    let setup = Setup { flags: flags.absolute()?, root: Path::new("/"), config, state, dialogue };

    let settings = setup.configuration()?;
    servers::prepare(&settings)?;
    setup.tell_of_servers(&settings)?;
    setup.tell_of_the_bucket(&settings)?;
    say(&heading("The first upload"))?;
    say(&estimate::text(&settings, estimate::upload_limit(&settings.file)))?;
    let saved = setup.kit(&settings)?;
    setup.timers(&settings, saved)?;
    let code = setup.doctor()?;
    Ok(setup.first_run(&settings)?.unwrap_or(code))
}

impl Setup<'_> {
    /// The configuration and its secrets, new or as they were.
    fn configuration(&self) -> Result<Settings> {
        let exists = self.config.symlink_metadata().is_ok();
        let keep = exists && !self.flags.overwrite && !self.asked_to_replace()?;
        let planned = if keep { None } else { Some(self.plan()?) };
        let settings = match &planned {
            Some((_, settings)) => settings.clone(),
            None => existing::load(&self.config)?.ok_or_else(|| Error::new("the configuration vanished"))?,
        };
        if keep {
            existing::agree(&self.flags, &settings)?;
        }
        let secrets = self.given_secrets(&settings)?;
        self.kit_flags_hold(&settings)?;
        if let (Some(dialogue), Some((text, _))) = (&self.dialogue, &planned) {
            dialogue.say(&format!("\n{}", indented(text)))?;
            if !dialogue.yes(&format!("Write this to {}", self.config.display()), true)? {
                return Err(Error::usage("nothing was written").hint("start `pi-agent setup` again"));
            }
        }

        for (name, text) in secrets {
            keys::keep(&settings.secrets, name, &text)?;
            say(&format!("wrote {}\n", settings.secrets.join(name).display()))?;
        }
        keys::are_not_lost(&settings)?;
        for name in keys::make_missing(&settings.secrets)? {
            say(&format!("made {}\n", settings.secrets.join(name).display()))?;
        }
        match planned {
            Some((text, _)) => self.write_configuration(&text, exists)?,
            None => say(&format!("kept {}\n", self.config.display()))?,
        }
        Ok(config::load(&self.config)?)
    }

    /// The text to write, and what it means.
    fn plan(&self) -> Result<(String, Settings)> {
        let found = detect::look(self.root, self.config.parent().unwrap_or(self.root), &detect::containers());
        let answers = match &self.dialogue {
            Some(dialogue) => questions::ask(dialogue, &self.flags, &found, self.root, &self.config)?,
            None => complete::complete(&self.flags, &found, self.root, &self.config)?,
        };
        tell_of_foreign_clusters(&found)?;
        complete::validated(&answers, &self.config)
    }

    fn asked_to_replace(&self) -> Result<bool> {
        let Some(dialogue) = &self.dialogue else { return Ok(false) };
        if self.flags.kit_saved {
            // They come back to finish, not to begin anew.
            return Ok(false);
        }
        dialogue.yes(&format!("{} exists. Replace it (the old one stays beside it)", self.config.display()), false)
    }

    /// The old file stays as `config.toml.old-DATE`.
    fn write_configuration(&self, text: &str, exists: bool) -> Result<()> {
        let shown = self.config.display();
        if exists {
            let date = jiff::Zoned::now().strftime("%Y-%m-%dT%H-%M-%S");
            let old = PathBuf::from(format!("{shown}.old-{date}"));
            std::fs::hard_link(&self.config, &old).context(|| format!("keep {shown} as {}", old.display()))?;
            say(&format!("kept the old configuration as {}\n", old.display()))?;
        }
        write_private(&self.config, text.as_bytes())?;
        say(&format!("wrote {shown}\n"))
    }

    /// Secrets that flags name or that are typed; none is put in the place of a different one.
    fn given_secrets(&self, settings: &Settings) -> Result<Vec<(&'static str, Secret)>> {
        let Flags { aws_env, discord_env, .. } = &self.flags;
        let has = |name: &str| settings.secrets.join(name).exists();
        let s3 = matches!(settings.storage.location, Location::S3(_));
        let aws = match (aws_env, &self.dialogue) {
            (Some(file), _) => Some(keys::aws_env(file)?),
            _ if !s3 || has("aws.env") => None,
            (None, Some(dialogue)) => Some(questions::aws_env(dialogue)?),
            (None, None) => {
                let place = settings.secrets.join("aws.env");
                return Err(Error::usage(format!("--aws-env is missing, and there is no {}", place.display()))
                    .hint("--aws-env FILE, with lines AWS_ACCESS_KEY_ID=… and AWS_SECRET_ACCESS_KEY=…"));
            }
        };
        let discord = match (discord_env, &self.dialogue) {
            (Some(file), _) => Some(keys::discord_env(file)?),
            (None, Some(dialogue)) if !has("discord.env") && !self.flags.kit_saved => questions::discord_env(dialogue)?,
            _ => None,
        };
        let mut secrets = Vec::new();
        for (name, text) in [("aws.env", aws), ("discord.env", discord)] {
            let Some(text) = text else { continue };
            if keys::is_new(&settings.secrets, name, &text, self.flags.overwrite)? {
                secrets.push((name, text));
            }
        }
        Ok(secrets)
    }

    /// `--kit-saved` alone speaks of a kit that was made before.
    fn kit_flags_hold(&self, settings: &Settings) -> Result<()> {
        if !self.flags.kit_saved || self.flags.kit.is_some() {
            return Ok(());
        }
        let record = record::read(self.state)?;
        let known = Marks::of(settings)
            .is_ok_and(|marks| matches!(standing(record.as_ref(), &marks), Standing::Saved | Standing::NotSaved));
        if known {
            return Ok(());
        }
        Err(Error::usage("--kit-saved: no recovery kit was made of the keys and the storage that are in use")
            .hint("--kit FILE writes one; or first pi-agent recovery-kit --to FILE"))
    }

    fn tell_of_servers(&self, settings: &Settings) -> Result<()> {
        for step in &settings.steps {
            if let Some(postgres) = step.postgres() {
                say(&heading(&format!("PostgreSQL, step {}", step.name)))?;
                say(&servers::text(settings, step, postgres))?;
            }
        }
        Ok(())
    }

    fn tell_of_the_bucket(&self, settings: &Settings) -> Result<()> {
        let Location::S3(s3) = &settings.storage.location else { return Ok(()) };
        say(&heading("The bucket"))?;
        let databases = settings.steps.iter().filter(|step| step.postgres().is_some());
        let databases: Vec<_> = databases.map(|step| step.name.as_str()).collect();
        say(&bucket::text(s3, &settings.host, &settings.secrets, &databases))
    }

    /// Writes the kit and asks for the word in it; whether it is saved somewhere else.
    fn kit(&self, settings: &Settings) -> Result<bool> {
        say(&heading("The recovery kit"))?;
        let marks = Marks::of(settings)?;
        let before = standing(record::read(self.state)?.as_ref(), &marks);
        let make = |file: &Path| kit::make(settings, self.state, &To::File(file.to_owned())).map(drop);
        let file = match (&self.flags.kit, &self.dialogue) {
            (Some(file), _) => make(file).map(|()| Some(file.clone()))?,
            (None, Some(dialogue)) if before != Standing::Saved && !self.flags.kit_saved => {
                let default = format!("/root/pi-agent-kit-{}.txt", settings.host);
                dialogue.ask("Where to write it (a stick, if one is mounted; none: later)", &default, |text| {
                    if text == flags::NONE {
                        return Ok(None);
                    }
                    let file = std::path::absolute(text).map_err(|error| error.to_string())?;
                    make(&file).map(|()| Some(file)).map_err(|error| error.chain())
                })?
            }
            _ => None,
        };
        if let Some(file) = &file {
            say(&format!("wrote {}: everything that a blank machine needs, the keys too\n", file.display()))?;
        }
        if self.flags.kit_saved || (file.is_some() && before != Standing::Saved && self.knows_the_word(&marks)?) {
            record::saved(self.state, &marks)?;
        }
        let now = standing(record::read(self.state)?.as_ref(), &marks);
        let config = self.global_flags();
        say(&match now {
            Standing::Saved => "It is saved somewhere else.\n".to_owned(),
            _ => format!(
                "NOT SAVED YET: the only key to the backups lies on the disk that they protect, so no timer is enabled.\n\
                 \x20   pi-agent{config} recovery-kit --to FILE      # then print it, or copy it to another machine\n\
                 \x20   pi-agent{config} setup --kit-saved           # enables the timers\n"
            ),
        })?;
        Ok(now == Standing::Saved)
    }

    /// Asked of a person only.
    fn knows_the_word(&self, marks: &Marks) -> Result<bool> {
        let Some(dialogue) = &self.dialogue else { return Ok(false) };
        dialogue.say("Copy it away from this machine now: print it, or put it into a password manager.")?;
        dialogue.ask("When it is there, type the word that stands in it (empty: later)", "", |text| {
            match text.to_lowercase() {
                text if text.is_empty() => Ok(false),
                text if text == marks.word() => Ok(true),
                _ => Err("that is not the word: it stands after \"Word\", at the top of the kit".into()),
            }
        })
    }

    /// The flags that lead back to this configuration, when it is not the usual one.
    fn global_flags(&self) -> String {
        let mut text = String::new();
        if self.config != Path::new("/etc/pi-agent/config.toml") {
            text.push_str(&format!(" --config {}", self.config.display()));
        }
        if self.state.path() != Path::new("/var/lib/pi-agent") {
            text.push_str(&format!(" --state-directory {}", self.state.path().display()));
        }
        text
    }

    fn timers(&self, settings: &Settings, saved: bool) -> Result<()> {
        say(&heading("The timers"))?;
        if !systemd::is_manager() {
            return say("systemd does not run here: start `pi-agent run` and `pi-agent wal push` in another way.\n");
        }
        let watched = units::write_drop_ins(self.root, settings)?;
        if !saved || self.flags.no_enable {
            let why = if saved { "--no-enable" } else { "the recovery kit is not saved" };
            return say(&format!("not enabled: {why}\n"));
        }
        for command in units::commands(settings, watched) {
            units::systemctl(&command)?;
            say(&format!("systemctl {}\n", command.join(" ")))?;
        }
        Ok(())
    }

    fn doctor(&self) -> Result<u8> {
        say(&heading("The doctor"))?;
        let findings = doctor::examine(&config::load(&self.config), self.state);
        say(&doctor::text(&findings))?;
        Ok(if doctor::healthy(&findings) { 0 } else { LEFT_TO_DO })
    }

    /// The exit code of the first backup, when one was made.
    fn first_run(&self, settings: &Settings) -> Result<Option<u8>> {
        let wanted = match &self.dialogue {
            _ if self.flags.first_run => true,
            Some(dialogue) if !self.flags.kit_saved => dialogue.yes("\nMake the first backup now", false)?,
            _ => false,
        };
        if !wanted {
            return Ok(None);
        }
        say(&heading("The first backup"))?;
        let options =
            Options { wanted: Wanted::Backup, steps: vec![], reason: Some("the first, by setup".into()), wait: false };
        let mut terminal = Terminal::new(std::io::stderr().is_terminal());
        let report = run::run(settings, self.state, &options, &mut terminal)?;
        say(&report.text())?;
        Ok(Some(report.exit_code()))
    }
}

fn tell_of_foreign_clusters(found: &Found) -> Result<()> {
    for data in &found.foreign_clusters {
        say(&format!(
            "PostgreSQL's data in {} belongs to no server that runs; for one in a container: kind = \"postgres\", container = \"NAME\"\n",
            data.display()
        ))?;
    }
    Ok(())
}

fn heading(title: &str) -> String {
    format!("\n== {title} ==\n\n")
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// To standard output, where results go.
fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context(|| "write the result".into())
}

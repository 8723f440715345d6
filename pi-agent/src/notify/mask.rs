//! Secrets must not leave in a message, whatever an error quoted.

use std::path::Path;

use reqwest::Url;

use crate::config::Settings;
use crate::secrets::Secret;

/// What must not be shown.
#[derive(Clone, Default)]
pub struct Mask(Vec<String>);

/// Shorter ones would make every second word unreadable; real keys are longer.
const SHORTEST: usize = 8;

impl Mask {
    /// Every value in the files of the secrets directory, and the addresses of services. A file that cannot be read has
    /// not been read by whoever wrote the text either.
    pub fn of(settings: &Settings) -> Self {
        let below =
            |directory: &Path| std::fs::read_dir(directory).into_iter().flatten().flatten().map(|file| file.path());
        let files = below(&settings.secrets).chain(below(&settings.secrets.join("master-keys")));
        let mut values: Vec<_> = files.filter(|path| path.is_file()).flat_map(|path| values_of(&path)).collect();
        let urls = settings.notify.ping_urls.iter().chain(&settings.notify.webhooks).chain(&settings.notify.ntfy_urls);
        values.extend(urls.cloned());
        Self::covering(values)
    }

    /// What a service is told by a request: its own address, which is all that one needs to write there, and a token.
    pub fn told(url: &Url, token: Option<&Secret>) -> Self {
        let mut values = vec![url.to_string(), url.path().into()];
        values.extend(url.path_segments().into_iter().flatten().map(str::to_owned));
        values.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
        values.extend(url.query().into_iter().flat_map(|query| query.split(['&', '='])).map(str::to_owned));
        values.extend(url.password().map(str::to_owned));
        values.extend(token.map(|token| token.reveal().to_owned()));
        Self::covering(values)
    }

    fn covering(mut values: Vec<String>) -> Self {
        values.retain(|value| value.len() >= SHORTEST);
        // A key that contains another is taken whole.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self(values)
    }

    /// The text without them.
    pub fn cover(&self, text: &str) -> String {
        self.0.iter().fold(
            text.to_owned(),
            |text, value| {
                if text.contains(value) { text.replace(value, "[secret]") } else { text }
            },
        )
    }
}

/// Each line, and what stands after its `=`.
fn values_of(path: &Path) -> Vec<String> {
    let Ok(text) = std::fs::read_to_string(path) else { return Vec::new() };
    let strip = |value: &str| value.trim().trim_matches(['"', '\'']).to_owned();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines
        .flat_map(|line| {
            let value = line.split_once('=').map(|(_, value)| strip(value));
            value.into_iter().chain([strip(line)])
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn values_of_keys_and_of_variables_are_covered() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
            values_of(&folder.path().join(name))
        };
        let mut values = write("aws.env", "# keys\nexport AWS_SECRET_ACCESS_KEY=\"abc/def+ghi\"\n");
        values.extend(write("restic.key", "correct horse battery\n"));
        let mask = Mask(values);
        let text = "server said: abc/def+ghi is not correct horse battery, keys";
        assert_eq!(mask.cover(text), "server said: [secret] is not [secret], keys");
    }

    #[test]
    fn what_a_service_was_told_is_covered_however_it_says_it_again() {
        let url =
            Url::parse("https://user:password1@discord.example/api/webhooks/1/T0kenT0ken?key=aWVyeSBs%2B&wait=true")
                .unwrap();
        let mask = Mask::told(&url, Some(&Secret::new("bearer-token")));
        for said in [
            "no such hook /api/webhooks/1/T0kenT0ken",
            "T0kenT0ken",
            "api\\/webhooks\\/1\\/T0kenT0ken",
            "aWVyeSBs+",
            "aWVyeSBs%2B",
            "password1",
            "bearer-token",
        ] {
            let covered = mask.cover(said);
            assert!(
                covered.contains("[secret]") && !covered.contains("T0ken") && !covered.contains("WVye"),
                "{said}: {covered}"
            );
        }
        assert_eq!(mask.cover("wait, true"), "wait, true");
    }
}

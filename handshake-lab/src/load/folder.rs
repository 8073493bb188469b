//! Finds scenarios by name in their folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use super::scenario::Scenario;
use super::{file, mistake};

impl Scenario {
    /// Reads the scenario of this name (in the folder `scenarios`), or the file at this path.
    ///
    /// # Errors
    /// There is no such scenario, or its text is invalid; the error has the file, the line and a suggestion.
    pub fn find(word: &str) -> Result<Self> {
        let path = if Path::new(word).extension().is_some_and(|extension| extension == "toml") {
            PathBuf::from(word)
        } else {
            folder().join(word).with_extension("toml")
        };
        if !path.is_file() {
            let names = names()?;
            let near = mistake::nearest(word, names.iter().map(String::as_str));
            let near = near.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default();
            bail!("no scenario {word}{near}; there are {}", names.join(", "));
        }
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        file::parse(&name, &text).map_err(|fault| anyhow!("{}:{fault}", path.display()))
    }

    /// All scenarios of the folder, sorted by name.
    ///
    /// # Errors
    /// As [`Scenario::find`].
    pub fn all() -> Result<Vec<Self>> {
        names()?.iter().map(|name| Self::find(name)).collect()
    }
}

/// The folder of the scenarios.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

/// The scenarios' names in alphabetical order.
fn names() -> Result<Vec<String>> {
    let entries = fs::read_dir(folder()).context("read the folder of scenarios")?;
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let mut names: Vec<String> =
        files.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_of_the_folder_is_valid() -> Result<()> {
        let all = Scenario::all()?;
        assert!(all.len() > 10, "{} scenarios", all.len());
        assert!(all.iter().all(|scenario| scenario.sentence.ends_with('.')));
        Ok(())
    }

    #[test]
    fn an_unknown_name_suggests_a_similar_one() {
        let said = Scenario::find("hanshakes").expect_err("no such scenario").to_string();
        assert!(said.contains("did you mean handshakes?"), "{said}");
    }
}

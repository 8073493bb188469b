//! The licences of the crates that are compiled into the program: most ask for their text beside each copy.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

use super::crates::Linked;

/// How the names of such files begin.
const NAMES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"];

/// Every text once, after the crates that have it.
pub(super) fn of(crates: &[Linked]) -> Result<String> {
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut all = "handshake has parts of these crates:\n\n".to_owned();
    // The texts of the workspace's own crates are handshake's own.
    for it in crates.iter().filter(|it| it.sha256.is_some()) {
        all += &format!("    {} {} ({})\n", it.name, it.version, it.license);
        for text in texts_of(it)? {
            texts.entry(text).or_default().push(format!("{} {}", it.name, it.version));
        }
    }
    let mut texts: Vec<(Vec<String>, String)> = texts.into_iter().map(|(text, of)| (of, text)).collect();
    texts.sort();
    for (of, text) in texts {
        all += &format!("\n{}\n{}:\n\n{text}\n", "-".repeat(80), of.join(", "));
    }
    Ok(all)
}

fn texts_of(it: &Linked) -> Result<Vec<String>> {
    let entries = fs::read_dir(&it.folder).with_context(|| format!("list {}", it.folder.display()))?;
    let mut texts = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().to_uppercase()).unwrap_or_default();
        if path.is_file() && NAMES.iter().any(|start| name.starts_with(start)) {
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            texts.push(text.replace('\r', "").trim().to_owned());
        }
    }
    Ok(texts)
}

//! What runs in Kubernetes: the manifest that the chart renders, as far as a container engine can run it too. The
//! chart writes what is read here as JSON, which YAML is a superset of.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

/// Below the root of the sources.
const MANIFEST: &str = "packaging/kubernetes/handshake.yaml";
/// What the kubelet puts in the place of the node's address.
const NODE_ADDRESS: &str = "$(NODE_IP)";

/// A container of the manifest.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) image: String,
    args: Vec<String>,
    pub(super) user: u32,
    pub(super) capabilities: Capabilities,
}

/// What is added to a container's capabilities, and taken away first.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Capabilities {
    #[serde(default)]
    pub(super) add: Vec<String>,
    pub(super) drop: Vec<String>,
}

/// The container that writes the seccomp profile, and the one that watches.
pub(super) struct Pod {
    pub(super) first: Container,
    pub(super) main: Container,
}

impl Pod {
    /// The pods of the manifest.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let manifest = fs::read_to_string(root.join(MANIFEST)).context(MANIFEST)?;
        Self::of(&manifest).with_context(|| format!("what {MANIFEST} runs"))
    }

    fn of(manifest: &str) -> Result<Self> {
        let (_, first) = manifest.split_once("\n      initContainers:\n").context("initContainers")?;
        let (first, main) = first.split_once("\n      containers:\n").context("containers")?;
        Ok(Self { first: Container::of(first)?, main: Container::of(main)? })
    }
}

fn json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).with_context(|| format!("{text} is no JSON"))
}

impl Container {
    fn of(section: &str) -> Result<Self> {
        let text = |key: &str| {
            let mut lines = section.lines().map(str::trim_start);
            lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).with_context(|| key.to_owned())
        };
        Ok(Self {
            image: text("image")?.to_owned(),
            args: json(text("args")?)?,
            user: json(text("runAsUser")?)?,
            capabilities: json(text("capabilities")?)?,
        })
    }

    /// Its command line on a node of this address.
    pub(super) fn args(&self, address: &str) -> Vec<String> {
        self.args.iter().map(|word| word.replace(NODE_ADDRESS, address)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell;

    /// The proof of the image runs what the manifest says: its image is the release's, and it has the three
    /// capabilities and no other.
    #[test]
    fn the_manifest_runs_the_image_of_a_release() {
        let pod = Pod::read(&shell::root()).expect("a manifest");
        let image = format!("localhost/handshake:{}", env!("CARGO_PKG_VERSION"));
        assert_eq!([&pod.first.image, &pod.main.image], [&image, &image]);
        assert_eq!(pod.main.args("192.0.2.1")[..2], ["serve", "--metrics-listen=192.0.2.1:9477"]);
        assert_eq!(pod.main.capabilities.add, ["BPF", "PERFMON", "NET_ADMIN"]);
        assert!(pod.first.capabilities.add.is_empty());
        for container in [&pod.first, &pod.main] {
            assert_eq!(container.capabilities.drop, ["ALL"]);
        }
    }
}

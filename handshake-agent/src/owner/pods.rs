//! The names of Kubernetes' pods by their UIDs: kubelet keeps the logs of each in a folder NAMESPACE_NAME_UID.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Where kubelet keeps the logs.
pub(super) const PODS: &str = "/var/log/pods";
/// The least time between two readings.
const PAUSE: Duration = Duration::from_secs(1);
/// Most pods that are remembered: kubelet runs 110 on a node unless it is told otherwise.
const MOST: usize = 10_000;

/// The name of a pod, which is unique in its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// The names of pods, as far as they were read.
#[derive(Debug)]
pub(super) struct PodNames {
    folder: PathBuf,
    by_uid: HashMap<String, PodName>,
    next: Option<Instant>,
}

impl PodNames {
    pub(super) fn within(folder: PathBuf) -> Self {
        Self { folder, by_uid: HashMap::new(), next: None }
    }

    /// The name of the pod. The folder is read again for one that is not known, at most once a second.
    pub(super) fn name_of(&mut self, uid: &str, now: Instant) -> Option<PodName> {
        if !self.by_uid.contains_key(uid) && self.next.is_none_or(|next| next <= now) {
            self.next = Some(now + PAUSE);
            self.by_uid = fs::read_dir(&self.folder)
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| parse(entry.file_name().to_str()?))
                .take(MOST)
                .collect();
        }
        self.by_uid.get(uid).cloned()
    }
}

/// Neither a namespace nor a name has an underscore: both are labels of DNS, a name with dots between.
fn parse(folder: &str) -> Option<(String, PodName)> {
    let (rest, uid) = folder.rsplit_once('_')?;
    let (namespace, name) = rest.split_once('_')?;
    let is_whole = ![namespace, name, uid].iter().any(|part| part.is_empty()) && !name.contains('_');
    let name = PodName { namespace: namespace.to_owned(), name: name.to_owned() };
    is_whole.then(|| (uid.to_owned(), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_folder_is_read() {
        let uid = "0f3a1c52-6a7e-4c0e-9d43-0c8a2f6b7d11";
        let whole = parse(&format!("kube-system_coredns-5d78c9869d-x2bq7_{uid}")).expect("it is whole");
        assert_eq!(whole.0, uid);
        assert_eq!((&*whole.1.namespace, &*whole.1.name), ("kube-system", "coredns-5d78c9869d-x2bq7"));
        let dotted = parse("prod_web.example.com-0_5c3a9b1e0d7f4a6c8b2e1f0d9c8b7a65").expect("a static pod");
        assert_eq!(dotted.1.name, "web.example.com-0");
        for folder in ["", "a", "a_b", "_b_c", "a__c", "a_b_", "a_b_c_d"] {
            assert_eq!(parse(folder), None, "{folder}");
        }
    }
}

//! Whose a control group is: the unit, container or pod that its place in the tree of cgroup v2 tells. The kernel
//! names a group by its id, which is the inode of its directory.
//!
//! ```text
//! id ─▶ tree: the directory ─▶ place: unit, container, pod ─▶ pods, containers: their names ─▶ Owner
//! ```
//!
//! Reading takes no privilege, but for the names of containers. A group that is gone keeps its owner while one is
//! held, and for a while longer.

mod book;
mod choice;
mod containers;
mod place;
mod pods;
mod tree;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::book::OwnerBook;
pub use self::choice::{OwnerChoice, OwnerKind};
pub use self::place::Runtime;
pub use self::pods::PodName;

use self::containers::ContainerNames;
use self::place::Place;
use self::pods::{PODS, PodNames};
use self::tree::{Mount, Walk};

/// Directories that one question reads at most. Reading one took 33 µs in a tree of 2,003 groups.
const PIECE: usize = 128;
/// The least time between the beginnings of two walks.
const PAUSE: Duration = Duration::from_millis(250);
/// A walk is begun again no earlier than after so many times what the last one took.
const SHARE: u32 = 20;
/// How long a group that no walk found is not looked for again.
const MISSING: Duration = Duration::from_secs(10);
/// How long a group that is gone is remembered though its owner is not held: as long as an attempt may be open.
const GONE: Duration = Duration::from_secs(75);
/// Most groups that are remembered as gone or missing, and most that are looked for in one walk.
const MOST: usize = 4_096;

/// Whose a control group is. What is not known is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The path of the group in the tree, `/` for the root.
    pub cgroup: String,
    /// The innermost unit of systemd as systemctl names it: that of a user's own manager, or inside a container.
    /// Of a container itself, the service that it is run by, where there is one.
    pub unit: Option<String>,
    /// The innermost container.
    pub container: Option<Container>,
    /// The pod of Kubernetes.
    pub pod: Option<Pod>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The whole id.
    pub id: String,
    /// What runs it, where the group's name tells.
    pub runtime: Option<Runtime>,
    /// Its name, where a file of Podman or Docker that could be read has it.
    pub name: Option<String>,
}

/// A pod of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The UID, with dashes.
    pub uid: String,
    /// Its name and namespace, where kubelet keeps logs of it.
    pub name: Option<PodName>,
}

impl Owner {
    /// Whether it is the root of all control groups, which tells people nothing of whose something is.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.cgroup == "/"
    }

    /// What it is called where there is little room: the pod, else the container, else the unit, else the last part
    /// of the path.
    #[must_use]
    pub fn label(&self) -> Cow<'_, str> {
        if let Some(PodName { namespace, name }) = self.pod.as_ref().and_then(|pod| pod.name.as_ref()) {
            return Cow::Owned(format!("{namespace}/{name}"));
        }
        let container = self.container.as_ref().map(Container::label);
        let last = self.cgroup.rsplit('/').next().filter(|part| !part.is_empty());
        Cow::Borrowed(container.or(self.unit.as_deref()).or(last).unwrap_or(&self.cgroup))
    }
}

impl Container {
    /// Its name, else the first twelve digits of its id, as container engines show it.
    #[must_use]
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.id.get(..12).unwrap_or(&self.id))
    }
}

/// The folders that [`Owners`] reads on this machine while it runs. There may be no tree of cgroup v2.
#[must_use]
pub fn folders() -> Vec<PathBuf> {
    let mount = Mount::find().ok().map(|mount| mount.folder().to_owned());
    mount.into_iter().chain([PathBuf::from(PODS)]).collect()
}

/// The tree of control groups as this process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Where it is mounted.
    pub folder: PathBuf,
    /// Whether that is the whole of it.
    pub is_whole: bool,
}

/// Finds the tree.
///
/// # Errors
///
/// The kernel's, or it is not mounted.
pub fn root() -> io::Result<Root> {
    let mount = Mount::find()?;
    Ok(Root { folder: mount.folder().to_owned(), is_whole: mount.is_whole() })
}

/// The owners of the control groups.
#[derive(Debug)]
pub struct Owners {
    mount: Mount,
    pods: PodNames,
    containers: ContainerNames,
    known: HashMap<u64, Entry>,
    /// Groups that a whole walk did not find, and until when they are not looked for.
    missing: HashMap<u64, Instant>,
    /// Groups that the next walk is for.
    wanted: HashSet<u64>,
    walking: Option<Walking>,
    /// When the next walk may begin.
    next: Option<Instant>,
    walks: u64,
}

#[derive(Debug)]
struct Entry {
    owner: Arc<Owner>,
    folder: PathBuf,
    /// The latest walk that found it there.
    walk: u64,
    /// When a walk found it gone.
    gone: Option<Instant>,
}

/// A walk in progress.
#[derive(Debug)]
struct Walking {
    walk: Walk,
    /// Groups that were looked for when it began.
    wanted: HashSet<u64>,
    took: Duration,
}

impl Owners {
    /// Finds the tree, and reads the names of containers, which is root's to read. Walks nothing yet.
    ///
    /// # Errors
    ///
    /// The kernel's, or no tree of cgroup v2 is mounted.
    pub fn open() -> io::Result<Self> {
        Ok(Self::of_tree(Mount::find()?, PathBuf::from(PODS), ContainerNames::read()))
    }

    fn of_tree(mount: Mount, pods: PathBuf, containers: ContainerNames) -> Self {
        Self {
            mount,
            pods: PodNames::within(pods),
            containers,
            known: HashMap::new(),
            missing: HashMap::new(),
            wanted: HashSet::new(),
            walking: None,
            next: None,
            walks: 0,
        }
    }

    /// The owner of a group, by its id. `None` for 0, for a group that is not in the tree, and until a walk has
    /// found it: a later question may. Takes some milliseconds at most.
    pub fn of(&mut self, id: u64, now: Instant) -> Option<Arc<Owner>> {
        if id == 0 {
            return None;
        }
        if let Some(owner) = self.settled(id, now) {
            return Some(owner);
        }
        if self.missing.get(&id).is_some_and(|until| now < *until) {
            return None;
        }
        if self.wanted.len() < MOST && !self.walking.as_ref().is_some_and(|one| one.wanted.contains(&id)) {
            self.wanted.insert(id);
        }
        self.walk_on(now);
        self.settled(id, now)
    }

    /// Reads on in the tree where there is something to look for. To be called now and then, so that groups that
    /// live shortly are known when their ids are asked for.
    pub fn refresh(&mut self, now: Instant) {
        if self.walking.is_none() && self.next.is_none_or(|next| next <= now) {
            self.begin(now);
        }
        self.walk_on(now);
    }

    /// What is known of a group: of one that is gone, what it was. An id is never given twice
    /// (`__kernfs_new_node` in fs/kernfs/dir.c counts those before in its upper half).
    fn settled(&mut self, id: u64, now: Instant) -> Option<Arc<Owner>> {
        let entry = self.known.get_mut(&id)?;
        let is_there = entry.gone.is_none() && tree::id_of(&entry.folder).is_ok_and(|there| there == id);
        if !is_there {
            entry.gone.get_or_insert(now);
        }
        // The logs of a pod may come after its group.
        if let Some(Pod { uid, name: None }) = &entry.owner.pod
            && let Some(name) = self.pods.name_of(uid, now)
        {
            let pod = Some(Pod { uid: uid.clone(), name: Some(name) });
            entry.owner = Arc::new(Owner { pod, ..Owner::clone(&entry.owner) });
        }
        Some(Arc::clone(&entry.owner))
    }

    fn begin(&mut self, now: Instant) {
        self.walks += 1;
        self.next = Some(now + PAUSE);
        let wanted = std::mem::take(&mut self.wanted);
        self.walking = Some(Walking { walk: Walk::of(&self.mount), wanted, took: Duration::ZERO });
    }

    fn walk_on(&mut self, now: Instant) {
        if self.walking.is_none() {
            if self.wanted.is_empty() || self.next.is_some_and(|next| now < next) {
                return;
            }
            self.begin(now);
        }
        let Some(mut walking) = self.walking.take() else { return };
        let began = Instant::now();
        let mut found = Vec::new();
        let is_done = walking.walk.advance(PIECE, &mut |id, folder, path| found.push((id, folder, path)));
        found.into_iter().for_each(|(id, folder, path)| self.meet(id, folder, path, now));
        walking.took += began.elapsed();
        if is_done {
            self.end(&walking, now);
        } else {
            self.walking = Some(walking);
        }
    }

    /// Notes where a walk has found a group.
    fn meet(&mut self, id: u64, folder: PathBuf, path: String, now: Instant) {
        let walk = self.walks;
        self.missing.remove(&id);
        if let Some(entry) = self.known.get_mut(&id)
            && entry.owner.cgroup == path
        {
            (entry.walk, entry.gone) = (walk, None);
            return;
        }
        let owner = Arc::new(self.owner(path, now));
        self.known.insert(id, Entry { owner, folder, walk, gone: None });
    }

    fn owner(&mut self, path: String, now: Instant) -> Owner {
        let Place { unit, container, pod } = Place::of(&path);
        let container = container.map(|(runtime, id)| {
            let name = self.containers.name_of(&id, now);
            Container { id, runtime, name }
        });
        let pod = pod.map(|uid| {
            let name = self.pods.name_of(&uid, now);
            Pod { uid, name }
        });
        Owner { cgroup: path, unit, container, pod }
    }

    /// Takes stock after a whole walk.
    fn end(&mut self, walking: &Walking, now: Instant) {
        self.next = self.next.max(Some(now + walking.took * SHARE));
        let walk = self.walks;
        let mut gone = 0;
        self.known.retain(|_, entry| {
            if entry.walk == walk {
                return true;
            }
            gone += 1;
            let since = *entry.gone.get_or_insert(now);
            gone <= MOST && (Arc::strong_count(&entry.owner) > 1 || now.duration_since(since) < GONE)
        });
        self.wanted.retain(|id| !self.known.contains_key(id));
        self.missing.retain(|_, until| now < *until);
        for id in walking.wanted.iter().filter(|id| !self.known.contains_key(id)) {
            if self.missing.len() < MOST {
                self.missing.insert(*id, now + MISSING);
            }
        }
    }
}

#[cfg(test)]
mod tests;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::id as process_id;

use super::*;

const UID: &str = "8a2f1c6e-7b4d-4e59-9c3a-1d2e3f405162";
const CONTAINER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A whole walk.
fn refresh(owners: &mut Owners, now: Instant) {
    owners.refresh(now);
    while owners.walking.is_some() {
        owners.refresh(now);
    }
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("handshake-{name}-{}", process_id()));
        fs::create_dir_all(&folder).expect("it can be made");
        Self(folder)
    }

    fn owners(&self) -> Owners {
        let tree = self.0.join("tree");
        fs::create_dir_all(&tree).expect("it can be made");
        Owners::of_tree(Mount::at(&tree), self.0.join("pods"), ContainerNames::none())
    }

    fn group(&self, path: &str) -> u64 {
        let folder = self.0.join("tree").join(path);
        fs::create_dir_all(&folder).expect("it can be made");
        inode(&folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("it can be removed");
    }
}

/// The owner of a group once a walk has ended, however large the tree is.
fn found(owners: &mut Owners, id: u64, now: Instant) -> Option<Arc<Owner>> {
    loop {
        let owner = owners.of(id, now);
        if owner.is_some() || owners.walking.is_none() {
            return owner;
        }
    }
}

fn inode(folder: &Path) -> u64 {
    fs::metadata(folder).expect("it is there").ino()
}

/// Control groups of the kernel's, which are removed at the end.
struct Groups(PathBuf);

impl Groups {
    fn new(name: &str) -> Self {
        let mount = Mount::find().expect("cgroup v2 is mounted");
        let group = mount.folder().join(format!("handshake-{name}-{}", process_id()));
        fs::create_dir(&group).expect("root makes it");
        Self(group)
    }

    fn make(&self, name: &str) -> u64 {
        let group = self.0.join(name);
        fs::create_dir(&group).expect("root makes it");
        inode(&group)
    }

    fn path(&self, name: &str) -> String {
        format!("/{}/{name}", self.0.file_name().expect("it has a name").to_string_lossy())
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        let below = fs::read_dir(&self.0).into_iter().flatten().flatten();
        below.filter(|entry| entry.path().is_dir()).for_each(|entry| drop(fs::remove_dir(entry.path())));
        fs::remove_dir(&self.0).expect("it is empty");
    }
}

/// The kernel's own tree: what comes is found, and what is gone keeps its name.
#[test]
fn groups_of_the_kernel_come_and_go() {
    let groups = Groups::new("come");
    let mut owners = Owners::open().expect("cgroup v2 is mounted");
    let now = Instant::now();
    let web = groups.make("web.service");
    let owner = found(&mut owners, web, now).expect("it is there");
    assert_eq!(owner.cgroup, groups.path("web.service"));
    assert_eq!(owner.unit.as_deref(), Some("web.service"));
    // The root has an id too.
    let root = inode(owners.mount.folder());
    let of_root = found(&mut owners, root, now).expect("it is there");
    assert_eq!((&*of_root.cgroup, of_root.unit.as_deref()), ("/", None));
    refresh(&mut owners, now);
    // One that comes later is found once a walk may begin again.
    let late = groups.make("late.service");
    assert_eq!(found(&mut owners, late, now + Duration::from_millis(1)), None);
    let then = now + Duration::from_secs(60);
    assert_eq!(found(&mut owners, late, then).expect("it is there").unit.as_deref(), Some("late.service"));
    // One that is gone keeps its name, at once and after a walk, and when another has its path.
    drop(owner);
    fs::remove_dir(groups.0.join("web.service")).expect("it is empty");
    let kept = owners.of(web, then + Duration::from_millis(1)).expect("it is remembered");
    assert_eq!(kept.unit.as_deref(), Some("web.service"));
    drop(kept);
    let again = groups.make("web.service");
    assert!(again != web && owners.of(web, then + Duration::from_millis(2)).is_some());
    let later = then + Duration::from_secs(60);
    let kept = found(&mut owners, web, later).expect("it is remembered");
    assert_eq!(kept.unit.as_deref(), Some("web.service"));
    // As long as it is held, and no longer.
    refresh(&mut owners, later + GONE + Duration::from_secs(1));
    assert!(owners.of(web, later + GONE + Duration::from_secs(2)).is_some());
    drop(kept);
    refresh(&mut owners, later + GONE + Duration::from_secs(120));
    assert_eq!(owners.of(web, later + GONE + Duration::from_secs(120)), None);
}

/// The same path, and another group.
#[test]
fn a_path_that_is_used_again_is_another_group() {
    let folder = Folder::new("again");
    let mut owners = folder.owners();
    let now = Instant::now();
    let old = folder.group("system.slice/web.service");
    assert_eq!(owners.of(old, now).expect("it is there").unit.as_deref(), Some("web.service"));
    let path = folder.0.join("tree/system.slice/web.service");
    fs::remove_dir(&path).expect("it is empty");
    let _other = folder.group("in-between");
    let new = folder.group("system.slice/web.service");
    assert_ne!(new, old);
    let owner = owners.of(new, now + Duration::from_secs(10)).expect("it is found");
    assert_eq!(owner.cgroup, "/system.slice/web.service");
}

#[test]
fn a_group_that_is_nowhere_is_not_looked_for_each_time() {
    let folder = Folder::new("nowhere");
    let nothing = folder.group("a") ^ (1 << 60);
    let mut owners = folder.owners();
    let now = Instant::now();
    assert_eq!(owners.of(0, now), None);
    assert_eq!(owners.walks, 0, "0 is no id");
    for at in 0..100 {
        assert_eq!(owners.of(nothing, now + Duration::from_millis(50 * at)), None);
    }
    assert_eq!(owners.walks, 1);
    // However many are asked for, walks begin four times a second at most.
    for at in 0..1_000 {
        assert_eq!(owners.of(nothing + 1 + at, now + Duration::from_millis(at)), None);
    }
    assert!((2..=5).contains(&owners.walks), "{}", owners.walks);
    assert!(owners.missing.len() <= 1_001 && owners.wanted.len() <= MOST);
}

/// A question reads a piece of a large tree, and the next one reads on.
#[test]
fn a_large_tree_is_walked_in_pieces() {
    let folder = Folder::new("large");
    for at in 0..2 * PIECE {
        folder.group(&format!("{}/{at}", at % 7));
    }
    let id = folder.group("last.service");
    let mut owners = folder.owners();
    let now = Instant::now();
    let mut questions = 1;
    while owners.of(id ^ (1 << 60), now).is_none() && owners.walking.is_some() {
        questions += 1;
    }
    assert_eq!((questions, owners.walks), (3, 1));
    assert!(owners.of(id, now).is_some());
    assert_eq!(owners.known.len(), 2 * PIECE + 9);
}

#[test]
fn a_pod_has_the_name_that_its_logs_have() {
    let folder = Folder::new("pods");
    let id = folder.group(&format!("kubepods/burstable/pod{UID}/{CONTAINER}"));
    let mut owners = folder.owners();
    let now = Instant::now();
    let owner = owners.of(id, now).expect("it is there");
    assert_eq!(owner.pod, Some(Pod { uid: UID.to_owned(), name: None }));
    let container = owner.container.as_ref().expect("it is one");
    assert_eq!((container.label(), container.runtime), (&CONTAINER[..12], None));
    fs::create_dir_all(folder.0.join(format!("pods/shop_web-7d9f_{UID}"))).expect("it can be made");
    assert_eq!(owners.of(id, now).as_ref(), Some(&owner), "not at once");
    let later = owners.of(id, now + Duration::from_secs(2)).expect("it is there");
    let name = later.pod.as_ref().and_then(|pod| pod.name.as_ref()).expect("its logs are there");
    assert_eq!((&*name.namespace, &*name.name), ("shop", "web-7d9f"));
}

/// One name, the narrowest that people know it by.
#[test]
fn an_owner_has_a_short_name() {
    let bare = Owner { cgroup: "/a/b.scope".to_owned(), unit: None, container: None, pod: None };
    let of_unit = Owner { unit: Some("web.service".to_owned()), ..bare.clone() };
    let container = |name: Option<&str>| {
        let name = name.map(ToOwned::to_owned);
        Owner {
            container: Some(Container { id: CONTAINER.to_owned(), runtime: None, name }),
            ..of_unit.clone()
        }
    };
    let pod = |name| Owner { pod: Some(Pod { uid: UID.to_owned(), name }), ..container(Some("db")) };
    let name = PodName { namespace: "shop".to_owned(), name: "cart".to_owned() };
    let alone = Owner { pod: pod(None).pod, ..bare.clone() };
    for (owner, label) in [
        (pod(Some(name)), "shop/cart"),
        (pod(None), "db"),
        (container(Some("db")), "db"),
        (container(None), "0123456789ab"),
        (of_unit, "web.service"),
        (alone, "b.scope"),
        (bare.clone(), "b.scope"),
        (Owner { cgroup: "/".to_owned(), ..bare }, "/"),
    ] {
        assert_eq!((&*owner.label(), owner.is_root()), (label, label == "/"), "{owner:?}");
    }
}

//! What the path of a control group tells: the unit of systemd, the container and the pod. Each manager spells its
//! own groups. Pure.

/// What runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// Docker.
    Docker,
    /// containerd, for Kubernetes or nerdctl.
    Containerd,
    /// CRI-O.
    CriO,
    /// Podman.
    Podman,
}

impl Runtime {
    /// All.
    pub(crate) const ALL: [Self; 4] = [Self::Docker, Self::Containerd, Self::CriO, Self::Podman];

    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Podman => "podman",
        }
    }
}

/// What a path tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) unit: Option<String>,
    /// The runtime, and the id.
    pub(super) container: Option<(Option<Runtime>, String)>,
    /// The UID of the pod.
    pub(super) pod: Option<String>,
}

/// How runtimes begin the name of a container's group, before its id.
const PREFIXES: [(&str, Runtime); 6] = [
    ("docker-", Runtime::Docker),
    ("cri-containerd-", Runtime::Containerd),
    ("nerdctl-", Runtime::Containerd),
    ("crio-", Runtime::CriO),
    (PAYLOAD, Runtime::Podman),
    ("libpod-", Runtime::Podman),
];
/// Podman's beneath the service that it was started by: the container is the service.
const PAYLOAD: &str = "libpod-payload-";
/// Monitors of containers: their groups are named like those of what they watch, and are not inside.
const MONITORS: [(&str, Runtime); 2] = [("crio-conmon-", Runtime::CriO), ("libpod-conmon-", Runtime::Podman)];
/// Folders in which a runtime keeps containers by their bare ids.
const FOLDERS: [(&str, Runtime); 2] = [("docker", Runtime::Docker), ("default", Runtime::Containerd)];
/// Units that have a group of their own, but for slices, which hold other units.
const UNITS: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];
const SLICE: &str = ".slice";
/// Digits of a container's id.
const ID: usize = 64;

/// What one component of a path is.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// A container.
    Container(Option<Runtime>, String),
    /// The monitor of a container.
    Monitor,
    /// A pod, by its UID.
    Pod(String),
    /// A unit with processes of its own.
    Unit(String),
    /// A slice.
    Slice(String),
    /// Anything else.
    Other,
}

impl Place {
    pub(super) fn of(path: &str) -> Self {
        let mut place = Self::default();
        let (mut slice, mut before) = (None, "");
        for component in path.split('/').filter(|component| !component.is_empty()) {
            for part in parts(component, before) {
                place.enter(part, component, &mut slice);
            }
            before = component;
        }
        if place.unit.is_none() && place.container.is_none() && place.pod.is_none() {
            place.unit = slice;
        }
        place
    }

    /// Goes down one part: the innermost holds.
    fn enter(&mut self, part: Part, component: &str, slice: &mut Option<String>) {
        match part {
            Part::Container(runtime, id) => {
                self.container = Some((runtime, id));
                if !component.starts_with(PAYLOAD) {
                    self.unit = None;
                }
            }
            Part::Pod(uid) => (self.pod, self.container, self.unit) = (Some(uid), None, None),
            Part::Unit(unit) => self.unit = Some(unit),
            Part::Slice(name) => *slice = Some(name),
            Part::Monitor => (self.unit, *slice) = (None, None),
            Part::Other => {}
        }
    }
}

/// What a component is, `before` it being the one above. Where runc is to use systemd and is not given it by
/// containerd, a component is `SLICE:PREFIX:ID`, which is a pod and a container.
fn parts(component: &str, before: &str) -> Vec<Part> {
    if let Some((slice, rest)) = component.split_once(".slice:") {
        let pod = pod(slice).map(Part::Pod);
        let container =
            rest.split_once(':').and_then(|(prefix, id)| container(&format!("{prefix}-{id}"), ""));
        return pod.into_iter().chain(container).collect();
    }
    let uid = pod(component.strip_suffix(SLICE).unwrap_or(component));
    let one = uid.map(Part::Pod).or_else(|| container(component, before)).unwrap_or_else(|| unit(component));
    vec![one]
}

/// The UID of a pod's group: `kubepods-burstable-pod8a2f…_4b1c` as a slice, whose dashes divide its path, and
/// `pod8a2f…-4b1c` as a folder.
fn pod(name: &str) -> Option<String> {
    let uid = match name.rsplit_once("-pod") {
        Some((before, uid)) if before.split('-').any(|word| word == "kubepods") => uid.replace('_', "-"),
        Some(_) | None => name.strip_prefix("pod")?.to_owned(),
    };
    // Those of static pods are hashes, without dashes.
    let digits = uid.bytes().filter(|byte| *byte != b'-').count();
    let is_uid = digits == 32 && uid.bytes().all(|byte| byte == b'-' || is_digit(byte));
    is_uid.then_some(uid)
}

fn container(name: &str, before: &str) -> Option<Part> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    if MONITORS.iter().any(|(prefix, _)| name.strip_prefix(prefix).is_some_and(is_id)) {
        return Some(Part::Monitor);
    }
    let named = PREFIXES.iter().find_map(|(prefix, runtime)| {
        let id = name.strip_prefix(prefix).filter(|id| is_id(id))?;
        Some(Part::Container(Some(*runtime), id.to_owned()))
    });
    let bare = || {
        let runtime = FOLDERS.iter().find(|(folder, _)| *folder == before).map(|(_, runtime)| *runtime);
        is_id(name).then(|| Part::Container(runtime, name.to_owned()))
    };
    named.or_else(bare)
}

/// A unit as systemctl names it: where a name could be taken for a file of the kernel's, systemd puts an underscore
/// before it. Escapes such as `\x2d` belong to the name.
/// Whether a unit with a group of its own may have this name.
pub(super) fn is_unit(name: &str) -> bool {
    UNITS.iter().chain([&SLICE]).any(|suffix| is_of_type(name, suffix))
}

fn is_of_type(name: &str, suffix: &str) -> bool {
    name.len() > suffix.len() && name.ends_with(suffix)
}

fn unit(component: &str) -> Part {
    let name = component.strip_prefix('_').unwrap_or(component).to_owned();
    if UNITS.iter().any(|suffix| is_of_type(&name, suffix)) {
        Part::Unit(name)
    } else if is_of_type(&name, SLICE) {
        Part::Slice(name)
    } else {
        Part::Other
    }
}

fn is_id(text: &str) -> bool {
    text.len() == ID && text.bytes().all(is_digit)
}

/// A hexadecimal digit as runtimes write it.
const fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3f4a9c0de1b25786f0c1d2e3a4b5968778695a4b3c2d1e0ffedcba9876543210";
    const B: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "8a2f1c6e-7b4d-4e59-9c3a-1d2e3f405162";
    const UNDERSCORED: &str = "8a2f1c6e_7b4d_4e59_9c3a_1d2e3f405162";
    const HASH: &str = "5c3a9b1e0d7f4a6c8b2e1f0d9c8b7a65";

    /// A path, where A, B, UID, UNDERSCORED and HASH stand for those above; and its unit, container and pod.
    type Row =
        (&'static str, Option<&'static str>, Option<(Option<Runtime>, &'static str)>, Option<&'static str>);

    fn check(rows: &[Row]) {
        for (path, unit, container, pod) in rows {
            let path = path
                .replace("{A}", A)
                .replace("{B}", B)
                .replace("{UID}", UID)
                .replace("{U_I_D}", UNDERSCORED)
                .replace("{HASH}", HASH);
            let expected = Place {
                unit: unit.map(str::to_owned),
                container: container.map(|(runtime, id)| (runtime, id.to_owned())),
                pod: pod.map(str::to_owned),
            };
            assert_eq!(Place::of(&path), expected, "{path}");
        }
    }

    #[test]
    fn units_of_systemd() {
        check(&[
            ("/", None, None, None),
            ("", None, None, None),
            ("/init.scope", Some("init.scope"), None, None),
            ("/system.slice", Some("system.slice"), None, None),
            ("/system.slice/nginx.service", Some("nginx.service"), None, None),
            ("/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1.service"), None, None),
            (
                r"/system.slice/system-systemd\x2dcryptsetup.slice/systemd-cryptsetup@luks\x2d1.service",
                Some(r"systemd-cryptsetup@luks\x2d1.service"),
                None,
                None,
            ),
            (r"/system.slice/var-lib-my\x2ddata.mount", Some(r"var-lib-my\x2ddata.mount"), None, None),
            // systemd marks a name that a file of a controller may have.
            ("/system.slice/_cpu.service", Some("cpu.service"), None, None),
            ("/system.slice/ssh.service/monitor", Some("ssh.service"), None, None),
            ("/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope"), None, None),
            ("/user.slice/user-1000.slice/user@1000.service/init.scope", Some("init.scope"), None, None),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service",
                Some("syncthing.service"),
                None,
                None,
            ),
            (
                r"/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-org.gnome\x2dWeb-4711.scope",
                Some(r"app-gnome-org.gnome\x2dWeb-4711.scope"),
                None,
                None,
            ),
            ("/user.slice/user-1000.slice/user@1000.service", Some("user@1000.service"), None, None),
            ("/user.slice/user-1000.slice", Some("user-1000.slice"), None, None),
            (
                "/machine.slice/systemd-nspawn@web.service/payload",
                Some("systemd-nspawn@web.service"),
                None,
                None,
            ),
            // Without systemd: folders of any name.
            ("/web/workers", None, None, None),
            ("/.service", None, None, None),
        ]);
    }

    #[test]
    fn containers_of_docker() {
        let docker = Some((Some(Runtime::Docker), A));
        check(&[
            ("/system.slice/docker-{A}.scope", None, docker, None),
            ("/docker/{A}", None, docker, None),
            // --cgroup-parent=/web
            ("/web/{A}", None, Some((None, A)), None),
            ("/web.slice/docker-{A}.scope", None, docker, None),
            // Rootless.
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{A}.scope", None, docker, None),
            ("/system.slice/docker.service", Some("docker.service"), None, None),
            // systemd inside, Docker inside.
            ("/system.slice/docker-{A}.scope/init.scope", Some("init.scope"), docker, None),
            (
                "/system.slice/docker-{A}.scope/system.slice/nginx.service",
                Some("nginx.service"),
                docker,
                None,
            ),
            ("/docker/{B}/docker/{A}", None, docker, None),
            ("/docker/{A}/init", None, docker, None),
            // No id: too short, not of these digits, with more behind it.
            ("/docker/3f4a9c0de1b2", None, None, None),
            ("/docker/3F4A9C0DE1B25786F0C1D2E3A4B5968778695A4B3C2D1E0FFEDCBA9876543210", None, None, None),
            ("/system.slice/docker-compose.service", Some("docker-compose.service"), None, None),
            ("/system.slice/docker-3f4a9c0de1b2.scope", Some("docker-3f4a9c0de1b2.scope"), None, None),
        ]);
    }

    #[test]
    fn containers_of_podman() {
        let podman = Some((Some(Runtime::Podman), A));
        check(&[
            ("/machine.slice/libpod-{A}.scope", None, podman, None),
            ("/machine.slice/libpod-{A}.scope/container", None, podman, None),
            (
                "/machine.slice/libpod-{A}.scope/container/system.slice/ssh.service",
                Some("ssh.service"),
                podman,
                None,
            ),
            ("/machine.slice/libpod-conmon-{A}.scope", None, None, None),
            ("/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope", None, podman, None),
            ("/libpod_parent/libpod-{A}", None, podman, None),
            ("/libpod_parent/{B}/libpod-{A}", None, podman, None),
            ("/libpod_parent/libpod-conmon-{A}", None, None, None),
            // A quadlet: the service is the container.
            ("/system.slice/web.service/libpod-payload-{A}", Some("web.service"), podman, None),
            (
                "/system.slice/web.service/libpod-payload-{A}/system.slice/db.service",
                Some("db.service"),
                podman,
                None,
            ),
            ("/system.slice/web.service/runtime", Some("web.service"), None, None),
            // Rootless.
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope/container",
                None,
                podman,
                None,
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service/libpod-payload-{A}",
                Some("web.service"),
                podman,
                None,
            ),
        ]);
    }

    #[test]
    fn pods_of_kubernetes() {
        let containerd = Some((Some(Runtime::Containerd), A));
        let crio = Some((Some(Runtime::CriO), A));
        let bare = Some((None, A));
        check(&[
            // The driver systemd.
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{U_I_D}.slice/cri-containerd-{A}.scope",
                None,
                containerd,
                Some(UID),
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{U_I_D}.slice/crio-{A}.scope",
                None,
                crio,
                Some(UID),
            ),
            (
                "/kubepods.slice/kubepods-pod{U_I_D}.slice/cri-containerd-{A}.scope",
                None,
                containerd,
                Some(UID),
            ),
            (
                "/kubepods.slice/kubepods-pod{U_I_D}.slice/docker-{A}.scope",
                None,
                Some((Some(Runtime::Docker), A)),
                Some(UID),
            ),
            ("/kubepods.slice/kubepods-pod{U_I_D}.slice/crio-conmon-{A}.scope", None, None, Some(UID)),
            ("/kubepods.slice/kubepods-pod{U_I_D}.slice/crio-{A}.scope/container", None, crio, Some(UID)),
            ("/kubepods.slice/kubepods-pod{U_I_D}.slice", None, None, Some(UID)),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{HASH}.slice/crio-{A}.scope",
                None,
                crio,
                Some(HASH),
            ),
            // The driver cgroupfs.
            ("/kubepods/burstable/pod{UID}/{A}", None, bare, Some(UID)),
            ("/kubepods/besteffort/pod{UID}/{A}", None, bare, Some(UID)),
            ("/kubepods/pod{UID}/{A}", None, bare, Some(UID)),
            ("/kubepods/burstable/pod{UID}/crio-{A}", None, crio, Some(UID)),
            ("/kubepods/burstable/pod{HASH}/{A}", None, bare, Some(HASH)),
            // kubelet means systemd, containerd does not.
            (
                "/system.slice/containerd.service/kubepods-burstable-pod{U_I_D}.slice:cri-containerd:{A}",
                None,
                containerd,
                Some(UID),
            ),
            ("/kubepods-burstable-pod{U_I_D}.slice:cri-containerd:{A}", None, containerd, Some(UID)),
            // systemd inside.
            (
                "/kubepods.slice/kubepods-pod{U_I_D}.slice/cri-containerd-{A}.scope/system.slice/sshd.service",
                Some("sshd.service"),
                containerd,
                Some(UID),
            ),
            // kind: a node is a container of Docker or Podman.
            (
                "/system.slice/docker-{B}.scope/kubelet.slice/kubelet-kubepods.slice/\
                 kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{U_I_D}.slice/cri-containerd-{A}.scope",
                None,
                containerd,
                Some(UID),
            ),
            ("/docker/{B}/kubelet/kubepods/besteffort/pod{UID}/{A}", None, bare, Some(UID)),
            (
                "/system.slice/docker-{B}.scope/system.slice/containerd.service",
                Some("containerd.service"),
                Some((Some(Runtime::Docker), B)),
                None,
            ),
            // nerdctl without Kubernetes.
            ("/system.slice/nerdctl-{A}.scope", None, containerd, None),
            ("/default/{A}", None, containerd, None),
            // No pod: no UID, and a slice that only sounds like one.
            ("/kubepods.slice/kubepods-burstable.slice", Some("kubepods-burstable.slice"), None, None),
            ("/system.slice/my-pod.service", Some("my-pod.service"), None, None),
            ("/podman", None, None, None),
        ]);
    }
}

//! What a kernel has as modules, by the files of its package. Debian's has the list of all modules and of what is
//! built in, and no modules.dep: depmod writes that where a package is installed, from what is read here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::find_below;

/// The lists of a package: its modules, and what its kernel has built in.
pub(super) const LISTS: [&str; 2] = ["modules.order", "modules.builtin"];

/// The modules of a kernel whose package is unpacked.
#[derive(Debug)]
pub(super) struct Modules {
    /// What the paths begin at.
    folder: PathBuf,
    /// The path of each module, by its name.
    paths: BTreeMap<String, String>,
    built_in: BTreeMap<String, String>,
}

impl Modules {
    /// Reads both lists below a folder.
    pub(super) fn of(unpacked: &Path) -> Result<Self> {
        let list = |name| {
            let file = find_below(unpacked, name).with_context(|| format!("no {name} was unpacked"))?;
            let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            Ok::<_, anyhow::Error>((file, text))
        };
        let [(file, paths), (_, built_in)] = [list(LISTS[0])?, list(LISTS[1])?];
        let folder = file.parent().context("a list without a folder")?.to_owned();
        Ok(Self { folder, paths: by_name(&paths), built_in: by_name(&built_in) })
    }

    /// Whether the kernel has it, as a module or built in.
    pub(super) fn has(&self, name: &str) -> bool {
        let name = spelled(name);
        self.built_in.contains_key(&name) || self.paths.contains_key(&name)
    }

    /// These modules and all that they depend on, each behind what it depends on, without what is built in.
    pub(super) fn in_order(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        self.in_order_by(names, &|path| unpacked(&self.folder, path))
    }

    fn in_order_by(&self, names: &[&str], read: &Read<'_>) -> Result<Vec<(String, Vec<u8>)>> {
        let mut order = Order { modules: self, read, seen: BTreeSet::new(), found: Vec::new() };
        names.iter().try_for_each(|name| order.add(name))?;
        Ok(order.found)
    }
}

/// Gives a module's content by its path.
type Read<'a> = dyn Fn(&str) -> Result<Vec<u8>> + 'a;

/// Modules in the order in which a kernel takes them, as far as they were added.
struct Order<'a> {
    modules: &'a Modules,
    read: &'a Read<'a>,
    seen: BTreeSet<String>,
    found: Vec<(String, Vec<u8>)>,
}

impl Order<'_> {
    fn add(&mut self, name: &str) -> Result<()> {
        let name = spelled(name);
        if self.modules.built_in.contains_key(&name) || !self.seen.insert(name.clone()) {
            return Ok(());
        }
        let path =
            self.modules.paths.get(&name).with_context(|| format!("the kernel has no module {name}"))?;
        let module = (self.read)(path)?;
        for needed in dependencies(&module) {
            self.add(&needed).with_context(|| format!("{name} depends on {needed}"))?;
        }
        self.found.push((name, module));
        Ok(())
    }
}

/// A module's file as the kernel takes it without a decompressor.
fn unpacked(folder: &Path, path: &str) -> Result<Vec<u8>> {
    let plain = folder.join(path);
    if plain.is_file() {
        return fs::read(&plain).with_context(|| format!("read {}", plain.display()));
    }
    let packed = folder.join(format!("{path}.xz"));
    ensure!(packed.is_file(), "{path} was not unpacked");
    let output = Command::new("xz").arg("-dc").arg(&packed).output().context("start xz")?;
    ensure!(output.status.success(), "xz cannot read {}", packed.display());
    Ok(output.stdout)
}

/// A module's name as modules refer to each other: its file may have '-' where the name has '_', or both.
fn spelled(name: &str) -> String {
    name.replace('-', "_")
}

/// The paths of a list by the names of their modules.
fn by_name(list: &str) -> BTreeMap<String, String> {
    let name = |path: &str| Path::new(path).file_stem().map(|stem| spelled(&stem.to_string_lossy()));
    list.lines().filter_map(|path| Some((name(path)?, path.to_owned()))).collect()
}

/// The names of what a module depends on, by its section `.modinfo`.
fn dependencies(module: &[u8]) -> Vec<String> {
    const MARK: &[u8] = b"\0depends=";
    let Some(at) = module.windows(MARK.len()).position(|bytes| bytes == MARK) else { return Vec::new() };
    let names = module[at + MARK.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(names);
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_depends_on_is_read() {
        assert_eq!(dependencies(b"x\0license=GPL\0depends=stp,llc\0name=garp\0"), ["stp", "llc"]);
        assert!(dependencies(b"x\0depends=\0name=veth\0").is_empty());
        assert!(dependencies(b"no module").is_empty());
    }

    #[test]
    fn a_module_is_found_however_its_file_is_spelled_and_a_missing_one_is_an_error() {
        let paths = "kernel/wireguard.ko\nkernel/curve25519-x86_64.ko\nkernel/vxlan.ko\n";
        let built_in = "kernel/crypto/chacha-generic.ko\n";
        let modules = Modules { folder: PathBuf::new(), paths: by_name(paths), built_in: by_name(built_in) };
        let read = |path: &str| {
            let needed = match path {
                "kernel/wireguard.ko" => "curve25519-x86_64,chacha-generic",
                "kernel/vxlan.ko" => "udp_tunnel",
                _ => "",
            };
            Ok(format!("\0depends={needed}\0").into_bytes())
        };
        assert!(modules.has("wireguard") && modules.has("chacha_generic") && !modules.has("ppp_async"));
        let found = modules.in_order_by(&["wireguard"], &read).expect("all of it");
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["curve25519_x86_64", "wireguard"]);
        let said = |name| format!("{:#}", modules.in_order_by(&[name], &read).expect_err("it is missing"));
        assert_eq!(said("ppp_async"), "the kernel has no module ppp_async");
        assert_eq!(said("vxlan"), "vxlan depends on udp_tunnel: the kernel has no module udp_tunnel");
        assert!(format!("{:#}", modules.in_order(&["vxlan"]).expect_err("no file")).contains("not unpacked"));
    }
}

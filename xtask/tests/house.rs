//! Checks the architecture in the sources: which module may import which, and how the code is spread over the
//! crates.
//!
//! Cargo enforces the arrows between crates. Inside a crate nothing does, so these tests read the imports: an
//! arrow runs down the floors of `FLOORS`, and modules of one folder do not import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The floors of a crate's top modules, from the top down. A module imports only from floors below its own.
const FLOORS: [(&str, &[&str]); 3] = [
    (
        "handshake-common",
        &[
            "host",
            "memory",
            "engine",
            "table",
            "tcp",
            "udp",
            "record",
            "books",
            "latency",
            "interface",
            "abi",
            "wire",
            "flow",
            "shared",
            "verdict",
            "seq",
            "counter",
            "random",
        ],
    ),
    (
        "handshake-agent",
        &[
            "session",
            "memory",
            "makers",
            "attach",
            "recording",
            "model",
            "source",
            "free",
            "options",
            "confine",
            "owner",
            "error",
            "hook",
            "listeners",
            "processes",
            "nftables",
            "netlink",
            "address",
            "delta",
            "load",
            "similar",
        ],
    ),
    (
        "handshake-user",
        &[
            "command",
            "cli",
            "tui",
            "errand",
            "recorder",
            "evidence",
            "error",
            "report",
            "why",
            "check",
            "helper",
            "event_file",
            "file",
            "console",
            "output",
            "names",
            "caller",
            "escape",
            "duration",
            "number",
            "time",
        ],
    ),
];

/// The crates whose folders must have no import circles.
const CRATES: [&str; 12] = [
    "handshake-bench",
    "handshake-object",
    "handshake-agent",
    "handshake-capture",
    "handshake-common",
    "handshake-ebpf",
    "handshake-export",
    "handshake-join",
    "handshake-lab",
    "handshake-record",
    "handshake-user",
    "xtask",
];

/// The crates of the product. None of them may depend on the task runner.
const PRODUCT: [&str; 8] = [
    "handshake-agent",
    "handshake-capture",
    "handshake-common",
    "handshake-ebpf",
    "handshake-export",
    "handshake-join",
    "handshake-record",
    "handshake-user",
];

/// The share of all lines that the largest crate may hold, in per cent.
const LARGEST_PERCENT: usize = 30;

/// A module by its path in its crate: `["tui", "view"]`.
type Module = Vec<String>;

/// The imports between a crate's modules, without tests.
struct Imports {
    modules: BTreeSet<Module>,
    arrows: BTreeSet<(Module, Module)>,
}

impl Imports {
    fn of(package: &str) -> Self {
        let root = workspace().join(package).join("src");
        let files: Vec<(Module, String)> = sources(&root)
            .into_iter()
            .map(|file| {
                let text = fs::read_to_string(&file).expect("a source file can be read");
                (module_of(&root, &file), without_tests(&text))
            })
            .collect();
        let modules: BTreeSet<Module> = files.iter().map(|(module, _)| module.clone()).collect();
        let mut arrows = BTreeSet::new();
        for (module, text) in &files {
            for path in paths(text) {
                if let Some(target) = resolve(module, &path, &modules)
                    && target != *module
                {
                    arrows.insert((module.clone(), target));
                }
            }
        }
        Self { modules, arrows }
    }

    /// The imports between the children of a folder; a child includes all modules below it.
    fn between_children(&self, folder: &[String]) -> BTreeMap<String, BTreeSet<String>> {
        let child = |module: &Module| module.strip_prefix(folder).and_then(<[String]>::first).cloned();
        let mut between: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in &self.arrows {
            if let (Some(from), Some(to)) = (child(from), child(to))
                && from != to
            {
                between.entry(from).or_default().insert(to);
            }
        }
        between
    }
}

#[test]
fn imports_run_down_the_floors() {
    let mut wrong = Vec::new();
    for (package, floors) in FLOORS {
        let imports = Imports::of(package);
        let floor =
            |module: &Module| {
                let top = module.first()?;
                Some(floors.iter().position(|name| name == top).unwrap_or_else(|| {
                    panic!("{package}: the module {top} has no floor: add it in {}", file!())
                }))
            };
        imports.modules.iter().for_each(|module| {
            floor(module);
        });
        for (from, to) in &imports.arrows {
            let (Some(above), Some(below)) = (floor(from), floor(to)) else { continue };
            if above > below {
                wrong.push(format!("{package}: {} imports {}", from.join("::"), to.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that run up:\n{}", wrong.join("\n"));
}

#[test]
fn no_folder_has_an_import_circle() {
    let mut wrong = Vec::new();
    for package in CRATES {
        let imports = Imports::of(package);
        let folders: BTreeSet<&[String]> = imports
            .modules
            .iter()
            .filter_map(|module| module.split_last().map(|(_, folder)| folder))
            .collect();
        for folder in folders {
            for circle in circles(&imports.between_children(folder)) {
                wrong.push(format!("{package}: in {:?}: {}", folder.join("::"), circle.join(" -> ")));
            }
        }
    }
    assert!(wrong.is_empty(), "import circles:\n{}", wrong.join("\n"));
}

#[test]
fn the_product_does_not_depend_on_the_task_runner() {
    for package in PRODUCT {
        let manifest = workspace().join(package).join("Cargo.toml");
        let text = fs::read_to_string(&manifest).expect("the manifest can be read");
        let depends = text.lines().any(|line| line.starts_with("xtask") || line.contains("../xtask"));
        assert!(!depends, "{package} depends on xtask");
    }
}

#[test]
fn no_crate_holds_most_of_the_code() {
    let lines: BTreeMap<&str, usize> =
        CRATES.into_iter().chain(["fuzz"]).map(|package| (package, lines_of(package))).collect();
    let all: usize = lines.values().sum();
    for (package, lines) in &lines {
        let percent = lines * 100 / all;
        assert!(percent < LARGEST_PERCENT, "{package} holds {percent} % of {all} lines");
    }
}

#[test]
fn imports_are_resolved_and_circles_are_found() {
    let modules: BTreeSet<Module> =
        [&["a"][..], &["a", "b"], &["c"]].map(|m| m.iter().map(ToString::to_string).collect()).into();
    let module = vec!["a".to_owned(), "b".to_owned()];
    for (text, target) in [
        ("use crate::c::Thing;", Some("c")),
        ("use crate::{c::Thing, a};", Some("c")),
        ("let x = crate::c::f();", Some("c")),
        ("use super::super::c;", Some("c")),
        ("use super::Thing;", Some("a")),
        ("use std::fs;", None),
        ("// use crate::c;", None),
    ] {
        let found = paths(text).iter().find_map(|path| resolve(&module, path, &modules));
        assert_eq!(found.map(|module| module.join("::")).as_deref(), target, "{text}");
    }
    let circle = BTreeMap::from([
        ("a".to_owned(), BTreeSet::from(["b".to_owned()])),
        ("b".to_owned(), BTreeSet::from(["a".to_owned()])),
    ]);
    assert_eq!(circles(&circle).len(), 1);
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the workspace").to_path_buf()
}

/// The Rust files below a folder, without test files.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry can be read").path();
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if matches!(name.as_str(), "tests" | "testing" | "fake") {
            continue;
        }
        if path.is_dir() {
            all.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
    all
}

/// The number of a crate's lines outside tests.
fn lines_of(package: &str) -> usize {
    let text = |file: PathBuf| fs::read_to_string(file).expect("a source file can be read");
    sources(&workspace().join(package).join("src"))
        .into_iter()
        .map(|file| without_tests(&text(file)).lines().count())
        .sum()
}

fn module_of(root: &Path, file: &Path) -> Module {
    let relative = file.strip_prefix(root).expect("the file is below the root").with_extension("");
    let parts: Module = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts == ["lib"] || parts == ["main"] { Vec::new() } else { parts }
}

/// The text before the unit tests, which are last in a file.
fn without_tests(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].to_owned()
}

/// The paths that begin with `crate` or `super`, in imports and in expressions. A group of imports is split
/// at its first level.
fn paths(text: &str) -> Vec<Vec<String>> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut found = Vec::new();
    for root in ["crate::", "super::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                continue;
            }
            found.extend(path_at(&code[at..]));
        }
    }
    found
}

fn path_at(text: &str) -> Vec<Vec<String>> {
    let mut path = Vec::new();
    let mut rest = text;
    loop {
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        rest = &rest[name.len()..];
        if !name.is_empty() {
            path.push(name);
        }
        match rest.strip_prefix("::") {
            Some(next) if next.starts_with('{') => {
                return first_names(next)
                    .into_iter()
                    .map(|name| [path.clone(), vec![name]].concat())
                    .collect();
            }
            Some(next) => rest = next,
            None => return vec![path],
        }
    }
}

/// The names at the first level of a group: `a`, `b` and `d` of `{a, b::c, d::{e, f}}`.
fn first_names(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut name, mut done) = (0, Vec::new(), String::new(), false);
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            names.extend((!name.is_empty()).then(|| std::mem::take(&mut name)));
            done = false;
        } else if depth == 1 && !done && (c.is_alphanumeric() || c == '_') {
            name.push(c);
        } else if depth == 1 && !name.is_empty() {
            done = true;
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// The module that a path refers to, seen from `module`.
fn resolve(module: &Module, path: &[String], modules: &BTreeSet<Module>) -> Option<Module> {
    let mut at: Module = Vec::new();
    let mut names = path.iter().peekable();
    if names.next()? == "super" {
        at = module.clone();
        at.pop()?;
        while names.next_if(|name| *name == "super").is_some() {
            at.pop()?;
        }
    }
    for name in names {
        let next = [at.clone(), vec![name.clone()]].concat();
        if !modules.contains(&next) {
            break;
        }
        at = next;
    }
    Some(at)
}

/// The circles of a graph: one for each pair of nodes that reach each other.
fn circles(graph: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reach = |from: &String| {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(next) = todo.pop() {
            for to in graph.get(&next).into_iter().flatten() {
                if seen.insert(to.clone()) {
                    todo.push(to.clone());
                }
            }
        }
        seen
    };
    let mut all = Vec::new();
    for (from, targets) in graph {
        for to in targets.iter().filter(|to| from < to) {
            if reach(to).contains(from) {
                all.push(vec![from.clone(), to.clone(), from.clone()]);
            }
        }
    }
    all
}

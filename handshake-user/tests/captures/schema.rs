//! The schemas in docs/schema by an implementation that is not ours: Python's jsonschema.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use handshake_lab::python_or_skip;

use crate::support::{HANDSHAKE, captures, run_replay};

/// Checks the schemas themselves, then each line of standard input by the schema of its type; prints how
/// many.
const VALIDATE: &str = r#"
import json, pathlib, sys
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
folder = pathlib.Path(sys.argv[1])
schemas = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
for schema in schemas.values():
    Draft202012Validator.check_schema(schema)
resources = [(f"{name}.json", Resource.from_contents(schema)) for name, schema in schemas.items()]
registry = Registry().with_resources(resources)
validators = {name: Draft202012Validator(schema, registry=registry) for name, schema in schemas.items()}
count = 0
for line in sys.stdin:
    value = json.loads(line)
    validators[value["type"]].validate(value)
    count += 1
print(count)
"#;

#[test]
fn python_finds_what_replay_and_diff_write_valid() -> Result<()> {
    let Some(all) = captures() else { return Ok(()) };
    let Some(modules) = python_or_skip("jsonschema") else { return Ok(()) };
    let mut lines = Vec::new();
    for path in all.iter().take(5) {
        lines.extend(run_replay(path, &["-o", "jsonl", "--flows"])?.stdout);
        lines.extend(run_replay(path, &["-o", "json", "--flows", "--compat"])?.stdout);
    }
    let folder = tempfile::tempdir()?;
    let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
    for (path, report) in all.iter().zip([&old, &new]) {
        std::fs::write(report, run_replay(path, &["-o", "json"])?.stdout)?;
    }
    let mut diff = Command::new(HANDSHAKE);
    diff.arg("diff").args([&old, &new]).args(["-o", "json", "--expect", "change(attempts) < 0%"]);
    lines.extend(diff.output().context("run diff")?.stdout);

    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    let mut python = Command::new("python3");
    python
        .env("PYTHONPATH", modules)
        .arg("-c")
        .arg(VALIDATE)
        .arg(schemas)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut python = python.stderr(Stdio::piped()).spawn().context("start python3")?;
    let written = python.stdin.take().context("a pipe")?.write_all(&lines);
    let output = python.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    written.context("write what is to be validated")?;
    let count = lines.iter().filter(|byte| **byte == b'\n').count();
    ensure!(String::from_utf8_lossy(&output.stdout).trim() == count.to_string() && count > 10, "{output:?}");
    Ok(())
}

//! The software bill of materials, in CycloneDX 1.5 (<https://cyclonedx.org/docs/1.5/json/>): the crates that
//! are compiled into the program, from `cargo metadata` and `Cargo.lock`. It has no serial number, which
//! would differ each time.

use anyhow::Result;
use serde_json::{Value, json};

use super::crates::{Linked, PROGRAM};
use super::{Release, pretty};

/// The document.
pub(super) fn of(release: &Release, crates: &[Linked]) -> Result<String> {
    let (program, parts): (Vec<&Linked>, Vec<&Linked>) = crates.iter().partition(|it| it.name == PROGRAM);
    let root = json!({
        "type": "application",
        "bom-ref": reference(PROGRAM, &release.version),
        "name": "handshake",
        "version": release.version,
        "licenses": program.iter().map(|it| license(it)).collect::<Vec<_>>(),
        "properties": [{"name": "target", "value": release.architecture.triple()}],
    });
    pretty(&json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": release.date("+%Y-%m-%dT%H:%M:%SZ")?, "component": root},
        "components": parts.iter().map(|it| component(it)).collect::<Vec<_>>(),
        "dependencies": crates.iter().map(dependencies).collect::<Vec<_>>(),
    }))
}

fn component(it: &Linked) -> Value {
    let reference = reference(&it.name, &it.version);
    let mut component = json!({
        "type": "library",
        "bom-ref": reference,
        "name": it.name,
        "version": it.version,
        "licenses": [license(it)],
    });
    // A crate of the workspace is in no registry.
    if let Some(sha256) = &it.sha256 {
        component["purl"] = reference.into();
        component["hashes"] = json!([{"alg": "SHA-256", "content": sha256}]);
    }
    component
}

fn dependencies(it: &Linked) -> Value {
    let on: Vec<String> = it.needs.iter().map(|(name, version)| reference(name, version)).collect();
    json!({"ref": reference(&it.name, &it.version), "dependsOn": on})
}

fn reference(name: &str, version: &str) -> String {
    format!("pkg:cargo/{name}@{version}")
}

/// Some crates still write `MIT/Apache-2.0`.
fn license(it: &Linked) -> Value {
    json!({"expression": it.license.replace('/', " OR ")})
}

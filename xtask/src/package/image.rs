//! The image for container engines: an OCI layout in a tar archive
//! (<https://github.com/opencontainers/image-spec>, image-layout.md), with one layer that has one program. No
//! engine and no daemon makes it.

use anyhow::Result;
use serde_json::{Value, json};

use super::tree::{Tree, gzip};
use super::{Parts, Release, pretty, sha256};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Its name.
pub(super) fn file_name(release: &Release) -> String {
    format!("{}.oci.tar", release.stem())
}

/// What engines call it.
pub(super) fn reference(release: &Release) -> String {
    format!("localhost/handshake:{}", release.version)
}

/// Makes the image.
pub(super) fn build(release: &Release, parts: &Parts) -> Result<Vec<u8>> {
    let mut files = Tree::default();
    files.program("usr/bin/handshake", &parts.program);
    files.file("usr/share/doc/handshake/third-party", parts.notices.as_bytes());
    let layer = files.tar(&release.folder("layer"), release.epoch)?;
    let compressed = gzip(&layer)?;
    let mut layout = Tree::default();
    let config = pretty(&config(release, &layer)?)?;
    let manifest = pretty(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blob(&mut layout, CONFIG, config.as_bytes()),
        "layers": [blob(&mut layout, LAYER, &compressed)],
        "annotations": labels(release)?,
    }))?;
    let mut manifest = blob(&mut layout, MANIFEST, manifest.as_bytes());
    manifest["platform"] = json!({"architecture": release.architecture.name(), "os": "linux"});
    manifest["annotations"] = json!({
        "org.opencontainers.image.ref.name": reference(release),
    });
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]});
    layout.file("index.json", pretty(&index)?.as_bytes());
    layout.file("oci-layout", pretty(&json!({"imageLayoutVersion": "1.0.0"}))?.as_bytes());
    layout.tar(&release.folder("image"), release.epoch)
}

/// Adds a blob to the layout; returns its descriptor.
fn blob(layout: &mut Tree, kind: &str, bytes: &[u8]) -> Value {
    let hash = sha256(bytes);
    layout.file(&format!("blobs/sha256/{hash}"), bytes);
    json!({"mediaType": kind, "digest": format!("sha256:{hash}"), "size": bytes.len()})
}

/// What a container of the image is by default: the service, as no user.
fn config(release: &Release, layer: &[u8]) -> Result<Value> {
    Ok(json!({
        "created": release.date("+%Y-%m-%dT%H:%M:%SZ")?,
        "architecture": release.architecture.name(),
        "os": "linux",
        "config": {
            "User": "65534:65534",
            "Entrypoint": ["/usr/bin/handshake"],
            "Cmd": ["serve"],
            "StopSignal": "SIGTERM",
            "Labels": labels(release)?,
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(layer))]},
        "history": [{"created": release.date("+%Y-%m-%dT%H:%M:%SZ")?, "created_by": "cargo xtask package"}],
    }))
}

fn labels(release: &Release) -> Result<Value> {
    Ok(json!({
        "org.opencontainers.image.title": "handshake",
        "org.opencontainers.image.version": release.version,
        "org.opencontainers.image.created": release.date("+%Y-%m-%dT%H:%M:%SZ")?,
        "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
    }))
}

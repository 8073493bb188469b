//! Replays for which there is too little memory.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::support::HANDSHAKE;

/// So many SYNs of as many IPv6 addresses.
fn flood6(flows: u32) -> Vec<u8> {
    let mut file: Vec<u8> = [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 65_535, 101_u32]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    for flow in 0..flows {
        file.extend([1_700_000_000, 0, 60, 60_u32].iter().flat_map(|word| word.to_le_bytes()));
        file.extend([0x60, 0, 0, 0, 0, 20, 6, 64, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0]);
        file.extend(flow.to_be_bytes());
        file.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        file.extend([4, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    }
    file
}

/// Where memory ends, by an option, by a limit of the process, or because of a list.
#[test]
fn where_memory_ends_one_line_says_what_fits() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("flood6.pcap");
    fs::write(&path, flood6(50_000))?;
    let run = |shell: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", shell, "sh"]).arg(HANDSHAKE).arg(&path);
        command.output().context("start replay")
    };
    let rows = [
        (
            r#""$1" replay "$2" --max-memory 40M"#,
            Some(
                "41 MiB of memory are needed at the peak, but only 40 MiB are free by --max-memory: --max-flows 131072 fits",
            ),
        ),
        (r#"ulimit -v 45000; "$1" replay "$2""#, Some("within this process's limit (ulimit -v)")),
        (r#""$1" replay "$2" --max-memory 41M --flows"#, Some("but only 41 MiB are free by --max-memory")),
        (r#""$1" replay "$2" --max-memory 10M --max-flows 1000"#, Some("only 10 MiB are free")),
        (r#""$1" replay "$2" --max-memory 41M"#, None),
        (r#""$1" replay "$2" --flows"#, None),
    ];
    for (shell, said) in rows {
        let output = run(shell)?;
        let error = String::from_utf8(output.stderr)?;
        let Some(said) = said else {
            ensure!(output.status.success() && error.is_empty(), "{shell}: {}, {error}", output.status);
            continue;
        };
        ensure!(output.status.code() == Some(4), "{shell}: {}, {error}", output.status);
        ensure!(error.contains(said) && error.lines().count() == 1, "{shell}: {error}");
        ensure!(output.stdout.is_empty(), "{shell}: nothing is reported");
    }
    Ok(())
}

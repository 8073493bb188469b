//! Reads files of lines as plain JSON, two at a time, and says how many objects there are: what a join of the same
//! files is measured against by `cargo xtask both-ends`.

use std::env;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::thread;

use serde_json::Value;

fn main() -> io::Result<()> {
    let readers: Vec<_> =
        env::args_os().skip(1).map(|path| thread::spawn(move || objects(File::open(path)?))).collect();
    let mut all = 0;
    for reader in readers {
        all += reader.join().map_err(|_| io::Error::other("a reader panicked"))??;
    }
    writeln!(io::stdout(), "{all}")
}

fn objects(file: File) -> io::Result<usize> {
    let (mut from, mut line, mut objects) = (BufReader::with_capacity(1 << 20, file), Vec::new(), 0);
    while from.read_until(b'\n', &mut line)? != 0 {
        objects += usize::from(serde_json::from_slice::<Value>(&line)?.is_object());
        line.clear();
    }
    Ok(objects)
}

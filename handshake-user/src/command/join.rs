//! `handshake join`: joins two accounts of the same attempts by their sequence numbers, and says where they
//! were lost.

use std::io;
use std::thread;

use handshake_agent::free::free_up_to;
use handshake_join::{AccountFiles, JoinError, Joined, Room, are_read_once, needed, read};

use crate::cli::JoinArgs;
use crate::command::{out, warn_of_variables, zone};
use crate::console::say;
use crate::error::CommandError;
use crate::number::size;
use crate::output::{Output, Target};
use crate::report::text::{Style, draw_join, draw_joined};
use crate::report::{OutputFormat, json};

/// What is taken as free where nothing says what is.
const UNKNOWN_FREE: u64 = 1 << 30;

/// Runs `handshake join` and returns its exit code.
///
/// # Errors
///
/// A file that is missing, unreadable or of another kind; both accounts are one; not enough memory; failures
/// to write.
pub(crate) fn run(args: &JoinArgs) -> Result<u8, CommandError> {
    warn_of_variables();
    let [first, second] = args.files();
    let (first, second) = (AccountFiles::at(&first)?, AccountFiles::at(&second)?);
    are_read_once([&first, &second])?;
    let room = room(args, [&first, &second])?;
    // Most of the time is that of reading.
    let (first, second) = thread::scope(|scope| {
        let other = scope.spawn(|| read(&second, &room));
        let first = read(&first, &room);
        (first, other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let joined = Joined::of([first?, second?])?;
    let mut to = Output::to(Target::stdout());
    match args.format {
        OutputFormat::Text => {
            let style = Style::of(&io::stdout(), zone(args.utc));
            for row in joined.rows.iter().filter(|_| args.flows) {
                to.put(|to| to.write_all(draw_joined(&joined, row, style).as_bytes())).map_err(out)?;
            }
            to.put(|to| to.write_all(draw_join(&joined, style).as_bytes())).map_err(out)?;
        }
        OutputFormat::Json | OutputFormat::Jsonl => {
            for row in joined.rows.iter().filter(|_| args.flows) {
                to.put(|to| json::write_joined(to, &joined, row)).map_err(out)?;
            }
            to.put(|to| json::write_join(to, &joined)).map_err(out)?;
        }
    }
    Ok(if joined.tells() { 0 } else { 3 })
}

/// The memory that the join may take, said beforehand.
fn room(args: &JoinArgs, files: [&AccountFiles; 2]) -> Result<Room, CommandError> {
    let free = free_up_to(args.max_memory);
    let (bytes, whose) = free.map_or((UNKNOWN_FREE, String::new()), |free| (free.bytes, free.whose));
    let Some(needed) = needed(files) else {
        say(&format!(
            "joining takes {} of memory at most: what is packed or piped may have any length",
            size(bytes)
        ));
        return Ok(Room::of(bytes));
    };
    if needed > bytes {
        return Err(JoinError::TooLarge { needed: size(needed), free: size(bytes), whose }.into());
    }
    say(&format!("joining takes {} of memory at most", size(needed)));
    Ok(Room::of(needed))
}

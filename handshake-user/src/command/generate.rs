//! `handshake generate`: the man page and the completions, made of the command line's own definition.

use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::{self, GenerateArgs, Generated};
use crate::command::out;
use crate::error::CommandError;
use crate::output::{Output, Target};

/// Runs `handshake generate` and returns its exit code.
///
/// # Errors
///
/// Failures to write.
pub(crate) fn run(args: &GenerateArgs) -> Result<u8, CommandError> {
    let mut command = cli::definition();
    let mut made = Vec::new();
    let shell = match args.what {
        Generated::Man => None,
        Generated::Bash => Some(Shell::Bash),
        Generated::Zsh => Some(Shell::Zsh),
        Generated::Fish => Some(Shell::Fish),
    };
    match shell {
        Some(shell) => clap_complete::generate(shell, &mut command, "handshake", &mut made),
        None => Man::new(command).render(&mut made).map_err(out)?,
    }
    Output::to(Target::stdout()).put(|to| to.write_all(&made)).map_err(out)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_man_page_and_completions_have_the_options() {
        let mut man = Vec::new();
        Man::new(cli::definition()).render(&mut man).expect("memory has room");
        let man = String::from_utf8(man).expect("text");
        assert!(man.contains(".TH handshake 1") && man.contains("half\\-open\\-after"), "{man}");
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut made = Vec::new();
            clap_complete::generate(shell, &mut cli::definition(), "handshake", &mut made);
            let made = String::from_utf8(made).expect("text");
            assert!(made.contains("half-open-after") && made.contains("why"), "{shell}");
        }
    }
}

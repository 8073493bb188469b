//! What is wrong with a command line, as one line that names where the value came from and whose help tells more;
//! and variables that are probably misspelt.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, CommandFactory as _};
use handshake_agent::similar::closest;

use super::{CommandLine, definition};

/// What the name of each option's variable begins with.
const PREFIX: &str = "HANDSHAKE_";

/// Formats a usage error as one line, without clap's decoration.
pub(crate) fn one_line(error: &clap::Error) -> String {
    let said = said(error);
    match error.get(ContextKind::SuggestedArg).or_else(|| error.get(ContextKind::SuggestedSubcommand)) {
        Some(ContextValue::String(near)) => format!("{said}; did you mean '{near}'?"),
        Some(ContextValue::Strings(near)) if !near.is_empty() => {
            format!("{said}; did you mean '{}'?", near.join("' or '"))
        }
        _ => {
            let command = match error.get(ContextKind::Custom) {
                Some(ContextValue::String(command)) => command,
                _ => "handshake",
            };
            format!("{said}; see '{command} --help'")
        }
    }
}

/// The same without a hint.
pub(super) fn said(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let first = rendered.split("\n\n").next().unwrap_or_default();
    let joined: Vec<&str> = first.split_whitespace().collect();
    let said = joined.join(" ");
    said.strip_prefix("error: ").unwrap_or(&said).to_owned()
}

/// The error of a value, or of several together.
pub(super) fn usage(why: String) -> clap::Error {
    CommandLine::command().error(ErrorKind::ValueValidation, why)
}

pub(super) fn refuse_if(wrong: bool, why: impl FnOnce() -> String) -> Result<(), clap::Error> {
    if wrong { Err(usage(why())) } else { Ok(()) }
}

/// The error of this command line: with the variables that gave a value, what only captures have, and the command
/// whose help tells more.
pub(super) fn explained(
    error: clap::Error,
    words: &[OsString],
    is_set: &dyn Fn(&str) -> bool,
) -> clap::Error {
    if !error.use_stderr() {
        return error;
    }
    let error = of_captures(error);
    let said = said(&error);
    let variables = variables(&said, words, is_set);
    let mut error = if variables.is_empty() || error.kind() == ErrorKind::UnknownArgument {
        error
    } else {
        usage(format!("{}: {said}", variables.join(", ")))
    };
    if let Some(command) = command(words) {
        error.insert(ContextKind::Custom, ContextValue::String(command));
    }
    error
}

/// The subcommand of a command line, as it is called.
fn command(words: &[OsString]) -> Option<String> {
    let name = words.get(1)?.to_str()?;
    definition().find_subcommand(name).map(|found| format!("handshake {}", found.get_name()))
}

/// Says of an option that only captures have what there is live.
fn of_captures(error: clap::Error) -> clap::Error {
    const TUNNELS: &str = "--tunnels";
    let is_tunnels = matches!(
        error.get(ContextKind::InvalidArg),
        Some(ContextValue::String(option)) if option == TUNNELS
    );
    if error.kind() == ErrorKind::UnknownArgument && is_tunnels {
        usage(
            "--tunnels is for captures: live, watch the tunnel's inner interface (-i vxlan0), or capture the outer \
             one for 'handshake replay --tunnels'"
                .to_owned(),
        )
    } else {
        error
    }
}

/// The variables of the options that a message names, as far as they are set and no word goes before them.
fn variables(said: &str, words: &[OsString], is_set: &dyn Fn(&str) -> bool) -> Vec<String> {
    let named: BTreeSet<&str> = said
        .split(|c: char| !c.is_ascii_lowercase() && c != '-')
        .filter_map(|word| word.strip_prefix("--"))
        .collect();
    let all = options();
    let given = |option: &Arg| words.iter().filter_map(|word| word.to_str()).any(|word| gives(option, word));
    let of_variable =
        |option: &&Arg| option.get_long().is_some_and(|long| named.contains(long)) && !given(option);
    let names: BTreeSet<String> = all.iter().filter(of_variable).filter_map(variable).collect();
    names.into_iter().filter(|name| is_set(name)).collect()
}

/// Whether a word of the command line gives this option.
fn gives(option: &Arg, word: &str) -> bool {
    let is_long = option.get_long().is_some_and(|long| {
        let rest = word.strip_prefix("--").and_then(|word| word.strip_prefix(long));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    });
    let is_short =
        |short| word.starts_with('-') && !word.starts_with("--") && word.chars().nth(1) == Some(short);
    is_long || option.get_short().is_some_and(is_short)
}

fn options() -> Vec<Arg> {
    let mut command = definition();
    command.build();
    command.get_subcommands().flat_map(clap::Command::get_arguments).cloned().collect()
}

fn variable(option: &Arg) -> Option<String> {
    option.get_env()?.to_str().map(str::to_owned)
}

/// What is said of variables that no option reads and whose names are close to one that is read.
pub(crate) fn misspelt(names: impl IntoIterator<Item = OsString>) -> Option<String> {
    let known: BTreeSet<String> = options().iter().filter_map(variable).collect();
    let known: Vec<&str> = known.iter().filter_map(|name| name.strip_prefix(PREFIX)).collect();
    let near = |name: &str| {
        let option = name.strip_prefix(PREFIX).filter(|option| !known.contains(option))?;
        let near = closest(&known, option)?;
        Some(format!("no option reads {name}; did you mean {PREFIX}{near}?"))
    };
    let all: BTreeSet<String> = names.into_iter().filter_map(|name| near(name.to_str()?)).collect();
    (!all.is_empty()).then(|| all.into_iter().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::{explained, misspelt, one_line, usage};

    /// The error of a message about `--half-open-after` on this command line, where these variables are set.
    fn of(line: &str, said: &str, set: &[&str]) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        one_line(&explained(usage(said.to_owned()), &words, &|name| set.contains(&name)))
    }

    #[test]
    fn the_variable_is_named_that_gave_the_value() {
        const SAID: &str = "invalid value '5' for '--half-open-after <DURATION>': a unit is missing";
        const AFTER: &str = "HANDSHAKE_HALF_OPEN_AFTER";
        let named = format!("{AFTER}: {SAID}; see 'handshake why --help'");
        assert_eq!(of("handshake why", SAID, &[AFTER, "HANDSHAKE_AFTER"]), named);
        assert_eq!(of("handshake why", SAID, &[]), format!("{SAID}; see 'handshake why --help'"));
        for words in ["--half-open-after 5", "--half-open-after=5"] {
            let line = format!("handshake {words}");
            assert_eq!(of(&line, SAID, &[AFTER]), format!("{SAID}; see 'handshake --help'"));
        }
        let both = "--expire-after must not be shorter than --half-open-after";
        assert_eq!(
            of("handshake watch --half-open-after 1h", both, &[AFTER, "HANDSHAKE_EXPIRE_AFTER"]),
            format!("HANDSHAKE_EXPIRE_AFTER: {both}; see 'handshake watch --help'")
        );
        let hook = "invalid value 'x' for '--interface <IF>'";
        for (words, count) in [("-i x", 0), ("-ix", 0), ("--wait", 1), ("--internal x", 1)] {
            let said = of(&format!("handshake {words}"), hook, &["HANDSHAKE_INTERFACE"]);
            assert_eq!(said.matches("HANDSHAKE_INTERFACE").count(), count, "{said}");
        }
    }

    #[test]
    fn a_misspelt_variable_is_told() {
        let of = |names: &[&str]| misspelt(names.iter().map(OsString::from));
        assert_eq!(
            of(&["HANDSHAKE_HALFOPEN_AFTER", "HOME", "HANDSHAKE_PORT", "HANDSHAKE_INTERVALL"]).as_deref(),
            Some(
                "no option reads HANDSHAKE_HALFOPEN_AFTER; did you mean HANDSHAKE_HALF_OPEN_AFTER? \
                 no option reads HANDSHAKE_INTERVALL; did you mean HANDSHAKE_INTERVAL?"
            )
        );
        // What tests, builds and clusters have.
        let others = [
            "HANDSHAKE_SKIP_LOG",
            "HANDSHAKE_CAPTURES",
            "HANDSHAKE_SEED",
            "HANDSHAKE_FLOOD_SECONDS",
            "HANDSHAKE_LAYOUT",
            "HANDSHAKE_BPF_OBJECT",
            "HANDSHAKE_TEST_HOOK",
            "HANDSHAKE_LAB_SWEEP",
            "HANDSHAKE_LAB_SIGNALS",
            "HANDSHAKE_SERVICE_HOST",
            "HANDSHAKE_SERVICE_PORT",
            "HANDSHAKE_PORT_443_TCP",
        ];
        assert_eq!(of(&others), None);
    }
}

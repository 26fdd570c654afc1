//! The course's way to write flags, as Go's `flag` package reads it: one dash or two, `-x v` or `-x=v`.
//!
//! [`normalise`] turns such a command line into clap's form before clap sees it; everything else, messages included,
//! is clap's. It knows no flags of its own: it asks the clap command which ones take a value.
//!
//! Differences from Go that remain: none in what is accepted. A word that is no flag ends the flags, and what follows
//! is an error, since the course's programs take none.

use std::ffi::{OsStr, OsString};

use clap::Command;

/// `-addr x --path=y` becomes `--addr=x --path=y`. The first argument is the program's name and stays.
pub fn normalise(command: &Command, args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.into_iter();
    let mut normal: Vec<OsString> = args.next().into_iter().collect();
    while let Some(arg) = args.next() {
        let Some(flag) = flag_of(&arg) else {
            // The end of the flags: `--` makes clap see words, whatever they look like.
            normal.push("--".into());
            normal.extend((arg != "--").then_some(arg));
            normal.extend(args);
            break;
        };
        let flag = if flag == "h" { "help" } else { flag };
        let mut long = OsString::from(format!("--{flag}"));
        if !flag.contains('=')
            && takes_value(command, flag)
            && let Some(value) = args.next()
        {
            long.push("=");
            long.push(value);
        }
        normal.push(long);
    }
    normal
}

/// The name of a flag, with its value if it has `=`: what follows one dash or two.
fn flag_of(arg: &OsStr) -> Option<&str> {
    let rest = arg.to_str()?.strip_prefix('-')?;
    let name = rest.strip_prefix('-').unwrap_or(rest);
    (!name.is_empty()).then_some(name)
}

/// Whether the next argument is the flag's value. A truth value is never: `-x false` is a flag and a word.
fn takes_value(command: &Command, name: &str) -> bool {
    command.get_arguments().any(|arg| {
        let is_it = arg.get_long_and_visible_aliases().is_some_and(|names| names.contains(&name));
        is_it && arg.get_action().takes_values() && !arg.is_require_equals_set()
    })
}

/// Reads a truth value as Go does.
///
/// # Errors
/// It is none.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("one of true, false".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction};

    use super::*;

    fn command() -> Command {
        Command::new("program")
            .arg(Arg::new("addr").long("addr"))
            .arg(Arg::new("level").long("L").visible_alias("loglevel"))
            .arg(Arg::new("force").long("force").num_args(0..=1).require_equals(true))
            .arg(Arg::new("version").long("V").action(ArgAction::SetTrue))
    }

    fn normal(line: &str) -> String {
        let args = std::iter::once("program").chain(line.split(' ')).map(OsString::from);
        let normal = normalise(&command(), args);
        let words: Vec<_> = normal.iter().skip(1).map(|word| word.to_str().unwrap()).collect();
        words.join(" ")
    }

    #[test]
    fn both_dashes_and_both_ways_to_give_a_value() {
        for line in ["-addr h:1", "--addr h:1", "-addr=h:1", "--addr=h:1"] {
            assert_eq!(normal(line), "--addr=h:1", "{line}");
        }
        assert_eq!(normal("-L debug -addr -1"), "--L=debug --addr=-1");
        assert_eq!(normal("-loglevel debug"), "--loglevel=debug");
        assert_eq!(normal("-addr a=b"), "--addr=a=b");
        assert_eq!(normal("-addr="), "--addr=");
    }

    #[test]
    fn truth_values_take_no_word() {
        assert_eq!(normal("-force -V"), "--force --V");
        assert_eq!(normal("-force=false"), "--force=false");
        assert_eq!(normal("-force false"), "--force -- false");
        assert!(
            parse_bool("T").unwrap() && !parse_bool("0").unwrap() && parse_bool("yes").is_err()
        );
    }

    #[test]
    fn the_first_word_ends_the_flags() {
        assert_eq!(normal("word -addr x"), "-- word -addr x");
        assert_eq!(normal("-addr x -- -V"), "--addr=x -- -V");
        assert_eq!(normal("-"), "-- -");
    }

    #[test]
    fn what_is_unknown_or_incomplete_is_left_for_clap_to_judge() {
        assert_eq!(normal("-adr x"), "--adr -- x");
        assert_eq!(normal("-addr"), "--addr");
        assert_eq!(normal("-h"), "--help");
    }
}

//! Completions for shells and manual pages, both made from the command line itself, so that they can't lag behind it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::usage::usage;
use crate::verdict::Verdict;

const NAME: &str = "ringmain-bench";

/// Flags of `completions`.
#[derive(Args, Clone, Debug)]
pub struct Completions {
    /// Which shell's
    pub shell: Shell,
}

/// Flags of `man`.
#[derive(Args, Clone, Debug)]
pub struct Man {
    /// The page of one command [default: the page of all]
    pub command: Option<String>,
    /// Write all pages into this directory instead
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub out: Option<PathBuf>,
}

/// Prints what a shell reads to complete commands and flags.
///
/// # Errors
/// If standard output can't be written to.
pub fn completions(flags: &Completions) -> Result<Verdict> {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut command(), NAME, &mut script);
    print(&script)
}

/// Prints a manual page, or writes all of them.
///
/// # Errors
/// If there is no such command, or a page can't be written.
pub fn man(flags: &Man) -> Result<Verdict> {
    let pages = pages()?;
    if let Some(dir) = &flags.out {
        for (name, page) in &pages {
            write(dir, name, page)?;
        }
        return Ok(Verdict::Passed);
    }
    let wanted = flags.command.as_ref().map_or(NAME.to_owned(), |name| format!("{NAME}-{name}"));
    let Some((_, page)) = pages.iter().find(|(name, _)| *name == wanted) else {
        let names =
            command().get_subcommands().map(|c| c.get_name().to_owned()).collect::<Vec<_>>();
        return Err(usage(format!("no such command; there are {}", names.join(", "))));
    };
    print(page)
}

/// The commands that are for people: those behind them are left out.
fn command() -> Command {
    let whole = Cli::command();
    let shown: Vec<Command> =
        whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    let about = whole.get_about().cloned().unwrap_or_default();
    let version = whole.get_version().unwrap_or_default().to_owned();
    Command::new(NAME).version(version).about(about).subcommands(shown)
}

/// All pages by name, the one of all commands first.
fn pages() -> Result<Vec<(String, Vec<u8>)>> {
    let mut all = command().disable_help_subcommand(true);
    all.build();
    let mut pages = vec![(NAME.to_owned(), page(all.clone())?)];
    for one in all.get_subcommands() {
        let name = format!("{NAME}-{}", one.get_name());
        pages.push((name.clone(), page(one.clone().name(name))?));
    }
    Ok(pages)
}

fn page(command: Command) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command).section("1").manual("Ringmain").render(&mut text)?;
    Ok(text)
}

fn write(dir: &Path, name: &str, page: &[u8]) -> Result<()> {
    let path = dir.join(format!("{name}.1"));
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}

fn print(text: &[u8]) -> Result<Verdict> {
    match std::io::stdout().write_all(text) {
        // Whoever reads has seen enough, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Verdict::Passed),
        written => written.context("cannot write to standard output").map(|()| Verdict::Passed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_hidden_ones_have_none() {
        let names: Vec<String> =
            pages().expect("pages").into_iter().map(|(name, _)| name).collect();
        for shown in Cli::command().get_subcommands() {
            let page = format!("{NAME}-{}", shown.get_name());
            assert_eq!(names.contains(&page), !shown.is_hide_set(), "{page}");
        }
        assert_eq!(names[0], NAME);
    }

    #[test]
    fn a_page_has_the_flags_and_the_examples_of_its_command() {
        let pages = pages().expect("pages");
        let (_, quick) =
            pages.iter().find(|(name, _)| name == "ringmain-bench-quick").expect("a page");
        let quick = String::from_utf8(quick.clone()).expect("text");
        assert!(
            quick.starts_with(".ie") || quick.contains(".TH ringmain-bench-quick 1"),
            "{quick}"
        );
        for word in ["\\-\\-seconds", "\\-\\-payload", "Exit codes"] {
            assert!(quick.contains(word), "{word}: {quick}");
        }
    }

    #[test]
    fn each_shell_completes_every_command_that_is_shown_and_none_that_is_hidden() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command(), NAME, &mut script);
            let script = String::from_utf8(script).expect("text");
            for one in Cli::command().get_subcommands() {
                let name = one.get_name();
                // A name is part of longer words: those that are hidden are told by what they do.
                let about = one.get_about().expect("every command says what it does").to_string();
                let hidden = one.is_hide_set();
                assert!(hidden || script.contains(name), "{shell}: {name}");
                assert!(!hidden || !script.contains(&about), "{shell}: {name}");
            }
        }
    }
}

//! The binary as a user would start it. Cargo builds it for no other package's tests, so it is looked for beside them.

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};

/// `bmq` of the same profile as the running test. `make test-slow` builds it before.
pub fn path() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile = test.ancestors().nth(2).context("the test lies in no target folder")?;
    let binary = profile.join("bmq");
    ensure!(binary.is_file(), "there is no {}: run `cargo build --bin bmq` first", binary.display());
    Ok(binary)
}

/// A call of a tool of it, such as `topic create`, at a server.
pub fn command(server: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(path()?);
    command.arg("--server").arg(server).args(arguments);
    Ok(command)
}

/// Runs a tool, and returns what it printed.
pub fn run(server: &str, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = command(server, arguments)?.output()?;
    succeeded(arguments, output)
}

/// What a tool printed, unless it failed.
pub fn succeeded(arguments: &[&str], output: Output) -> Result<Vec<u8>> {
    if !output.status.success() {
        let (status, said) = (output.status, String::from_utf8_lossy(&output.stderr));
        bail!("bmq {} ended with {status}: {}", arguments.join(" "), said.trim());
    }
    Ok(output.stdout)
}

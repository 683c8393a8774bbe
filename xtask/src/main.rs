//! `cargo xtask <check>`: the project's own checks. See the README.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

mod check_deps;
mod finding;
mod mask;
mod tidy;

use finding::Finding;

const USAGE: &str = "\
usage: cargo xtask <check>

  tidy         form of the sources and documents
  check-deps   which crate may depend on which";

fn main() -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the project's root")?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tidy"] => Ok(report("tidy", &tidy::run(root)?)),
        ["check-deps"] => Ok(report("check-deps", &check_deps::run(root)?)),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprintln!("{USAGE}");
            Ok(ExitCode::from(2))
        }
    }
}

fn report(check: &str, findings: &[Finding]) -> ExitCode {
    for finding in findings {
        eprintln!("{finding}");
    }
    if findings.is_empty() {
        println!("{check}: ok");
        return ExitCode::SUCCESS;
    }
    eprintln!("{check}: {} to put right", findings.len());
    ExitCode::FAILURE
}

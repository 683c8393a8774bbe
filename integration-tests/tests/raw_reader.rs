//! The raw reader's own tests, in its own language.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

#[test]
fn the_raw_reader_finds_records_and_damage() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("raw_reader");
    let output = Command::new("python3").args(["-B", "test_raw_reader.py"]).current_dir(folder).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

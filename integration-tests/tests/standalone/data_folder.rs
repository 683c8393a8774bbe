//! One process at a time has a data folder.

use anyhow::{Result, ensure};
use bmq_integration_tests::standalone::{Standalone, run_to_end};

#[test]
fn a_second_process_is_refused_the_folder() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let first = Standalone::start(&data, &[])?;
    first.bmq(&["topic", "create", "events"])?;

    let second = run_to_end(&data, &[])?;
    let said = String::from_utf8_lossy(&second.stderr);
    ensure!(second.status.code() == Some(1), "{}: {said}", second.status);
    let folder_is_named = said.contains(&data.display().to_string());
    ensure!(folder_is_named && said.contains("another process uses the data folder"), "{said}");

    super::tools::produce(&first, "events", &[], b"still here\n")?;
    ensure!(first.bmq(&["consume", "events", "--until-end"])? == b"still here\n");
    let (status, _) = first.interrupt()?;
    ensure!(status.success(), "{status}");
    // Whoever stopped has let go of it.
    let third = Standalone::start(&data, &[])?;
    ensure!(third.bmq(&["consume", "events", "--until-end"])? == b"still here\n");
    Ok(())
}

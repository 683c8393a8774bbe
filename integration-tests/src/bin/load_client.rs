//! The load as a process of its own, so that what a client was told is recorded by none of those who told it.
//!
//! Takes its plan as one line of JSON on standard input, and stops when that input ends.

use std::io::BufRead;

use anyhow::{Context, Result};
use bmq_common::Shutdown;
use bmq_common::telemetry::{LogConfig, init_logs};
use bmq_integration_tests::load::{self, LoadPlan};

fn main() -> Result<()> {
    init_logs(LogConfig::default())?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let plan: LoadPlan = serde_json::from_str(&line).context("reading the plan")?;
    let stop = Shutdown::new();
    let when_input_ends = stop.clone();
    std::thread::spawn(move || {
        // Whatever ends the input, an error too, ends the load.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        when_input_ends.begin();
    });
    tokio::runtime::Runtime::new()?.block_on(load::run(plan, stop))
}

//! What commands show: tables for people, JSON for scripts. Logs and progress go to standard error, so standard output
//! holds the answer and nothing else.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::exit::OutputError;

/// How a command shows its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns, for people.
    #[default]
    Table,
    /// One JSON document, for scripts; fields are only ever added.
    Json,
}

/// The `-o` of a command.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct OutputArguments {
    /// How to show the answer
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
}

/// An answer that can be shown in every format.
pub trait Answer: Serialize {
    fn table(&self) -> String;
}

impl OutputArguments {
    pub fn print(self, answer: &impl Answer) -> anyhow::Result<()> {
        let text = match self.format {
            Format::Table => answer.table(),
            Format::Json => serde_json::to_string_pretty(answer)?,
        };
        print_text(&format!("{}\n", text.trim_end()))
    }
}

/// Writes to standard output, at once.
pub fn print_text(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Ok(written.map_err(OutputError)?)
}

/// A table without lines, as other command line tools show them.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// A value, or a dash where there is none.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_plain_columns() {
        let rows = [vec!["orders".to_owned(), "3".to_owned()], vec!["a".to_owned(), or_dash(None::<u32>)]];
        assert_eq!(table(&["TOPIC", "PARTITIONS"], rows), "TOPIC   PARTITIONS\norders  3\na       -");
    }
}

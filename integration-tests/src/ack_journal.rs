//! What a client was told, in the order in which it was told, as JSON lines: written by the client's own process while
//! it happens, read by those who judge afterwards.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::payload::PayloadId;

/// One line. Times are milliseconds since 1970, by the machine's clock, which all processes here share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Entry {
    /// The first line.
    Began {
        topic: String,
        partitions: u32,
        /// Producers with a lower number are idempotent, the others are not.
        idempotent_producers: u32,
    },
    /// The record was acknowledged as stored, at this offset.
    Acked {
        #[serde(flatten)]
        id: PayloadId,
        offset: u64,
        deduplicated: bool,
        sent_at: i64,
        acked_at: i64,
    },
    /// The record may have been written or not.
    Unknown {
        #[serde(flatten)]
        id: PayloadId,
        sent_at: i64,
        failed_at: i64,
        error: String,
    },
    /// The record was certainly not written.
    Refused {
        #[serde(flatten)]
        id: PayloadId,
        sent_at: i64,
        failed_at: i64,
        error: String,
    },
    /// A consumer that follows the topic during the load was given this record. Without an id it was not whole.
    Seen { partition: u32, offset: u64, id: Option<PayloadId> },
    /// That consumer was told of a failure, and began anew where it was.
    Interrupted { at: i64, error: String },
}

/// Writes a journal.
pub struct JournalWriter {
    out: BufWriter<File>,
}

impl JournalWriter {
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { out: BufWriter::new(file) })
    }

    pub fn append(&mut self, entry: &Entry) -> Result<()> {
        serde_json::to_writer(&mut self.out, entry)?;
        Ok(self.out.write_all(b"\n")?)
    }

    /// Makes what was appended visible to readers.
    pub fn flush(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }
}

/// Reads a journal, also while it grows.
pub struct JournalReader {
    file: BufReader<File>,
    /// The beginning of a line whose end is not there yet.
    line: String,
}

impl JournalReader {
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { file: BufReader::new(file), line: String::new() })
    }

    /// What came since the last call.
    pub fn read_new(&mut self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        while self.file.read_line(&mut self.line)? > 0 {
            if !self.line.ends_with('\n') {
                break;
            }
            let entry = serde_json::from_str(&self.line);
            entries.push(entry.with_context(|| format!("the journal has the line {}", self.line))?);
            self.line.clear();
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_growing_journal_is_read_in_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let id = PayloadId { producer: 1, partition: 2, sequence: 3 };
        let acked = Entry::Acked { id, offset: 4, deduplicated: false, sent_at: 5, acked_at: 6 };
        let seen = Entry::Seen { partition: 2, offset: 4, id: Some(id) };
        let lines = [&acked, &seen].map(|entry| format!("{}\n", serde_json::to_string(entry).unwrap())).concat();

        let mut file = File::create(&path).unwrap();
        let mut reader = JournalReader::open(&path).unwrap();
        let mut found = Vec::new();
        for byte in lines.bytes() {
            file.write_all(&[byte]).unwrap();
            found.extend(reader.read_new().unwrap());
        }
        assert_eq!(found, [acked, seen]);
    }
}

//! `bmq standalone` from end to end, as its user sees it: the tools' output and exit codes, files that go in and come
//! out, stops of every kind, and a disk without room.

#![allow(clippy::unwrap_used)] // Also in the functions that the tests share.

#[path = "standalone/data_folder.rs"]
mod data_folder;
#[path = "standalone/full_disk.rs"]
mod full_disk;
#[path = "standalone/kill.rs"]
mod kill;
#[path = "standalone/large_file.rs"]
mod large_file;
#[path = "standalone/tools.rs"]
mod tools;

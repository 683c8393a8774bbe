//! The file layer under the local store: exactly the operations it uses, so that a test can put a disk under it that
//! forgets, at a loss of power, what was not synced.
//!
//! All calls block. What each promises after a loss of power is written at each; what is not promised may be lost in
//! any part: a file's unsynced pages one by one, a name whose folder was not synced.

#[cfg(feature = "testing")]
pub mod power_loss;
pub mod real;

use std::any::Any;
use std::io;
use std::path::Path;

#[cfg(feature = "testing")]
pub use power_loss::PowerLossDisk;
pub use real::RealDisk;

/// A name found in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskEntry {
    pub name: String,
    pub is_folder: bool,
    /// Zero for a folder.
    pub length: u64,
}

/// A lock that holds until it is dropped, or its process ends.
pub type DiskLock = Box<dyn Any + Send + Sync>;

/// Folders and names. Nothing about a name is durable before `sync_folder` of the folder that holds it.
pub trait Disk: Send + Sync + 'static {
    /// Makes one folder; its parent must be there. Fine if it exists.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;

    /// Makes durable which names the folder holds.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Makes a file for writing; `AlreadyExists` if the name is taken.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Makes a file for writing, or empties the one that is there.
    fn create_or_empty(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for reading and syncing.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for writing over its content, from its first byte.
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// A file's length; `NotFound` if the name is not there.
    fn length(&self, path: &Path) -> io::Result<u64>;

    /// What a folder holds, in no order; `NotFound` if it is not there.
    fn list(&self, folder: &Path) -> io::Result<Vec<DiskEntry>>;

    /// Gives a file another name within its folder, in place of the file that had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty folder.
    fn remove_folder(&self, folder: &Path) -> io::Result<()>;

    /// Takes the lock that `path` stands for; `WouldBlock` if anybody holds it.
    fn lock(&self, path: &Path) -> io::Result<DiskLock>;
}

/// An open file. Writes go on where the last of this handle ended, from the first byte on.
pub trait DiskFile: Send + Sync + 'static {
    /// Writes all parts, in order. After an error any part of them may be in the file.
    fn write_all(&self, parts: &[&[u8]]) -> io::Result<()>;

    /// Fills `buffer` from `position`; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()>;

    fn length(&self) -> io::Result<u64>;

    /// Makes durable the content and the length, whoever wrote them.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes durable everything about the file except its name.
    fn sync_all(&self) -> io::Result<()>;

    /// Forgets cached copies of what is synced, so that reading shows what the disk holds.
    fn drop_cached(&self) -> io::Result<()>;
}

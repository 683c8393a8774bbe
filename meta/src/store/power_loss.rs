//! A disk in memory that can lose its power, for tests of [`super::redb`].
//!
//! What was written since the last sync survives page by page, at random: of each 4 KiB page any of the contents that
//! it had since then, in any combination with the others, and the file's length likewise.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use bmq_common::Random;
use parking_lot::Mutex;
use redb::StorageBackend;

const PAGE: usize = 4_096;

/// The disk; clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct PowerLossDisk {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    /// What programs see.
    current: Vec<u8>,
    /// Contents that each page had since the last sync, the synced one first.
    unsynced: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Lengths that the file had since the last sync, the synced one first; empty if it did not change.
    lengths: Vec<usize>,
    /// Grows with each loss of power: a file opened before it is dead.
    generation: u64,
    /// Writes and syncs until the power goes; `None` is never.
    remaining: Option<u64>,
    /// Pages that take room; a file grown without writing takes none, as on real disks.
    allocated: BTreeSet<usize>,
    /// How many pages there is room for.
    room: Option<usize>,
    syncs: u64,
}

/// The disk's one file, open until the next loss of power.
#[derive(Debug)]
pub struct PowerLossFile {
    disk: Arc<Mutex<Disk>>,
    generation: u64,
}

impl PowerLossDisk {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn open(&self) -> PowerLossFile {
        let generation = self.disk.lock().generation;
        PowerLossFile { disk: Arc::clone(&self.disk), generation }
    }

    /// Lets the power go after so many more writes and syncs: from then on every call fails.
    pub fn cut_after(&self, operations: u64) {
        self.disk.lock().remaining = Some(operations);
    }

    /// Leaves room for so many more pages: writing others fails. `None` is room without end.
    pub fn set_room(&self, more_pages: Option<usize>) {
        let mut disk = self.disk.lock();
        disk.room = more_pages.map(|more| disk.allocated.len() + more);
    }

    /// How many syncs succeeded.
    pub fn syncs(&self) -> u64 {
        self.disk.lock().syncs
    }

    /// The power is off and on again: open files are dead, and the disk holds what `random` lets survive.
    pub fn lose_power(&self, random: &Random) {
        let mut disk = self.disk.lock();
        let pick = |count: usize| usize::try_from(random.below(count as u64)).expect("an index fits");
        let unsynced = std::mem::take(&mut disk.unsynced);
        let mut lengths = std::mem::take(&mut disk.lengths);
        lengths.push(disk.current.len());
        let length = lengths[pick(lengths.len())];
        disk.current.resize(length, 0);
        for (page, mut contents) in unsynced {
            contents.push(disk.page(page));
            let survivor = contents.swap_remove(pick(contents.len()));
            disk.put_page(page, &survivor);
        }
        disk.generation += 1;
        disk.remaining = None;
    }
}

impl Disk {
    /// A page's content, shorter at the file's end.
    fn page(&self, page: usize) -> Vec<u8> {
        let start = (page * PAGE).min(self.current.len());
        let end = (start + PAGE).min(self.current.len());
        self.current[start..end].to_vec()
    }

    /// Puts back a page's content as far as the file reaches; what it did not have is zero.
    fn put_page(&mut self, page: usize, content: &[u8]) {
        let start = (page * PAGE).min(self.current.len());
        let end = (start + PAGE).min(self.current.len());
        let target = &mut self.current[start..end];
        let known = content.len().min(target.len());
        target[..known].copy_from_slice(&content[..known]);
        target[known..].fill(0);
    }

    /// Remembers the contents of the pages that are about to change.
    fn remember(&mut self, start: usize, end: usize) {
        for page in start / PAGE..end.div_ceil(PAGE) {
            let content = self.page(page);
            self.unsynced.entry(page).or_default().push(content);
        }
    }

    fn allocate(&mut self, start: usize, end: usize) -> io::Result<()> {
        for page in start / PAGE..end.div_ceil(PAGE) {
            if self.allocated.contains(&page) {
                continue;
            }
            if self.room.is_some_and(|room| self.allocated.len() >= room) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.allocated.insert(page);
        }
        Ok(())
    }

    /// Counts an operation that reaches the disk.
    fn operate(&mut self) -> io::Result<()> {
        match &mut self.remaining {
            None => Ok(()),
            Some(0) => Err(dead()),
            Some(remaining) => {
                *remaining -= 1;
                Ok(())
            }
        }
    }
}

fn dead() -> io::Error {
    io::Error::other("the power is off")
}

impl PowerLossFile {
    fn with<T>(&self, call: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.disk.lock();
        if disk.generation != self.generation {
            return Err(dead());
        }
        call(&mut disk)
    }
}

impl StorageBackend for PowerLossFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|disk| Ok(disk.current.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|disk| {
            if disk.remaining == Some(0) {
                return Err(dead());
            }
            let start = offset as usize;
            let found = disk.current.get(start..start + out.len());
            out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|disk| {
            disk.operate()?;
            let (before, after) = (disk.current.len(), len as usize);
            disk.remember(after.min(before), before);
            disk.allocated.retain(|page| page * PAGE < after);
            disk.lengths.push(before);
            disk.current.resize(after, 0);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|disk| {
            disk.operate()?;
            disk.unsynced.clear();
            disk.lengths.clear();
            disk.syncs += 1;
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|disk| {
            disk.operate()?;
            let (start, end) = (offset as usize, offset as usize + data.len());
            if end > disk.current.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            disk.allocate(start, end)?;
            disk.remember(start, end);
            disk.current[start..end].copy_from_slice(data);
            Ok(())
        })
    }
}

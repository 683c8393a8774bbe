//! A disk in memory that can lose power, and then keeps of what was not synced only what chance leaves.
//!
//! At a loss of power, independently:
//! * every name made, replaced or removed since its folder's last sync is as before or as after; a folder that is lost
//!   takes everything below it along;
//! * a file's length is any from its last synced length to its last one;
//! * every 4 KiB page written since the last sync is as before (zeros where it was not there) or as after.
//!
//! Nothing outlasts what was promised and nothing synced is lost. A sync promises nothing about the file's name.
//! The same seed and the same operations give the same losses.

mod machine;

use std::io;
use std::path::Path;
use std::sync::Arc;

use bmq_common::Random;
use parking_lot::{Condvar, Mutex, MutexGuard};

use self::machine::{Content, Hold, Machine, Names, Node, NodeId, split};
use super::{Disk, DiskEntry, DiskFile, DiskLock};

/// A machine's disk, which outlives the machine's runs. Clones are handles to the same disk.
#[derive(Clone)]
pub struct PowerLossDisk {
    shared: Arc<Shared>,
}

struct Shared {
    machine: Mutex<Machine>,
    /// Woken when a sync begins to be held, when it may go on, and when power is lost.
    changed: Condvar,
    random: Random,
    /// Told of each loss of power while nothing else can happen on the disk.
    observer: Mutex<Option<Box<dyn Fn() + Send + Sync>>>,
}

impl PowerLossDisk {
    /// An empty disk, whose losses follow from the seed.
    pub fn new(seed: u64) -> Self {
        let (changed, random) = (Condvar::new(), Random::from_seed(seed));
        let shared = Shared { machine: Mutex::new(Machine::new()), changed, random, observer: Mutex::new(None) };
        Self { shared: Arc::new(shared) }
    }

    /// The disk as the machine's present run sees it; after a loss of power every call on it fails.
    pub fn boot(&self) -> Arc<dyn Disk> {
        let run = self.shared.machine.lock().run;
        Arc::new(Run { shared: self.shared.clone(), run })
    }

    /// Loses power now. The next `boot` finds what is left.
    pub fn lose_power(&self) {
        self.shared.lose_power(&mut self.shared.machine.lock());
    }

    /// Has `observer` called at each loss of power, at that very moment: what else the machine has loses its power, too.
    /// It must not use this disk.
    pub fn at_loss_of_power(&self, observer: impl Fn() + Send + Sync + 'static) {
        *self.shared.observer.lock() = Some(Box::new(observer));
    }

    /// Loses power instead of the operation that comes after `operations` more.
    pub fn lose_power_after(&self, operations: u64) {
        self.shared.machine.lock().operations_left = Some(operations);
    }

    /// Has room for `bytes` more, and then is full. `None` for a disk that is never full.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.shared.machine.lock().room = bytes;
    }

    /// How many syncs of files took effect so far.
    pub fn file_syncs(&self) -> u64 {
        self.shared.machine.lock().file_syncs
    }

    /// Holds the next `sync_data` before it has any effect, until the answer is dropped.
    pub fn hold_next_sync(&self) -> HeldSync {
        self.shared.machine.lock().hold = Hold::NextSync;
        HeldSync { shared: self.shared.clone() }
    }
}

/// A sync that is held, or the next one that will be.
pub struct HeldSync {
    shared: Arc<Shared>,
}

impl HeldSync {
    /// Blocks until the sync has come and is held.
    pub fn wait_until_held(&self) {
        let mut machine = self.shared.machine.lock();
        self.shared.changed.wait_while(&mut machine, |machine| machine.hold == Hold::NextSync);
    }
}

impl Drop for HeldSync {
    fn drop(&mut self) {
        self.shared.machine.lock().hold = Hold::Off;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// The machine for one operation of its run `run`; power may be lost instead.
    fn operate(&self, run: u64) -> io::Result<MutexGuard<'_, Machine>> {
        let mut machine = self.machine.lock();
        if machine.run == run && machine.operations_left == Some(0) {
            self.lose_power(&mut machine);
        }
        if machine.run != run {
            return Err(io::Error::other("the machine has lost power"));
        }
        machine.operations_left = machine.operations_left.map(|left| left - 1);
        Ok(machine)
    }

    fn lose_power(&self, machine: &mut Machine) {
        machine.lose_power(&self.random);
        if let Some(observer) = &*self.observer.lock() {
            observer();
        }
        self.changed.notify_all();
    }
}

/// The disk in one run of the machine.
struct Run {
    shared: Arc<Shared>,
    run: u64,
}

impl Run {
    fn operate(&self) -> io::Result<MutexGuard<'_, Machine>> {
        self.shared.operate(self.run)
    }

    fn handle(&self, node: NodeId) -> Box<dyn DiskFile> {
        Box::new(Handle { shared: self.shared.clone(), run: self.run, node, written: Mutex::new(0) })
    }
}

impl Disk for Run {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        let mut machine = self.operate()?;
        if machine.names_in(folder).is_ok() {
            return Ok(());
        }
        machine.add(folder, Node::Folder { now: Names::new(), synced: Names::new() })?;
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.operate()?.sync_names(folder)
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let node = self.operate()?.add(path, Node::File(Content::default()))?;
        Ok(self.handle(node))
    }

    fn create_or_empty(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut machine = self.operate()?;
        let node = match machine.file_at(path) {
            Ok(node) => {
                machine.file(node)?.now.clear();
                node
            }
            Err(_) => machine.add(path, Node::File(Content::default()))?,
        };
        Ok(self.handle(node))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let node = self.operate()?.file_at(path)?;
        Ok(self.handle(node))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open_read(path)
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        let mut machine = self.operate()?;
        let node = machine.node_at(path)?;
        Ok(machine.file(node).map_or(0, |content| content.now.len() as u64))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<DiskEntry>> {
        let mut machine = self.operate()?;
        let names = machine.names_in(folder)?.clone();
        let entries = names.into_iter().map(|(name, node)| match machine.file(node) {
            Ok(content) => DiskEntry { name, is_folder: false, length: content.now.len() as u64 },
            Err(_) => DiskEntry { name, is_folder: true, length: 0 },
        });
        Ok(entries.collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut machine = self.operate()?;
        let node = machine.file_at(from)?;
        let (folder, old) = split(from)?;
        let (same_folder, new) = split(to)?;
        assert_eq!(folder, same_folder, "files are renamed within their folder");
        let names = machine.names_in(folder)?;
        names.remove(&old);
        names.insert(new, node);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.operate()?;
        machine.file_at(path)?;
        let (folder, name) = split(path)?;
        machine.names_in(folder)?.remove(&name);
        Ok(())
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        let mut machine = self.operate()?;
        if !machine.names_in(folder)?.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (parent, name) = split(folder)?;
        machine.names_in(parent)?.remove(&name);
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<DiskLock> {
        let mut machine = self.operate()?;
        let node = match machine.file_at(path) {
            Ok(node) => node,
            Err(_) => machine.add(path, Node::File(Content::default()))?,
        };
        if !machine.locks.insert(node) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock { shared: self.shared.clone(), run: self.run, node }))
    }
}

struct Lock {
    shared: Arc<Shared>,
    run: u64,
    node: NodeId,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut machine = self.shared.machine.lock();
        if machine.run == self.run {
            machine.locks.remove(&self.node);
        }
    }
}

struct Handle {
    shared: Arc<Shared>,
    run: u64,
    node: NodeId,
    written: Mutex<usize>,
}

impl Handle {
    fn operate(&self) -> io::Result<MutexGuard<'_, Machine>> {
        self.shared.operate(self.run)
    }

    fn sync(&self, mut machine: MutexGuard<'_, Machine>) -> io::Result<()> {
        machine.file_syncs += 1;
        machine.file(self.node)?.sync();
        Ok(())
    }
}

impl DiskFile for Handle {
    fn write_all(&self, parts: &[&[u8]]) -> io::Result<()> {
        let mut written = self.written.lock();
        let mut machine = self.operate()?;
        for part in parts {
            let room = machine.room.unwrap_or(u64::MAX);
            let fitting = part.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            machine.room = machine.room.map(|room| room - fitting as u64);
            machine.file(self.node)?.write(*written, &part[..fitting]);
            *written += fitting;
            if fitting < part.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(())
    }

    fn read_exact_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut machine = self.operate()?;
        let content = &machine.file(self.node)?.now;
        let start = usize::try_from(position).unwrap_or(usize::MAX);
        let found = start.checked_add(buffer.len()).and_then(|end| content.get(start..end));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.operate()?.file(self.node)?.now.len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut machine = self.operate()?;
        if machine.hold == Hold::NextSync {
            machine.hold = Hold::Holding;
            self.shared.changed.notify_all();
            self.shared.changed.wait_while(&mut machine, |machine| machine.hold == Hold::Holding);
            drop(machine);
            machine = self.operate()?;
        }
        self.sync(machine)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(self.operate()?)
    }

    fn drop_cached(&self) -> io::Result<()> {
        self.operate().map(drop)
    }
}

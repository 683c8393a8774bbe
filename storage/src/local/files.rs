//! The local store's operations as they block: what is written and synced in which order.
//!
//! Invariants:
//! * a name is reported to a caller only after the folders that lead to it were synced, each new one in its parent;
//! * `<file>.fence`, once made and synced, stays until the data file is gone: it is the last of a segment to be removed;
//! * the end marker in it, once whole and synced, never changes;
//! * what lies before the marked end is durable, and is read back from the disk, not from a cache that a failed sync
//!   may have left better than the disk.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bmq_proto::{BytePosition, ClusterId, TopicId};
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::Mutant;
use super::end_marker::{END_MARKER_LEN, EndKind, EndMarker};
use super::layout;
use crate::disk::{Disk, DiskFile, DiskLock};
use crate::{FolderPath, FoundFile, SegmentPath, StoreError};

/// Enough that fences of different files seldom wait for each other.
const SEGMENT_LOCKS: usize = 64;

/// How often a store that opens asks again whether the one before it has let go of the folder: a second in all.
const LOCK_RETRIES: usize = 100;
const LOCK_RETRY_PAUSE: Duration = Duration::from_millis(10);

/// The folder of one store, locked.
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    /// Serialise what ends, indexes or removes a segment; each segment has one of them.
    segment_locks: Vec<Mutex<()>>,
    /// A rule that a test breaks on purpose.
    pub(super) mutant: Option<Mutant>,
    _lock: DiskLock,
}

impl Files {
    /// Locks the folder, after making it where it is missing.
    pub(super) fn open(disk: Arc<dyn Disk>, root: PathBuf) -> Result<Self, StoreError> {
        let shown = root.display().to_string();
        create_root(&*disk, &root).map_err(|error| StoreError::from_io(&shown, "creating the data folder", error))?;
        let lock = lock_root(&*disk, &root).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => StoreError::Refused {
                path: shown.clone(),
                operation: "opening",
                reason: format!("another process uses the data folder {shown}: it holds its LOCK"),
            },
            _ => StoreError::from_io(&shown, "locking the data folder", error),
        })?;
        let segment_locks = (0..SEGMENT_LOCKS).map(|_| Mutex::new(())).collect();
        Ok(Self { disk, root, segment_locks, mutant: None, _lock: lock })
    }

    /// Creates a data file durably, with `header` in it.
    pub(super) fn create(&self, path: SegmentPath, header: &[u8]) -> Result<Box<dyn DiskFile>, StoreError> {
        self.create_folders(path.folder).map_err(|error| failed(path, "creating the folder", error))?;
        let file = self.disk.create_new(&layout::data(&self.root, path)).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => StoreError::AlreadyExists { path: path.to_string() },
            _ => failed(path, "creating", error),
        })?;
        let durable = file.write_all(&[header]).and_then(|()| file.sync_all());
        durable.and_then(|()| self.sync_folder_of(path)).map_err(|error| failed(path, "creating", error))?;
        Ok(file)
    }

    /// Every folder that leads to the segment's, each synced in its parent. Also when it exists: whoever made it may
    /// have died before syncing it.
    fn create_folders(&self, folder: FolderPath) -> io::Result<()> {
        let mut parent = self.root.clone();
        for name in [folder.cluster.to_string(), folder.topic().to_string(), folder.number().to_string()] {
            let child = parent.join(name);
            self.disk.create_folder(&child)?;
            self.sync_folder(&parent)?;
            parent = child;
        }
        Ok(())
    }

    /// Whether the file's writer must stop. Every answer but a plain "there is no fence, and there is the file" says so.
    /// The fence is asked first: a removal takes the file first, so one of the two shows it.
    pub(super) fn is_fenced(&self, path: SegmentPath) -> bool {
        let fence = self.disk.length(&layout::fence(&self.root, path));
        let unfenced = matches!(fence, Err(error) if error.kind() == io::ErrorKind::NotFound);
        !unfenced || self.disk.length(&layout::data(&self.root, path)).is_err()
    }

    /// Ends the file at `length` for its writer, which has made everything durable.
    pub(super) fn close(&self, path: SegmentPath, length: BytePosition) -> Result<(), StoreError> {
        let _guard = self.lock_segment(path);
        let fence = self.disk.create_new(&layout::fence(&self.root, path)).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => StoreError::Fenced { path: path.to_string() },
            _ => failed(path, "closing", error),
        })?;
        let marker = EndMarker { kind: EndKind::Closed, length }.encode();
        let durable = fence.write_all(&[&marker]).and_then(|()| fence.sync_all());
        durable.and_then(|()| self.sync_folder_of(path)).map_err(|error| failed(path, "closing", error))
    }

    /// Takes the file from its writer and fixes its end.
    pub(super) fn fence(&self, path: SegmentPath) -> Result<EndMarker, StoreError> {
        let _guard = self.lock_segment(path);
        self.fence_locked(path).map_err(|error| failed(path, "fencing", error))
    }

    fn fence_locked(&self, path: SegmentPath) -> io::Result<EndMarker> {
        let data = self.disk.open_read(&layout::data(&self.root, path))?;
        self.make_fence(path)?;
        if let Some(marker) = self.end_marker(path)? {
            return Ok(marker);
        }
        // A writer that passed its check before the fence was there had synced before that: its bytes are below this
        // length. What a fenced writer still adds is above it, or was reported to nobody.
        let length = BytePosition(data.length()?);
        if self.mutant != Some(Mutant::FenceWithoutSync) {
            data.sync_data()?;
        }
        data.drop_cached()?;
        let marker = EndMarker { kind: EndKind::Fenced, length };
        let fence = self.disk.open_write(&layout::fence(&self.root, path))?;
        fence.write_all(&[&marker.encode()])?;
        fence.sync_data()?;
        Ok(marker)
    }

    /// Has the fence there durably. Synced also if it was there: whoever made it may have died before syncing it.
    fn make_fence(&self, path: SegmentPath) -> io::Result<()> {
        let name = layout::fence(&self.root, path);
        let fence = match self.disk.create_new(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.disk.open_read(&name)?,
            answer => answer?,
        };
        fence.sync_all()?;
        self.sync_folder_of(path)
    }

    /// Where the file ends for good, if that is fixed.
    fn end_marker(&self, path: SegmentPath) -> io::Result<Option<EndMarker>> {
        let fence = match self.disk.open_read(&layout::fence(&self.root, path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            answer => answer?,
        };
        let mut bytes = [0; END_MARKER_LEN];
        match fence.read_exact_at(0, &mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(EndMarker::decode(&bytes)),
        }
    }

    pub(super) fn read(&self, path: SegmentPath, start: BytePosition, end: BytePosition) -> Result<Bytes, StoreError> {
        let read = |error| failed(path, "reading", error);
        let file = self.disk.open_read(&layout::data(&self.root, path)).map_err(read)?;
        let marked = self.end_marker(path).map_err(read)?.map_or(u64::MAX, |marker| marker.length.0);
        let length = file.length().map_err(read)?.min(marked);
        if end.0 > length || start > end {
            return Err(StoreError::PastEnd { path: path.to_string(), length, start: start.0, end: end.0 });
        }
        let wanted = usize::try_from(end.since(start)).expect("a range inside a file fits in memory's addresses");
        let mut buffer = vec![0; wanted];
        file.read_exact_at(start.0, &mut buffer).map_err(read)?;
        Ok(buffer.into())
    }

    pub(super) fn length(&self, path: SegmentPath) -> Result<BytePosition, StoreError> {
        let asked = |error| failed(path, "asking the length", error);
        let found = self.disk.length(&layout::data(&self.root, path)).map_err(asked)?;
        let Some(marker) = self.end_marker(path).map_err(asked)? else {
            return Err(StoreError::NotClosed { path: path.to_string() });
        };
        if found < marker.length.0 {
            let reason = format!("the file ends here, it was closed at {}", marker.length);
            return Err(StoreError::Damaged { path: path.to_string(), position: found, reason });
        }
        Ok(marker.length)
    }

    pub(super) fn write_index(&self, path: SegmentPath, content: &[u8]) -> Result<(), StoreError> {
        let _guard = self.lock_segment(path);
        let draft = layout::index_draft(&self.root, path);
        let write = || -> io::Result<()> {
            let file = self.disk.create_or_empty(&draft)?;
            file.write_all(&[content])?;
            file.sync_all()?;
            self.disk.rename(&draft, &layout::index(&self.root, path))?;
            self.sync_folder_of(path)
        };
        write().map_err(|error| StoreError::from_io(&path.index_path(), "writing", error))
    }

    pub(super) fn read_index(&self, path: SegmentPath) -> Result<Bytes, StoreError> {
        let read = || -> io::Result<Bytes> {
            let file = self.disk.open_read(&layout::index(&self.root, path))?;
            let length = usize::try_from(file.length()?).map_err(io::Error::other)?;
            let mut buffer = vec![0; length];
            file.read_exact_at(0, &mut buffer)?;
            Ok(buffer.into())
        };
        read().map_err(|error| StoreError::from_io(&path.index_path(), "reading", error))
    }

    pub(super) fn list(&self, folder: FolderPath) -> Result<Vec<FoundFile>, StoreError> {
        let entries = match self.disk.list(&layout::folder(&self.root, folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            answer => answer.map_err(|error| StoreError::from_io(&folder.to_string(), "listing", error))?,
        };
        let segments = entries.into_iter().filter(|entry| !entry.is_folder).filter_map(|entry| {
            layout::parse_data_name(&entry.name).map(|file| FoundFile { file, length: entry.length })
        });
        Ok(segments.collect())
    }

    pub(super) fn delete(&self, path: SegmentPath) -> Result<(), StoreError> {
        let _guard = self.lock_segment(path);
        let names = [layout::data, layout::index, layout::index_draft, layout::fence];
        let remove = || -> io::Result<()> {
            for name in names {
                absent_is_fine(self.disk.remove_file(&name(&self.root, path)))?;
            }
            absent_is_fine(self.sync_folder_of(path))
        };
        remove().map_err(|error| failed(path, "deleting", error))
    }

    pub(super) fn delete_topic(&self, cluster: ClusterId, topic: TopicId) -> Result<(), StoreError> {
        let folder = layout::topic_folder(&self.root, cluster, topic);
        let parent = folder.parent().expect("a topic's folder is joined to its cluster's");
        self.remove_tree(&folder)
            .and_then(|()| absent_is_fine(self.sync_folder(parent)))
            .map_err(|error| StoreError::from_io(&format!("{cluster}/{topic}"), "deleting", error))
    }

    /// Removes a folder with all in it; in each folder data files go first, since their absence stops their writers.
    fn remove_tree(&self, folder: &Path) -> io::Result<()> {
        let mut entries = match self.disk.list(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            answer => answer?,
        };
        entries.sort_by_key(|entry| !layout::is_data_name(&entry.name));
        for entry in entries {
            let path = folder.join(&entry.name);
            match entry.is_folder {
                true => self.remove_tree(&path)?,
                false => absent_is_fine(self.disk.remove_file(&path))?,
            }
        }
        absent_is_fine(self.disk.remove_folder(folder))
    }

    fn sync_folder_of(&self, path: SegmentPath) -> io::Result<()> {
        self.sync_folder(&layout::folder(&self.root, path.folder))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if self.mutant == Some(Mutant::SkipFolderSync) {
            return Ok(());
        }
        self.disk.sync_folder(folder)
    }

    fn lock_segment(&self, path: SegmentPath) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        let at = hasher.finish() % SEGMENT_LOCKS as u64;
        self.segment_locks[at as usize].lock()
    }
}

/// The root and every folder above it that is missing, each synced in its parent.
fn create_root(disk: &dyn Disk, root: &Path) -> io::Result<()> {
    let parent = root.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent
        && disk.length(parent).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    {
        create_root(disk, parent)?;
    }
    disk.create_folder(root)?;
    disk.sync_folder(parent.unwrap_or(Path::new(".")))
}

/// Waits a little for the lock: a process that is ending, or a writer's thread at its last step, may still have it.
fn lock_root(disk: &dyn Disk, root: &Path) -> io::Result<DiskLock> {
    let lock = layout::lock(root);
    for _ in 0..LOCK_RETRIES {
        match disk.lock(&lock) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(LOCK_RETRY_PAUSE),
            answer => return answer,
        }
    }
    disk.lock(&lock)
}

fn absent_is_fine(answer: io::Result<()>) -> io::Result<()> {
    match answer {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        answer => answer,
    }
}

pub(super) fn failed(path: SegmentPath, operation: &'static str, error: io::Error) -> StoreError {
    StoreError::from_io(&path.to_string(), operation, error)
}

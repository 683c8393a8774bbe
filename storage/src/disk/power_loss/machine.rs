//! What the disk holds: names and pages, each as they are now and as they were when last synced, and how a loss of
//! power mixes the two.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use bmq_common::Random;

const PAGE: usize = 4096;

pub(super) struct Machine {
    /// Counts the losses of power. Handles of an earlier run are dead.
    pub(super) run: u64,
    pub(super) operations_left: Option<u64>,
    pub(super) room: Option<u64>,
    pub(super) hold: Hold,
    pub(super) file_syncs: u64,
    nodes: BTreeMap<NodeId, Node>,
    pub(super) locks: BTreeSet<NodeId>,
    next_node: NodeId,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    Off,
    NextSync,
    Holding,
}

pub(super) type NodeId = u64;
pub(super) type Names = BTreeMap<String, NodeId>;
pub(super) const ROOT: NodeId = 0;

pub(super) enum Node {
    Folder { now: Names, synced: Names },
    File(Content),
}

#[derive(Default)]
pub(super) struct Content {
    pub(super) now: Vec<u8>,
    synced: Vec<u8>,
    dirty: BTreeSet<usize>,
}

impl Machine {
    /// With an empty disk.
    pub(super) fn new() -> Self {
        let root = Node::Folder { now: Names::new(), synced: Names::new() };
        Machine {
            run: 0,
            operations_left: None,
            room: None,
            hold: Hold::Off,
            file_syncs: 0,
            nodes: BTreeMap::from([(ROOT, root)]),
            locks: BTreeSet::new(),
            next_node: ROOT + 1,
        }
    }

    pub(super) fn lose_power(&mut self, random: &Random) {
        self.run += 1;
        self.operations_left = None;
        self.hold = Hold::Off;
        self.locks.clear();
        for node in self.nodes.values_mut() {
            match node {
                Node::Folder { now, synced } => lose_names(now, synced, random),
                Node::File(content) => content.lose_pages(random),
            }
        }
    }

    pub(super) fn node_at(&self, path: &Path) -> io::Result<NodeId> {
        let mut at = ROOT;
        for name in names(path) {
            let Some(Node::Folder { now, .. }) = self.nodes.get(&at) else { return Err(not_found()) };
            at = *now.get(&name).ok_or_else(not_found)?;
        }
        Ok(at)
    }

    pub(super) fn names_in(&mut self, folder: &Path) -> io::Result<&mut Names> {
        let at = self.node_at(folder)?;
        match self.nodes.get_mut(&at) {
            Some(Node::Folder { now, .. }) => Ok(now),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn file(&mut self, node: NodeId) -> io::Result<&mut Content> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(content)) => Ok(content),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn file_at(&mut self, path: &Path) -> io::Result<NodeId> {
        let node = self.node_at(path)?;
        self.file(node).map(|_| node)
    }

    /// Makes the names of a folder outlast a loss of power.
    pub(super) fn sync_names(&mut self, folder: &Path) -> io::Result<()> {
        let at = self.node_at(folder)?;
        match self.nodes.get_mut(&at) {
            Some(Node::Folder { now, synced }) => {
                synced.clone_from(now);
                Ok(())
            }
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// Gives a new node its name; `AlreadyExists` if it is taken.
    pub(super) fn add(&mut self, path: &Path, node: Node) -> io::Result<NodeId> {
        let (parent, name) = split(path)?;
        let id = self.next_node;
        let names = self.names_in(parent)?;
        if names.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        names.insert(name, id);
        self.nodes.insert(id, node);
        self.next_node += 1;
        Ok(id)
    }
}

/// Each name that differs from the synced state stays as it is or goes back.
fn lose_names(now: &mut Names, synced: &mut Names, random: &Random) {
    let names: BTreeSet<String> = now.keys().chain(synced.keys()).cloned().collect();
    for name in names {
        if now.get(&name) == synced.get(&name) || random.chance(1, 2) {
            continue;
        }
        match synced.get(&name) {
            Some(node) => now.insert(name, *node),
            None => now.remove(&name),
        };
    }
    *synced = now.clone();
}

impl Content {
    fn lose_pages(&mut self, random: &Random) {
        let (shorter, longer) = (self.now.len().min(self.synced.len()), self.now.len().max(self.synced.len()));
        // Both ends are likely: the length and the pages need not reach the disk together.
        let length = match random.below(4) {
            0 => self.synced.len(),
            1 => self.now.len(),
            _ => shorter + random.below((longer - shorter) as u64 + 1) as usize,
        };
        self.now.resize(longer, 0);
        self.synced.resize(longer, 0);
        for page in std::mem::take(&mut self.dirty) {
            let (start, end) = ((page * PAGE).min(longer), (page * PAGE + PAGE).min(longer));
            if random.chance(1, 2) {
                self.synced[start..end].copy_from_slice(&self.now[start..end]);
            }
        }
        self.synced.truncate(length);
        self.now.clone_from(&self.synced);
    }

    pub(super) fn write(&mut self, position: usize, bytes: &[u8]) {
        let end = position + bytes.len();
        if end > self.now.len() {
            self.now.resize(end, 0);
        }
        self.now[position..end].copy_from_slice(bytes);
        self.dirty.extend(position / PAGE..end.div_ceil(PAGE));
    }

    /// Copies only what changed: a file is synced many times while it grows.
    pub(super) fn sync(&mut self) {
        self.synced.resize(self.now.len(), 0);
        for page in std::mem::take(&mut self.dirty) {
            let (start, end) = ((page * PAGE).min(self.now.len()), (page * PAGE + PAGE).min(self.now.len()));
            self.synced[start..end].copy_from_slice(&self.now[start..end]);
        }
    }
}

fn names(path: &Path) -> impl Iterator<Item = String> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    })
}

pub(super) fn split(path: &Path) -> io::Result<(&Path, String)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok((path.parent().unwrap_or(Path::new("")), name.to_string_lossy().into_owned()))
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

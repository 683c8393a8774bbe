//! Clients of other processes, one for each address, kept and shared.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// More clients than nodes of a kind that live at once; beyond it, clients of nodes that are gone are dropped.
const MAX_CLIENTS: usize = 1_024;

pub struct KeptClients<S: ?Sized> {
    clients: Mutex<HashMap<String, Arc<S>>>,
}

impl<S: ?Sized> Default for KeptClients<S> {
    fn default() -> Self {
        KeptClients { clients: Mutex::default() }
    }
}

impl<S: ?Sized> KeptClients<S> {
    /// The client for an address, opened if there is none yet.
    pub fn get(&self, address: &str, open: impl FnOnce(&str) -> Arc<S>) -> Arc<S> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(address) {
            return Arc::clone(client);
        }
        if clients.len() >= MAX_CLIENTS {
            clients.retain(|_, client| Arc::strong_count(client) > 1);
        }
        let client = open(address);
        clients.insert(address.to_owned(), Arc::clone(&client));
        client
    }
}

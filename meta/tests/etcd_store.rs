//! The etcd store is a `MetaStore`, on a real etcd that the test starts, stops and stalls.

#![allow(clippy::unwrap_used)] // Also in the functions that the tests share.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bmq_meta::store::etcd::EtcdOptions;
use bmq_meta::store::{ErrorKind, EtcdStore, ListRequest, MetaStore, Outcome, Revision, Transaction};
use bmq_proto::Happened;
use futures::StreamExt;

/// A one-node etcd in a folder of its own, killed when dropped.
struct Etcd {
    process: Child,
    endpoint: String,
    _folder: tempfile::TempDir,
}

impl Etcd {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [client, peer] = free_ports().map(|port| format!("http://127.0.0.1:{port}"));
        let process = Command::new("etcd")
            .args(["--name", "test", "--data-dir"])
            .arg(folder.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("test={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed (Debian package etcd-server)");
        Self { process, endpoint: client.trim_start_matches("http://").to_owned(), _folder: folder }
    }

    fn options(&self) -> EtcdOptions {
        EtcdOptions {
            endpoints: vec![self.endpoint.clone()],
            prefix: "/test/".to_owned(),
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(2),
        }
    }

    /// Connects as soon as it answers.
    async fn connect(&self) -> EtcdStore {
        let give_up = Instant::now() + Duration::from_secs(30);
        loop {
            match EtcdStore::connect(self.options()).await {
                Ok(store) => return store,
                Err(error) if Instant::now() > give_up => panic!("etcd does not answer: {}", error.chain()),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // A failure means that it has ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Two ports that were free a moment ago.
fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

#[tokio::test]
async fn conforms() {
    let etcd = Etcd::start();
    bmq_meta::conformance::run(Arc::new(etcd.connect().await)).await;
}

#[tokio::test]
async fn an_absent_etcd_is_an_error_soon() {
    let [port, _] = free_ports();
    let options = EtcdOptions {
        endpoints: vec![format!("127.0.0.1:{port}")],
        prefix: "/test/".to_owned(),
        connect_timeout: Duration::from_millis(500),
        request_timeout: Duration::from_millis(500),
    };
    let begun = Instant::now();
    assert!(EtcdStore::connect(options).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_compacted_watch_and_listing_say_so() {
    let etcd = Etcd::start();
    let store = etcd.connect().await;
    let mut last = Revision(0);
    for _ in 0..5 {
        let Outcome::Committed(revision) = store.transact(Transaction::default().put("k", "x")).await.unwrap() else {
            panic!("conflict")
        };
        last = revision;
    }
    let mut client = etcd_client::Client::connect([&etcd.endpoint], None).await.unwrap();
    client.compact(i64::try_from(last.0).unwrap(), None).await.unwrap();
    let mut watch = store.watch("k", Revision(1)).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap_err().kind, ErrorKind::Compacted);
    assert!(watch.next().await.is_none());
    let old = ListRequest { at: Some(Revision(1)), ..ListRequest::prefix("k") };
    assert_eq!(store.list(old).await.unwrap_err().kind, ErrorKind::Compacted);
}

#[tokio::test]
async fn large_values_come_in_smaller_pages() {
    let etcd = Etcd::start();
    let store = etcd.connect().await;
    for number in 0..12 {
        let put = Transaction::default().put(format!("k/{number:02}"), vec![7; 1_000_000]);
        assert!(matches!(store.transact(put).await.unwrap(), Outcome::Committed(_)));
    }
    let mut request = ListRequest::prefix("k/");
    let mut sizes = Vec::new();
    loop {
        let page = store.list(request.clone()).await.unwrap();
        sizes.push(page.entries.len());
        request = request.after(&page);
        if !page.more {
            break;
        }
    }
    assert_eq!(sizes.iter().sum::<usize>(), 12);
    assert!(sizes.iter().all(|size| *size <= 4), "{sizes:?}");
}

#[tokio::test]
async fn a_stopped_etcd_ends_watches_and_leaves_writes_unclear() {
    let etcd = Etcd::start();
    let store = etcd.connect().await;
    let mut watch = store.watch("k", Revision(1)).await.unwrap();
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    etcd.signal("-STOP");

    let error = store.transact(Transaction::default().put("k", "x")).await.unwrap_err();
    assert_eq!(error.happened, Happened::Unknown, "{}", error.chain());
    let error = store.get("k").await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Timeout | ErrorKind::Unavailable), "{}", error.chain());
    assert!(store.keep_alive(lease).await.is_err());
    let ended = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.expect("the watch ends by itself");
    assert!(ended.unwrap().is_err());

    etcd.signal("-CONT");
    let give_up = Instant::now() + Duration::from_secs(20);
    while store.keep_alive(lease).await.is_err() {
        assert!(Instant::now() < give_up, "the store does not come back");
    }
    let found = store.get("k").await.unwrap();
    let mut watch = store.watch("k", Revision(1)).await.unwrap();
    if found.is_some() {
        assert_eq!(watch.next().await.unwrap().unwrap().events.len(), 1, "applied, and told to a new watch");
    }
}

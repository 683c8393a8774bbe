//! Writers that are dropped. The name puts this first: it takes half a minute, in which the other tests run.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bmq_integration_tests::hdfs_cluster::own_connections_to;
use bmq_proto::BytePosition;
use bmq_storage::WriterState;

use crate::support::{Bench, is_durable, recover};

/// The client library notices a closed pipeline at its next heartbeat or the one after, 30 s apart.
const SOCKETS_FREED: Duration = Duration::from_secs(70);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abandoned_writers_leave_neither_lease_nor_socket() {
    let bench = Bench::new("/abandoned").await;
    let ports = bench.cluster.data_ports();
    let before = own_connections_to(&ports).unwrap();
    let mut writers = Vec::new();
    for nonce in 1..=8 {
        let writer = bench.create(nonce).await.unwrap();
        assert!(is_durable(&*writer, BytePosition(512)).await);
        writers.push(writer);
    }
    assert_eq!(bench.cluster.open_files("/abandoned").unwrap(), 8);
    let sockets: HashMap<_, _> =
        own_connections_to(&ports).unwrap().into_iter().filter(|(inode, _)| !before.contains_key(inode)).collect();
    assert!(sockets.len() >= 8, "eight pipelines are {} sockets", sockets.len());
    let mut progress = writers[0].progress();
    drop(writers);
    assert!(bench.store.settle(Duration::from_secs(30)).await, "the janitor comes to an end");
    progress.wait_for(|seen| matches!(seen.state, WriterState::Broken { .. })).await.unwrap();
    assert_eq!((bench.store.counters().abandoned.get(), bench.store.counters().recovered.get()), (8, 8));
    assert_eq!(bench.cluster.open_files("/abandoned").unwrap(), 0, "no lease is left");
    assert_eq!(recover(&bench.store, bench.path(1)).await, BytePosition(512));

    // The rest takes a while and wants nothing of the cluster: let the other tests have it.
    let Bench { cluster, store: _store, .. } = bench;
    drop(cluster);
    let started = Instant::now();
    loop {
        let left = own_connections_to(&ports).unwrap();
        let left = sockets.keys().filter(|inode| left.contains_key(inode)).count();
        if left == 0 {
            break;
        }
        assert!(started.elapsed() < SOCKETS_FREED, "{left} sockets of {} are still there", sockets.len());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

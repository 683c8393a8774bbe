//! Writes ten records to the topic `example`, and prints where they are. Needs a running server:
//! `cargo run -p bmq-client --example produce [HOST:PORT]`.

use std::collections::BTreeMap;

use bmq_client::{Client, Error, ErrorCode, ProducerConfig, Record};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9640".to_owned());
    let client = Client::connect(&address).await?;
    match client.admin().create_topic("example", 3, BTreeMap::new()).await {
        Err(error) if error.code != ErrorCode::TopicExists => return Err(error),
        _ => {}
    }

    let producer = client.producer(ProducerConfig::default())?;
    let mut deliveries = Vec::new();
    for number in 0..10 {
        // Records of one key stay in order, as they go to one partition.
        let record = Record::value(format!("value {number}")).with_key(format!("key {}", number % 3));
        deliveries.push(producer.send("example", record).await?);
    }
    // Each delivery tells what became of its record, once the record is durable.
    for delivery in deliveries {
        let written = delivery.await?;
        println!("partition {} offset {}", written.partition, written.offset);
    }
    producer.close().await
}

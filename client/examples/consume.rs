//! Prints what the topic `example` holds, from its beginning to its present end. Needs a running server:
//! `cargo run -p bmq-client --example consume [HOST:PORT]`.

use bmq_client::{Client, Error, StartAt};
use futures::StreamExt;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9640".to_owned());
    let client = Client::connect(&address).await?;
    let topic = client.admin().describe_topic("example").await?.topic;

    let everything = (0..topic.partitions).map(|partition| ("example", partition, StartAt::Earliest)).collect();
    // Without `until_end` the stream would go on with the records that come.
    let mut records = client.consume(everything).await?.until_end().await?;
    while let Some(record) = records.next().await {
        let record = record?;
        let value = record.value.unwrap_or_default();
        println!("{}/{}: {}", record.partition, record.offset, String::from_utf8_lossy(&value));
    }
    Ok(())
}

//! Generates the gRPC code from `proto/**/*.proto`, without needing `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "bmq/v1/bmq.proto",
        "bmq/internal/v1/records.proto",
        "bmq/internal/v1/meta.proto",
        "bmq/internal/v1/broker.proto",
        "bmq/internal/v1/coordinator.proto",
        "bmq/internal/v1/group_records.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().bytes(".").btree_map(".").compile_fds(descriptors)?;
    Ok(())
}

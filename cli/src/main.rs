//! The one binary: parses what was typed, runs it, turns the outcome into an exit code.

mod command;
mod exit;
mod output;
mod point_in_time;
mod process;
mod server;

use std::process::ExitCode;

use clap::Parser;

use crate::command::Command;
use crate::process::settings::SERVER_VARIABLE;

/// Small frames and large record batches are allocated and freed on many threads at once, which the C library's
/// allocator is slow at; and for large blocks it gives addresses at which copying is slow on some machines.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A message queue that keeps its records on HDFS or a local disk, apart from the servers that serve them.
///
/// Start with `bmq standalone`, which needs nothing else, and follow what it prints.
#[derive(Debug, Parser)]
#[command(name = "bmq", version, after_help = exit::HELP)]
struct Arguments {
    /// The server that topic, produce, consume, group, cluster and bench talk to
    #[arg(
        long,
        global = true,
        env = SERVER_VARIABLE,
        default_value = "127.0.0.1:9640",
        value_name = "ADDR",
        value_parser = server::parse_address,
        help_heading = "Server"
    )]
    server: String,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bmq: cannot start: {error}");
            return exit::FAILURE.into();
        }
    };
    let outcome = runtime.block_on(arguments.command.run(&arguments.server));
    // A read of standard input cannot be cancelled; the process does not wait for it.
    runtime.shutdown_background();
    exit::report(outcome)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_the_documentation_types_is_understood() {
        let check = |line: &str, expect: bool| {
            let words = ["bmq"].into_iter().chain(line.split(' '));
            let parsed = Arguments::try_parse_from(words);
            assert_eq!(parsed.is_ok(), expect, "{line}: {parsed:?}");
        };
        check("standalone --data-dir d --grpc 127.0.0.1:1 --http 127.0.0.1:2 --set broker.node_id=2 --insecure", true);
        check("--server 127.0.0.1:1 topic create orders --partitions 3 --config a=b --config c=d -o json", true);
        check("topic list --server 127.0.0.1:1", true);
        check("topic list --server 127.0.0.1", false);
        check("topic delete orders", true);
        check("topic create orders --dry-run", true);
        check("topic alter orders --partitions 6 --config a=b --delete-config c --dry-run", true);
        check("topic alter orders", false);
        check("group list -o json", true);
        check("group describe billing", true);
        check("group seek billing --to-earliest --dry-run -o json", true);
        check("group seek billing --topic orders --partition 2 --to-offset 1000 --force", true);
        check("group seek billing --to-time 15m-ago", true);
        check("group seek billing", false);
        check("group seek billing --to-latest --to-earliest", false);
        check("group seek billing --partition 2 --to-latest", false);
        check("group delete billing", true);
        check("produce orders --file f --ack memory --compression zstd --partition 1 --key-separator |", true);
        check("consume orders --from 17 --partition 1 --until-end --max 3 -o json", true);
        check("cluster describe -o json", true);
        check("bench produce --record-size 1KiB --partitions 4 --rate 10 --duration 1s --metrics a:1,b:2", true);
        check(
            "local-cluster --brokers 3 --coordinators 2 --proxies 2 --etcd a:1 --store hdfs://n:1/r -o json --dir d",
            true,
        );
        check("broker --config f --print-config", true);
        check("topic create orders --config a", false);
        check("consume orders --from 1x", false);
        check("bench produce --compare-store file:///d", false);
        check("local-cluster --store hdfs://n:1/r", false);
        check("", false);
    }
}

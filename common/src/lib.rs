//! What every service needs and no service is about: time, randomness, supervised tasks, shutdown,
//! retries, configuration in layers, logs, metrics and the operators' HTTP port.
//!
//! Nothing here knows a queue, a partition or a broker. Clocks and randomness are handles that are
//! passed in, so that a test or a simulation can own both.

pub mod byte_size;
pub mod clock;
pub mod config;
pub mod human_duration;
pub mod metrics;
pub mod ops_http;
pub mod readiness;
pub mod retry;
pub mod rng;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;

mod quantity;

pub use byte_size::ByteSize;
pub use clock::{Clock, ManualClock, Monotonic, SharedClock, SystemClock, WallMillis};
pub use human_duration::HumanDuration;
pub use metrics::Metrics;
pub use ops_http::OpsServer;
pub use readiness::{Readiness, ReadyFlag};
pub use retry::{Backoff, DeadlineExceeded, with_deadline};
pub use rng::Random;
pub use shutdown::{Shutdown, wait_for_signal};
pub use tasks::Tasks;

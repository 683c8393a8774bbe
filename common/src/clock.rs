//! Time through a handle: a monotonic clock for deadlines and a wall clock for timestamps.
//!
//! The two never mix: `Monotonic` never goes back and means nothing outside the process,
//! `WallMillis` means the same everywhere and may jump.

use std::ops::Add;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// Nanoseconds on the process's monotonic clock. Values of all `SystemClock`s of a process compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// The earliest instant there is.
    pub const ZERO: Monotonic = Monotonic(0);

    /// How long after `earlier` this instant is; zero when it is not after it.
    pub fn saturating_since(self, earlier: Monotonic) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Monotonic {
    type Output = Monotonic;

    /// Saturates: a deadline too far to express is a deadline that never comes.
    fn add(self, duration: Duration) -> Monotonic {
        Monotonic(self.0.saturating_add(saturating_nanos(duration)))
    }
}

/// Milliseconds since the Unix epoch, as Kafka's timestamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallMillis(pub i64);

/// Where a component gets the time from.
pub trait Clock: Send + Sync {
    /// Never goes back.
    fn now(&self) -> Monotonic;
    /// May jump in both directions.
    fn wall(&self) -> WallMillis;
}

/// A clock as components hold it.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The machine's clocks as a handle.
    pub fn shared() -> SharedClock {
        Arc::new(SystemClock)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Monotonic {
        // One origin for the whole process, so that instants taken through different handles compare.
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        let origin = *ORIGIN.get_or_init(Instant::now);
        Monotonic(saturating_nanos(origin.elapsed()))
    }

    fn wall(&self) -> WallMillis {
        let millis = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |m| -m),
        };
        WallMillis(millis)
    }
}

/// A clock that moves only when told to.
#[derive(Debug, Default)]
pub struct ManualClock {
    time: Mutex<(Monotonic, WallMillis)>,
}

impl ManualClock {
    /// Starts at `Monotonic::ZERO` and the given wall time.
    pub fn new(wall: WallMillis) -> Self {
        ManualClock { time: Mutex::new((Monotonic::ZERO, wall)) }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, duration: Duration) {
        let mut time = self.time.lock();
        time.0 = time.0 + duration;
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        time.1 = WallMillis(time.1.0.saturating_add(millis));
    }

    /// Sets the wall clock alone, as an operator or NTP does.
    pub fn set_wall(&self, wall: WallMillis) {
        self.time.lock().1 = wall;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Monotonic {
        self.time.lock().0
    }

    fn wall(&self) -> WallMillis {
        self.time.lock().1
    }
}

fn saturating_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_arithmetic_saturates() {
        let second = Duration::from_secs(1);
        let later = Monotonic::ZERO + second;
        assert_eq!(later.saturating_since(Monotonic::ZERO), second);
        assert_eq!(Monotonic::ZERO.saturating_since(later), Duration::ZERO);
        assert_eq!(later + Duration::MAX, Monotonic(u64::MAX));
    }

    #[test]
    fn system_clocks_share_an_origin_and_do_not_go_back() {
        let first = SystemClock::shared().now();
        let second = SystemClock.now();
        assert!(first <= second);
        assert!(SystemClock.wall() > WallMillis(1_500_000_000_000));
    }

    #[test]
    fn manual_clock_moves_only_when_told() {
        let clock = ManualClock::new(WallMillis(5_000));
        assert_eq!(clock.now(), Monotonic::ZERO);
        clock.advance(Duration::from_millis(20));
        assert_eq!(clock.now(), Monotonic(20_000_000));
        assert_eq!(clock.wall(), WallMillis(5_020));
        clock.set_wall(WallMillis(7));
        assert_eq!((clock.now(), clock.wall()), (Monotonic(20_000_000), WallMillis(7)));
    }
}

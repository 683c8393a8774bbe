//! The signal to stop, passed down to everything that runs.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A handle on one shutdown: clones see the same one, children begin with their parent.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    /// A shutdown that begins when this one does, and may begin alone before it.
    pub fn child(&self) -> Self {
        Shutdown { token: self.token.child_token() }
    }

    /// Begins the shutdown; later calls change nothing.
    pub fn begin(&self) {
        self.token.cancel();
    }

    pub fn is_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Returns once the shutdown has begun. May be cancelled and awaited again.
    pub async fn begun(&self) {
        self.token.cancelled().await;
    }
}

/// Waits for the operator's wish to stop (SIGINT or SIGTERM) and returns the signal's name.
///
/// From the first poll on, the two signals no longer end the process by themselves.
pub async fn wait_for_signal() -> io::Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => Ok("SIGINT"),
        _ = terminate.recv() => Ok("SIGTERM"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn clones_and_children_begin_with_the_parent() {
        let parent = Shutdown::new();
        let (clone, child) = (parent.clone(), parent.child());
        parent.begin();
        clone.begun().await;
        child.begun().await;
        assert!(clone.is_begun() && child.is_begun());
    }

    #[test]
    fn a_child_begins_alone() {
        let parent = Shutdown::new();
        parent.child().begin();
        assert!(!parent.is_begun());
    }

    #[tokio::test]
    async fn a_signal_is_waited_for() {
        let mut waiting = Box::pin(wait_for_signal());
        // The first poll sets up the handler, without which the signal would end this process.
        assert!(futures::poll!(&mut waiting).is_pending());
        let pid = std::process::id().to_string();
        let sent = std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success());
        assert_eq!(waiting.await.unwrap(), "SIGTERM");
    }
}

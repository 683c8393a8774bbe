//! Processes that a test signals: known by more than their number, since numbers are used again.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long a process may take to follow a signal that it cannot refuse.
const OBEY_DEADLINE: Duration = Duration::from_secs(10);

/// One process, from the moment it was looked at on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// Clock ticks since the machine's start.
    started: u64,
}

impl Process {
    pub fn find(pid: u32) -> Result<Self> {
        let (_, started) = stat(pid).with_context(|| format!("there is no process {pid}"))?;
        Ok(Self { pid, started })
    }

    pub fn is_running(&self) -> bool {
        self.state().is_some()
    }

    /// SIGKILL; returns when the process is gone. Fails if it does not run.
    pub fn kill(&self) -> Result<()> {
        self.signal(libc::SIGKILL)?;
        self.wait_until("gone", |state| state.is_none())
    }

    /// SIGSTOP; returns when the process stands still.
    pub fn pause(&self) -> Result<()> {
        self.signal(libc::SIGSTOP)?;
        self.wait_until("stopped", |state| state == Some('T'))
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.signal(libc::SIGCONT)
    }

    /// SIGINT, as Ctrl-C sends it.
    pub fn interrupt(&self) -> Result<()> {
        self.signal(libc::SIGINT)
    }

    /// The kernel's letter; `None` if the process has ended, even if nobody has asked for its status yet.
    fn state(&self) -> Option<char> {
        let (state, started) = stat(self.pid)?;
        (started == self.started && !matches!(state, 'Z' | 'X')).then_some(state)
    }

    fn signal(&self, signal: libc::c_int) -> Result<()> {
        ensure!(self.is_running(), "process {} does not run", self.pid);
        let pid = libc::pid_t::try_from(self.pid)?;
        // SAFETY: no memory is involved; the process was just seen to be the one that is meant.
        if unsafe { libc::kill(pid, signal) } != 0 {
            return Err(std::io::Error::last_os_error()).with_context(|| format!("signalling process {pid}"));
        }
        Ok(())
    }

    fn wait_until(&self, what: &str, reached: impl Fn(Option<char>) -> bool) -> Result<()> {
        let deadline = Instant::now() + OBEY_DEADLINE;
        while !reached(self.state()) {
            if Instant::now() > deadline {
                bail!("process {} is not {what} after {OBEY_DEADLINE:?}", self.pid);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Has the kernel kill the child when the thread that starts it ends, even if this process is killed: no test leaves
/// anything running.
pub fn die_with_this_thread(command: &mut Command) -> &mut Command {
    let request = || {
        // SAFETY: async-signal-safe, and touches no memory of ours.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec the closure only makes an async-signal-safe call, and its error allocates nothing.
    unsafe { command.pre_exec(request) }
}

/// State and start time.
fn stat(pid: u32) -> Option<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name stands in parentheses and may itself hold spaces and parentheses.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    Some((fields.first()?.chars().next()?, fields.get(19)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_stopped_continued_and_killed() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::find(child.id()).unwrap();
        process.pause().unwrap();
        process.resume().unwrap();
        process.kill().unwrap();
        assert!(!process.is_running());
        assert!(process.kill().is_err());
        child.wait().unwrap();
    }
}

//! A service run as a child process: started from a file of settings, asked to stop, and never outliving its parent.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use bmq_bench::http_get::http_get;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::announcement::{Announcement, Kind};

/// How long a child may take to listen, and then to be ready.
const START_DEADLINE: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_millis(50);

/// How long a child may take to stop in order before it is killed: longer than its own bounds.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// How much of a log is shown when its process could not be started.
const LOG_LINES: usize = 3;

/// A child process that listens.
pub struct Service {
    pub announcement: Announcement,
    pub pid: u32,
    pub config: PathBuf,
    pub log: PathBuf,
    child: Child,
}

impl Service {
    /// Starts `bmq KIND --config FILE`, its log beside the file, and waits until it listens.
    ///
    /// Must be called on the main thread: the kernel ties the child's life to the thread that made it.
    pub async fn start(kind: Kind, config: &Path) -> anyhow::Result<Self> {
        let log = config.with_extension("log");
        let starting = || format!("cannot start `bmq {} --config {}`", kind.name(), config.display());
        let mut child = spawn(kind, config, &log).with_context(starting)?;
        let pid = child.id().context("the child ended before it began")?;
        let announced = tokio::time::timeout(START_DEADLINE, read_announcement(&mut child)).await;
        match announced {
            Ok(Ok(announcement)) => Ok(Service { announcement, pid, config: config.to_owned(), log, child }),
            Ok(Err(error)) => bail!("{}: {error:#}; {}", starting(), end_of_log(&log)),
            Err(_) => bail!("{}: it does not listen after {START_DEADLINE:?}; {}", starting(), end_of_log(&log)),
        }
    }

    /// Such as `broker 2 (pid 4711)`.
    pub fn title(&self) -> String {
        format!("{} {} (pid {})", self.announcement.kind.name(), self.announcement.id, self.pid)
    }

    /// Waits until the service says that it is ready.
    pub async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let title = self.title();
        let address = self.announcement.http.to_string();
        let mut reason = String::new();
        let ready = async {
            loop {
                match http_get(&address, "/readyz").await {
                    Ok(page) if page.status == 200 => return,
                    Ok(page) => reason = page.body.trim_end().replace('\n', ", "),
                    Err(error) => reason = format!("{error:#}"),
                }
                tokio::time::sleep(READY_POLL).await;
            }
        };
        let ended = tokio::select! {
            ready = tokio::time::timeout(START_DEADLINE, ready) => ready.err().map(|_| None),
            status = self.child.wait() => Some(Some(status?)),
        };
        match ended {
            None => Ok(()),
            Some(Some(status)) => bail!("{title} ended with {status}; {}", end_of_log(&self.log)),
            Some(None) => bail!("{title} is not ready after {START_DEADLINE:?}: {reason}; {}", end_of_log(&self.log)),
        }
    }

    /// Waits until the process has ended, whyever. May be cancelled and awaited again.
    pub async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks it to stop in order, and kills it if it does not.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        terminate(self.pid)?;
        if tokio::time::timeout(STOP_DEADLINE, self.child.wait()).await.is_ok() {
            return Ok(());
        }
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.title()))?;
        bail!("{} did not stop within {STOP_DEADLINE:?} and was killed", self.title())
    }
}

fn spawn(kind: Kind, config: &Path, log: &Path) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(kind.name())
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(log)?)
        .kill_on_drop(true)
        // A Ctrl-C at the terminal is for the parent, which stops its children in order.
        .process_group(0);
    die_with_parent(&mut command);
    Ok(command.spawn()?)
}

async fn read_announcement(child: &mut Child) -> anyhow::Result<Announcement> {
    let stdout = child.stdout.take().context("its output is not piped")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await?;
    if line.is_empty() {
        bail!("it ended with {}", child.wait().await?);
    }
    serde_json::from_str(&line).with_context(|| format!("it said `{}`", line.trim_end()))
}

/// Has the kernel kill the child when the parent dies, even by SIGKILL.
#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let before_exec = move || {
        // SAFETY: both calls are async-signal-safe and touch no memory of ours.
        let (failed, parent_now) =
            unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0, libc::getppid()) };
        if failed {
            return Err(std::io::Error::last_os_error());
        }
        // The parent may have died before the call above, which then has no effect.
        if u32::try_from(parent_now) != Ok(parent) {
            return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes async-signal-safe calls, and its errors allocate nothing.
    unsafe { command.pre_exec(before_exec) };
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command) {}

/// The last lines of a log, which usually say why its process ended, and where the rest is.
fn end_of_log(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = match text {
        Ok(text) if text.trim().is_empty() => return format!("its log {} is empty", log.display()),
        Ok(text) => text,
        Err(error) => return format!("its log {} cannot be read: {error}", log.display()),
    };
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
    format!("its log {} ends with:\n  {}", log.display(), last.join("\n  "))
}

fn terminate(pid: u32) -> anyhow::Result<()> {
    let pid = libc::pid_t::try_from(pid).context("a process id that is none")?;
    // SAFETY: no memory is involved, and the process is our child that was not waited for yet, so the id is its own.
    if unsafe { libc::kill(pid, libc::SIGTERM) } != 0 {
        return Err(std::io::Error::last_os_error()).context("cannot signal a child");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_shown_from_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("meta-1.log");
        let check = |text: &str, expect: &str| {
            std::fs::write(&log, text).unwrap();
            assert_eq!(end_of_log(&log), format!("its log {} {expect}", log.display()));
        };
        check("", "is empty");
        check("why\n", "ends with:\n  why");
        check("one\ntwo\nthree\nfour\n\n", "ends with:\n  two\n  three\n  four");
    }
}

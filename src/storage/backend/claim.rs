#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a lock is made of files, and its owner is a process"
)]

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::platform::random_u64;

/// The start of a claim's file name; the npm package knows the same one.
const PREFIX: &str = ".lock.";
/// A claim made this much before ours has looked around already: it owns the directory, or is about to go.
const SETTLED_AFTER: Duration = Duration::from_millis(250);
/// How long claims made at the same time are waited for.
const PATIENCE: Duration = Duration::from_millis(500);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// Who claims a directory: everything that the name of a claim's file says.
///
/// `.lock.PID-STARTED-BOOT-TOKEN`: the process id, when that process started (clock ticks since the machine did) in
/// decimal; which start of the machine that was and a random number in 16 hexadecimal digits each. What the system does not tell
/// is 0. The file is empty, so a claim is never seen half written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claimant {
    pub(super) pid: u32,
    pub(super) started: u64,
    pub(super) boot: u64,
    pub(super) token: u64,
}

impl Claimant {
    pub(super) fn this_process() -> Self {
        let pid = std::process::id();
        Self { pid, started: started(pid).unwrap_or(0), boot: boot().unwrap_or(0), token: random_u64() }
    }

    fn file_name(self) -> String {
        format!("{PREFIX}{}-{}-{:016x}-{:016x}", self.pid, self.started, self.boot, self.token)
    }

    fn parse(file_name: &str) -> Option<Self> {
        let mut parts = file_name.strip_prefix(PREFIX)?.split('-');
        let (pid, started) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let mut hexadecimal = || parts.next().filter(|part| part.len() == 16);
        let boot = u64::from_str_radix(hexadecimal()?, 16).ok()?;
        let token = u64::from_str_radix(hexadecimal()?, 16).ok()?;
        parts.next().is_none().then_some(Self { pid, started, boot, token })
    }

    /// Whether the process may still be there. An id alone may be another process's by now, so start and machine count too. One that
    /// ended but that its parent has not asked about yet is gone: it has nothing open any more.
    pub(super) fn is_alive(self) -> bool {
        let differs = |then: u64, now: Option<u64>| then != 0 && now.is_some_and(|now| now != then);
        process_exists(self.pid)
            && !differs(self.boot, boot())
            && !differs(self.started, started(self.pid))
            && !has_ended(self.pid)
    }
}

/// Which start of the machine this is.
fn boot() -> Option<u64> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).ok()
}

/// When a process started.
fn started(pid: u32) -> Option<u64> {
    stat(pid, 22)?.parse().ok()
}

/// Whether a process is a zombie, and none of its threads is left that might still write.
fn has_ended(pid: u32) -> bool {
    let threads = || stat(pid, 20)?.parse::<u32>().ok();
    stat(pid, 3).is_some_and(|state| state == "Z" || state == "X") && threads().is_some_and(|threads| threads <= 1)
}

/// A field that Linux tells of a process, counted from 1; one after the second.
fn stat(pid: u32, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second, the command in parentheses, may itself have spaces and parentheses.
    stat.rsplit_once(')')?.1.split_whitespace().nth(field - 3).map(str::to_owned)
}

#[cfg(unix)]
fn process_exists(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return false };
    // Any other error than "no such process" means that there is one.
    rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
}

/// Elsewhere nobody tells without unsafe code, so a claim of a process that died has to be removed by hand.
#[cfg(not(unix))]
fn process_exists(_: u32) -> bool {
    true
}

/// A claim that was granted: this handle owns the directory, as long as the file is there.
#[derive(Debug)]
pub(super) struct Claim {
    path: PathBuf,
}

impl Claim {
    /// Claims `directory`. `Err` inside names who has it, and the file that says so.
    ///
    /// Everyone writes its own claim first and then looks for others, so of two at least one sees the other (Dekker's
    /// argument). Among claims made at the same moment the one with the lowest token waits for the others to go. Claims of
    /// dead processes do not count; whoever wins removes them before it reads anything, and the dead one, should it only have
    /// seemed so, finds its claim gone before it acknowledges anything: see [`Self::is_held`].
    pub(super) fn take(directory: &Path) -> io::Result<Result<Self, (Claimant, PathBuf)>> {
        let own = Claimant::this_process();
        let path = directory.join(own.file_name());
        OpenOptions::new().write(true).create_new(true).open(&path)?;
        let claim = Self { path };
        let made = modified(&claim.path)?;
        let mut waited = Duration::ZERO;
        loop {
            let mut stale = Vec::new();
            let mut rivals = Vec::new();
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                let Some(other) = entry.file_name().to_str().and_then(Claimant::parse) else { continue };
                if other == own {
                    continue;
                }
                if other.is_alive() {
                    rivals.push((other, entry.path()));
                } else {
                    stale.push(entry.path());
                }
            }
            let Some(first) = rivals.first().cloned() else {
                for path in stale {
                    remove(&path)?;
                }
                return Ok(Ok(claim));
            };
            for (rival, path) in rivals {
                let is_settled = modified(&path).is_ok_and(|theirs| made > theirs + SETTLED_AFTER);
                if is_settled || rival.token < own.token {
                    return Ok(Err((rival, path)));
                }
            }
            if waited >= PATIENCE {
                return Ok(Err(first));
            }
            std::thread::sleep(LOOK_AGAIN_AFTER);
            waited += LOOK_AGAIN_AFTER;
        }
    }

    /// Whether nobody has taken the directory over: false for ever once somebody has.
    ///
    /// Asked after bytes were made durable and before they are acknowledged, it settles who has them: the new owner removes
    /// this claim before it reads, so bytes that were durable while the claim was still there are among what it reads.
    pub(super) fn is_held(&self) -> io::Result<bool> {
        match fs::symlink_metadata(&self.path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // One that stays is that of a dead process soon.
        let _ = fs::remove_file(&self.path);
    }
}

fn modified(path: &Path) -> io::Result<SystemTime> {
    fs::symlink_metadata(path)?.modified()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn a_name_tells_everything_and_others_are_no_claims() {
        let own = Claimant::this_process();
        assert_eq!(Claimant::parse(&own.file_name()), Some(own));
        assert!(own.is_alive());
        let whole = ".lock.7-9-00000000000000aa-00000000000000bb";
        assert_eq!(Claimant::parse(whole), Some(Claimant { pid: 7, started: 9, boot: 0xaa, token: 0xbb }));
        let of_others =
            ["LOCK", ".lock", ".lock.", ".lock.7", ".lock.x-9-00000000000000aa-00000000000000bb", ".lock.7-9-aa-bb"];
        for name in of_others.iter().map(|name| (*name).to_owned()).chain([format!("{whole}-1"), whole[1..].to_owned()])
        {
            assert_eq!(Claimant::parse(&name), None, "{name}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_claim_of_the_dead_is_taken_over_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let own = Claimant::this_process();
        for dead in [
            // Past the largest process id of Linux.
            Claimant { pid: (1 << 22) + 1, ..own },
            // Our id, given to an earlier process, or on an earlier start of the machine.
            Claimant { started: own.started + 1, ..own },
            Claimant { boot: own.boot ^ 1, ..own },
        ] {
            let dead = Claimant { token: 0, ..dead };
            fs::write(directory.path().join(dead.file_name()), b"").unwrap();
            let claim = Claim::take(directory.path()).unwrap().unwrap();
            assert_eq!(claims(directory.path()), 1);
            assert!(claim.is_held().unwrap());
            drop(claim);
            assert_eq!(claims(directory.path()), 0);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_that_ended_is_dead_before_its_parent_asks() {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id();
        let claimant = Claimant { pid, started: started(pid).unwrap(), ..Claimant::this_process() };
        assert!(claimant.is_alive());
        child.kill().unwrap();
        waitid(WaitId::Pid(Pid::from_child(&child)), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        assert_eq!(started(pid), Some(claimant.started), "it is still listed");
        assert!(!claimant.is_alive());
        child.wait().unwrap();
    }

    #[test]
    fn of_many_that_come_at_once_one_wins_and_it_is_told_when_it_loses() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            let barrier = std::sync::Barrier::new(8);
            let taken = std::thread::scope(|scope| {
                let takers: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            barrier.wait();
                            Claim::take(directory.path()).unwrap()
                        })
                    })
                    .collect();
                takers.into_iter().map(|taker| taker.join().unwrap()).collect::<Vec<_>>()
            });
            let won: Vec<_> = taken.into_iter().filter_map(Result::ok).collect();
            assert_eq!(won.len(), 1);
            let (holder, path) = Claim::take(directory.path()).unwrap().unwrap_err();
            assert_eq!((holder.pid, &path), (std::process::id(), &won[0].path));
            fs::remove_file(&path).unwrap();
            assert!(!won[0].is_held().unwrap());
        }
    }
}

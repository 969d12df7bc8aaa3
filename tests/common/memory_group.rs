//! A group of processes to which the kernel gives no more than so much memory: whoever needs more is killed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::behind;

/// Gone with its last process, when it is dropped.
pub(crate) struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// None where the machine lets nobody make one, or keeps temporary files in memory, where they would count.
    pub(crate) fn new(bytes: u64) -> Option<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let kind = Command::new("stat").args(["-f", "-c", "%T"]).arg(std::env::temp_dir()).output().ok()?;
        if kind.stdout.starts_with(b"tmpfs") {
            return None;
        }
        let name = format!("item-affinity-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        // The first version of control groups and the second.
        [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")].iter().find_map(
            |(root, limit)| {
                let folder = Path::new(root).join(&name);
                std::fs::create_dir(&folder).ok()?;
                let group = Self(folder);
                // The file is there already, or this is no group for memory.
                let mut file = std::fs::OpenOptions::new().write(true).open(group.0.join(limit)).ok()?;
                file.write_all(bytes.to_string().as_bytes()).ok()?;
                Some(group)
            },
        )
    }

    /// The command in this group.
    pub(crate) fn of(&self, command: &Command) -> Command {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", self.0.display());
        behind(&["sh", "-c", &script], command)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A process that has just ended may still be counted for a moment.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

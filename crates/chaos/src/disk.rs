//! A disk of our own: an ext4 file system in a file, on a loop device, that can lose its power.
//!
//! The power cut is ext4's own shutdown call (`EXT4_IOC_SHUTDOWN` without flushing the log, which `xfs_io -x -c
//! shutdown` makes): from then on every access gives an I/O error, and after the next mount only what was synced
//! is there. Root and loop devices are needed; where they are missing, [`allowed`] says so.
//!
//! Invariant: only the file system that this module made is ever shut down. [`LoopDisk::cut_power`] compares the
//! device of the mount point with the loop device right before.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail, ensure};

/// The programs that are needed, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 5] = [
    ("mkfs.ext4", "e2fsprogs"),
    ("losetup", "mount"),
    ("mount", "mount"),
    ("umount", "mount"),
    ("xfs_io", "xfsprogs"),
];

/// Where programs for root lie, also if the caller's path does not say so.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// Whether this process may make such disks.
///
/// # Errors
/// Why not, in words.
pub fn allowed() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root (loop devices and mounts)".into());
    }
    for (program, package) in PROGRAMS {
        let found = SEARCH_PATH.split(':').any(|folder| Path::new(folder).join(program).exists());
        if !found {
            return Err(format!("needs {program} (Debian package {package})"));
        }
    }
    if !Path::new("/dev/loop-control").exists() {
        return Err("needs loop devices (/dev/loop-control)".into());
    }
    // What a container refuses shows only when it is tried.
    let probe = || -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        LoopDisk::create(dir.path(), 16)?.cut_power()
    };
    probe().map_err(|error| format!("not permitted here: {error:#}"))
}

/// The disk. Unmounted and released when dropped; its file stays.
#[derive(Debug)]
pub struct LoopDisk {
    device: PathBuf,
    mount: PathBuf,
    mounted: bool,
}

impl LoopDisk {
    /// Makes and mounts a disk of `mib` MiB in `dir`. Its file is sparse.
    ///
    /// # Errors
    /// One of the steps failed, with what the program said.
    pub fn create(dir: &Path, mib: u64) -> anyhow::Result<LoopDisk> {
        let image = dir.join("disk.img");
        let file = fs::File::create(&image)?;
        file.set_len(mib << 20)?;
        drop(file);
        // No reserved blocks and no lazy initialisation: what is free is free, and nothing writes behind our back.
        run(
            &["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
            &[&image],
        )?;
        let mount = dir.join("disk");
        fs::create_dir_all(&mount)?;
        let device = PathBuf::from(run(&["losetup", "--find", "--show"], &[&image])?.trim());
        ensure!(device.starts_with("/dev"), "losetup named no device: {}", device.display());
        let mut disk = LoopDisk { device, mount, mounted: false };
        disk.mount_it()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Cuts the power: nothing that was not synced survives, and nothing can be written or read any more.
    ///
    /// # Errors
    /// The call was refused, or the mount point is not this disk.
    pub fn cut_power(&self) -> anyhow::Result<()> {
        let mounted = fs::metadata(&self.mount)?.dev();
        let device = fs::metadata(&self.device)?.rdev();
        ensure!(mounted == device, "{} is not on {}", self.mount.display(), self.device.display());
        run(&["xfs_io", "-x", "-c", "shutdown"], &[&self.mount])?;
        Ok(())
    }

    /// Puts the power back: unmounts what is left and mounts what the disk has. Nobody may have files open on it.
    ///
    /// # Errors
    /// Somebody has, or the file system does not mount.
    pub fn remount(&mut self) -> anyhow::Result<()> {
        run(&["umount"], &[&self.mount])?;
        self.mounted = false;
        self.mount_it()
    }

    /// Bytes that are free for everybody.
    ///
    /// # Errors
    /// The file system does not answer.
    pub fn free_bytes(&self) -> anyhow::Result<u64> {
        let facts = rustix::fs::statvfs(&self.mount)?;
        Ok(facts.f_bavail * facts.f_frsize)
    }

    fn mount_it(&mut self) -> anyhow::Result<()> {
        run(&["mount", "-t", "ext4"], &[&self.device, &self.mount])?;
        self.mounted = true;
        Ok(())
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // Best effort: the machine may have taken things away, and a message would hide the real failure.
        if self.mounted && run(&["umount"], &[&self.mount]).is_err() {
            let _ = run(&["umount", "--lazy"], &[&self.mount]);
        }
        let _ = run(&["losetup", "--detach"], &[&self.device]);
    }
}

fn run(command: &[&str], paths: &[&Path]) -> anyhow::Result<String> {
    let output = Command::new(command[0])
        .env("PATH", SEARCH_PATH)
        .args(&command[1..])
        .args(paths)
        .output()
        .with_context(|| format!("cannot run {}", command[0]))?;
    if !output.status.success() {
        bail!("{} failed: {}", command.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write};

    use super::*;

    /// The premise of every power cut: what was synced is there, what was not is gone, and writes fail in between.
    #[test]
    fn a_power_cut_keeps_what_was_synced_and_nothing_else() {
        if let Err(why) = allowed() {
            eprintln!("SKIPPED: {why}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut disk = LoopDisk::create(dir.path(), 32).unwrap();
        let synced = disk.path().join("synced");
        let mut file = File::create(&synced).unwrap();
        file.write_all(&[1; 4096]).unwrap();
        file.sync_all().unwrap();
        file.write_all(&[2; 4096]).unwrap();
        fs::write(disk.path().join("never-synced"), [3; 4096]).unwrap();

        disk.cut_power().unwrap();
        assert!(file.write_all(&[4; 4096]).and_then(|()| file.sync_all()).is_err());
        drop(file);

        disk.remount().unwrap();
        assert_eq!(fs::read(&synced).unwrap(), [1; 4096]);
        assert!(!disk.path().join("never-synced").exists());
        assert!(disk.free_bytes().unwrap() > 1 << 20);
    }

    #[test]
    fn only_its_own_file_system_is_ever_cut() {
        let dir = tempfile::tempdir().unwrap();
        // A mount point that is not on the device: what an unmount behind our back would leave.
        let disk =
            LoopDisk { device: "/dev/null".into(), mount: dir.path().into(), mounted: false };
        let refusal = disk.cut_power().unwrap_err().to_string();
        assert!(refusal.contains("is not on /dev/null"), "{refusal}");
        std::mem::forget(disk); // There is nothing to release.
    }
}

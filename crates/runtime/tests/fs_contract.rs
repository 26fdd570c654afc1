//! What every [`Fs`] does, checked on the machine's and on the simulated one alike; then what only the simulated one
//! can show: crashes, full disks, failing and hanging syncs.
//!
//! The crash tests here are about names and whole files; `sim/image.rs` has those about sectors.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};

use runtime::{Fs, Rng, real::RealFs, sim::SimFs, task};

/// Runs every check on both file systems, each in a folder of its own.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod real {
            $(#[test]
            fn $name() {
                let folder = tempfile::tempdir().unwrap();
                super::$name(&super::RealFs::new(), folder.path());
            })*
        }
        mod sim {
            $(#[test]
            fn $name() {
                let fs = super::SimFs::new();
                super::Fs::create_dir_all(&fs, super::Path::new("/data")).unwrap();
                super::$name(&fs, super::Path::new("/data"));
            })*
        }
    };
}

on_both!(
    bytes_come_back_from_where_they_were_written,
    reading_beyond_the_end_is_an_error,
    a_file_is_cut_and_grown_with_zeros,
    two_handles_see_one_file,
    opening_creates_but_only_in_a_folder_that_exists,
    names_are_listed_in_order,
    a_rename_replaces,
    a_removed_file_lives_on_in_its_handles,
    a_replaced_file_has_the_new_bytes_and_leaves_no_other,
    a_lock_has_one_holder_and_names_it,
    missing_things_are_missing,
    folders_are_created_with_those_above,
);

fn write(fs: &dyn Fs, path: &Path, bytes: &[u8]) {
    let file = fs.open(path).unwrap();
    file.set_len(0).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

fn kind<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
    result.err().map(|error| error.kind())
}

fn bytes_come_back_from_where_they_were_written(fs: &dyn Fs, dir: &Path) {
    let file = fs.open(&dir.join("file")).unwrap();
    assert!(file.is_empty().unwrap());
    file.write_all_at(b"world", 1000).unwrap();
    file.write_all_at(b"hello", 995).unwrap();
    file.write_all_at(b"", 5000).unwrap();
    file.sync().unwrap();
    let mut bytes = [0; 12];
    file.read_exact_at(&mut bytes, 993).unwrap();
    assert_eq!(&bytes, b"\0\0helloworld");
    assert_eq!(file.len().unwrap(), 1005);
}

fn reading_beyond_the_end_is_an_error(fs: &dyn Fs, dir: &Path) {
    let file = fs.open(&dir.join("file")).unwrap();
    file.write_all_at(b"abc", 0).unwrap();
    assert_eq!(kind(file.read_exact_at(&mut [0; 4], 0)), Some(io::ErrorKind::UnexpectedEof));
    assert_eq!(kind(file.read_exact_at(&mut [0; 1], 100)), Some(io::ErrorKind::UnexpectedEof));
}

fn a_file_is_cut_and_grown_with_zeros(fs: &dyn Fs, dir: &Path) {
    let path = dir.join("file");
    write(fs, &path, b"abcdef");
    let file = fs.open(&path).unwrap();
    file.set_len(2).unwrap();
    file.set_len(4).unwrap();
    assert_eq!(fs.read(&path).unwrap().unwrap(), b"ab\0\0");
}

fn two_handles_see_one_file(fs: &dyn Fs, dir: &Path) {
    let path = dir.join("file");
    let (one, other) = (fs.open(&path).unwrap(), fs.open(&path).unwrap());
    one.write_all_at(b"x", 0).unwrap();
    assert_eq!(other.len().unwrap(), 1);
}

fn opening_creates_but_only_in_a_folder_that_exists(fs: &dyn Fs, dir: &Path) {
    fs.open(&dir.join("new")).unwrap();
    assert!(fs.exists(&dir.join("new")).unwrap());
    assert_eq!(kind(fs.open(&dir.join("nowhere/file"))), Some(io::ErrorKind::NotFound));
    assert_eq!(kind(fs.open(dir)), Some(io::ErrorKind::IsADirectory));
}

fn names_are_listed_in_order(fs: &dyn Fs, dir: &Path) {
    for name in ["b", "LOG-10", "a", "LOG-9"] {
        fs.open(&dir.join(name)).unwrap();
    }
    fs.create_dir_all(&dir.join("c/deeper")).unwrap();
    let names: Vec<PathBuf> =
        ["LOG-10", "LOG-9", "a", "b", "c"].iter().map(|name| dir.join(name)).collect();
    assert_eq!(fs.list(dir).unwrap(), names);
}

fn a_rename_replaces(fs: &dyn Fs, dir: &Path) {
    let (from, to) = (dir.join("from"), dir.join("to"));
    write(fs, &from, b"new");
    write(fs, &to, b"old and longer");
    fs.rename(&from, &to).unwrap();
    fs.sync_dir(dir).unwrap();
    assert_eq!(fs.read(&to).unwrap().unwrap(), b"new");
    assert_eq!(fs.read(&from).unwrap(), None);
}

fn a_removed_file_lives_on_in_its_handles(fs: &dyn Fs, dir: &Path) {
    let path = dir.join("file");
    write(fs, &path, b"old");
    let old = fs.open(&path).unwrap();
    fs.remove(&path).unwrap();
    assert!(!fs.exists(&path).unwrap());
    write(fs, &path, b"other");
    assert_eq!(old.len().unwrap(), 3);
}

fn a_replaced_file_has_the_new_bytes_and_leaves_no_other(fs: &dyn Fs, dir: &Path) {
    let path = dir.join("FORMAT");
    write(fs, &dir.join("FORMAT.tmp"), b"left over by a crash, and longer");
    fs.replace(&path, b"one").unwrap();
    fs.replace(&path, b"two").unwrap();
    assert_eq!(fs.read(&path).unwrap().unwrap(), b"two");
    assert_eq!(fs.list(dir).unwrap(), [path]);
}

fn a_lock_has_one_holder_and_names_it(fs: &dyn Fs, dir: &Path) {
    let path = dir.join("LOCK");
    write(fs, &path, b"something much longer than the line that names the holder of this lock\n");
    let lock = fs.lock(&path).unwrap().expect("nobody holds it");
    assert!(fs.lock(&path).unwrap().is_none(), "this process holds it");
    let holder = String::from_utf8(fs.read(&path).unwrap().unwrap()).unwrap();
    assert!(
        holder.starts_with("pid ") && holder.ends_with('\n') && holder.lines().count() == 1,
        "{holder}"
    );
    drop(lock);
    let again = fs.lock(&path).unwrap();
    assert!(again.is_some(), "it was given back");
}

fn missing_things_are_missing(fs: &dyn Fs, dir: &Path) {
    let path = dir.join("nothing");
    assert!(!fs.exists(&path).unwrap());
    assert_eq!(fs.read(&path).unwrap(), None);
    let not_found = Some(io::ErrorKind::NotFound);
    assert_eq!(kind(fs.remove(&path)), not_found);
    assert_eq!(kind(fs.rename(&path, &dir.join("other"))), not_found);
    assert_eq!(kind(fs.list(&path)), not_found);
    assert_eq!(kind(fs.sync_dir(&path)), not_found);
}

fn folders_are_created_with_those_above(fs: &dyn Fs, dir: &Path) {
    fs.create_dir_all(&dir.join("a/b/c")).unwrap();
    fs.create_dir_all(&dir.join("a/b/c")).unwrap();
    assert_eq!(fs.list(&dir.join("a/b")).unwrap(), [dir.join("a/b/c")]);
    write(fs, &dir.join("file"), b"");
    assert!(fs.create_dir_all(&dir.join("file/below")).is_err());
}

#[test]
fn a_lock_in_another_process_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("LOCK");
    let fs = RealFs::new();
    // util-linux's flock takes the same lock; the shell says when it has it, and holds it until its input ends.
    let mut holder = match std::process::Command::new("flock")
        .args([path.to_str().unwrap(), "-c", "echo held; read line"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
    {
        Ok(holder) => holder,
        Err(error) => return eprintln!("skipped: no flock command here ({error})"),
    };
    let mut said = [0; 5];
    io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut said).unwrap();
    assert!(fs.lock(&path).unwrap().is_none(), "another process holds it");
    drop(holder.stdin.take());
    holder.wait().unwrap();
    assert!(fs.lock(&path).unwrap().is_some(), "the other process is gone");
}

/// Crashes 500 times and says which files with which contents were left.
fn crashes(fs: &SimFs) -> BTreeSet<Vec<(String, String)>> {
    let mut rng = Rng::new(11);
    (0..500).map(|_| contents(&fs.crash(&mut rng))).collect()
}

fn contents(fs: &SimFs) -> Vec<(String, String)> {
    let dir = Path::new("/d");
    let names = fs.list(dir).unwrap_or_default();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let text =
        |path: &PathBuf| String::from_utf8_lossy(&fs.read(path).unwrap().unwrap()).into_owned();
    names.iter().map(|path| (name(path), text(path))).collect()
}

fn files<const N: usize>(files: [(&str, &str); N]) -> Vec<(String, String)> {
    files.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec()
}

/// A disk with the folder `/d`, which survives everything.
fn disk() -> SimFs {
    let fs = SimFs::new();
    fs.create_dir_all(Path::new("/d")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs
}

#[test]
fn a_name_may_be_lost_until_its_folder_is_synced() {
    let fs = disk();
    let file = fs.open(Path::new("/d/a")).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(crashes(&fs), BTreeSet::from([files([]), files([("a", "x")])]));
    fs.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(crashes(&fs), BTreeSet::from([files([("a", "x")])]));
}

#[test]
fn a_rename_happens_or_not_and_a_removal_too() {
    let fs = disk();
    for (name, text) in [("a", "new"), ("b", "old"), ("c", "gone")] {
        let path = Path::new("/d").join(name);
        write(&fs, &path, text.as_bytes());
        fs.open(&path).unwrap().sync().unwrap();
    }
    fs.sync_dir(Path::new("/d")).unwrap();
    fs.rename(Path::new("/d/a"), Path::new("/d/b")).unwrap();
    fs.remove(Path::new("/d/c")).unwrap();
    let c = ("c", "gone");
    let either = [
        files([("a", "new"), ("b", "old"), c]),
        files([("a", "new"), ("b", "old")]),
        files([("b", "new"), c]),
        files([("b", "new")]),
    ];
    assert_eq!(crashes(&fs), BTreeSet::from(either));
    fs.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(crashes(&fs), BTreeSet::from([files([("b", "new")])]));
}

#[test]
fn what_lies_in_a_lost_folder_is_lost() {
    let fs = SimFs::new();
    fs.create_dir_all(Path::new("/d")).unwrap();
    write(&fs, Path::new("/d/a"), b"");
    fs.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(crashes(&fs), BTreeSet::from([files([]), files([("a", "")])]), "/ was not synced");
}

#[test]
fn a_replaced_file_is_old_or_new_at_every_operation() {
    let path = Path::new("/d/F");
    let mut rng = Rng::new(3);
    let mut seen = BTreeSet::new();
    for operations in 0.. {
        let fs = disk();
        fs.replace(path, b"old").unwrap();
        fs.cut_power_after(operations);
        let done = fs.replace(path, &[b'n'; 1500]).is_ok();
        for _ in 0..50 {
            let left = fs.crash(&mut rng).read(path).unwrap().expect("the name is always there");
            assert!(
                left == b"old" || left == [b'n'; 1500],
                "cut after {operations}: {} bytes",
                left.len()
            );
            assert!(!done || left.len() == 1500, "it was done, and is lost");
            seen.insert(left);
        }
        if done {
            break;
        }
    }
    assert_eq!(seen.len(), 2, "both states must occur");
}

#[test]
fn the_same_seed_gives_the_same_crash() {
    let fs = disk();
    for name in ["a", "b", "c"] {
        write(&fs, &Path::new("/d").join(name), &[b'x'; 3000]);
    }
    for seed in 0..50 {
        let crash = || contents(&fs.crash(&mut Rng::new(seed)));
        assert_eq!(crash(), crash());
    }
}

#[test]
fn a_full_disk_takes_what_fits_and_then_refuses() {
    let fs = disk();
    fs.set_capacity(Some(10));
    let file = fs.open(Path::new("/d/a")).unwrap();
    file.write_all_at(b"12345678", 0).unwrap();
    assert_eq!(kind(file.write_all_at(b"abcdef", 8)), Some(io::ErrorKind::StorageFull));
    assert_eq!(fs.read(Path::new("/d/a")).unwrap().unwrap(), b"12345678ab");
    file.write_all_at(b"over", 0).unwrap();
    assert_eq!(kind(file.set_len(11)), Some(io::ErrorKind::StorageFull));
    file.set_len(1).unwrap();
    file.write_all_at(b"fits now", 1).unwrap();
}

#[test]
fn an_injected_error_fails_one_sync_and_forgets() {
    let fs = disk();
    let file = fs.open(Path::new("/d/a")).unwrap();
    fs.sync_dir(Path::new("/d")).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    fs.fail_sync(0);
    assert!(file.sync().is_err());
    file.sync().unwrap();
    assert!(crashes(&fs).contains(&files([("a", "")])), "the second sync vouches for nothing");
}

#[test]
fn a_held_sync_waits_and_covers_only_what_came_before() {
    let fs = disk();
    let file = fs.open(Path::new("/d/a")).unwrap();
    fs.sync_dir(Path::new("/d")).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    fs.hold_syncs();
    let (done, is_done) = mpsc::channel();
    let syncing = Arc::clone(&file);
    let thread = task::spawn("sync", move || done.send(syncing.sync())).unwrap();
    fs.wait_for_held_sync();
    file.write_all_at(b"y", 1).unwrap();
    assert!(crashes(&fs).contains(&files([("a", "")])), "a sync that hangs has done nothing");
    assert!(is_done.try_recv().is_err());
    fs.release_syncs();
    is_done.recv().unwrap().unwrap();
    thread.join().unwrap().unwrap();
    let left = crashes(&fs);
    assert!(left.iter().all(|files| files[0].1.starts_with('x')), "{left:?}");
    assert!(left.contains(&files([("a", "x")])), "what came later is not covered");
}

#[test]
fn without_power_nothing_works_and_a_crash_is_possible() {
    let fs = disk();
    fs.cut_power_after(1);
    let file = fs.open(Path::new("/d/a")).unwrap();
    assert!(file.write_all_at(b"x", 0).is_err());
    assert!(file.sync().is_err() && fs.exists(Path::new("/d")).is_err() && file.len().is_err());
    assert!(
        crashes(&fs).contains(&files([("a", "x")])),
        "the write that failed may have reached the disk"
    );
}

#[test]
fn a_crash_frees_locks_and_a_flipped_bit_shows() {
    let fs = disk();
    let _held = fs.lock(Path::new("/d/LOCK")).unwrap().unwrap();
    write(&fs, Path::new("/d/a"), b"a");
    fs.flip_bit(Path::new("/d/a"), 1).unwrap();
    assert_eq!(fs.read(Path::new("/d/a")).unwrap().unwrap(), b"c");
    assert!(fs.flip_bit(Path::new("/d/b"), 1).is_err());
    let after = fs.crash(&mut Rng::new(0));
    assert!(after.lock(Path::new("/d/LOCK")).unwrap().is_some());
}

//! What only an engine on disk can show: a killed process, damaged files.

use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use types::KeyRange;

use crate::{Engine, Error, Family, Result, Snapshot, WriteBatch};

/// Opens the engine in a folder.
pub type Open = dyn Fn(&Path) -> Result<Arc<dyn Engine>>;

/// Writes batch `number`: three keys in each family.
pub fn write_numbered(engine: &dyn Engine, number: u32) -> Result<()> {
    let mut batch = WriteBatch::new();
    for family in Family::ALL {
        for part in 0..3_u8 {
            batch.put(
                family,
                [&number.to_be_bytes()[..], &[part]].concat(),
                vec![number as u8; 100],
            );
        }
    }
    engine.write(batch)
}

/// How many batches of [`write_numbered`] there are; panics unless they are whole and a prefix.
pub fn count_numbered(engine: &dyn Engine) -> Result<u32> {
    let snapshot = engine.snapshot()?;
    let count = pairs_of(&*snapshot, Family::Default)?.len() / 3;
    for family in Family::ALL {
        let found = pairs_of(&*snapshot, family)?;
        let expected = (0..count as u32).flat_map(|number| {
            (0..3_u8).map(move |part| {
                ([&number.to_be_bytes()[..], &[part]].concat(), vec![number as u8; 100])
            })
        });
        assert!(found.into_iter().eq(expected), "{family:?} is no prefix of what was written");
    }
    Ok(count as u32)
}

fn pairs_of(snapshot: &dyn Snapshot, family: Family) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut iter = snapshot.iter(family, &KeyRange::all())?;
    let mut out = Vec::new();
    let mut more = iter.seek_to_first()?;
    while more {
        out.push((iter.key().to_vec(), iter.value().to_vec()));
        more = iter.next()?;
    }
    Ok(out)
}

/// The folder as it is while the engine runs is what a killed process leaves: everything that was written is
/// there, synced or not, in tables or not, and the engine goes on from it.
pub fn a_killed_process_loses_nothing(dir: &Path, open: &Open) {
    let live = dir.join("live");
    let engine = open(&live).unwrap();
    for number in 0..300 {
        write_numbered(&*engine, number).unwrap();
        match number {
            100 => engine.flush().unwrap(),
            150 => engine.delete_range(Family::Default, &KeyRange::new("x", "")).unwrap(),
            200 => engine.sync().unwrap(),
            _ => {}
        }
        if number % 97 == 0 || number == 299 {
            let copy = dir.join(format!("copy-{number}"));
            copy_dir(&live, &copy).unwrap();
            for round in 0..2 {
                let found = open(&copy).unwrap();
                assert_eq!(count_numbered(&*found).unwrap(), number + 1 + round);
                write_numbered(&*found, number + 1 + round).unwrap();
            }
        }
    }
}

/// A second handle to a folder that is open is refused, and does no harm to the first.
pub fn a_folder_opens_once(dir: &Path, open: &Open) {
    let engine = open(dir).unwrap();
    write_numbered(&*engine, 0).unwrap();
    let error = open(dir).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    write_numbered(&*engine, 1).unwrap();
    drop(engine);
    assert_eq!(count_numbered(&*open(dir).unwrap()).unwrap(), 2);
}

/// After an error everything is refused, for good.
pub fn is_poisoned(engine: &dyn Engine) {
    let refused =
        |result: Result<()>| assert!(matches!(result, Err(Error::Poisoned { .. })), "{result:?}");
    for _ in 0..2 {
        refused(write_numbered(engine, 0));
        refused(engine.sync());
        refused(engine.flush());
        refused(engine.snapshot().map(drop));
        refused(engine.delete_range(Family::Default, &KeyRange::all()));
        refused(engine.approximate_size(Family::Default, &KeyRange::all()).map(drop));
        refused(engine.middle_key(Family::Default, &KeyRange::all()).map(drop));
    }
}

/// Copies a folder with everything in it. The engine in it may be at work, and remove files meanwhile.
pub fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    loop {
        match copy_once(from, to) {
            // A file was listed and then removed. Half a copy is not a state that ever was: again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::remove_dir_all(to)?,
            result => return result,
        }
    }
}

fn copy_once(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_once(&entry.path(), &target)?;
        } else {
            let bytes = fs::read(entry.path())?;
            let copy = fs::File::create(target)?;
            copy.write_all_at(&bytes[..content_end(&bytes)], 0)?;
            copy.set_len(bytes.len() as u64)?;
        }
    }
    Ok(())
}

/// Where the zeros begin that a file ends with: journals reserve more space than they use.
pub fn content_end(bytes: &[u8]) -> usize {
    let blocks = bytes.chunks(4096).collect::<Vec<_>>();
    let last = blocks.iter().rposition(|block| *block != &[0; 4096][..block.len()]);
    last.map_or(0, |block| {
        let tail = blocks[block].iter().rposition(|byte| *byte != 0).unwrap();
        block * 4096 + tail + 1
    })
}

/// Every file below a folder, in the order of their names.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { out.extend(files(&path)) } else { out.push(path) }
    }
    out.sort();
    out
}

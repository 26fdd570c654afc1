//! The bytes on disk, field by field, as docs/formats.md describes them. A change here is a new version.

use engine::raft_log::{LogBatch, LogEntry, Options};
use runtime::{Fs, sim::SimFs};
use types::Bytes;

use crate::model::{dir, open};

/// Fields and their bytes in hexadecimal digits.
type Golden = &'static [(&'static str, &'static str)];

fn assert_golden(found: &[u8], golden: Golden) {
    let mut rest = found;
    for (field, expected) in golden {
        let (bytes, others) = rest.split_at(expected.len() / 2);
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digits, *expected, "{field}, at offset {}", found.len() - rest.len());
        rest = others;
    }
    assert_eq!(rest, b"", "bytes are left over");
}

fn options() -> Options {
    Options { segment_bytes: 1024, cache_bytes: 0, purge_bytes: 1024, spares_max: 0, grow_bytes: 0 }
}

fn entry(term: u64, index: u64, kind: u8, data: &'static str) -> LogEntry {
    LogEntry { term, index, kind, data: Bytes::from_static(data.as_bytes()) }
}

const GROUP: Golden = &[
    ("magic of a group", "544c47"),
    ("version", "01"),
    ("segment", "0000000000000001"),
    ("number", "0000000000000001"),
    ("oldest segment", "0000000000000001"),
    ("offset", "00000000"),
    ("bytes of the blob", "00000007"),
    ("bytes of the digest", "000000b7"),
    ("checksum of the body", "e4e03267"),
    ("checksum of the frame", "b8862bae"),
    ("blob: entry 1, kind 0", "006162"),
    ("blob: entry 2, kind 1", "01"),
    ("blob: entry 3, kind 0", "006364"),
    ("base of a new region", "05"),
    ("region", "0000000000000007"),
    ("index", "0000000000000000"),
    ("term", "0000000000000000"),
    ("entries", "01"),
    ("region", "0000000000000007"),
    ("first index", "0000000000000001"),
    ("term", "0000000000000002"),
    ("count", "00000002"),
    ("entry 1: bytes", "00000002"),
    ("entry 1: checksum", "ffbab111"),
    ("entry 2: bytes", "00000000"),
    ("entry 2: checksum", "77c08307"),
    ("entries of the next term", "01"),
    ("region", "0000000000000007"),
    ("first index", "0000000000000003"),
    ("term", "0000000000000003"),
    ("count", "00000001"),
    ("entry 3: bytes", "00000002"),
    ("entry 3: checksum", "41f864cf"),
    ("state", "03"),
    ("region", "0000000000000007"),
    ("bytes", "00000004"),
    ("value", "766f7465"),
    ("base that keeps what follows", "04"),
    ("region", "0000000000000007"),
    ("index", "0000000000000001"),
    ("term", "0000000000000002"),
    ("base that keeps nothing", "05"),
    ("region", "0000000000000008"),
    ("index", "0000000000000014"),
    ("term", "0000000000000005"),
    ("removal", "06"),
    ("region", "0000000000000009"),
    ("zeros", "0000"),
];

#[test]
fn a_group_has_its_golden_bytes() {
    let fs = SimFs::new();
    let (log, mut writer) = open(&fs, &options()).unwrap();
    let mut batch = LogBatch::new();
    batch.append(7, vec![entry(2, 1, 0, "ab"), entry(2, 2, 1, ""), entry(3, 3, 0, "cd")]);
    batch.put_state(7, Bytes::from_static(b"vote")).compact_to(7, 1).reset(8, 20, 5).remove(9);
    log.append(batch).unwrap();
    writer.sync().unwrap();
    let path = dir().join("00000000000000000001.log");
    assert_golden(&fs.read(&path).unwrap().unwrap(), GROUP);
}

const FOOTER: Golden = &[
    ("group 1: offset", "00000000"),
    ("group 1: bytes of the digest", "0000003e"),
    ("group 1: digest: base of a new region", "05"),
    ("region", "0000000000000001"),
    ("index", "0000000000000000"),
    ("term", "0000000000000000"),
    ("group 1: digest: entries", "01"),
    ("region", "0000000000000001"),
    ("first index", "0000000000000001"),
    ("term", "0000000000000001"),
    ("count", "00000001"),
    ("entry: bytes", "0000012c"),
    ("entry: checksum", "34e55eac"),
    ("group 2: offset", "000001a0"),
    ("group 2: bytes of the digest", "00000011"),
    ("group 2: digest: state", "03"),
    ("region", "0000000000000001"),
    ("bytes", "00000004"),
    ("value", "766f7465"),
    ("magic of a footer", "544c46"),
    ("version", "01"),
    ("segment", "0000000000000001"),
    ("number of the last group", "0000000000000002"),
    ("oldest segment", "0000000000000001"),
    ("end of the groups", "000001e8"),
    ("nothing", "00000000"),
    ("bytes of the digests", "0000005f"),
    ("checksum of the digests", "0e032885"),
    ("checksum of the frame", "1b57af49"),
];

/// The second segment: what region 1 needed of the first one was written again.
const REWRITTEN: Golden = &[
    ("base", "04"),
    ("region", "0000000000000001"),
    ("index", "0000000000000000"),
    ("term", "0000000000000000"),
    ("state", "03"),
    ("region", "0000000000000001"),
    ("bytes", "00000004"),
    ("value", "766f7465"),
    ("entries that were there", "02"),
    ("region", "0000000000000001"),
    ("first index", "0000000000000001"),
    ("term", "0000000000000001"),
    ("count", "00000001"),
    ("entry: bytes", "0000012c"),
    ("entry: checksum", "34e55eac"),
];

#[test]
fn a_footer_and_what_is_rewritten_have_their_golden_bytes() {
    let fs = SimFs::new();
    let (log, mut writer) = open(&fs, &options()).unwrap();
    let entry = |len| LogEntry { term: 1, index: 1, kind: 0, data: Bytes::from(vec![b'x'; len]) };
    for ops in 0..3 {
        let mut batch = LogBatch::new();
        match ops {
            0 => batch.append(1, vec![entry(300)]),
            1 => batch.put_state(1, Bytes::from_static(b"vote")),
            // Does not fit, and is dead at once.
            _ => batch.append(2, vec![entry(500)]).remove(2),
        };
        log.append(batch).unwrap();
        writer.sync().unwrap();
    }
    writer.maintain(0).unwrap();
    let first = fs.read(&dir().join("00000000000000000001.log")).unwrap().unwrap();
    assert_eq!(first.len(), 1024);
    assert_golden(&first[1024 - 95 - 48..], FOOTER);

    while writer.maintain(0).unwrap().more {}
    let rewritten = fs.read(&dir().join("00000000000000000004.log")).unwrap().unwrap();
    let digest = 48 + 301;
    assert_golden(&rewritten[digest..digest + 79], REWRITTEN);
}

//! What a group of commands does, step by step.

use engine::{Engine, MemoryEngine, Op};

use types::KeyMode;

use super::*;

const API: ApiMode = ApiMode::V1Ttl;
const NOW: u64 = 10_000;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn stored(text: &str) -> Bytes {
    value::encode(API, bytes(text), None)
}

fn put(key: &str, value: &str) -> Command {
    Command::new(Action::Change(Modify::Put {
        cf: Cf::Default,
        key: bytes(key),
        value: stored(value),
    }))
}

fn delete(key: &str) -> Command {
    Command::new(Action::Change(Modify::Delete { cf: Cf::Default, key: bytes(key) }))
}

fn delete_range(start: &str, end: &str) -> Command {
    let range = KeyRange::new(bytes(start), bytes(end));
    Command::new(Action::Change(Modify::DeleteRange { cf: Cf::Default, range }))
}

fn cas(key: &str, expected: Option<&str>, new: Option<&str>) -> Command {
    Command::new(Action::CompareAndSwap(CompareAndSwap {
        cf: Cf::Default,
        key: bytes(key),
        expected: expected.map(bytes),
        new: new.map(stored),
        now_ms: NOW,
    }))
}

fn swapped(succeeded: bool, previous: Option<&str>) -> Answer {
    Answer::Swapped(Swapped { succeeded, previous: previous.map(bytes) })
}

/// An engine that holds `pairs` with their moments of expiry.
fn engine(pairs: &[(&str, &str, Option<u64>)]) -> MemoryEngine {
    let engine = MemoryEngine::new();
    let mut batch = WriteBatch::new();
    for (key, text, expire_at_ms) in pairs {
        batch.put(Cf::Default, bytes(key), value::encode(API, bytes(text), *expire_at_ms));
    }
    engine.write(batch).unwrap();
    engine
}

fn plan(engine: &MemoryEngine, commands: Vec<Command>) -> Plan {
    let snapshot = engine.snapshot().unwrap();
    apply(API, commands, Some(&*snapshot)).unwrap()
}

fn answers(engine: &MemoryEngine, commands: Vec<Command>) -> Vec<Answer> {
    plan(engine, commands).outcomes.into_iter().map(|outcome| outcome.answer).collect()
}

#[test]
fn blind_changes_share_one_batch_in_order_and_need_no_snapshot() {
    let plan = apply(API, vec![put("a", "1"), delete("b"), put("a", "2")], None).unwrap();
    let [Step::Write(batch)] = &plan.steps[..] else { panic!("one batch: {:?}", plan.steps) };
    assert_eq!(
        batch.ops(),
        [
            Op::Put(Family::Default, bytes("a"), stored("1")),
            Op::Delete(Family::Default, bytes("b")),
            Op::Put(Family::Default, bytes("a"), stored("2")),
        ]
    );
    assert_eq!(plan.bytes, batch.bytes());
    assert!(
        plan.outcomes
            .iter()
            .all(|outcome| *outcome == Outcome { answer: Answer::Done, begins: 0, needs: 1 })
    );
}

#[test]
fn a_delete_range_splits_the_batch() {
    let plan =
        apply(API, vec![put("a", "1"), delete_range("a", "c"), put("b", "2"), delete("c")], None)
            .unwrap();
    let kinds: Vec<&str> = plan
        .steps
        .iter()
        .map(|step| match step {
            Step::Write(batch) if batch.len() == 1 => "one change",
            Step::Write(_) => "two changes",
            Step::DeleteRange(Family::Default, _) => "delete-range",
            Step::DeleteRange(..) => "wrong family",
        })
        .collect();
    assert_eq!(kinds, ["one change", "delete-range", "two changes"]);
    let spans: Vec<_> =
        plan.outcomes.iter().map(|outcome| (outcome.begins, outcome.needs)).collect();
    assert_eq!(spans, [(0, 1), (1, 2), (2, 3), (2, 3)]);
}

#[test]
fn a_compare_and_swap_sees_the_commands_before_it_and_not_those_after() {
    let engine = engine(&[("a", "old", None)]);
    let commands = vec![
        cas("a", Some("old"), Some("1")), // the snapshot
        put("a", "2"),
        cas("a", Some("1"), Some("x")), // a put before it
        cas("a", Some("2"), Some("3")),
        cas("a", Some("3"), None), // a swap before it
        cas("a", None, Some("4")), // a deletion before it
        delete_range("a", "b"),
        cas("a", Some("4"), Some("x")), // a delete-range before it
        put("a", "5"),
        cas("a", Some("5"), Some("6")), // a put after the delete-range
        put("a", "7"),
    ];
    let answers: Vec<Answer> = answers(&engine, commands)
        .into_iter()
        .filter(|answer| matches!(answer, Answer::Swapped(_)))
        .collect();
    assert_eq!(
        answers,
        [
            swapped(true, Some("old")),
            swapped(false, Some("2")),
            swapped(true, Some("2")),
            swapped(true, Some("3")),
            swapped(true, None),
            swapped(false, None),
            swapped(true, Some("5")),
        ]
    );
}

#[test]
fn column_families_are_apart_in_the_overlay() {
    let other = |key: &str| {
        Command::new(Action::Change(Modify::DeleteRange {
            cf: Cf::Write,
            range: KeyRange::new(bytes(key), ""),
        }))
    };
    let engine = engine(&[("a", "1", None)]);
    assert_eq!(
        answers(&engine, vec![other("a"), cas("a", Some("1"), None)])[1],
        swapped(true, Some("1"))
    );
}

#[test]
fn an_expired_value_is_none_to_a_compare_and_swap() {
    let engine = engine(&[("gone", "v", Some(NOW)), ("here", "v", Some(NOW + 1))]);
    let commands = vec![
        cas("gone", Some("v"), None),
        cas("gone", None, Some("w")),
        cas("here", Some("v"), None),
    ];
    assert_eq!(
        answers(&engine, commands),
        [swapped(false, None), swapped(true, None), swapped(true, Some("v"))]
    );
}

#[test]
fn only_what_is_expired_at_its_turn_is_removed() {
    let engine = engine(&[
        ("a", "v", Some(NOW)),
        ("b", "v", Some(NOW)),
        ("c", "v", Some(NOW + 1)),
        ("d", "v", None),
    ]);
    let keys = ["a", "b", "c", "d", "e"].iter().map(|key| (Cf::Default, bytes(key))).collect();
    // "a" is written again between the search and the removal.
    let commands = vec![put("a", "new"), Command::new(Action::RemoveExpired { now_ms: NOW, keys })];
    let plan = plan(&engine, commands);
    assert_eq!(plan.outcomes[1].answer, Answer::Removed(1));
    let [Step::Write(batch)] = &plan.steps[..] else { panic!("one batch") };
    assert_eq!(batch.ops()[1..], [Op::Delete(Family::Default, bytes("b"))]);
}

#[test]
fn a_command_without_effects_rests_on_what_it_saw() {
    let plan = plan(
        &engine(&[]),
        vec![cas("a", Some("x"), None), put("a", "1"), cas("a", Some("x"), None)],
    );
    let spans: Vec<_> =
        plan.outcomes.iter().map(|outcome| (outcome.begins, outcome.needs)).collect();
    assert_eq!(spans, [(0, 0), (0, 1), (1, 1)]);
    assert_eq!(plan.steps.len(), 1);
}

#[test]
fn the_record_of_the_key_mode_travels_with_the_write() {
    let command = Command { key_mode: Some(KeyMode::Raw), ..put("a", "1") };
    let plan = apply(API, vec![command], None).unwrap();
    let [Step::Write(batch)] = &plan.steps[..] else { panic!("one batch") };
    assert!(matches!(&batch.ops()[0], Op::Put(Family::Meta, ..)));
    assert_eq!(batch.len(), 2);
}

#[test]
fn fates_on_a_full_disk_and_on_a_failure() {
    let both = Command::new(Action::Changes(vec![
        Modify::Put { cf: Cf::Default, key: bytes("a"), value: stored("1") },
        Modify::DeleteRange { cf: Cf::Default, range: KeyRange::all() },
    ]));
    // Steps: 0 batch, 1 delete-range, 2 batch. Commands: in 0; in 0 and 1; in 2; sees everything.
    let plan = plan(&engine(&[]), vec![put("x", "1"), both, put("y", "2"), cas("y", None, None)]);
    assert_eq!(plan.steps.len(), 3);
    let full = |failed| {
        plan.outcomes.iter().map(|o| plan.fate_on_full_disk(o, failed)).collect::<Vec<_>>()
    };
    use Fate::{Done, Refused, Unknown};
    assert_eq!(full(0), [Refused, Refused, Refused, Refused]);
    assert_eq!(full(1), [Done, Unknown, Refused, Refused]);
    assert_eq!(full(2), [Done, Done, Refused, Refused]);
    let failed =
        |failed| plan.outcomes.iter().map(|o| plan.fate_on_failure(o, failed)).collect::<Vec<_>>();
    assert_eq!(failed(0), [Unknown, Unknown, Refused, Refused]);
    assert_eq!(failed(1), [Unknown, Unknown, Refused, Refused]);
    assert_eq!(failed(2), [Unknown, Unknown, Unknown, Refused]);
    assert_eq!(failed(3), [Unknown; 4], "the sync");
}

#[test]
fn a_damaged_value_is_no_answer() {
    let engine = MemoryEngine::new();
    let mut batch = WriteBatch::new();
    batch.put(Cf::Default, bytes("a"), bytes("flags are missing\x7f"));
    engine.write(batch).unwrap();
    let snapshot = engine.snapshot().unwrap();
    let error = apply(API, vec![cas("a", None, Some("1"))], Some(&*snapshot)).unwrap_err();
    assert!(matches!(error, engine::Error::Corrupt { .. }), "{error}");
}

//! Reads a configuration file into (full name, value, place) entries.
//!
//! Knows TOML and nothing of what the names mean, save which settings take a table as their value.

use std::collections::BTreeMap;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use types::Code;

use super::{File, Input, Location, Origin, Problem, load::find};

/// One `name = value` of a file.
pub(crate) struct Entry {
    /// Section and key, joined by dots.
    pub(crate) name: String,
    /// The value.
    pub(crate) input: Input,
    /// Where the key stands.
    pub(crate) location: Location,
}

/// All entries, in the order of the file.
///
/// # Errors
/// The text is not TOML; all of its syntax errors.
pub(crate) fn entries(file: &File) -> Result<Vec<Entry>, Vec<Problem>> {
    let (table, errors) = DeTable::parse_recoverable(&file.text);
    if !errors.is_empty() {
        return Err(errors.into_iter().map(|error| syntax_problem(file, &error)).collect());
    }
    let mut entries = Vec::new();
    collect(file, "", table.get_ref(), &mut entries);
    entries.sort_by_key(|entry| (entry.location.line, entry.location.column));
    Ok(entries)
}

fn syntax_problem(file: &File, error: &toml::de::Error) -> Problem {
    let offset = error.span().map_or(0, |span| span.start);
    Problem {
        code: Code::InvalidSetting,
        origin: Some(Origin::File(Location::of(&file.name, &file.text, offset))),
        message: error.message().replace('\n', ", "),
        remedy: Some("`tinykv config sample` prints a file that is valid".to_owned()),
    }
}

fn collect(file: &File, prefix: &str, table: &DeTable<'_>, entries: &mut Vec<Entry>) {
    for (key, value) in table {
        let key_text: &str = key.get_ref();
        let name =
            if prefix.is_empty() { key_text.to_owned() } else { format!("{prefix}.{key_text}") };
        if let DeValue::Table(inner) = value.get_ref() {
            let takes_table = find(&name)
                .is_some_and(|setting| setting.takes.starts_with("a table"))
                || name == super::foreign::LABELS;
            if !takes_table {
                collect(file, &name, inner, entries);
                continue;
            }
        }
        let location = Location::of(&file.name, &file.text, key.span().start);
        entries.push(Entry { name, input: input(value), location });
    }
}

fn input(value: &Spanned<DeValue<'_>>) -> Input {
    match value.get_ref() {
        DeValue::String(text) => Input::Text(text.clone().into_owned()),
        DeValue::Integer(n) => match i64::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Input::Integer(n),
            Err(_) => Input::Other("a number beyond 64 bits"),
        },
        DeValue::Boolean(value) => Input::Boolean(*value),
        DeValue::Array(items) => match items.iter().map(text).collect() {
            Some(items) => Input::List(items),
            None => Input::Other("a list of other things"),
        },
        DeValue::Table(table) => {
            let pairs: Option<BTreeMap<String, String>> = table
                .iter()
                .map(|(key, value)| Some((key.get_ref().clone().into_owned(), text(value)?)))
                .collect();
            pairs.map_or(Input::Other("a table of other things"), Input::Table)
        }
        DeValue::Float(x) => match x.as_str().replace('_', "").parse() {
            Ok(x) => Input::Float(x),
            Err(_) => Input::Other("a number that is none"),
        },
        DeValue::Datetime(_) => Input::Other("a date"),
    }
}

fn text(value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.clone().into_owned()),
        _ => None,
    }
}

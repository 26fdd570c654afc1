//! What results look like: formats, colours, tables, and keys and values as text.
//!
//! The one idea is that **a printed key can be typed again**. Keys are text where they are printable and `\xNN`
//! elsewhere, and [`parse_key`] reads exactly that back (also `0x…`, the whole key in hexadecimal). JSON has another
//! rule, because JSON strings have escapes of their own: a field `key` holds the key itself if it is UTF-8, otherwise
//! the field is called `key_hex` and holds the `0x…` form. Values follow the same rules.
//!
//! Colours are only for terminals, and `NO_COLOR` is respected.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _},
    time::Duration,
};

use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON object, or one a line for lists. Fields are only ever added.
    Json,
    /// Columns separated by tabs, without headings.
    Plain,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On terminals, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// The style of what goes to stderr.
    pub fn stderr(self) -> Style {
        self.style(io::stderr().is_terminal())
    }

    /// The style of what goes to stdout.
    pub fn stdout(self) -> Style {
        self.style(io::stdout().is_terminal())
    }

    fn style(self, is_terminal: bool) -> Style {
        let coloured = match self {
            Color::Auto => {
                is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
            Color::Always => true,
            Color::Never => false,
        };
        if coloured { Style::Coloured } else { Style::Plain }
    }
}

/// Whether text carries colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// It does.
    Coloured,
    /// It does not.
    Plain,
}

impl Style {
    /// The label of an error.
    pub fn error(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// Something that needs attention.
    pub fn warning(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Something that is as it should be.
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// A word that only names what follows.
    pub fn label(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(self, colour: &str, text: &str) -> String {
        match self {
            Style::Coloured => format!("\u{1b}[{colour}m{text}\u{1b}[0m"),
            Style::Plain => text.to_owned(),
        }
    }
}

/// Reads a duration: a number and one of ms, s, m, h; a number alone is seconds.
///
/// # Errors
/// Says what a duration looks like.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => {
            return Err(format!("unknown unit \"{unit}\": one of ms, s, m, h, as in 500ms or 10s"));
        }
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "a duration is a number and a unit, as in 500ms or 10s".to_owned())?;
    let duration =
        Duration::try_from_secs_f64(number * seconds).map_err(|_| "that is too long".to_owned())?;
    if duration.is_zero() {
        return Err("must be more than zero".to_owned());
    }
    Ok(duration)
}

/// A duration as people read it: three digits and a unit.
pub(crate) fn duration(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    let (value, unit) = match micros {
        m if m < 999.5 => (m, "µs"),
        m if m < 999.5e3 => (m / 1e3, "ms"),
        m if m < 120e6 => (m / 1e6, "s"),
        m => (m / 60e6, "min"),
    };
    let digits = match value {
        v if v >= 99.95 || unit == "µs" => 0,
        _ => 1,
    };
    format!("{value:.digits$} {unit}")
}

/// A number of bytes as people read it.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.95 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// `1 key`, `2 keys`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// Reads a key as people type it: text with `\xNN`, `\n`, `\r`, `\t`, `\0`, `\\`, or the whole key as `0x…`.
///
/// # Errors
/// Says which part is no key and how to write it.
pub(crate) fn parse_key(text: &str) -> Result<Vec<u8>, String> {
    if let Some(hex) = text.strip_prefix("0x") {
        return parse_hex(hex).ok_or_else(|| {
            format!(
                "\"{text}\" is not hexadecimal; for a key of that text write \\x30{}",
                &text[1..]
            )
        });
    }
    unescape(text)
}

/// Reads pairs of hexadecimal digits, at least one.
fn parse_hex(hex: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        hex.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    if digits.is_empty() || digits.len() % 2 == 1 {
        return None;
    }
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Replaces the escapes of `text` by the bytes that they mean.
///
/// # Errors
/// Names an escape that means nothing.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match chars.next() {
            Some('\\') => out.push(b'\\'),
            Some('n') => out.push(b'\n'),
            Some('r') => out.push(b'\r'),
            Some('t') => out.push(b'\t'),
            Some('0') => out.push(0),
            Some('"') => out.push(b'"'),
            Some('\'') => out.push(b'\''),
            Some('x') => {
                let digits: String = chars.by_ref().take(2).collect();
                match parse_hex(&digits) {
                    Some(byte) => out.extend(byte),
                    None => {
                        return Err(format!("\"\\x{digits}\": two hexadecimal digits follow \\x"));
                    }
                }
            }
            Some(other) => {
                return Err(format!("unknown escape \"\\{other}\": write \\\\ for a backslash"));
            }
            None => return Err("a backslash at the end: write \\\\ for a backslash".to_owned()),
        }
    }
    Ok(out)
}

/// A key, or a value, as text on one line. [`parse_key`] reads it back.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    if rest.starts_with(b"0x") {
        out.push_str("\\x30"); // else it would be read as hexadecimal
        rest = &rest[1..];
    }
    for chunk in rest.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                // `escape_debug` knows what a terminal cannot show: controls, marks of direction, private use.
                '"' | '\'' => out.push(c),
                c if c.escape_debug().len() == 1 => out.push(c),
                c => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_byte(&mut out, byte)),
            }
        }
        chunk.invalid().iter().for_each(|&byte| push_byte(&mut out, byte));
    }
    out
}

fn push_byte(out: &mut String, byte: u8) {
    write!(out, "\\x{byte:02x}").expect("writing to a string cannot fail");
}

/// Puts a key or value into a JSON object: as field `name` if it is UTF-8, else as `name_hex` in the form `0x…`.
pub(crate) fn json_bytes(
    object: &mut serde_json::Map<String, serde_json::Value>,
    name: &str,
    bytes: &[u8],
) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => {
            let mut hex = String::with_capacity(2 + 2 * bytes.len());
            hex.push_str("0x");
            bytes.iter().for_each(|byte| {
                write!(hex, "{byte:02x}").expect("writing to a string cannot fail")
            });
            object.insert(format!("{name}_hex"), hex.into())
        }
    };
}

/// Which side the cells of a column stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows under headings, columns two blanks apart, without lines. No heading row if all headings are empty.
///
/// The last column is always aligned to the left and may have cells of any length (values do).
pub(crate) fn table(
    columns: &[(&str, Align)],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let Some((last, others)) = columns.split_last() else { return String::new() };
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut last_cells = Vec::new();
    if columns.iter().any(|(heading, _)| !heading.is_empty()) {
        table.set_header(others.iter().map(|(heading, _)| *heading));
        last_cells.push(last.0.to_owned());
    }
    for mut row in rows {
        last_cells.push(row.pop().unwrap_or_default());
        table.add_row(row);
    }
    for (column, (_, align)) in table.column_iter_mut().zip(others) {
        column.set_padding((0, 2));
        column.set_cell_alignment(match align {
            Align::Left => CellAlignment::Left,
            Align::Right => CellAlignment::Right,
        });
    }
    let mut lines: Box<dyn Iterator<Item = String>> = match others.is_empty() {
        true => Box::new(std::iter::empty()),
        false => Box::new(table.lines()),
    };
    let mut out = String::new();
    for cell in last_cells {
        let line = lines.next().unwrap_or_default() + &cell;
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_keys_can_be_typed_again() {
        let keys: [&[u8]; 12] = [
            b"",
            b"user/1",
            b"a b",
            b"\x00\x01\xff",
            b"0x41",
            b"0x",
            b"\\x41",
            b"tab\tnewline\n",
            "grün/日本".as_bytes(),
            "\u{202e}reversed".as_bytes(),
            b"half \xe6\x97",
            b"\"quoted' \\",
        ];
        for key in keys {
            let text = escape(key);
            assert!(!text.contains(['\n', '\t', '\u{202e}', '\0']), "{text:?}");
            assert_eq!(parse_key(&text).as_deref(), Ok(key), "{text}");
        }
        assert_eq!(escape("grün".as_bytes()), "grün");
        assert_eq!(escape(b"\x00a"), "\\x00a");
    }

    #[test]
    fn keys_are_read_in_all_three_forms() {
        assert_eq!(parse_key("hello").as_deref(), Ok(&b"hello"[..]));
        assert_eq!(parse_key("0x00fFa1").as_deref(), Ok(&[0, 0xff, 0xa1][..]));
        assert_eq!(parse_key("a\\x00\\n\\0\\\\").as_deref(), Ok(&b"a\0\n\0\\"[..]));
        for wrong in ["0xabc", "0xzz", "0x", "a\\", "a\\q", "a\\x4", "\\xgg"] {
            assert!(parse_key(wrong).is_err(), "{wrong}");
        }
        insta::assert_snapshot!(parse_key("0xzz").unwrap_err(), @r#""0xzz" is not hexadecimal; for a key of that text write \x30xzz"#);
    }

    #[test]
    fn durations_are_read_and_shown() {
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "-1s", "10x", "0s", "1e3s", "inf", "99999999999999999999999h"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
        let shown: Vec<String> =
            [812, 1_900, 99_960, 250_000, 1_200_000, 61_000_000, 7_200_000_000]
                .map(|us| duration(Duration::from_micros(us)))
                .into();
        assert_eq!(shown, ["812 µs", "1.9 ms", "100 ms", "250 ms", "1.2 s", "61.0 s", "120 min"]);
    }

    #[test]
    fn sizes_are_shown_in_powers_of_1024() {
        let shown: Vec<String> =
            [0, 1023, 1024, 1_288_490_189, 80 << 30, u64::MAX].map(bytes).into();
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.2 GiB", "80.0 GiB", "16384 PiB"]);
    }

    #[test]
    fn json_says_which_form_a_field_has() {
        let mut object = serde_json::Map::new();
        json_bytes(&mut object, "key", b"a\"\n");
        json_bytes(&mut object, "value", b"\x00\xff");
        insta::assert_snapshot!(serde_json::Value::Object(object), @r#"{"key":"a\"\n","value_hex":"0x00ff"}"#);
    }

    #[test]
    fn tables_align_and_leave_no_blanks_behind() {
        let rows =
            vec![vec!["1".to_owned(), "up".to_owned()], vec!["12".to_owned(), "日本".to_owned()]];
        let columns = [("STORE", Align::Right), ("STATE", Align::Left)];
        insta::assert_snapshot!(table(&columns, rows), @r"
        STORE  STATE
            1  up
           12  日本
        ");
        let long = "x".repeat(200_000);
        let rows = vec![vec!["日".to_owned(), long.clone()], vec!["ab".to_owned(), String::new()]];
        assert_eq!(
            table(&[("", Align::Left), ("", Align::Left)], rows),
            format!("日  {long}\nab\n")
        );
        assert_eq!(table(&[("KEY", Align::Left)], vec![vec!["a".to_owned()]]), "KEY\na\n");
    }

    #[test]
    fn colours_only_where_wanted() {
        assert_eq!(Color::Never.style(true), Style::Plain);
        assert_eq!(Color::Always.style(false), Style::Coloured);
        assert_eq!(Color::Auto.style(false), Style::Plain);
    }
}

//! The types that settings have: how each is read from a file, a flag or an environment variable, and written back.
//!
//! Invariant: what [`SettingValue::to_toml`] writes, [`SettingValue::read`] reads as the same value. The sample file
//! and `config show` stand on it.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr, time::Duration};

use types::ApiMode;

use super::ByteSize;

/// A value as a source gave it. Flags and the environment only know [`Input::Text`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Input {
    /// A string.
    Text(String),
    /// A whole number of the file.
    Integer(i64),
    /// Another number of the file.
    Float(f64),
    /// A truth value of the file.
    Boolean(bool),
    /// A list of strings of the file.
    List(Vec<String>),
    /// A table of the file, its values as text.
    Table(BTreeMap<String, String>),
    /// A type that no setting takes, by its name.
    Other(&'static str),
}

impl Input {
    fn type_name(&self) -> &'static str {
        match self {
            Input::Text(_) => "a string",
            Input::Integer(_) => "a whole number",
            Input::Float(_) => "a fraction",
            Input::Boolean(_) => "a truth value",
            Input::List(_) => "a list",
            Input::Table(_) => "a table",
            Input::Other(name) => name,
        }
    }

    fn mismatch(&self, takes: &str) -> String {
        format!("takes {takes}, not {}", self.type_name())
    }
}

/// A type of a setting.
pub(crate) trait SettingValue: Sized {
    /// What people may write, as the end of "takes ...".
    const TAKES: &'static str;

    /// Reads a value; the error is a clause that follows the setting's name.
    fn read(input: &Input) -> Result<Self, String>;

    /// The value as the right side of a line of the file.
    fn to_toml(&self) -> String;

    /// The value as people read it in `config show`: without the file's quotes.
    fn to_text(&self) -> String;

    /// The value for programs.
    fn to_json(&self) -> serde_json::Value {
        self.to_text().into()
    }
}

/// A string of TOML. JSON's escapes are a subset of TOML's basic strings.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl SettingValue for String {
    const TAKES: &'static str = "a string";

    fn read(input: &Input) -> Result<String, String> {
        match input {
            Input::Text(text) => Ok(text.clone()),
            other => Err(other.mismatch(Self::TAKES)),
        }
    }

    fn to_toml(&self) -> String {
        quoted(self)
    }

    fn to_text(&self) -> String {
        self.clone()
    }
}

impl SettingValue for PathBuf {
    const TAKES: &'static str = "a path";

    fn read(input: &Input) -> Result<PathBuf, String> {
        match input {
            Input::Text(text) => Ok(PathBuf::from(text)),
            other => Err(other.mismatch(Self::TAKES)),
        }
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_text())
    }

    fn to_text(&self) -> String {
        self.display().to_string()
    }
}

impl SettingValue for usize {
    const TAKES: &'static str = "a whole number, not negative";

    fn read(input: &Input) -> Result<usize, String> {
        match input {
            Input::Integer(n) => {
                usize::try_from(*n).map_err(|_| format!("takes {}, not {n}", Self::TAKES))
            }
            Input::Text(text) => {
                text.trim().parse().map_err(|_| format!("takes {}, not \"{text}\"", Self::TAKES))
            }
            other => Err(other.mismatch(Self::TAKES)),
        }
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }

    fn to_text(&self) -> String {
        self.to_string()
    }

    fn to_json(&self) -> serde_json::Value {
        (*self).into()
    }
}

impl SettingValue for f64 {
    const TAKES: &'static str = "a number such as 0.8";

    fn read(input: &Input) -> Result<f64, String> {
        match input {
            Input::Float(x) => Ok(*x),
            Input::Integer(n) => Ok(*n as f64),
            Input::Text(text) => {
                text.trim().parse().map_err(|_| format!("takes {}, not \"{text}\"", Self::TAKES))
            }
            other => Err(other.mismatch(Self::TAKES)),
        }
    }

    /// With a point, which makes it a number of its type in TOML.
    fn to_toml(&self) -> String {
        format!("{self:?}")
    }

    fn to_text(&self) -> String {
        self.to_string()
    }

    fn to_json(&self) -> serde_json::Value {
        (*self).into()
    }
}

impl SettingValue for bool {
    const TAKES: &'static str = "true or false";

    fn read(input: &Input) -> Result<bool, String> {
        match input {
            Input::Boolean(value) => Ok(*value),
            Input::Text(text) => {
                text.trim().parse().map_err(|_| format!("takes {}, not \"{text}\"", Self::TAKES))
            }
            other => Err(other.mismatch(Self::TAKES)),
        }
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }

    fn to_text(&self) -> String {
        self.to_string()
    }

    fn to_json(&self) -> serde_json::Value {
        (*self).into()
    }
}

impl SettingValue for ByteSize {
    const TAKES: &'static str = "a size such as \"256MiB\"";

    fn read(input: &Input) -> Result<ByteSize, String> {
        match input {
            Input::Integer(n) => u64::try_from(*n)
                .map(ByteSize)
                .map_err(|_| format!("takes {}, not {n}", Self::TAKES)),
            Input::Text(text) => text.parse(),
            other => Err(other.mismatch(Self::TAKES)),
        }
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_text())
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

impl SettingValue for Duration {
    const TAKES: &'static str = "a duration such as \"10s\" or \"1h30m\"";

    fn read(input: &Input) -> Result<Duration, String> {
        match input {
            Input::Text(text) => humantime::parse_duration(text.trim())
                .map_err(|_| format!("takes {}, not \"{text}\"", Self::TAKES)),
            other => Err(other.mismatch(Self::TAKES)),
        }
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_text())
    }

    fn to_text(&self) -> String {
        humantime::format_duration(*self).to_string().replace(' ', "")
    }
}

impl SettingValue for Vec<String> {
    const TAKES: &'static str = "a list of strings";

    fn read(input: &Input) -> Result<Vec<String>, String> {
        match input {
            Input::List(items) => Ok(items.clone()),
            Input::Text(text) => Ok(text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(str::to_owned)
                .collect()),
            other => Err(other.mismatch(Self::TAKES)),
        }
    }

    fn to_toml(&self) -> String {
        serde_json::Value::from(self.clone()).to_string()
    }

    fn to_text(&self) -> String {
        self.join(",")
    }

    fn to_json(&self) -> serde_json::Value {
        self.clone().into()
    }
}

impl SettingValue for BTreeMap<String, String> {
    const TAKES: &'static str = "a table of strings such as { zone = \"a\" }";

    fn read(input: &Input) -> Result<BTreeMap<String, String>, String> {
        match input {
            Input::Table(table) => Ok(table.clone()),
            Input::Text(text) => text
                .split(',')
                .map(str::trim)
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (key, value) = pair
                        .split_once('=')
                        .ok_or_else(|| format!("takes pairs KEY=VALUE, not \"{pair}\""))?;
                    Ok((key.trim().to_owned(), value.trim().to_owned()))
                })
                .collect(),
            other => Err(other.mismatch(Self::TAKES)),
        }
    }

    fn to_toml(&self) -> String {
        if self.is_empty() {
            return "{}".to_owned();
        }
        let pairs: Vec<String> = self
            .iter()
            .map(|(key, value)| format!("{} = {}", quoted(key), quoted(value)))
            .collect();
        format!("{{ {} }}", pairs.join(", "))
    }

    fn to_text(&self) -> String {
        let pairs: Vec<String> = self.iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(",")
    }

    fn to_json(&self) -> serde_json::Value {
        self.iter()
            .map(|(key, value)| (key.clone(), value.clone().into()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

/// The mode's own words; the numbers 1 and 2 are TiKV's spelling.
impl SettingValue for ApiMode {
    const TAKES: &'static str = "one of v1, v1ttl, v2";

    fn read(input: &Input) -> Result<ApiMode, String> {
        let text = match input {
            Input::Text(text) => text.trim().to_ascii_lowercase(),
            Input::Integer(n) => n.to_string(),
            other => return Err(other.mismatch(Self::TAKES)),
        };
        text.parse().map_err(|_| format!("takes {}, not \"{text}\"", Self::TAKES))
    }

    fn to_toml(&self) -> String {
        quoted(self.name())
    }

    fn to_text(&self) -> String {
        self.name().to_owned()
    }
}

/// Defines a setting that takes one of a few words: the enum, its names, and how it is read.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident takes $takes:literal { $($(#[$variant_doc:meta])* $variant:ident = $word:literal $(| $also:literal)*,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// The word of the configuration.
            pub fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<$name, String> {
                match text.trim().to_ascii_lowercase().as_str() {
                    $($word $(| $also)* => Ok($name::$variant),)*
                    _ => Err(format!(concat!("takes ", $takes, ", not \"{}\""), text)),
                }
            }
        }

        impl SettingValue for $name {
            const TAKES: &'static str = $takes;

            fn read(input: &Input) -> Result<$name, String> {
                match input {
                    Input::Text(text) => text.parse(),
                    other => Err(other.mismatch(Self::TAKES)),
                }
            }

            fn to_toml(&self) -> String {
                quoted(self.name())
            }

            fn to_text(&self) -> String {
                self.name().to_owned()
            }
        }
    };
}

choice! {
    /// What keeps the bytes of a store.
    EngineKind takes "one of fjall, rocksdb, memory" {
        /// Pure Rust, the default.
        Fjall = "fjall",
        /// For heavy duty; needs the Cargo feature `rocksdb`.
        RocksDb = "rocksdb",
        /// Keeps nothing: the scheduler's state lies in memory too.
        Memory = "memory",
    }
}

choice! {
    /// When a write is acknowledged.
    SyncMode takes "one of always, os" {
        /// After the disk has confirmed it.
        Always = "always",
        /// After the operating system has taken it: a power cut loses the last seconds.
        Os = "os",
    }
}

choice! {
    /// Which log records are written. TiKV's and the course's spellings are read as well.
    LogLevel takes "one of trace, debug, info, warn, error, off" {
        /// Everything.
        Trace = "trace",
        /// What a developer wants.
        Debug = "debug",
        /// What an operator wants.
        Info = "info",
        /// What needs attention.
        Warn = "warn" | "warning",
        /// What failed.
        Error = "error" | "critical" | "fatal",
        /// Nothing.
        Off = "off",
    }
}

choice! {
    /// How a log record looks.
    LogFormat takes "one of text, json, tikv" {
        /// For people.
        Text = "text",
        /// One object a line.
        Json = "json",
        /// TiKV's unified log format, for tools that parse it.
        Tikv = "tikv",
    }
}

//! What is wrong with a configuration, and where.

use std::{fmt, path::PathBuf};

use types::Code;

use super::Origin;

/// A place in a configuration file; line and column count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file, as the user named it.
    pub file: PathBuf,
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl Location {
    /// The place of byte `offset` in `text`.
    pub(crate) fn of(file: &std::path::Path, text: &str, offset: usize) -> Location {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Location {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// One thing that is wrong (an error) or without effect (a warning).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The row of the catalogue.
    pub code: Code,
    /// Which source said it; `None` if no single one did.
    pub origin: Option<Origin>,
    /// What is wrong, with the values.
    pub message: String,
    /// What to do about it; the catalogue's remedy if this is `None`.
    pub remedy: Option<String>,
}

impl Problem {
    /// What to do about it.
    pub fn remedy(&self) -> &str {
        self.remedy.as_deref().unwrap_or(self.code.entry().remedy)
    }
}

/// Place and message on one line, without the code.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(Origin::File(location)) => write!(f, "{location} ")?,
            Some(Origin::Environment(name)) => write!(f, "{name}: ")?,
            Some(Origin::Flag(flag)) => write!(f, "{flag}: ")?,
            Some(Origin::Default | Origin::Detected(_)) | None => {}
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with a configuration, at least one problem, in the order of the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// The problems.
    pub problems: Vec<Problem>,
}

impl LoadError {
    /// The code of the first problem.
    pub fn code(&self) -> Code {
        self.problems.first().map_or(Code::InvalidSetting, |problem| problem.code)
    }
}

/// One line a problem.
impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}

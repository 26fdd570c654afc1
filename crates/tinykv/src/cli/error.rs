//! How the command line says that something failed, and with which exit code.
//!
//! One shape everywhere: `error[CODE]: what failed, with the values`, then why (`cause`), then one thing to do
//! (`try`). The first line is enough for grep. With `-o json` the same fields are one object. Everything here goes to
//! stderr: stdout carries data only.
//!
//! Invariant: every code of the catalogue has exactly one exit code ([`Exit::of`]), and scripts may rely on both.
//! Nothing here decides whether to try again; that was the client's business, and it has given up.

use std::{fmt, io, process::ExitCode};

use serde_json::json;
use types::Code;

use super::{
    Global,
    output::{Format, Style},
};

/// The exit codes that scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done. Also when the reader of our output has seen enough and closed the pipe.
    Ok = 0,
    /// Failed, for none of the reasons below.
    Failed = 1,
    /// The command line, or a request that came from it, makes no sense.
    Usage = 2,
    /// The configuration is wrong.
    Config = 3,
    /// Nobody answered in time; the same command may succeed later.
    Unreachable = 4,
    /// No such key.
    NotFound = 5,
    /// Another writer was faster (compare-and-swap, transactions).
    Conflict = 6,
    /// Refused: the state of the cluster, or this version, forbids it.
    Refused = 7,
    /// A bug in tinykv.
    Bug = 70,
    /// Stopped by Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    /// The exit code of an error.
    pub fn of(code: Code) -> Exit {
        match code {
            Code::UnknownSetting | Code::InvalidSetting | Code::AdvertisedWildcard => Exit::Config,
            Code::KeyNotFound => Exit::NotFound,
            Code::CasMismatch
            | Code::WriteConflict
            | Code::KeyExists
            | Code::Deadlock
            | Code::TxnAborted
            | Code::KeyLocked => Exit::Conflict,
            Code::NotAvailableYet
            | Code::ClusterMismatch
            | Code::KeyModeConflict
            | Code::ApiVersionMismatch
            | Code::KeyspacePrefix
            | Code::TtlNotEnabled
            | Code::Unsupported => Exit::Refused,
            Code::UnknownColumnFamily
            | Code::KeyTooLarge
            | Code::ValueTooLarge
            | Code::EntryTooLarge
            | Code::InvalidRequest => Exit::Usage,
            // Retryable by itself, but not by the same command: somebody has to make room.
            Code::DiskFull => Exit::Failed,
            Code::Bug => Exit::Bug,
            other if other.entry().retryable => Exit::Unreachable,
            _ => Exit::Failed,
        }
    }
}

impl From<crate::Error> for CliError {
    fn from(error: crate::Error) -> CliError {
        CliError::new(error.code(), error.to_string())
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a subcommand failed: one report or, for problems that are best shown together (a configuration), several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    reports: Vec<Report>,
    exit: Exit,
}

/// One failure as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Report {
    code: Code,
    message: String,
    cause: String,
    remedy: String,
    retryable: bool,
}

impl CliError {
    /// A failure with its code. Cause, remedy and exit code are those of the catalogue.
    pub fn new(code: Code, message: impl Into<String>) -> CliError {
        let entry = code.entry();
        let report = Report {
            code,
            message: message.into(),
            cause: entry.cause.to_owned(),
            remedy: entry.remedy.to_owned(),
            retryable: entry.retryable,
        };
        CliError { reports: vec![report], exit: Exit::of(code) }
    }

    /// The command line makes no sense, in a way that its parser could not see.
    pub fn usage(message: impl Into<String>) -> CliError {
        CliError::new(Code::InvalidRequest, message)
    }

    /// Stopped by Ctrl-C. Nothing is printed: who pressed it knows.
    pub fn interrupted() -> CliError {
        CliError::silent(Exit::Interrupted)
    }

    /// Ends the process with `exit` and prints nothing, because everything has been said.
    pub fn silent(exit: Exit) -> CliError {
        CliError { reports: Vec::new(), exit }
    }

    /// Replaces the catalogue's cause of the last report by what is known here.
    pub fn with_cause(mut self, cause: impl Into<String>) -> CliError {
        if let Some(report) = self.reports.last_mut() {
            report.cause = cause.into();
        }
        self
    }

    /// Replaces the catalogue's remedy of the last report by one with values.
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> CliError {
        if let Some(report) = self.reports.last_mut() {
            report.remedy = remedy.into();
        }
        self
    }

    /// Says whether the same command may succeed later, where that is known better than from the code.
    pub fn with_retryable(mut self, retryable: bool) -> CliError {
        if let Some(report) = self.reports.last_mut() {
            report.retryable = retryable;
        }
        self
    }

    /// Says where it happened: `place: message`, for each report.
    pub fn at(mut self, place: &str) -> CliError {
        for report in &mut self.reports {
            report.message = format!("{place}: {}", report.message);
        }
        self
    }

    /// Ends the process with another exit code than the catalogue's.
    pub fn with_exit(mut self, exit: Exit) -> CliError {
        self.exit = exit;
        self
    }

    /// Shows `other` below this one. The exit code stays that of the first.
    pub fn and(mut self, other: CliError) -> CliError {
        self.reports.extend(other.reports);
        self
    }

    /// The exit code of the process.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The code of the first report.
    pub fn code(&self) -> Option<Code> {
        self.reports.first().map(|report| report.code)
    }

    /// Prints the error to stderr in the form that `global` asks for, and says how the process ends.
    pub fn report(&self, global: &Global) -> ExitCode {
        if !self.reports.is_empty() {
            let text = match global.output {
                Format::Json => self.to_json(),
                Format::Table | Format::Plain => self.to_text(global.color.stderr()),
            };
            // Nobody is left to hear that stderr is closed.
            let _ = io::Write::write_all(&mut io::stderr().lock(), text.as_bytes());
        }
        self.exit.into()
    }

    /// The error for people: three lines a report.
    pub(super) fn to_text(&self, style: Style) -> String {
        let mut out = String::new();
        for report in &self.reports {
            out.push_str(&style.error(&format!("error[{}]", report.code)));
            out.push_str(&format!(": {}\n", report.message));
            out.push_str(&format!("  {}  {}\n", style.label("cause"), report.cause));
            out.push_str(&format!("  {}    {}\n", style.label("try"), report.remedy));
        }
        out
    }

    /// The error for programs: one object on one line, further reports under `more`.
    pub(super) fn to_json(&self) -> String {
        let object = |report: &Report| {
            json!({
                "code": report.code.entry().code,
                "message": report.message,
                "cause": report.cause,
                "try": report.remedy,
                "retryable": report.retryable,
            })
        };
        let Some((first, more)) = self.reports.split_first() else { return String::new() };
        let mut error = json!({ "error": object(first) });
        if !more.is_empty() {
            error["more"] = more.iter().map(object).collect();
        }
        format!("{error}\n")
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reports.first() {
            Some(report) => write!(f, "{} [{}]", report.message, report.code),
            None => write!(f, "exit code {}", self.exit as u8),
        }
    }
}

impl std::error::Error for CliError {}

impl From<client::Error> for CliError {
    fn from(error: client::Error) -> CliError {
        let mut report =
            CliError::new(error.code(), error.to_string()).with_retryable(error.is_retryable());
        if let Some(cause) = error.cause() {
            report = report.with_cause(cause);
        }
        report.with_remedy(error.help())
    }
}

impl From<bench::Error> for CliError {
    fn from(error: bench::Error) -> CliError {
        if error.is_interrupted() {
            return CliError::interrupted();
        }
        CliError::new(error.code(), error.to_string())
    }
}

/// Errors of our own input and output: stdin, stdout, files named on the command line.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> CliError {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // `tinykv scan | head`: the reader has what it wanted.
            return CliError::silent(Exit::Ok);
        }
        CliError::new(Code::DiskIo, format!("input or output failed: {error}"))
            .with_cause("Reading standard input, writing standard output, or a file named on the command line failed.")
            .with_remedy("check where input and output of this command lead")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_three_lines_for_people() {
        let error = CliError::new(
            Code::SchedulerUnreachable,
            "no scheduler answered: 10.0.0.1:2379 refused, 10.0.0.2:2379 timed out after 3 s",
        );
        insta::assert_snapshot!(error.to_text(Style::Plain), @r"
        error[TK2001]: no scheduler answered: 10.0.0.1:2379 refused, 10.0.0.2:2379 timed out after 3 s
          cause  The addresses refused the connection, timed out, or speak something else.
          try    check the address (-e HOST:PORT) and that the cluster runs: `tinykv status`
        ");
    }

    #[test]
    fn an_error_is_one_object_for_programs() {
        let error = CliError::new(Code::KeyNotFound, "no such key: hello");
        insta::assert_snapshot!(error.to_json(), @r#"{"error":{"cause":"Nothing was written under it, or it was deleted or has expired.","code":"TK4001","message":"no such key: hello","retryable":false,"try":"`tinykv scan` lists keys"}}"#);
    }

    #[test]
    fn several_reports_are_shown_together() {
        let error =
            CliError::new(Code::UnknownSetting, "tinykv.toml:7:1 unknown setting server.adr")
                .with_cause("The name is not one of this version's settings.")
                .with_remedy("server.addr")
                .and(CliError::new(Code::InvalidSetting, "tinykv.toml:9:8 log.level is \"loud\""));
        assert_eq!(error.exit(), Exit::Config);
        insta::assert_snapshot!(error.to_text(Style::Plain), @r#"
        error[TK1021]: tinykv.toml:7:1 unknown setting server.adr
          cause  The name is not one of this version's settings.
          try    server.addr
        error[TK1022]: tinykv.toml:9:8 log.level is "loud"
          cause  The value does not parse, or contradicts another setting.
          try    `tinykv config sample` shows what each setting takes
        "#);
        let json: serde_json::Value = serde_json::from_str(&error.to_json()).unwrap();
        assert_eq!(json["error"]["code"], "TK1021");
        assert_eq!(json["more"][0]["code"], "TK1022");
    }

    #[test]
    fn colours_mark_the_label_and_nothing_else() {
        let error = CliError::new(Code::CasMismatch, "x");
        let plain = error.to_text(Style::Plain);
        let coloured = error.to_text(Style::Coloured);
        assert!(coloured.starts_with("\u{1b}[1;31merror[TK4002]\u{1b}[0m: x\n"), "{coloured:?}");
        assert!(!plain.contains('\u{1b}'));
    }

    #[test]
    fn every_code_has_the_exit_code_that_scripts_expect() {
        let exits: Vec<String> =
            Code::ALL.iter().map(|code| format!("{code} {}", Exit::of(*code) as u8)).collect();
        insta::assert_snapshot!(exits.join("\n"));
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let error = CliError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((error.exit(), error.to_text(Style::Plain)), (Exit::Ok, String::new()));
    }
}

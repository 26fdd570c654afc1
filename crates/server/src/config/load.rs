//! Layers of configuration: default < file < environment < flag, with the origin of every value.
//!
//! Pure: the caller reads the file and the environment. Nothing stops at the first problem; a source with a problem
//! still gives its other values, so that checks of values against each other see what the user meant.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use types::Code;

use crate::Roles;

use super::{
    Address, ByteSize, Config, EngineKind, Input, LoadError, Location, LogLevel, Machine, Problem,
    SETTINGS, Setting, file, foreign, validate,
};

/// Where a value came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    #[default]
    Default,
    /// Nobody set it, and it depends on the machine; the text says how.
    Detected(String),
    /// A line of the file.
    File(Location),
    /// An environment variable, by its name.
    Environment(String),
    /// A flag, as typed.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Detected(how) => write!(f, "detected: {how}"),
            Origin::File(location) => {
                write!(f, "file {}:{}", location.file.display(), location.line)
            }
            Origin::Environment(name) => write!(f, "env {name}"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// The defaults to start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// A whole cluster on a developer's machine: small, the same everywhere, and quiet.
    Dev,
    /// A process that has the machine for itself: memory follows the machine.
    Server,
    /// One of the course's programs: as `Server`, with the course's name of a member, and a free status port, since
    /// several of its stores run side by side and know nothing of that port.
    Course,
}

/// A configuration file, read by the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The name for messages.
    pub name: PathBuf,
    /// The text.
    pub text: String,
}

/// A setting given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The flag as the user typed it, for messages.
    pub flag: String,
    /// Full name of the setting.
    pub setting: String,
    /// The value.
    pub value: String,
}

impl Flag {
    /// A flag of its own, such as `--addr`, for one setting.
    pub fn new(
        flag: impl Into<String>,
        setting: impl Into<String>,
        value: impl Into<String>,
    ) -> Flag {
        Flag { flag: flag.into(), setting: setting.into(), value: value.into() }
    }
}

/// Everything that a configuration is made of, from the weakest to the strongest.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Defaults.
    pub base: Base,
    /// Facts that defaults depend on.
    pub machine: Machine,
    /// What the process will be; listeners of the other role are not judged.
    pub roles: Roles,
    /// The file, if one was named.
    pub file: Option<File>,
    /// The environment; only `TINYKV_SECTION__KEY` and `LOG_LEVEL` matter.
    pub environment: Vec<(String, String)>,
    /// Arguments of `--config`, `KEY=VALUE`.
    pub settings: Vec<String>,
    /// Flags of their own; stronger than `settings`.
    pub flags: Vec<Flag>,
}

impl Sources {
    /// Defaults alone, on a machine of which nothing is known.
    pub fn new(base: Base) -> Sources {
        Sources {
            base,
            machine: Machine::default(),
            roles: Roles::ALL,
            file: None,
            environment: Vec::new(),
            settings: Vec::new(),
            flags: Vec::new(),
        }
    }
}

/// A configuration that is valid, and where its values came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Origins by full name; a setting that is absent has its default.
    pub origins: BTreeMap<&'static str, Origin>,
    /// What was understood and has no effect, and what is allowed and unwise.
    pub warnings: Vec<Problem>,
}

impl Loaded {
    /// Where the value of a setting came from.
    pub fn origin(&self, setting: &str) -> Origin {
        self.origins.get(setting).cloned().unwrap_or_default()
    }

    /// Every setting as (full name, value as people read it, origin), in the order of the sample file.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, String, Origin)> + '_ {
        SETTINGS.iter().map(|setting| {
            (setting.name, (setting.to_text)(&self.config), self.origin(setting.name))
        })
    }
}

/// Merges the sources and checks the result.
///
/// # Errors
/// All problems of all sources; a configuration with a problem is never used.
pub fn load(sources: Sources) -> Result<Loaded, LoadError> {
    let mut layers = Layers::new(sources.base, &sources.machine);

    if let Some(file) = &sources.file {
        match file::entries(file) {
            Ok(mut entries) => {
                // Our own spelling wins over theirs, wherever it stands in the file.
                entries.sort_by_key(|entry| !foreign::is_alias(&entry.name));
                for entry in entries {
                    layers.apply(&entry.name, &entry.input, Origin::File(entry.location));
                }
            }
            Err(problems) => layers.errors.extend(problems),
        }
    }
    // In the order of the names: the same on every start, and `TINYKV_LOG__LEVEL` wins over `LOG_LEVEL`.
    let mut environment = sources.environment;
    environment.sort_unstable();
    for (name, value) in environment {
        if let Some(setting) = environment_setting(&name) {
            layers.apply(&setting, &Input::Text(value), Origin::Environment(name));
        }
    }
    for setting in sources.settings {
        let flag = Origin::Flag(format!("--config {setting}"));
        match setting.split_once('=') {
            Some((name, value)) => layers.apply(name.trim(), &Input::Text(value.to_owned()), flag),
            None => layers.errors.push(Problem {
                code: Code::InvalidSetting,
                origin: Some(flag),
                message: "takes KEY=VALUE".to_owned(),
                remedy: Some("--config server.addr=127.0.0.1:20160".to_owned()),
            }),
        }
    }
    for flag in sources.flags {
        layers.apply(&flag.setting, &Input::Text(flag.value), Origin::Flag(flag.flag));
    }
    layers.finish(&sources.machine, sources.roles)
}

/// The setting that an environment variable names: `TINYKV_SERVER__STATUS_ADDR` is `server.status-addr`.
/// `LOG_LEVEL` is the course's. Others without the double underscore have other meanings (`TINYKV_ENDPOINTS`) or are
/// not ours.
fn environment_setting(name: &str) -> Option<String> {
    if name == "LOG_LEVEL" {
        return Some("log.level".to_owned());
    }
    let rest = name.strip_prefix("TINYKV_").filter(|rest| rest.contains("__"))?;
    Some(rest.to_ascii_lowercase().replace("__", ".").replace('_', "-"))
}

/// The row of a full name.
pub(crate) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

fn in_order_of_sources(problem: &Problem) -> (u8, usize, usize) {
    match &problem.origin {
        Some(Origin::File(location)) => (0, location.line, location.column),
        Some(Origin::Environment(_)) => (1, 0, 0),
        Some(Origin::Flag(_)) => (2, 0, 0),
        Some(Origin::Default | Origin::Detected(_)) | None => (3, 0, 0),
    }
}

/// The state of a merge.
struct Layers {
    config: Config,
    origins: BTreeMap<&'static str, Origin>,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    ineffective: foreign::Ineffective,
}

impl Layers {
    fn new(base: Base, machine: &Machine) -> Layers {
        let mut config = Config::default();
        let mut origins = BTreeMap::new();
        if base == Base::Dev {
            config.log.level = LogLevel::Warn;
        }
        if base == Base::Course {
            config.server.status_addr = "127.0.0.1:0".to_owned();
            if let Some(hostname) = &machine.hostname {
                config.node.name = format!("pd-{hostname}");
            }
        }
        if let (Base::Server | Base::Course, Some(memory)) = (base, machine.memory) {
            config.memory.limit = default_memory_limit(memory);
            let whose = if machine.is_memory_limited { "its control group" } else { "the machine" };
            origins.insert(
                "memory.limit",
                Origin::Detected(format!("a quarter of {memory} of {whose}, within bounds")),
            );
        }
        Layers {
            config,
            origins,
            errors: Vec::new(),
            warnings: Vec::new(),
            ineffective: foreign::Ineffective::default(),
        }
    }

    /// Takes one value of one source.
    fn apply(&mut self, name: &str, input: &Input, origin: Origin) {
        let (setting, input) = match foreign::translate(name, input) {
            foreign::Meaning::Ours { setting, input } => (setting, input),
            foreign::Meaning::NoEffect { why: None } => return self.ineffective.add(name, origin),
            foreign::Meaning::NoEffect { why: Some(why) } => {
                return self.warnings.push(Problem {
                    code: Code::IgnoredSetting,
                    origin: Some(origin),
                    message: format!("{name} has no effect here: {why}"),
                    remedy: None,
                });
            }
            foreign::Meaning::Refused { message, remedy } => {
                return self.errors.push(Problem {
                    code: Code::NotAvailableYet,
                    origin: Some(origin),
                    message,
                    remedy: Some(remedy),
                });
            }
            foreign::Meaning::Unknown { nearest } => {
                return self.errors.push(Problem {
                    code: Code::UnknownSetting,
                    origin: Some(origin),
                    message: format!("unknown setting {name}"),
                    remedy: nearest.map(str::to_owned),
                });
            }
        };
        match (setting.set)(&mut self.config, &input) {
            Ok(()) => {
                self.origins.insert(setting.name, origin);
            }
            Err(why) => self.errors.push(Problem {
                code: Code::InvalidSetting,
                origin: Some(origin),
                message: format!(
                    "{name} {}",
                    if why.starts_with('"') { format!("is wrong: {why}") } else { why }
                ),
                remedy: None,
            }),
        }
    }

    fn finish(mut self, machine: &Machine, roles: Roles) -> Result<Loaded, LoadError> {
        self.detect_advertised(machine);
        for finding in validate::errors(&self.config, machine, roles) {
            self.errors.push(finding.at(&self.origins));
        }
        if !self.errors.is_empty() {
            self.errors.sort_by_key(in_order_of_sources);
            return Err(LoadError { problems: self.errors });
        }
        self.warnings.extend(self.ineffective.into_problems());
        for finding in validate::warnings(&self.config, roles) {
            self.warnings.push(finding.at(&self.origins));
        }
        self.warnings.sort_by_key(in_order_of_sources);
        Ok(Loaded { config: self.config, origins: self.origins, warnings: self.warnings })
    }

    /// A listener on every interface with nothing to advertise: the address of the default route is what others
    /// most likely dial; without a route there are no others. Port 0 stays, the bound port takes its place.
    fn detect_advertised(&mut self, machine: &Machine) {
        let server = &mut self.config.server;
        let scheduler = &mut self.config.scheduler;
        for (name, addr, advertise) in [
            ("server.advertise-addr", &server.addr, &mut server.advertise_addr),
            ("scheduler.advertise-addr", &scheduler.addr, &mut scheduler.advertise_addr),
        ] {
            let Ok(listen) = addr.parse::<Address>() else { continue };
            if !listen.is_wildcard() || !advertise.is_empty() {
                continue;
            }
            let (host, how) = match machine.address {
                Some(ip) => (ip.to_string(), "the address of the default route"),
                None => ("127.0.0.1".to_owned(), "this machine has no route to others"),
            };
            *advertise = Address { host, port: listen.port }.to_string();
            self.origins.insert(name, Origin::Detected(how.to_owned()));
        }
    }
}

/// A quarter of what there is: the rest is the page cache's and the neighbours'.
fn default_memory_limit(memory: ByteSize) -> ByteSize {
    let quarter = memory.share(1, 4).bytes() >> 20;
    ByteSize::mib(quarter).clamp(ByteSize::mib(128), ByteSize::gib(8))
}

/// Whether the engine is in this binary.
pub(crate) fn is_compiled_in(engine: EngineKind) -> bool {
    match engine {
        EngineKind::Memory => true,
        EngineKind::Fjall => cfg!(feature = "fjall"),
        EngineKind::RocksDb => cfg!(feature = "rocksdb"),
    }
}

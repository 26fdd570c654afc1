//! The commented sample file: every setting with its documentation and default, switched off.
//!
//! `##` begins documentation, `#` a setting to be switched on by removing the mark, as in TiKV's template.

use std::fmt::Write;

use super::{Config, SECTIONS, SETTINGS};

/// The text of the sample file. Loading it as it is, or with all settings switched on, gives the defaults.
pub fn sample() -> String {
    let defaults = Config::default();
    let mut text = String::from(
        "## tinykv.toml: every setting with its default.\n\
         ##\n\
         ## Later sources win: this file, the environment (TINYKV_SECTION__KEY, as in\n\
         ## TINYKV_SERVER__STATUS_ADDR), flags (--config section.key=value). `tinykv config show --origin`\n\
         ## tells which one did. Sizes are powers of 1024: 96MB and 96MiB are the same.\n",
    );
    for (section, section_doc) in SECTIONS {
        let _ = writeln!(text, "\n{}[{section}]", comment(section_doc));
        for setting in SETTINGS {
            let Some(key) =
                setting.name.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'))
            else {
                continue;
            };
            let _ = writeln!(
                text,
                "{}# {key} = {}",
                comment(setting.doc),
                (setting.to_toml)(&defaults)
            );
        }
    }
    text
}

/// The lines of a doc comment (each with its leading space) as comments of the file.
fn comment(doc: &str) -> String {
    doc.lines().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "##{line}");
        text
    })
}

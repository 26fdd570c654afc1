//! Just enough of Rust's lexical rules to tell code from words about code: comments and literals become blanks, so
//! that a search for a name finds its uses and not its mentions.

/// `source` with every comment, string and character literal replaced by blanks. Line breaks stay, so that line
/// numbers do.
pub(crate) fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let previous = code.chars().next_back();
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest, previous) {
            length
        } else if first == '"' {
            string(rest)
        } else if first == '\'' {
            character(rest)
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.extend(rest[..taken].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[taken..];
    }
    code
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of a raw string at the start of `rest`: `r"…"`, `br#"…"#`.
fn raw_string(rest: &str, previous: Option<char>) -> Option<usize> {
    if previous.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        return None; // The end of a name.
    }
    let after = rest
        .strip_prefix('r')
        .or_else(|| rest.strip_prefix("br"))
        .or_else(|| rest.strip_prefix("cr"))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let prefix = rest.len() - body.len();
    Some(body.find(&end).map_or(rest.len(), |at| prefix + at + end.len()))
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a character literal; 1 for the quote of a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            chars.next();
            chars.find(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 1)
        }
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        None => 1,
    }
}

/// `code` without its tests: everything from the line `#[cfg(test)]` before a `mod` with a body on. Tests stand at
/// the end of a file here. `code` must come from [`code_only`].
pub(crate) fn without_tests(code: &str) -> &str {
    let mut from = 0;
    while let Some(at) = code[from..].find("#[cfg(test)]") {
        let attribute = from + at;
        let item = code[attribute + "#[cfg(test)]".len()..].trim_start();
        let is_module = item.starts_with("mod ") || item.starts_with("pub(crate) mod ");
        let end = item.find(['{', ';']);
        if is_module && end.is_some_and(|end| item[end..].starts_with('{')) {
            return &code[..attribute];
        }
        from = attribute + 1;
    }
    code
}

/// The names in `code`, with their line numbers.
pub(crate) fn names(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines().enumerate().flat_map(|(index, line)| {
        line.split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .filter(|name| !name.is_empty())
            .map(move |name| (index + 1, name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_of(source: &str) -> Vec<String> {
        names(&code_only(source)).map(|(_, name)| name.to_owned()).collect()
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        assert_eq!(names_of("a // async\nb /* async /* async */ async */ c"), ["a", "b", "c"]);
        assert_eq!(names_of(r#"let s = "async \" async"; t"#), ["let", "s", "t"]);
        assert_eq!(names_of("let s = r#\"async \" async\"#; t"), ["let", "s", "t"]);
        assert_eq!(names_of("br\"async\" x"), ["x"]);
        assert_eq!(names_of("for\"async\""), ["for"]);
        assert_eq!(names_of("'\"' a '\\'' b '\\u{1F600}' c \"async\""), ["a", "b", "c"]);
        assert_eq!(names_of("fn f<'a>(x: &'a str) {}"), ["fn", "f", "a", "x", "a", "str"]);
    }

    #[test]
    fn lines_keep_their_numbers() {
        let code = code_only("/* one\ntwo */ a\n\"x\ny\" b");
        assert_eq!(names(&code).collect::<Vec<_>>(), [(2, "a"), (4, "b")]);
    }

    #[test]
    fn tests_are_cut_off_and_test_helpers_in_other_files_are_not() {
        assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests {\nb }"), "a\n");
        let declared = "#[cfg(test)]\nmod tests;\na";
        assert_eq!(without_tests(declared), declared);
        assert_eq!(
            without_tests("#[cfg(test)]\nuse x;\na\n#[cfg(test)]\nmod tests { b }"),
            "#[cfg(test)]\nuse x;\na\n"
        );
    }
}

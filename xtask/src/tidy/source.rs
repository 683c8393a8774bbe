//! Rules for one Rust file.

use std::path::Path;

use crate::finding::Finding;
use crate::mask::Mask;

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 70;

/// Names that say nothing about what is in the file.
const BANNED_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "misc", "types", "mod"];

/// Marks of unfinished work, in code and in comments. In pieces, so that this file passes.
const BANNED_CODE: &[&str] = &["todo!", "unimplemented!", "#[ignore"];
const BANNED_COMMENTS: &[&str] = &[concat!("FIX", "ME"), concat!("XX", "X"), concat!("TO", "DO")];

pub fn check(path: &Path, source: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut object = |line: usize, message: String| findings.push(Finding::new(path, line, message));
    let stem = path.file_stem().unwrap_or_default();
    if BANNED_NAMES.iter().any(|banned| stem == *banned) {
        object(0, format!("`{}` names no thing; name the file by what it defines", stem.display()));
    }
    if !source.starts_with("//!") {
        object(1, "does not open with `//!`, a sentence about its purpose".to_owned());
    }
    let lines = lines_without_tests(source);
    if lines > MAX_FILE_LINES {
        object(0, format!("{lines} lines without tests; split it by responsibility (at most {MAX_FILE_LINES})"));
    }
    let mask = Mask::new(source);
    for (text, banned_words) in [(&mask.code, BANNED_CODE), (&mask.comments, BANNED_COMMENTS)] {
        for (index, line) in text.lines().enumerate() {
            let banned = banned_words.iter().filter(|word| line.contains(**word));
            banned.for_each(|word| object(index + 1, format!("`{word}` marks unfinished work")));
        }
    }
    for function in functions(&mask.code) {
        if function.lines > MAX_FUNCTION_LINES {
            let Function { name, lines, .. } = function;
            object(function.line, format!("`{name}` has {lines} lines (at most {MAX_FUNCTION_LINES})"));
        }
    }
    findings
}

/// Counts the lines outside of `#[cfg(test)] mod … { … }`, whose braces rustfmt puts at the margin.
fn lines_without_tests(source: &str) -> usize {
    let lines: Vec<&str> = source.lines().collect();
    let (mut count, mut at) = (0, 0);
    while at < lines.len() {
        let opens_tests = |next: &&str| next.starts_with("mod ") && next.ends_with('{');
        if lines[at] == "#[cfg(test)]" && lines.get(at + 1).is_some_and(opens_tests) {
            let length = lines[at..].iter().position(|line| *line == "}");
            at += length.map_or(lines.len() - at, |length| length + 1);
        } else {
            (count, at) = (count + 1, at + 1);
        }
    }
    count
}

#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    /// Where it begins, counted from 1.
    line: usize,
    /// From `fn` to the closing brace.
    lines: usize,
}

/// The functions with a body in masked code, in order, nested ones included.
fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let in_word = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let after = &code[at + "fn ".len()..];
        let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if in_word || name.is_empty() {
            continue;
        }
        if let Some(length) = body_end(after) {
            found.push(Function {
                name,
                line: code[..at].matches('\n').count() + 1,
                lines: after[..length].matches('\n').count() + 1,
            });
        }
    }
    found
}

/// The end of the first braced block, or none if a `;` outside of brackets comes first.
fn body_end(after: &str) -> Option<usize> {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (at, byte) in after.bytes().enumerate() {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets = brackets.saturating_sub(1),
            b'{' => braces += 1,
            b'}' if braces <= 1 => return (braces == 1).then_some(at),
            b'}' => braces -= 1,
            b';' if braces == 0 && brackets == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_source(path: &str, source: &str, expect: &[&str]) {
        let found: Vec<_> = check(Path::new(path), source).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expect.len(), "{found:?}");
        for (found, expect) in found.iter().zip(expect) {
            assert!(found.contains(expect), "{found}");
        }
    }

    #[test]
    fn heading_and_name() {
        check_source("a/src/lease.rs", "//! Leases.\n", &[]);
        check_source("a/src/lease.rs", "use x;\n", &["lease.rs:1: does not open with `//!`"]);
        check_source("a/src/utils.rs", "//! Things.\n", &["utils.rs: `utils` names no thing"]);
        check_source("a/src/lease/mod.rs", "//! Things.\n", &["`mod` names no thing"]);
    }

    #[test]
    fn unfinished_work() {
        check_source("a.rs", "//! A.\nfn f() { todo!() }\n", &["a.rs:2: `todo!`"]);
        check_source("a.rs", "//! A.\n#[ignore]\nfn f() {}\n", &["a.rs:2: `#[ignore`"]);
        for word in BANNED_COMMENTS {
            check_source("a.rs", &format!("//! A.\n\n// {word}: later\n"), &["a.rs:3:"]);
            check_source("a.rs", &format!("//! A.\nconst W: &str = \"{word}\";\n"), &[]);
        }
        check_source("a.rs", "//! Never `todo!()`.\n", &[]);
    }

    #[test]
    fn length_of_files() {
        let code = "use x;\n".repeat(499);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    use x;\n".repeat(600));
        check_source("a.rs", &format!("//! A.\n{code}{tests}"), &[]);
        check_source("a.rs", &format!("//! A.\n{code}{tests}use y;\n"), &["501 lines without tests"]);
        check_source("a.rs", &format!("//! A.\n{code}mod tests;\n"), &["501 lines without tests"]);
    }

    #[test]
    fn length_of_functions() {
        let function = |lines: usize| format!("//! A.\nfn long() {{\n{}}}\n", "    f();\n".repeat(lines - 2));
        check_source("a.rs", &function(70), &[]);
        check_source("a.rs", &function(71), &["a.rs:2: `long` has 71 lines"]);
    }

    #[test]
    fn functions_are_found() {
        let check = |source: &str, expect: &[(&str, usize)]| {
            let found = functions(&Mask::new(source).code);
            let found: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.lines)).collect();
            assert_eq!(found, expect, "{source}");
        };
        check("fn a() {}\npub async fn b(x: [u8; 4]) -> [u8; 4]\n{\n}\n", &[("a", 1), ("b", 3)]);
        check("trait T { fn a(&self); fn b(&self) {\n} }", &[("b", 2)]);
        check("type F = fn (u8) -> u8; fn a(f: fn(u8)) { \"}\"; {\n} }", &[("a", 2)]);
        check("fn a() {\nfn b() {\n}\n}", &[("a", 4), ("b", 2)]);
    }
}

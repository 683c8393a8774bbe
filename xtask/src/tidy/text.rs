//! Rules for every text file.

use std::path::Path;

use crate::finding::Finding;

/// Folders whose contents differ from machine to machine. In pieces, so that this file passes.
const MACHINE_FOLDERS: [&str; 3] = ["home", "root", "Users"];

/// `checkout` is where the tree lies on this machine, which nothing in it may name.
pub fn check(path: &Path, text: &str, checkout: &str) -> Vec<Finding> {
    let tabs_allowed = path.ends_with("Makefile");
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut object = |message: &str| findings.push(Finding::new(path, index + 1, message));
        if line.ends_with([' ', '\t', '\r']) {
            object("white space at the end of the line");
        }
        if line.contains('\t') && !tabs_allowed {
            object("a tab; indent with spaces, write \\t in a literal");
        }
        if names_machine_path(line) || names_checkout(line, checkout) {
            object("a path of one machine");
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        findings.push(Finding::new(path, text.lines().count(), "no line break at the end of the file"));
    }
    findings
}

/// An absolute path, that is, one whose slash follows nothing that could belong to a longer path.
fn names_machine_path(line: &str) -> bool {
    MACHINE_FOLDERS.iter().any(|folder| {
        let path = format!("/{folder}/");
        line.match_indices(&path).any(|(at, _)| !line[..at].ends_with(is_of_path))
    })
}

fn is_of_path(character: char) -> bool {
    character.is_alphanumeric() || "_-.})>/".contains(character)
}

fn names_checkout(line: &str, checkout: &str) -> bool {
    // A checkout in `/src` or the like is too short to be told from other paths.
    checkout.matches('/').count() >= 2 && line.contains(checkout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(path: &str, text: &str, expect: &[(usize, &str)]) {
        let found = check(Path::new(path), text, "/build/checkout");
        let found: Vec<_> = found.iter().map(|f| (f.line, f.message.as_str())).collect();
        assert_eq!(found.len(), expect.len(), "{text:?}: {found:?}");
        for ((line, message), (expect_line, expect_message)) in found.iter().zip(expect) {
            assert!(line == expect_line && message.contains(expect_message), "{text:?}: {found:?}");
        }
    }

    #[test]
    fn white_space() {
        check_text("a.md", "fine\n", &[]);
        check_text("a.md", "", &[]);
        check_text("a.md", "one \ntwo\t\n", &[(1, "white space"), (2, "white space"), (2, "a tab")]);
        check_text("a.rs", "\tlet\n", &[(1, "a tab")]);
        check_text("Makefile", "\tcargo\n", &[]);
        check_text("a.md", "one\ntwo", &[(2, "no line break")]);
    }

    #[test]
    fn machine_paths() {
        for folder in MACHINE_FOLDERS {
            check_text("a.md", &format!("see /{folder}/x\n"), &[(1, "a path of one machine")]);
            check_text("a.md", &format!("cd \"/{folder}/x\"\n"), &[(1, "a path of one machine")]);
            check_text("a.md", &format!("hdfs://host:8020/{folder}/x\n"), &[]);
            check_text("a.md", &format!("<dir>/{folder}/x\n"), &[]);
        }
        check_text("a.md", "in /build/checkout/target\n", &[(1, "a path of one machine")]);
    }
}

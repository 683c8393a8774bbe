//! The form of the tree: walks it and hands every file to the rules that concern it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::finding::Finding;

mod documents;
mod source;
mod text;

/// Folders that hold what was built or started, not what was written.
const SKIPPED_FOLDERS: &[&str] = &["target", ".git", ".local"];

/// Files without an extension, or with another one, are not looked at.
const TEXT_EXTENSIONS: &[&str] = &["rs", "md", "toml", "proto", "py", "sh", "yaml", "yml", "xml"];

/// A text file of the tree; `path` is relative to the root.
pub struct TextFile {
    pub path: PathBuf,
    pub text: String,
}

/// All findings in the tree, sorted by path.
pub fn run(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let mut files = Vec::new();
    walk(root, Path::new(""), &mut files)?;
    let mut findings = check(&files, &root.display().to_string());
    findings.extend(documents::check_links(&files, &|path| root.join(path).exists()));
    findings.sort();
    Ok(findings)
}

fn check(files: &[TextFile], checkout: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        findings.extend(text::check(&file.path, &file.text, checkout));
        if file.path.extension().is_some_and(|extension| extension == "rs") {
            findings.extend(source::check(&file.path, &file.text));
        }
    }
    findings.extend(documents::check_readmes(files));
    findings.extend(documents::check_reachable(files));
    findings
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<TextFile>) -> anyhow::Result<()> {
    let absolute = root.join(folder);
    let entries = fs::read_dir(&absolute).with_context(|| format!("cannot list {}", absolute.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() && !SKIPPED_FOLDERS.iter().any(|skipped| entry.file_name() == *skipped) {
            walk(root, &path, files)?;
        } else if kind.is_file() && is_text(&path) {
            let text = fs::read_to_string(entry.path()).with_context(|| format!("{} is not UTF-8", path.display()))?;
            files.push(TextFile { path, text });
        }
    }
    Ok(())
}

/// Scripts and the Makefile count as well, which have no extension.
fn is_text(path: &Path) -> bool {
    match path.extension() {
        Some(extension) => TEXT_EXTENSIONS.iter().any(|known| extension == *known),
        None => path.starts_with("scripts") || path.ends_with("Makefile") || path.starts_with(".ci"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_count_as_text() {
        let check = |path: &str, expect: bool| assert_eq!(is_text(Path::new(path)), expect, "{path}");
        check("common/src/lib.rs", true);
        check("scripts/hdfs", true);
        check("Makefile", true);
        check("Cargo.lock", false);
        check("LICENSE", false);
    }
}

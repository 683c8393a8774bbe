//! Rules for documents: every crate has a README of a screen, links lead somewhere, and every page
//! under `docs/` can be found from the README or from `docs/README.md`.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::TextFile;
use crate::finding::Finding;

const MAX_README_LINES: usize = 60;

/// Where readers begin.
const ENTRANCES: [&str; 2] = ["README.md", "docs/README.md"];

/// A folder with a `Cargo.toml` of its own is a crate.
pub fn check_readmes(files: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let manifests = files.iter().filter(|file| file.path.ends_with("Cargo.toml"));
    for folder in manifests.filter_map(|file| file.path.parent()) {
        if folder == Path::new("") {
            continue;
        }
        let readme = folder.join("README.md");
        match files.iter().find(|file| file.path == readme) {
            None => findings.push(Finding::new(&readme, 0, "missing: role, picture, where to start reading")),
            Some(file) => {
                let lines = file.text.lines().count();
                if lines > MAX_README_LINES {
                    let message = format!("{lines} lines are more than a screen ({MAX_README_LINES})");
                    findings.push(Finding::new(&readme, 0, message));
                }
            }
        }
    }
    findings
}

/// `exists` answers for a path relative to the root.
pub fn check_links(files: &[TextFile], exists: &dyn Fn(&Path) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| is_page(&file.path)) {
        for link in relative_links(&file.text) {
            let leads_somewhere = resolve(&file.path, &link.target).is_some_and(|path| exists(&path));
            if !leads_somewhere {
                let message = format!("the link to `{}` leads nowhere", link.target);
                findings.push(Finding::new(&file.path, link.line, message));
            }
        }
    }
    findings
}

/// Follows links from the entrances; a page of `docs/` that is not met is lost to readers.
pub fn check_reachable(files: &[TextFile]) -> Vec<Finding> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<PathBuf> = ENTRANCES.iter().map(PathBuf::from).collect();
    while let Some(path) = open.pop() {
        let Some(file) = files.iter().find(|file| file.path == path) else {
            continue;
        };
        if reached.insert(path.clone()) {
            let links = relative_links(&file.text);
            open.extend(links.iter().filter_map(|link| resolve(&path, &link.target)));
        }
    }
    let pages = files.iter().filter(|file| file.path.starts_with("docs") && is_page(&file.path));
    let lost = pages.filter(|file| !reached.contains(&file.path));
    lost.map(|file| Finding::new(&file.path, 0, "no link leads here from README.md or docs/README.md")).collect()
}

fn is_page(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}

#[derive(Debug, PartialEq, Eq)]
struct Link {
    line: usize,
    target: String,
}

/// Links to other files of the tree, without their fragments; code is passed over.
fn relative_links(text: &str) -> Vec<Link> {
    let mut links = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let targets = link_targets(&without_code(line));
            links.extend(targets.into_iter().map(|target| Link { line: index + 1, target }));
        }
    }
    links
}

/// Every second piece between back-ticks is code.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

fn link_targets(line: &str) -> Vec<String> {
    let inline = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let reference = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target);
    let targets = inline.chain(reference).filter_map(|target| target.split(['#', ' ']).next());
    targets.filter(|target| !target.is_empty() && !target.contains(':')).map(str::to_owned).collect()
}

/// The path, relative to the root, that `target` means on the page `from`; none outside of the tree.
fn resolve(from: &Path, target: &str) -> Option<PathBuf> {
    let mut resolved = from.parent()?.to_owned();
    for component in Path::new(target).components() {
        match component {
            Component::Normal(name) => resolved.push(name),
            Component::CurDir => {}
            Component::ParentDir if resolved.pop() => {}
            _ => return None,
        }
    }
    Some(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Vec<TextFile> {
        let file = |(path, text): &(&str, &str)| TextFile { path: PathBuf::from(path), text: (*text).to_owned() };
        files.iter().map(file).collect()
    }

    fn check_findings(found: Vec<Finding>, expect: &[&str]) {
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expect.len(), "{found:?}");
        for (found, expect) in found.iter().zip(expect) {
            assert!(found.starts_with(expect), "{found}");
        }
    }

    #[test]
    fn crates_have_a_readme_of_a_screen() {
        let check = |files: &[(&str, &str)], expect: &[&str]| check_findings(check_readmes(&tree(files)), expect);
        let long = "line\n".repeat(61);
        check(&[("Cargo.toml", ""), ("a/Cargo.toml", ""), ("a/README.md", "A.\n")], &[]);
        check(&[("a/Cargo.toml", "")], &["a/README.md: missing"]);
        check(&[("a/Cargo.toml", ""), ("a/README.md", &long)], &["a/README.md: 61 lines"]);
    }

    #[test]
    fn links_lead_somewhere() {
        let check = |page: &str, expect: &[&str]| {
            let files = tree(&[("docs/A.md", page), ("docs/B.md", ""), ("README.md", "")]);
            let exists = |path: &Path| files.iter().any(|file| file.path == path);
            check_findings(check_links(&files, &exists), expect);
        };
        check("[b](B.md) [b](./B.md#part) [r](../README.md) [x](https://example.org/C.md) [h](#here)", &[]);
        check("one\n[c](C.md)", &["docs/A.md:2: the link to `C.md` leads nowhere"]);
        check("[b](B.md) [out](../../B.md)", &["docs/A.md:1: the link to `../../B.md`"]);
        check("[c]: C.md", &["docs/A.md:1"]);
        check("`[c](C.md)`\n```\n[c](C.md)\n```\n", &[]);
    }

    #[test]
    fn pages_can_be_found() {
        let check = |files: &[(&str, &str)], expect: &[&str]| check_findings(check_reachable(&tree(files)), expect);
        check(&[("README.md", "[a](docs/A.md)"), ("docs/A.md", "")], &[]);
        check(&[("docs/README.md", "[a](a/A.md)"), ("docs/a/A.md", "[b](B.md)"), ("docs/a/B.md", "")], &[]);
        check(&[("README.md", "docs/A.md"), ("docs/A.md", "[a](A.md)")], &["docs/A.md: no link leads here"]);
    }
}

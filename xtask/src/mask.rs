//! Tells the code of a Rust file from its comments and literals, so that a rule about code is not
//! fooled by a brace in a string.
//!
//! Invariant: both masks have the source's length and line breaks; what is not theirs is a space.

/// A source seen twice: once without comments and literals, once with nothing but comments.
pub struct Mask {
    pub code: String,
    pub comments: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

impl Mask {
    pub fn new(source: &str) -> Self {
        let mut mask = Mask { code: String::with_capacity(source.len()), comments: String::new() };
        let mut rest = source;
        while !rest.is_empty() {
            let (kind, length) = next_token(rest, mask.code.as_bytes().last().copied());
            let (token, after) = rest.split_at(length);
            mask.push(kind, token);
            rest = after;
        }
        mask
    }

    fn push(&mut self, kind: Kind, token: &str) {
        let blank = |byte: u8| if byte == b'\n' { '\n' } else { ' ' };
        let copy = |into: &mut String, own: bool| match own {
            true => into.push_str(token),
            false => into.extend(token.bytes().map(blank)),
        };
        copy(&mut self.code, kind == Kind::Code);
        copy(&mut self.comments, kind == Kind::Comment);
    }
}

/// The kind and the length in bytes of what `rest` begins with; never zero.
fn next_token(rest: &str, before: Option<u8>) -> (Kind, usize) {
    if rest.starts_with("//") {
        return (Kind::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Kind::Comment, block_comment_length(rest));
    }
    let in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if let Some(length) = raw_string_length(rest).filter(|_| !in_word) {
        return (Kind::Literal, length);
    }
    if rest.starts_with('"') {
        return (Kind::Literal, quoted_length(rest, b'"'));
    }
    if rest.starts_with('\'') && is_character(rest) {
        return (Kind::Literal, quoted_length(rest, b'\''));
    }
    (Kind::Code, rest.chars().next().map_or(1, char::len_utf8))
}

fn block_comment_length(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

/// Of `r"…"`, `r#"…"#`, `br"…"`, and so on.
fn raw_string_length(rest: &str) -> Option<usize> {
    let unprefixed = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let body = unprefixed.trim_start_matches('#');
    let hashes = unprefixed.len() - body.len();
    let body = body.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let opening = rest.len() - body.len();
    Some(body.find(&end).map_or(rest.len(), |at| opening + at + end.len()))
}

/// Of a literal that begins and ends with `quote`, with backslash escapes.
fn quoted_length(rest: &str, quote: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// A character literal, not a lifetime: `'x'` or `'\…'`.
fn is_character(rest: &str) -> bool {
    let mut characters = rest.chars().skip(1);
    match characters.next() {
        Some('\\') => true,
        Some(_) => characters.next() == Some('\''),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, code: &str, comments: &str) {
        let mask = Mask::new(source);
        assert_eq!((mask.code.trim(), mask.comments.trim()), (code, comments), "{source}");
        for text in [&mask.code, &mask.comments] {
            assert_eq!(text.len(), source.len());
            assert_eq!(text.lines().count(), source.lines().count());
        }
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        check("a // b", "a", "// b");
        check("/* a /* b */ c */ d", "d", "/* a /* b */ c */");
        check(r#"f("// {")"#, "f(      )", "");
        check(r#"f("\"{")"#, "f(     )", "");
        check(r##"f(r#"{""#)"##, "f(       )", "");
        check("f('{', '\\'', b'{')", "f(   ,     , b   )", "");
        check("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)", "");
        check("for\"{\"", "for", "");
        check("\"é{\" é", "é", "");
    }

    #[test]
    fn unfinished_tokens_end_with_the_file() {
        check("/* a", "", "/* a");
        check("\"a\\", "", "");
        check("r#\"a", "", "");
        check("'", "'", "");
    }
}

//! Steps over a request by its schema before anything is decoded: every length against the bytes that are left.
//!
//! The decoder trusts what the bytes claim and makes room for it first. It runs only on bytes that this walk has
//! accepted, and so reads the same lengths at the same places. Where the two could differ the walk is the stricter:
//! what it cannot place exactly it refuses. What is accepted has
//! * every string, byte array and array within the bytes of its frame,
//! * at most [`MAX_ELEMENTS`] structures, strings and tagged fields behind counts; plain numbers are bounded by the
//!   frame, since decoded they take the room they took before,
//! * no byte left over in a tagged field.

use crate::schema::{Field, Item, Schema, Shape};

/// Decoded, an element takes less than 200 bytes: the whole request stays below 50 MiB beside its frame.
pub const MAX_ELEMENTS: usize = 1 << 18;

/// Kafka's own limit on names and texts.
const MAX_STRING_LEN: usize = i16::MAX as usize;

/// Where a request is not what its version says, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {flaw}")]
pub struct WalkError {
    pub field: &'static str,
    pub flaw: Flaw,
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("needs {needed} bytes where {left} are left")]
    Truncated { needed: usize, left: usize },
    #[error("claims {claimed} elements where {left} bytes are left")]
    Count { claimed: usize, left: usize },
    #[error("claims the length {0}")]
    Length(i64),
    #[error("is null, which it must not be")]
    Null,
    #[error("is a number of more than 32 bits")]
    Varint,
    #[error("takes the request above {MAX_ELEMENTS} elements")]
    TooMany,
    #[error("leaves {0} bytes over")]
    Trailing(usize),
}

/// Checks `body` against `schema` at `version`. Returns what comes after it, which Kafka does not look at: librdkafka
/// writes three bytes too many when it asks for the metadata of all topics.
pub fn walk<'a>(schema: &'static Schema, version: i16, body: &'a [u8]) -> Result<&'a [u8], WalkError> {
    let flexible = schema.is_flexible(version);
    let mut walk = Walk { rest: body, version, flexible, elements: 0 };
    walk.structure("body", schema.fields)?;
    Ok(walk.rest)
}

/// Steps over the tagged fields at the end of a flexible request header; returns what comes after them.
pub fn skip_tagged_fields(bytes: &[u8]) -> Result<&[u8], WalkError> {
    let mut walk = Walk { rest: bytes, version: 0, flexible: true, elements: 0 };
    walk.structure("header", &[])?;
    Ok(walk.rest)
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    elements: usize,
}

type Step<T = ()> = Result<T, WalkError>;

impl<'a> Walk<'a> {
    fn structure(&mut self, name: &'static str, fields: &'static [Field]) -> Step {
        let version = self.version;
        for field in fields.iter().filter(|field| field.tag.is_none() && field.is_in(version)) {
            self.field(field)?;
        }
        if self.flexible { self.tagged_fields(name, fields) } else { Ok(()) }
    }

    fn tagged_fields(&mut self, name: &'static str, fields: &'static [Field]) -> Step {
        let count = self.varint(name)? as usize;
        self.claim_elements(name, count)?;
        for _ in 0..count {
            let tag = self.varint(name)?;
            let len = self.varint(name)? as usize;
            let value = self.take(name, len)?;
            let is_known = |field: &&Field| field.tag == Some(tag) && field.is_in(self.version);
            if let Some(field) = fields.iter().find(is_known) {
                let after = std::mem::replace(&mut self.rest, value);
                self.field(field)?;
                self.end(field.name)?;
                self.rest = after;
            }
        }
        Ok(())
    }

    fn field(&mut self, field: &'static Field) -> Step {
        let (name, nullable) = (field.name, field.is_nullable_in(self.version));
        match field.shape {
            Shape::One(item) => self.item(name, item, nullable),
            Shape::Array(item) => match self.count(name)? {
                Some(count) => self.array(name, item, count),
                None => null(name, nullable),
            },
        }
    }

    fn array(&mut self, name: &'static str, item: Item, count: usize) -> Step {
        if let Item::Fixed(width) = item {
            return self.take(name, count.saturating_mul(width)).map(drop);
        }
        self.claim_elements(name, count)?;
        (0..count).try_for_each(|_| self.item(name, item, false))
    }

    fn item(&mut self, name: &'static str, item: Item, nullable: bool) -> Step {
        let len = match item {
            Item::Fixed(len) => Some(len),
            Item::String => self.string_len(name)?,
            Item::Bytes => self.count(name)?,
            Item::Struct(fields) if nullable => return self.nullable_structure(name, fields),
            Item::Struct(fields) => return self.structure(name, fields),
        };
        match len {
            Some(len) => self.take(name, len).map(drop),
            None => null(name, nullable),
        }
    }

    /// A structure behind a byte that says whether it is there.
    fn nullable_structure(&mut self, name: &'static str, fields: &'static [Field]) -> Step {
        match i8::from_be_bytes(self.take_array(name)?) {
            1 => self.structure(name, fields),
            -1 => Ok(()),
            other => Err(WalkError { field: name, flaw: Flaw::Length(i64::from(other)) }),
        }
    }

    /// Each element takes a byte at least, so a count above the bytes left is a lie.
    fn claim_elements(&mut self, name: &'static str, claimed: usize) -> Step {
        let left = self.rest.len();
        if claimed > left {
            return Err(WalkError { field: name, flaw: Flaw::Count { claimed, left } });
        }
        self.elements += claimed;
        if self.elements > MAX_ELEMENTS {
            return Err(WalkError { field: name, flaw: Flaw::TooMany });
        }
        Ok(())
    }

    /// The length of a string; `None` if it is null.
    fn string_len(&mut self, name: &'static str) -> Step<Option<usize>> {
        let claimed = match self.flexible {
            true => self.compact_len(name)?,
            false => i64::from(i16::from_be_bytes(self.take_array(name)?)),
        };
        match length(name, claimed)? {
            Some(len) if len > MAX_STRING_LEN => Err(WalkError { field: name, flaw: Flaw::Length(claimed) }),
            len => Ok(len),
        }
    }

    /// The length of a byte array or the count of an array; `None` if it is null.
    fn count(&mut self, name: &'static str) -> Step<Option<usize>> {
        let claimed = match self.flexible {
            true => self.compact_len(name)?,
            false => i64::from(i32::from_be_bytes(self.take_array(name)?)),
        };
        length(name, claimed)
    }

    /// A compact length is one more than what it stands for: zero is null.
    fn compact_len(&mut self, name: &'static str) -> Step<i64> {
        Ok(i64::from(self.varint(name)?) - 1)
    }

    fn varint(&mut self, name: &'static str) -> Step<u32> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.take_array(name)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| WalkError { field: name, flaw: Flaw::Varint });
            }
        }
        Err(WalkError { field: name, flaw: Flaw::Varint })
    }

    fn take_array<const N: usize>(&mut self, name: &'static str) -> Step<[u8; N]> {
        Ok(self.take(name, N)?.try_into().expect("as many bytes were taken"))
    }

    fn take(&mut self, name: &'static str, needed: usize) -> Step<&'a [u8]> {
        let left = self.rest.len();
        let (taken, rest) = self
            .rest
            .split_at_checked(needed)
            .ok_or(WalkError { field: name, flaw: Flaw::Truncated { needed, left } })?;
        self.rest = rest;
        Ok(taken)
    }

    fn end(&self, name: &'static str) -> Step {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(WalkError { field: name, flaw: Flaw::Trailing(left) }),
        }
    }
}

fn null(name: &'static str, nullable: bool) -> Step {
    if nullable { Ok(()) } else { Err(WalkError { field: name, flaw: Flaw::Null }) }
}

/// A length as claimed: minus one is null, and nothing else is below zero.
fn length(name: &'static str, claimed: i64) -> Step<Option<usize>> {
    match claimed {
        -1 => Ok(None),
        _ => usize::try_from(claimed).map(Some).map_err(|_| WalkError { field: name, flaw: Flaw::Length(claimed) }),
    }
}

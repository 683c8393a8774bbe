//! A small language for the shape of a request, by version, and the shapes of all requests that are accepted.
//!
//! It says no more than the walk needs to step over every field: widths, lengths, counts, and which version has what.
//! A field is present from `since` to `until`, may be null from `nullable_since`, and stands among the tagged fields
//! if it has a tag. From the version at which a message is *flexible*, lengths are compact and each structure ends
//! with tagged fields (KIP-482). The source of the shapes is the message definitions of Apache Kafka 4.1.

mod cluster;
mod data;
#[cfg(test)]
pub mod generate;
mod groups;

pub use cluster::*;
pub use data::*;
pub use groups::*;

/// The shape of one request.
#[derive(Debug)]
pub struct Schema {
    pub flexible_since: i16,
    pub fields: &'static [Field],
}

/// One field of a structure.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub name: &'static str,
    pub shape: Shape,
    pub since: i16,
    pub until: i16,
    pub nullable_since: i16,
    pub tag: Option<u32>,
}

/// One item, or any number of them behind a count.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    One(Item),
    Array(Item),
}

#[derive(Debug, Clone, Copy)]
pub enum Item {
    /// As many bytes, whatever they are.
    Fixed(usize),
    String,
    Bytes,
    Struct(&'static [Field]),
}

/// For a message that has no flexible version.
pub const NEVER: i16 = i16::MAX;

pub const INT32: Item = Item::Fixed(4);
pub const STRING: Item = Item::String;

impl Schema {
    const fn new(flexible_since: i16, fields: &'static [Field]) -> Self {
        Self { flexible_since, fields }
    }

    pub fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_since
    }
}

impl Field {
    const fn new(name: &'static str, shape: Shape) -> Self {
        Self { name, shape, since: 0, until: i16::MAX, nullable_since: NEVER, tag: None }
    }

    const fn since(self, version: i16) -> Self {
        Self { since: version, ..self }
    }

    const fn until(self, version: i16) -> Self {
        Self { until: version, ..self }
    }

    const fn nullable(self) -> Self {
        self.nullable_since(0)
    }

    const fn nullable_since(self, version: i16) -> Self {
        Self { nullable_since: version, ..self }
    }

    const fn tagged(self, tag: u32) -> Self {
        Self { tag: Some(tag), ..self }
    }

    pub fn is_in(&self, version: i16) -> bool {
        (self.since..=self.until).contains(&version)
    }

    pub fn is_nullable_in(&self, version: i16) -> bool {
        version >= self.nullable_since
    }
}

const fn boolean(name: &'static str) -> Field {
    int8(name)
}

const fn int8(name: &'static str) -> Field {
    Field::new(name, Shape::One(Item::Fixed(1)))
}

const fn int16(name: &'static str) -> Field {
    Field::new(name, Shape::One(Item::Fixed(2)))
}

const fn int32(name: &'static str) -> Field {
    Field::new(name, Shape::One(Item::Fixed(4)))
}

const fn int64(name: &'static str) -> Field {
    Field::new(name, Shape::One(Item::Fixed(8)))
}

const fn uuid(name: &'static str) -> Field {
    Field::new(name, Shape::One(Item::Fixed(16)))
}

const fn string(name: &'static str) -> Field {
    Field::new(name, Shape::One(Item::String))
}

const fn bytes(name: &'static str) -> Field {
    Field::new(name, Shape::One(Item::Bytes))
}

const fn structure(name: &'static str, fields: &'static [Field]) -> Field {
    Field::new(name, Shape::One(Item::Struct(fields)))
}

const fn array(name: &'static str, item: Item) -> Field {
    Field::new(name, Shape::Array(item))
}

const fn structs(name: &'static str, fields: &'static [Field]) -> Field {
    array(name, Item::Struct(fields))
}

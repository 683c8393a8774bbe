//! Requests made up from a schema: bytes that it allows, drawn from entropy that a property test gives and shrinks.
//!
//! The bytes are canonical: decoded and encoded again they are the same. A tagged field is therefore never at its
//! default, and a single byte is a valid boolean.

use std::slice::Iter;

use super::{Field, Item, NEVER, Shape};
use crate::supported::SupportedApi;

/// A frame without its length; and where its body begins.
pub fn request_frame(api: &SupportedApi, version: i16, entropy: &[u8]) -> (Vec<u8>, usize) {
    let mut generator = Generator::new(api, version, entropy);
    generator.bytes.extend((api.key as i16).to_be_bytes());
    generator.bytes.extend(version.to_be_bytes());
    generator.bytes.extend([0, 0, 0, 7]);
    generator.bytes.extend([0, 2, b'm', b'e']);
    if generator.flexible {
        generator.tagged_fields(&[]);
    }
    let body_start = generator.bytes.len();
    generator.structure(api.schema.fields);
    (generator.bytes, body_start)
}

/// Bodies that are wrong in one place each: null is where the schema allows it in no version.
pub fn bodies_with_a_wrong_null(api: &SupportedApi, version: i16, entropy: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..).map_while(move |place| {
        let mut generator = Generator { wrong_null: Some(place), ..Generator::new(api, version, entropy) };
        generator.structure(api.schema.fields);
        generator.wrong_null.is_none().then_some(generator.bytes)
    })
}

struct Generator<'a> {
    entropy: Iter<'a, u8>,
    bytes: Vec<u8>,
    version: i16,
    flexible: bool,
    /// How many strings, byte arrays and arrays that must not be null are to come before one that is.
    wrong_null: Option<usize>,
}

impl<'a> Generator<'a> {
    fn new(api: &SupportedApi, version: i16, entropy: &'a [u8]) -> Self {
        let flexible = api.schema.is_flexible(version);
        Self { entropy: entropy.iter(), bytes: Vec::new(), version, flexible, wrong_null: None }
    }

    /// A number below `limit`: zero, and so the least message, when the entropy is used up.
    fn draw(&mut self, limit: u8) -> u8 {
        self.entropy.next().map_or(0, |byte| byte % limit)
    }

    fn structure(&mut self, fields: &[Field]) {
        let version = self.version;
        for field in fields.iter().filter(|field| field.tag.is_none() && field.is_in(version)) {
            self.field(field, field.is_nullable_in(version));
        }
        if self.flexible {
            self.tagged_fields(fields);
        }
    }

    fn tagged_fields(&mut self, fields: &[Field]) {
        let version = self.version;
        let mut tagged = Vec::new();
        for field in fields.iter().filter(|field| field.is_in(version)) {
            if let Some(tag) = field.tag
                && self.draw(2) == 1
            {
                tagged.push((tag, self.apart(|generator| generator.field(field, false))));
            }
        }
        // Were the first tag that the schema does not know one that the decoder does know, it would show.
        let unknown = (0..).find(|tag| fields.iter().all(|field| field.tag != Some(*tag)));
        for tag in unknown.into_iter().chain([70_000]) {
            if self.draw(4) == 3 {
                tagged.push((tag, b"from a future version".to_vec()));
            }
        }
        tagged.sort();
        self.varint(tagged.len());
        for (tag, value) in tagged {
            self.varint(tag as usize);
            self.varint(value.len());
            self.bytes.extend(value);
        }
    }

    /// What `generate` writes, not put into the message yet.
    fn apart(&mut self, generate: impl FnOnce(&mut Self)) -> Vec<u8> {
        let before = std::mem::take(&mut self.bytes);
        generate(self);
        std::mem::replace(&mut self.bytes, before)
    }

    fn field(&mut self, field: &Field, nullable: bool) {
        let is_null = match nullable {
            true => self.draw(3) == 2,
            false => self.is_wrong_null(field),
        };
        match (field.shape, is_null) {
            (Shape::One(Item::Struct(_)), true) => self.bytes.push(0xff),
            (Shape::One(Item::String), true) => self.string_len(None),
            (_, true) => self.count(None),
            (Shape::One(Item::Struct(fields)), false) => {
                self.bytes.extend(nullable.then_some(1));
                self.structure(fields);
            }
            (Shape::One(item), false) => self.item(item),
            (Shape::Array(item), false) => {
                let count = self.draw(4);
                self.count(Some(count));
                (0..count).for_each(|_| self.item(item));
            }
        }
    }

    fn is_wrong_null(&mut self, field: &Field) -> bool {
        let has_length = !matches!(field.shape, Shape::One(Item::Fixed(_) | Item::Struct(_)));
        if !has_length || field.nullable_since != NEVER {
            return false;
        }
        let is_here = self.wrong_null == Some(0);
        self.wrong_null = self.wrong_null.and_then(|place| place.checked_sub(1));
        is_here
    }

    fn item(&mut self, item: Item) {
        match item {
            Item::Fixed(1) => {
                let boolean = self.draw(2);
                self.bytes.push(boolean);
            }
            Item::Fixed(width) => {
                for _ in 0..width {
                    let byte = 0x11 + self.draw(0x60);
                    self.bytes.push(byte);
                }
            }
            Item::String => {
                let text = ["", "a", "topic-1", "Ünïcödé"][usize::from(self.draw(4))];
                self.string_len(Some(text.len() as u8));
                self.bytes.extend(text.as_bytes());
            }
            Item::Bytes => {
                let len = self.draw(200);
                self.count(Some(len));
                self.bytes.extend((0..len).map(|at| at ^ 0x5a));
            }
            Item::Struct(fields) => self.structure(fields),
        }
    }

    fn string_len(&mut self, len: Option<u8>) {
        match self.flexible {
            true => self.count(len),
            false => self.bytes.extend(len.map_or(-1, i16::from).to_be_bytes()),
        }
    }

    fn count(&mut self, count: Option<u8>) {
        match self.flexible {
            true => self.varint(count.map_or(0, |count| usize::from(count) + 1)),
            false => self.bytes.extend(count.map_or(-1, i32::from).to_be_bytes()),
        }
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

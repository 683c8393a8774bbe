//! Reads big-endian fields from bytes that may be anything: every read is checked, every count is held against the
//! bytes that are left before anything is allocated for it.

/// What is wrong with the bytes, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub position: usize,
    pub reason: String,
}

pub(crate) struct ByteReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> ByteReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Malformed> {
        let Some(array) = self.bytes[self.position..].first_chunk::<N>() else {
            return Err(self.malformed(format!("the bytes end inside the {what}")));
        };
        self.position += N;
        Ok(*array)
    }

    pub(crate) fn u8(&mut self, what: &str) -> Result<u8, Malformed> {
        self.array(what).map(u8::from_be_bytes)
    }

    pub(crate) fn i16(&mut self, what: &str) -> Result<i16, Malformed> {
        self.array(what).map(i16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, what: &str) -> Result<u32, Malformed> {
        self.array(what).map(u32::from_be_bytes)
    }

    pub(crate) fn i32(&mut self, what: &str) -> Result<i32, Malformed> {
        self.array(what).map(i32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, what: &str) -> Result<u64, Malformed> {
        self.array(what).map(u64::from_be_bytes)
    }

    pub(crate) fn i64(&mut self, what: &str) -> Result<i64, Malformed> {
        self.array(what).map(i64::from_be_bytes)
    }

    /// A count of things that take at least `least_bytes` each.
    pub(crate) fn count(&mut self, what: &str, least_bytes: usize) -> Result<usize, Malformed> {
        let count = self.u32(what)? as usize;
        let left = self.bytes.len() - self.position;
        if count > left / least_bytes {
            return Err(self.malformed(format!("{count} {what} do not fit into the {left} bytes left")));
        }
        Ok(count)
    }

    /// Refuses bytes that nothing was read from.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        match self.bytes.len() - self.position {
            0 => Ok(()),
            left => Err(self.malformed(format!("{left} bytes follow the end"))),
        }
    }

    /// An error at the present position.
    pub(crate) fn malformed(&self, reason: impl Into<String>) -> Malformed {
        Malformed { position: self.position, reason: reason.into() }
    }
}

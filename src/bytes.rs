//! A little-endian reader over untrusted bytes: every read is checked, and a failure names the
//! field, the offset, and how many bytes were wanted and left.

use crate::error::{Code, Error, Result};

/// Reads little-endian values from `data`, front to back.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    data: &'a [u8],
    position: usize,
}

macro_rules! integers {
    ($($name:ident: $type:ty),*) => {$(
        #[doc = concat!("The next `", stringify!($type), "`; `what` names the field in an error.")]
        pub fn $name(&mut self, what: &str) -> Result<$type> {
            self.array(what).map(<$type>::from_le_bytes)
        }
    )*};
}

impl<'a> Reader<'a> {
    /// Reads `data` from its first byte.
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, position: 0 }
    }

    /// Offset of the next byte.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.data.len() - self.position
    }

    integers!(u8: u8, i8: i8, u16: u16, i16: i16, u32: u32, i32: i32, u64: u64, i64: i64,
              f32: f32, f64: f64);

    /// The next `len` bytes. `len` comes from the file, hence 64 bits.
    pub fn take(&mut self, len: u64, what: &str) -> Result<&'a [u8]> {
        let rest = &self.data[self.position..];
        let wanted = usize::try_from(len).ok().filter(|&len| len <= rest.len());
        let Some(len) = wanted else {
            return Err(self.short(len, what));
        };
        self.position += len;
        Ok(&rest[..len])
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let bytes = self
            .data
            .get(self.position..)
            .and_then(|rest| rest.first_chunk::<N>());
        let Some(bytes) = bytes else {
            return Err(self.short(N as u64, what));
        };
        self.position += N;
        Ok(*bytes)
    }

    fn short(&self, wanted: u64, what: &str) -> Error {
        let left = self.remaining();
        Error::new(
            Code::Format,
            format!("{what} at offset {}", self.position),
            format!("expected {wanted} bytes, found {left}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_in_order_and_stops_at_the_end() {
        let mut r = Reader::new(&[1, 2, 0, 0, 0, 9, 8]);
        assert_eq!(r.u8("a").unwrap(), 1);
        assert_eq!(r.u32("b").unwrap(), 2);
        let e = r.u64("c").unwrap_err();
        assert_eq!(e.to_string(), "c at offset 5: expected 8 bytes, found 2");
        assert_eq!(r.take(2, "d").unwrap(), [9, 8]);
        assert_eq!(r.remaining(), 0);
        assert!(r.take(u64::MAX, "e").is_err());
    }
}

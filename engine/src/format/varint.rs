//! Kafka's variable-length integers: zigzag, then base 128 with the lowest seven bits first.
//!
//! The source is Protocol Buffers' `sint32` and `sint64`, as Kafka's `ByteUtils` writes them. As in
//! Kafka, an encoding longer than needed is accepted up to the longest one; bits that the type cannot
//! hold are refused.

use thiserror::Error;

/// Most bytes of a varint (32 bits).
pub const VARINT_BYTES_MAX: usize = 5;

/// Most bytes of a varlong (64 bits).
pub const VARLONG_BYTES_MAX: usize = 10;

/// Why bytes are no varint.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum VarintError {
    /// The bytes ended within it.
    #[error("is cut short")]
    Truncated,
    /// It does not end, or has bits set, beyond what its type can hold.
    #[error("is longer than its type")]
    TooLong,
}

/// Reads a varint (32 bits) and moves `bytes` past it.
///
/// # Errors
/// [`VarintError`]; `bytes` is then where it was.
#[inline]
pub fn read_varint(bytes: &mut &[u8]) -> Result<i32, VarintError> {
    let value = match bytes.split_first() {
        Some((first, rest)) if *first < 0x80 => {
            *bytes = rest;
            u32::from(*first)
        }
        _ => read_long::<VARINT_BYTES_MAX>(bytes, u64::from(u32::MAX))? as u32,
    };
    Ok((value >> 1) as i32 ^ -((value & 1) as i32))
}

/// Reads a varlong (64 bits) and moves `bytes` past it.
///
/// # Errors
/// [`VarintError`]; `bytes` is then where it was.
#[inline]
pub fn read_varlong(bytes: &mut &[u8]) -> Result<i64, VarintError> {
    let value = match bytes.split_first() {
        Some((first, rest)) if *first < 0x80 => {
            *bytes = rest;
            u64::from(*first)
        }
        _ => read_long::<VARLONG_BYTES_MAX>(bytes, u64::MAX)?,
    };
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

fn read_long<const BYTES_MAX: usize>(bytes: &mut &[u8], max: u64) -> Result<u64, VarintError> {
    let mut value = 0_u64;
    for (i, byte) in bytes.iter().take(BYTES_MAX).enumerate() {
        let shift = 7 * i as u32;
        let part = u64::from(byte & 0x7f);
        if part > max >> shift {
            return Err(VarintError::TooLong);
        }
        value |= part << shift;
        if *byte < 0x80 {
            *bytes = &bytes[i + 1..];
            return Ok(value);
        }
    }
    let short = bytes.len() < BYTES_MAX;
    Err(if short { VarintError::Truncated } else { VarintError::TooLong })
}

/// Appends `value` as a varint.
#[inline]
pub fn write_varint(out: &mut Vec<u8>, value: i32) {
    let mut run = Run::new();
    run.varint(value);
    out.extend_from_slice(run.as_bytes());
}

const RUN_BYTES: usize = 4 * VARINT_BYTES_MAX + VARLONG_BYTES_MAX + 1;

/// A short run of numbers, put together on the stack. Room for four varints, a varlong and a byte.
pub(crate) struct Run {
    bytes: [u8; RUN_BYTES],
    len: usize,
}

impl Run {
    pub(crate) fn new() -> Self {
        Self { bytes: [0; RUN_BYTES], len: 0 }
    }

    #[inline]
    pub(crate) fn byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    #[inline]
    pub(crate) fn varint(&mut self, value: i32) {
        self.unsigned(u64::from(zigzag(value)));
    }

    #[inline]
    pub(crate) fn varlong(&mut self, value: i64) {
        self.unsigned(zigzag_long(value));
    }

    #[inline]
    fn unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The length of `value` as a varint, in bytes.
#[must_use]
pub const fn varint_bytes(value: i32) -> usize {
    unsigned_bytes(zigzag(value) as u64)
}

/// The length of `value` as a varlong, in bytes.
#[must_use]
pub const fn varlong_bytes(value: i64) -> usize {
    unsigned_bytes(zigzag_long(value))
}

const fn zigzag(value: i32) -> u32 {
    (value << 1) as u32 ^ (value >> 31) as u32
}

const fn zigzag_long(value: i64) -> u64 {
    (value << 1) as u64 ^ (value >> 63) as u64
}

const fn unsigned_bytes(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varlong(value: i64) -> Vec<u8> {
        let mut run = Run::new();
        run.varlong(value);
        run.as_bytes().to_vec()
    }

    #[test]
    fn bytes_are_those_of_the_specification() {
        let golden: [(i64, &[u8]); 9] = [
            (0, &[0x00]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (300, &[0xd8, 0x04]),
            (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ];
        for (value, encoded) in golden {
            let mut short = Vec::new();
            write_varint(&mut short, value as i32);
            assert_eq!((&short[..], &varlong(value)[..]), (encoded, encoded), "{value}");
        }
    }

    #[test]
    fn every_width_comes_back_and_is_as_long_as_announced() {
        for bit in 0..64 {
            for value in [1_i64 << bit, (1_i64 << bit).wrapping_sub(1), -(1_i64 << (bit % 63))] {
                let mut out = varlong(value);
                assert_eq!(out.len(), varlong_bytes(value));
                assert_eq!(read_varlong(&mut &out[..]), Ok(value));
                let Ok(value) = i32::try_from(value) else { continue };
                out.clear();
                write_varint(&mut out, value);
                assert_eq!(out.len(), varint_bytes(value));
                assert_eq!(read_varint(&mut &out[..]), Ok(value));
            }
        }
    }

    #[test]
    fn reading_stops_at_the_last_byte_of_the_number() {
        let mut bytes: &[u8] = &[0xd8, 0x04, 0x55];
        assert_eq!(read_varint(&mut bytes), Ok(300));
        assert_eq!(bytes, [0x55]);
    }

    #[test]
    fn a_cut_number_and_an_endless_one_are_told_apart() {
        for len in 0..5 {
            assert_eq!(read_varint(&mut &[0xff; 4][..len.min(4)]), Err(VarintError::Truncated));
        }
        assert_eq!(read_varint(&mut &[0xff; 5][..]), Err(VarintError::TooLong));
        assert_eq!(read_varlong(&mut &[0xff; 9][..]), Err(VarintError::Truncated));
        assert_eq!(read_varlong(&mut &[0x80; 11][..]), Err(VarintError::TooLong));
    }

    #[test]
    fn bits_beyond_the_type_are_refused_and_needless_length_is_not() {
        let overflow = [0xff, 0xff, 0xff, 0xff, 0x10];
        assert_eq!(read_varint(&mut &overflow[..]), Err(VarintError::TooLong));
        let mut overflow = [0xff; 10];
        overflow[9] = 0x02;
        assert_eq!(read_varlong(&mut &overflow[..]), Err(VarintError::TooLong));
        assert_eq!(read_varint(&mut &[0x82, 0x80, 0x00][..]), Ok(1));
    }
}

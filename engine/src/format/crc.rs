//! CRC-32C (Castagnoli), the checksum of Kafka's record batches and of every Ringmain file.
//!
//! The checksum comes from `crc-fast`; [`combine`] does not, because that crate multiplies bit matrices
//! (41 us a call where a polynomial product takes well under 1 us).

use crc_fast::{CrcAlgorithm, Digest};

/// The CRC-32C polynomial, lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `x^(2^n)` modulo the polynomial, for every power of two that a length in bits can have.
const POWERS: [u32; 67] = powers();

/// The CRC-32C of `bytes`.
#[inline]
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The CRC-32C of what `crc` covers followed by `bytes`. The CRC of nothing is 0.
#[must_use]
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!crc));
    digest.update(bytes);
    digest.finalize() as u32
}

/// The CRC-32C of two runs of bytes, from that of each and the length of the second in bytes.
///
/// The method is zlib's `crc32_combine`: `first` times `x^(8 * second_bytes)`, plus `second`.
#[must_use]
pub const fn combine(first: u32, second: u32, second_bytes: u64) -> u32 {
    shift(first, second_bytes) ^ second
}

/// `crc` moved past `bytes` zero bytes: times `x^(8 * bytes)`.
const fn shift(crc: u32, bytes: u64) -> u32 {
    let mut shifted = crc;
    let mut left = bytes;
    while left != 0 {
        shifted = multiply(POWERS[left.trailing_zeros() as usize + 3], shifted);
        left &= left - 1;
    }
    shifted
}

const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 32;
    while bit > 0 {
        bit -= 1;
        // Masks, not branches: the bits are as good as random.
        product ^= b & ((a >> bit) & 1).wrapping_neg();
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
    }
    product
}

const fn powers() -> [u32; 67] {
    let mut powers = [1 << 30; 67];
    let mut n = 1;
    while n < powers.len() {
        powers[n] = multiply(powers[n - 1], powers[n - 1]);
        n += 1;
    }
    powers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 + i / 7) as u8).collect()
    }

    fn bit_by_bit(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |mut crc: u32, byte| {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            }
            crc
        })
    }

    #[test]
    fn it_is_the_checksum_of_rfc_3720() {
        assert_eq!(crc32c(b""), 0);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn every_length_agrees_with_the_definition() {
        for len in (0..600).chain([4095, 4096, 70_001]) {
            assert_eq!(crc32c(&bytes(len)), bit_by_bit(&bytes(len)), "{len} bytes");
        }
    }

    #[test]
    fn a_run_in_two_parts_has_the_checksum_of_the_whole() {
        for (len, cut) in [(0, 0), (1, 0), (1, 1), (175, 61), (4096, 4095), (70_001, 40)] {
            let all = bytes(len);
            let (head, tail) = all.split_at(cut);
            assert_eq!(crc32c_append(crc32c(head), tail), crc32c(&all));
            assert_eq!(combine(crc32c(head), crc32c(tail), tail.len() as u64), crc32c(&all));
        }
    }
}

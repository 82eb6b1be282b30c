//! A batch of one record in Kafka's RecordBatch v2, encoded by hand: the floor shares no code with the
//! engine it is compared with.

use crc_fast::{CrcAlgorithm, checksum};

/// Bytes of a record's value.
pub const VALUE_BYTES: usize = 100;

/// Bytes of its key: the client's number.
pub const KEY_BYTES: usize = 5;

/// Bytes of the whole batch.
pub const BATCH_BYTES: usize = VALUE_AT + VALUE_BYTES + 1;

const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;
const RECORDS_AT: usize = 61;
/// Length (2), attributes, timestamp delta, offset delta, key length.
const KEY_AT: usize = RECORDS_AT + 2 + 1 + 1 + 1 + 1;
/// A value of 100 bytes has a length of two bytes.
const VALUE_AT: usize = KEY_AT + KEY_BYTES + 2;

const _: () = assert!(BATCH_BYTES == 175, "as large as the prototype's");
const _: () = assert!(VALUE_BYTES >= 64 && VALUE_BYTES < 8192, "two bytes of zigzag varint");

/// Encodes batches of one record into one buffer.
#[derive(Clone, Debug)]
pub struct OneBatch([u8; BATCH_BYTES]);

impl Default for OneBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl OneBatch {
    /// A batch with all fields set that never change.
    pub fn new() -> Self {
        let mut batch = [0_u8; BATCH_BYTES];
        let mut put = |at: usize, bytes: &[u8]| batch[at..at + bytes.len()].copy_from_slice(bytes);
        put(8, &(BATCH_BYTES as u32 - 12).to_be_bytes());
        put(16, &[2]);
        put(43, &(-1_i64).to_be_bytes());
        put(51, &(-1_i16).to_be_bytes());
        put(53, &(-1_i32).to_be_bytes());
        put(57, &1_u32.to_be_bytes());
        put(RECORDS_AT, &varint(BATCH_BYTES - RECORDS_AT - 2));
        put(KEY_AT - 1, &[KEY_BYTES as u8 * 2]);
        put(VALUE_AT - 2, &varint(VALUE_BYTES));
        Self(batch)
    }

    /// The batch with this key, time and value, its checksum computed.
    pub fn encode(
        &mut self,
        client: u32,
        now_ms: u64,
        value: impl FnOnce(&mut [u8]),
    ) -> &[u8; BATCH_BYTES] {
        let Self(batch) = self;
        batch[27..35].copy_from_slice(&now_ms.to_be_bytes());
        batch[35..43].copy_from_slice(&now_ms.to_be_bytes());
        batch[KEY_AT + 1..KEY_AT + KEY_BYTES].copy_from_slice(&client.to_be_bytes());
        value(&mut batch[VALUE_AT..VALUE_AT + VALUE_BYTES]);
        let crc = checksum(CrcAlgorithm::Crc32Iscsi, &batch[CRC_FROM..]) as u32;
        batch[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
        batch
    }
}

/// A zigzag varint of two bytes.
fn varint(value: usize) -> [u8; 2] {
    let zigzag = value * 2;
    [(zigzag & 0x7f) as u8 | 0x80, (zigzag >> 7) as u8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_specification_puts_them() {
        let mut one = OneBatch::new();
        let batch = one.encode(0x0102_0304, 77, |value| value.fill(b'v'));
        let int = |at: usize| i32::from_be_bytes(batch[at..at + 4].try_into().expect("four"));
        assert_eq!(int(8) as usize, BATCH_BYTES - 12, "batchLength counts what follows it");
        assert_eq!(batch[16], 2, "magic");
        assert_eq!(int(17) as u32, checksum(CrcAlgorithm::Crc32Iscsi, &batch[21..]) as u32);
        assert_eq!((int(23), int(53), int(57)), (0, -1, 1), "one record, no producer");
        // length 112 = 0xe0 0x01, attributes, deltas, key of 5, value of 100 = 0xc8 0x01, no headers.
        assert_eq!(batch[61..67], [0xe0, 0x01, 0, 0, 0, 10]);
        assert_eq!(batch[67..72], [0, 1, 2, 3, 4]);
        assert_eq!(batch[72..74], [0xc8, 0x01]);
        assert_eq!(batch[74..], [&[b'v'; 100][..], &[0]].concat());
    }
}

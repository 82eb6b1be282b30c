//! Writes a directory for Kafka to read: batches of every kind an engine takes.

use std::error::Error;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression as ClientsCompression, Record, RecordBatchEncoder, RecordEncodeOptions,
    TimestampType,
};
use ringmain::batch::{Batch, BatchBuilder, Compression, Header, Producer, batches};
use ringmain::types::Offset;
use ringmain::{Engine, LogHandle};

use crate::lines::{Line, Lines, load, save};
use crate::{Outcome, open, read};

const NOW_MS: i64 = 1_700_000_000_000;

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

/// A record to be written.
struct New {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn record(dice: &mut Dice, nth: u64) -> New {
    let long = if nth.is_multiple_of(50) { 20_000 } else { 300 };
    let value = (0..dice.below(long)).map(|_| b'a' + dice.below(26) as u8).collect();
    let header = |n| (format!("h{n}"), (n != 1).then(|| format!("header of {nth}").into_bytes()));
    New {
        // Out of order, as the clocks of many producers are.
        timestamp: NOW_MS + nth as i64 * 10 + dice.below(2_000) as i64 - 1_000,
        key: (nth % 5 != 3).then(|| format!("key {}", nth % 97).into_bytes()),
        value: (nth % 11 != 7).then_some(value),
        headers: (0..nth % 3).map(header).collect(),
    }
}

/// What is appended, and what is expected to be read.
struct Writer {
    log: LogHandle,
    dice: Dice,
    lines: Vec<Line>,
}

impl Writer {
    fn new(log: LogHandle) -> Self {
        let name = log.name().to_string();
        let seed = name.bytes().fold(7_u64, |seed, byte| seed.wrapping_mul(31) ^ u64::from(byte));
        Self { log, dice: Dice(seed), lines: Vec::new() }
    }

    fn next(&self) -> Result<u64, Box<dyn Error>> {
        Ok(self.log.watermarks_blocking()?.dirty.get() as u64)
    }

    fn records(&mut self, count: u64) -> Result<Vec<New>, Box<dyn Error>> {
        let next = self.next()?;
        Ok((0..count).map(|nth| record(&mut self.dice, next + nth)).collect())
    }

    /// Some batches of sizes from 1 record to 150.
    fn fill(&mut self, compression: Compression, count: u64, epoch: Option<i32>) -> Outcome {
        for nth in 0..count {
            let most = if nth.is_multiple_of(10) { 150 } else { 30 };
            let records = 1 + self.dice.below(most);
            let records = self.records(records)?;
            let batch = build(&records, compression, None)?;
            self.append(batch, &records, epoch)?;
        }
        Ok(())
    }

    fn append(&mut self, batch: Batch, records: &[New], epoch: Option<i32>) -> Outcome {
        let next = self.next()?;
        // The fields of the batch's header are its builder's; the records' are those that were asked for.
        let header = batch.clone();
        let acked = match epoch {
            None => self.log.append_blocking(batch)?,
            Some(epoch) => self.log.append_at_blocking(Offset::new(next as i64), epoch, batch)?,
        };
        if acked.base_offset.get() as u64 != next {
            return Err(format!("{} acked, {next} expected", acked.base_offset).into());
        }
        let view = batches(header.as_bytes()).next().ok_or("a batch")??;
        let name = self.log.name().to_string();
        for (found, (at, wanted)) in view.records()?.zip((next..).zip(records)) {
            self.lines.push(Line {
                offset: at as i64,
                timestamp: wanted.timestamp,
                key: wanted.key.as_deref().map(crate::lines::hex),
                value: wanted.value.as_deref().map(crate::lines::hex),
                headers: (wanted.headers.iter())
                    .map(|(key, value)| {
                        let value = value.as_deref().map(crate::lines::hex);
                        (crate::lines::hex(key.as_bytes()), value)
                    })
                    .collect(),
                epoch: epoch.unwrap_or(self.lines.last().map_or(0, |line| line.epoch)),
                ..Line::of(&name, &view, &found?)
            });
        }
        Ok(())
    }
}

fn build(
    records: &[New],
    compression: Compression,
    producer: Option<Producer>,
) -> Result<Batch, Box<dyn Error>> {
    let mut builder = BatchBuilder::new().compression(compression);
    if let Some(producer) = producer {
        builder = builder.producer(producer);
    }
    for record in records {
        let headers: Vec<Header<'_>> = (record.headers.iter())
            .map(|(key, value)| Header { key: key.as_bytes(), value: value.as_deref() })
            .collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        builder.add_with_headers(record.timestamp, key, value, &headers)?;
    }
    Ok(builder.build()?)
}

/// A batch as another client encodes it, in a codec that the builder does not write.
fn clients(records: &[New], compression: ClientsCompression) -> Result<Batch, Box<dyn Error>> {
    let records: Vec<Record> = (0..)
        .zip(records)
        .map(|(at, record)| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: 77,
            producer_epoch: 2,
            timestamp_type: TimestampType::Creation,
            offset: at,
            sequence: 100 + at as i32,
            timestamp: record.timestamp,
            key: record.key.clone().map(Bytes::from),
            value: record.value.clone().map(Bytes::from),
            headers: (record.headers.iter())
                .map(|(key, value)| {
                    (StrBytes::from_string(key.clone()), value.clone().map(Bytes::from))
                })
                .collect(),
        })
        .collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression };
    RecordBatchEncoder::encode(&mut bytes, &records, &options)?;
    Ok(Batch::from_bytes(bytes.to_vec())?)
}

/// Makes `data`, closes it cleanly, and says in `lines` what was written.
pub(crate) fn write(data: &Path, lines: &Path) -> Outcome {
    let engine = open(data)?;
    let mut written = Lines::new();
    let mut keep = |writer: Writer| written.insert(writer.log.name().to_string(), writer.lines);
    let codecs = [
        ("none", Compression::None),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd { level: 3 }),
    ];
    for (topic, compression) in codecs {
        let mut writer = Writer::new(engine.log(topic, 0)?);
        writer.fill(compression, 120, None)?;
        keep(writer);
    }
    keep(foreign_codecs(&engine)?);
    keep(epochs(&engine)?);
    keep(idempotent(&engine)?);
    keep(no_timestamps(&engine)?);
    keep(rolled(&engine)?);
    engine.log("empty", 0)?;
    engine.close()?;
    save(lines, &written.into_iter().filter(|(_, lines)| !lines.is_empty()).collect())
}

fn foreign_codecs(engine: &Engine) -> Result<Writer, Box<dyn Error>> {
    let mut writer = Writer::new(engine.log("clients", 3)?);
    for nth in 0..80 {
        let codec = [ClientsCompression::Gzip, ClientsCompression::Snappy][nth % 2];
        let records = writer.records(1 + nth as u64)?;
        writer.append(clients(&records, codec)?, &records, None)?;
    }
    Ok(writer)
}

/// Leaders come and go, and one that had appended too much is cut back.
fn epochs(engine: &Engine) -> Result<Writer, Box<dyn Error>> {
    let mut writer = Writer::new(engine.log("epochs", 0)?);
    for epoch in [0, 1, 5, 40] {
        writer.fill(Compression::None, 15, Some(epoch))?;
    }
    let cut = writer.lines.iter().rposition(|line| line.epoch == 5).ok_or("an epoch")?;
    // The first batch of the newest epoch stays away, and epoch 41 goes on from there.
    writer.lines.truncate(cut + 1);
    writer.log.truncate_to_blocking(Offset::new(writer.lines[cut].offset + 1))?;
    writer.fill(Compression::Lz4, 15, Some(41))?;
    Ok(writer)
}

fn idempotent(engine: &Engine) -> Result<Writer, Box<dyn Error>> {
    let mut writer = Writer::new(engine.log("idempotent", 0)?);
    let mut sequence = 0;
    for nth in 0..40 {
        let records = writer.records(1 + nth % 20)?;
        let producer = Producer { id: 4000, epoch: 1, base_sequence: sequence };
        sequence += records.len() as i32;
        writer.append(build(&records, Compression::Lz4, Some(producer))?, &records, None)?;
    }
    Ok(writer)
}

fn no_timestamps(engine: &Engine) -> Result<Writer, Box<dyn Error>> {
    let mut writer = Writer::new(engine.log("notime", 0)?);
    for _ in 0..200 {
        let mut records = writer.records(3)?;
        for record in &mut records {
            record.timestamp = -1;
        }
        writer.append(build(&records, Compression::None, None)?, &records, None)?;
    }
    Ok(writer)
}

/// Rolled, and nothing appended since.
fn rolled(engine: &Engine) -> Result<Writer, Box<dyn Error>> {
    let mut writer = Writer::new(engine.log("rolled", 0)?);
    for _ in 0..3 {
        writer.fill(Compression::None, 5, None)?;
        writer.log.roll_blocking()?;
    }
    Ok(writer)
}

/// Opens `data`, appends to each partition, closes it, and adds to `lines` what was appended.
pub(crate) fn append(data: &Path, lines: &Path) -> Outcome {
    let mut all = load(lines)?;
    let engine = open(data)?;
    for name in engine.partitions() {
        let log = engine.log(name.topic(), name.partition())?;
        let known = read::whole(&log)?.len();
        let lines = all.entry(name.to_string()).or_default();
        if lines.len() != known {
            return Err(format!("{name}: {known} records, {} were written", lines.len()).into());
        }
        let mut writer = Writer::new(log);
        writer.fill(Compression::Zstd { level: 1 }, 8, None)?;
        writer.log.roll_blocking()?;
        writer.fill(Compression::None, 8, None)?;
        // An append stays in the epoch that the log had come to.
        let epoch = lines.last().map_or(0, |line| line.epoch);
        lines.extend(writer.lines.into_iter().map(|line| Line { epoch, ..line }));
    }
    engine.close()?;
    save(lines, &all)
}

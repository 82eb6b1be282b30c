//! Reads a directory whole through the public interface.

use std::error::Error;
use std::path::Path;

use ringmain::LogHandle;
use ringmain::batch::batches;
use ringmain::types::{Isolation, Offset};

use crate::lines::{Line, compare, load};
use crate::{Outcome, open};

const READ_BYTES: usize = 64 << 10;

/// Every how many records one is looked up by itself.
const LOOKED_UP: usize = 41;

/// Opens `data` and compares all that can be read with the lines.
pub(crate) fn read(data: &Path, lines: &Path) -> Outcome {
    let expected = load(lines)?;
    let engine = open(data)?;
    let (mut records, mut looked_up) = (0, 0);
    for name in engine.partitions() {
        let log = engine.log(name.topic(), name.partition())?;
        let expected = expected.get(&name.to_string()).map_or(&[][..], Vec::as_slice);
        let found = whole(&log)?;
        compare(log.name().topic(), expected, &found)?;
        records += found.len();
        for line in expected.iter().step_by(LOOKED_UP) {
            look_up(&log, line)?;
            looked_up += 1;
        }
    }
    if let Some(name) = expected.keys().find(|name| !data.join(name).is_dir()) {
        return Err(format!("{name} is not there").into());
    }
    let partitions = engine.partitions().len();
    engine.close()?;
    println!(
        "{partitions} partitions, {records} records as Kafka reads them, {looked_up} looked up"
    );
    Ok(())
}

/// All records from the log's start on.
pub(crate) fn whole(log: &LogHandle) -> Result<Vec<Line>, Box<dyn Error>> {
    let marks = log.watermarks_blocking()?;
    let (name, mut next, mut out) = (log.name().to_string(), marks.log_start, Vec::new());
    loop {
        let bytes = log.read_blocking(next, READ_BYTES, Isolation::Durable)?;
        if bytes.is_empty() {
            break;
        }
        for batch in batches(&bytes) {
            let batch = batch?;
            for record in batch.records()? {
                let line = Line::of(&name, &batch, &record?);
                // The log may begin within a batch.
                out.extend(Some(line).filter(|line| line.offset >= marks.log_start.get()));
            }
            if batch.last_offset() < next {
                return Err(format!("{name}: a read at {next} goes back").into());
            }
            next = batch.last_offset().plus(1);
        }
    }
    if next != marks.durable || marks.durable != marks.dirty {
        return Err(format!("{name}: reads end at {next}, {marks:?}").into());
    }
    Ok(out)
}

/// One record by its offset: it is in the first batch of a read there.
fn look_up(log: &LogHandle, line: &Line) -> Outcome {
    let bytes = log.read_blocking(Offset::new(line.offset), 1, Isolation::Durable)?;
    let batch = batches(&bytes).next().ok_or("nothing there")??;
    for record in batch.records()? {
        let found = Line::of(&line.partition, &batch, &record?);
        if found == *line {
            return Ok(());
        }
    }
    Err(format!("{}: a read at {} begins elsewhere", log.name(), line.offset).into())
}

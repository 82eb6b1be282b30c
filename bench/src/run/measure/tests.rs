use super::*;
use crate::run::backend::{Counters, Facts, Reader, Verifiable};
use crate::run::backends::queue::Queue;
use crate::run::pace::Simulated;
use crate::run::selftest::load;

fn workload(text: &str) -> Workload {
    Workload::from_toml(&format!("record-bytes = 100\nwarmup = 1\n{text}")).expect("a workload")
}

#[test]
fn as_many_records_are_counted_as_were_due_whatever_the_number_of_producers() {
    for producers in [1_u32, 3, 16] {
        let text =
            format!("rate = 10000\nbatch-records = 10\nseconds = 5\nproducers = {producers}");
        let pace = Simulated::default();
        let mut queue = Queue::new(pace.clone(), Duration::from_micros(20), None);
        let (measured, recorded) = load(&workload(&text), &mut queue, pace).expect("runs");
        let off = measured.records.abs_diff(50_000);
        assert!(off <= 10 * u64::from(producers), "{} records", measured.records);
        assert!(
            measured.due_records.expect("open loop").abs_diff(50_000) <= 10 * u64::from(producers)
        );
        assert_eq!(recorded.corrected.count() * 10, measured.due_records.expect("open loop"));
    }
}

/// A queue of which one request fails.
struct Failing {
    queue: Queue,
    after: u32,
}

impl Instance for Failing {
    fn facts(&self) -> Facts {
        self.queue.facts()
    }

    fn verifiable(&self) -> Verifiable {
        self.queue.verifiable()
    }

    fn submit(&mut self, request: Request) {
        self.queue.submit(request);
    }

    fn poll(&mut self, wait: Duration, done: &mut Vec<Completion>) -> Result<()> {
        let before = done.len();
        self.queue.poll(wait, done)?;
        for completion in &mut done[before..] {
            if self.after == 0 {
                completion.result = Err(anyhow::anyhow!("the disk is gone"));
            }
            self.after = self.after.saturating_sub(1);
        }
        Ok(())
    }

    fn counters(&self) -> Counters {
        self.queue.counters()
    }

    fn reader(&self) -> Result<Box<dyn Reader>> {
        self.queue.reader()
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_request_that_fails_ends_the_run_and_is_named() {
    let pace = Simulated::default();
    let queue = Queue::new(pace.clone(), Duration::from_micros(20), None);
    let mut failing = Failing { queue, after: 100 };
    let workload = workload("rate = 1000\nbatch-records = 1\nseconds = 5");
    let error = load(&workload, &mut failing, pace).expect_err("one failed");
    let told = format!("{error:#}");
    assert!(told.contains("producer 0") && told.contains("the disk is gone"), "{told}");
}

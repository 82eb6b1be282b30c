//! Arms run by themselves, for work on the harness.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::board::Board;
use crate::cli;
use crate::clients::{Load, drive};
use crate::cores::{Cores, Pinned};
use crate::floor::{Floor, FloorTarget};
use crate::output::print;
use crate::payload::Payload;
use crate::sample::Sample;
use crate::verdict::Verdict;
use crate::workdir::WorkDir;

/// Runs the floor and prints what it reached.
///
/// # Errors
/// If it can't run here.
pub fn floor(flags: &cli::Floor) -> Result<Verdict> {
    let mut dir = WorkDir::create(flags.dir.as_deref(), false)?;
    dir.need_space(crate::floor::FILE_BYTES)?;
    let place = dir.subdir("floor")?;
    let core = Cores::near(&place).clients;
    let floor = Floor::start(&place, flags.clients)?;
    let payload = Payload::generated(32 << 20);
    let load = Load {
        clients: flags.clients,
        warm_up: Duration::from_millis(500),
        measured: Duration::from_secs(flags.seconds),
        spin: Duration::from_micros(flags.spin_us),
        bytes_max: u64::MAX,
    };
    let board = Board::leaked(flags.clients);
    let outcome = on_core(core, floor.target(&payload), &load, board)?;
    let counts = floor.stop()?;
    let us = |quantile| outcome.latencies.quantile(quantile) as f64 / 1000.0;
    print(&format!(
        "{} clients: {:.0} rec/s, p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us, {:.1} records a flush\n",
        flags.clients,
        outcome.records_per_s(),
        us(0.5),
        us(0.99),
        us(0.999),
        counts.records as f64 / counts.groups as f64,
    ))?;
    Ok(Verdict::Passed)
}

fn on_core(
    core: usize,
    mut target: FloorTarget<'_>,
    load: &Load,
    board: &'static Board,
) -> Result<Sample> {
    std::thread::scope(|scope| {
        let clients = scope.spawn(move || {
            let _pinned = Pinned::to(core);
            drive(&mut target, load, board)
        });
        clients.join().ok().context("the clients' thread panicked")?
    })
}

//! Which core the kernel hears a device on.
//!
//! A disk with one queue, as virtual machines have it, interrupts one core. What the kernel does when a write ends, and
//! the flush of its own that a durable direct write asks for (a kernel thread bound to that core), then compete with
//! whatever runs there. If that is a thread that never sleeps, each ack waits for its time slice to end; if it is the
//! thread that waits for the write, nothing waits. Hence shards are pinned to such a core first.

use std::fs;
use std::path::Path;

use super::probe::device_directory;

/// The cores this process may use; the one that the device below `dir` interrupts comes first, if there is one that
/// gets most of its interrupts. The others follow in order.
#[must_use]
pub fn cores_near(dir: &Path) -> Vec<usize> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let mut cores: Vec<usize> = cores.into_iter().map(|core| core.id).collect();
    if let Some(busiest) = interrupted_core(dir)
        && let Some(at) = cores.iter().position(|core| *core == busiest)
    {
        cores[..=at].rotate_right(1);
    }
    cores
}

fn interrupted_core(dir: &Path) -> Option<usize> {
    let device = device_directory(dir)?;
    // The bus function that the disk hangs on has the interrupts, some levels up.
    let listed = device.ancestors().find_map(|level| fs::read_dir(level.join("msi_irqs")).ok())?;
    let numbers: Vec<String> =
        listed.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    busiest_core(&fs::read_to_string("/proc/interrupts").ok()?, &numbers)
}

/// The core that got more than half of what these interrupts were raised for, by the text of `/proc/interrupts`.
fn busiest_core(table: &str, numbers: &[String]) -> Option<usize> {
    let mut lines = table.lines();
    // Cores that are offline have no column.
    let columns: Vec<usize> = lines
        .next()?
        .split_whitespace()
        .map(|title| title.trim_start_matches("CPU").parse().ok())
        .collect::<Option<_>>()?;
    let mut counts = vec![0_u64; columns.len()];
    for line in lines {
        let Some((number, rest)) = line.split_once(':') else { continue };
        if !numbers.iter().any(|wanted| wanted == number.trim()) {
            continue;
        }
        for (count, text) in counts.iter_mut().zip(rest.split_whitespace()) {
            *count += text.parse::<u64>().unwrap_or(0);
        }
    }
    let all: u64 = counts.iter().sum();
    let (at, most) = counts.iter().enumerate().max_by_key(|(_, count)| **count)?;
    (*most > all / 2).then(|| columns[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "           CPU0       CPU2       CPU3
  8:          0          9          0  IO-APIC    8-edge      rtc0
 35:          0          1          0  PCI-MSIX-0000:00:02.0   0-edge      virtio1-config
 36:        100        500        400  PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0
 37:          0          0   70000000  PCI-MSIX-0000:00:03.0   0-edge      virtio2-input
NMI:          0          0          0  Non-maskable interrupts
";

    fn busiest(numbers: &[&str]) -> Option<usize> {
        let numbers: Vec<String> = numbers.iter().map(|number| (*number).to_owned()).collect();
        busiest_core(TABLE, &numbers)
    }

    #[test]
    fn the_core_with_most_of_a_devices_interrupts_is_found() {
        assert_eq!(busiest(&["35", "36"]), Some(2));
        assert_eq!(busiest(&["37"]), Some(3));
    }

    #[test]
    fn interrupts_that_are_spread_or_never_came_prefer_no_core() {
        assert_eq!(busiest(&["36"]), None, "exactly half");
        assert_eq!(busiest(&["99"]), None);
        assert_eq!(busiest_core("", &[]), None);
    }

    #[test]
    fn every_core_is_listed_once() {
        let mut cores = cores_near(Path::new("."));
        assert!(!cores.is_empty());
        cores.sort_unstable();
        let mut all: Vec<usize> =
            core_affinity::get_core_ids().expect("cores").iter().map(|core| core.id).collect();
        all.sort_unstable();
        assert_eq!(cores, all);
    }
}

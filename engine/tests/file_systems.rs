//! Each file system that is supported, in both write modes: appended to, killed, opened again, compared and verified.

use ringmain::types::WriteMode;
use ringmain::{Config, Engine};

use crate::mounts::Mounted;
use crate::sigkill::survive;
use crate::support::{batch, ids, small, verified};

const DISK_BYTES: u64 = 768 << 20;

/// Kills for each file system and write mode; even, so that the last one is compared.
const KILLS: u64 = 4;

fn keeps_acks(kind: &str) {
    for mode in [WriteMode::Direct, WriteMode::PageCache] {
        let Some(disk) = Mounted::new(&format!("kept-{mode:?}"), kind, DISK_BYTES) else { return };
        let data = disk.at().join("data");
        let config = Config { write_mode: Some(mode), ..small(&data) };
        let engine = Engine::open(config.clone()).unwrap();
        let facts = engine.facts();
        eprintln!("{kind}, {mode:?}: {:?}", facts.file_system);
        assert_eq!(facts.write_mode, mode, "what was asked for, or an error");
        assert_eq!(facts.file_system.dsync_meaningful, kind != "tmpfs");
        let log = engine.log("left", 0).unwrap();
        for (id, bytes) in (0..).zip([10, 70_000, 300, 5000, 600_000, 1]) {
            log.append_blocking(batch([id], bytes)).unwrap();
        }
        engine.abandon();
        let engine = Engine::open(config.clone()).unwrap();
        assert!(!engine.recovery().clean);
        assert_eq!(ids(&engine.log("left", 0).unwrap()), (0..6).collect::<Vec<_>>());
        engine.close().unwrap();
        verified(&data);
        assert!(survive(&disk.at().join("killed"), KILLS, 100, Some(mode)) > 100, "there was load");
    }
}

#[test]
fn acked_survives_a_kill_on_ext4() {
    keeps_acks("ext4");
}

#[test]
fn acked_survives_a_kill_on_xfs() {
    keeps_acks("xfs");
}

#[test]
fn acked_survives_a_kill_on_tmpfs() {
    keeps_acks("tmpfs");
}

//! What is asked of the kernel when a ring is made, and what is left out where it is too old.

use std::io;

use io_uring::{IoUring, Parameters, Probe, opcode};

use super::sqe;

/// Places in the completion queue for each in the submission queue.
const COMPLETIONS_PER_ENTRY: u32 = 8;

/// The most files registered with a ring. Eight bytes of kernel memory each.
const FILES_REGISTERED_MAX: u32 = 16 * 1024;

/// Below this a table of registered files is not tried.
const FILES_REGISTERED_MIN: u32 = 64;

/// The most kernel threads for calls that may block (flushes, allocations, opens), for each ring. More do
/// not make a disk faster and take processors from shards.
const WORKERS_BOUNDED_MAX: u32 = 8;

/// The most kernel threads for calls that may block for ever; files make none.
const WORKERS_UNBOUNDED_MAX: u32 = 8;

/// The kernel has io_uring, but not all that is needed of it (Linux 5.15 has).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this kernel's io_uring lacks {}", names.join(", "))]
pub struct MissingFeatures {
    /// Operations and features that are missing.
    pub names: Vec<&'static str>,
}

/// A setup flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
    /// Go on with a batch after an entry that fails (Linux 5.18).
    SubmitAll,
    /// No interrupts for completions; they run with the next call (5.19).
    CoopTaskrun,
    /// The kernel says when completions are due (5.19).
    TellTaskrun,
    /// One thread submits (6.0).
    SingleIssuer,
    /// Completions run only when asked for, in one batch (6.1).
    DeferTaskrun,
    /// No array of indices into the submission queue (6.6).
    NoSqarray,
}

impl Flag {
    const fn name(self) -> &'static str {
        match self {
            Self::SubmitAll => "SUBMIT_ALL",
            Self::CoopTaskrun => "COOP_TASKRUN",
            Self::TellTaskrun => "TASKRUN_FLAG",
            Self::SingleIssuer => "SINGLE_ISSUER",
            Self::DeferTaskrun => "DEFER_TASKRUN",
            Self::NoSqarray => "NO_SQARRAY",
        }
    }
}

/// Rungs of the ladder.
#[cfg(test)]
pub(super) const RUNGS: usize = LADDER.len();

/// Sets of flags from the newest kernel's to the oldest's.
static LADDER: [&[Flag]; 6] = [
    &[Flag::SubmitAll, Flag::TellTaskrun, Flag::SingleIssuer, Flag::DeferTaskrun, Flag::NoSqarray],
    &[Flag::SubmitAll, Flag::TellTaskrun, Flag::SingleIssuer, Flag::DeferTaskrun],
    &[Flag::SubmitAll, Flag::CoopTaskrun, Flag::TellTaskrun, Flag::SingleIssuer],
    &[Flag::SubmitAll, Flag::CoopTaskrun, Flag::TellTaskrun],
    &[Flag::SubmitAll],
    &[],
];

/// What a ring was made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    flags: &'static [Flag],
    /// Places in the table of registered files.
    pub(super) files_max: u32,
    /// FTRUNCATE is there (Linux 6.9).
    pub(super) has_truncate: bool,
}

impl Setup {
    pub(super) fn flag_names(&self) -> Vec<&'static str> {
        self.flags.iter().map(|flag| flag.name()).collect()
    }

    /// Whether the submission queue's flags say when completions are due.
    pub(super) fn says_taskrun(&self) -> bool {
        self.flags.contains(&Flag::TellTaskrun)
    }
}

/// Makes a ring with all that the kernel has to offer, from a rung of the ladder on: 0 but in tests.
pub(super) fn build(entries: u32, rung: usize) -> io::Result<(IoUring, Setup)> {
    assert!(entries > 0, "a queue with room");
    let (ring, flags) = build_ladder(entries, &LADDER[rung..])?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    check(&probe, ring.params())?;
    let files_max = register_files(&ring);
    // Before Linux 5.15 the kernel chooses the number by itself.
    let mut workers = [WORKERS_BOUNDED_MAX, WORKERS_UNBOUNDED_MAX];
    let _kernel_chooses = ring.submitter().register_iowq_max_workers(&mut workers);
    let has_truncate = probe.is_supported(opcode::Ftruncate::CODE);
    Ok((ring, Setup { flags, files_max, has_truncate }))
}

fn build_ladder(
    entries: u32,
    ladder: &'static [&'static [Flag]],
) -> io::Result<(IoUring, &'static [Flag])> {
    let mut refused = io::Error::from_raw_os_error(libc::EINVAL);
    for &flags in ladder {
        let mut builder = IoUring::builder();
        builder
            .dontfork()
            .setup_clamp()
            .setup_cqsize(entries.saturating_mul(COMPLETIONS_PER_ENTRY));
        for flag in flags {
            match flag {
                Flag::SubmitAll => builder.setup_submit_all(),
                Flag::CoopTaskrun => builder.setup_coop_taskrun(),
                Flag::TellTaskrun => builder.setup_taskrun_flag(),
                Flag::SingleIssuer => builder.setup_single_issuer(),
                Flag::DeferTaskrun => builder.setup_defer_taskrun(),
                Flag::NoSqarray => builder.setup_no_sqarray(),
            };
        }
        match builder.build(entries) {
            Ok(ring) => return Ok((ring, flags)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = error,
            Err(error) => return Err(error),
        }
    }
    Err(refused)
}

fn check(probe: &Probe, params: &Parameters) -> io::Result<()> {
    let features = [
        ("FEAT_NODROP", params.is_feature_nodrop()),
        ("FEAT_SUBMIT_STABLE", params.is_feature_submit_stable()),
        ("FEAT_EXT_ARG", params.is_feature_ext_arg()),
    ];
    let features = features.iter().filter(|(_, is_there)| !is_there).map(|(name, _)| *name);
    let ops = sqe::REQUIRED.iter().filter(|(_, code)| !probe.is_supported(*code));
    let names: Vec<_> = features.chain(ops.map(|(name, _)| *name)).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::Unsupported, MissingFeatures { names }))
}

/// Reserves the table of registered files. Its size is bounded by the limit of descriptors.
fn register_files(ring: &IoUring) -> u32 {
    let mut count = FILES_REGISTERED_MAX;
    while count >= FILES_REGISTERED_MIN {
        if ring.submitter().register_files_sparse(count).is_ok() {
            return count;
        }
        count /= 2;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_an_operation_is_refused_by_its_name() {
        let ring = IoUring::new(1).expect("io_uring");
        let error = check(&Probe::new(), ring.params()).expect_err("an empty probe");
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("WRITE_FIXED, FSYNC"), "{error}");
    }
}

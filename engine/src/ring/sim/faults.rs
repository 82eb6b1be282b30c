//! What goes wrong, and when. Every decision is a pure function of a seed and of what it decides about,
//! so a decision never depends on how many were taken before it.

use std::path::Path;

use crate::command::Op;

/// Scrambles two numbers into one (the finaliser of splitmix64).
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let mut x = a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Which of the bytes and names that were not durable a power cut leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPlan {
    /// Nothing that was not durable is left.
    DropAll,
    /// All is left, also what was in flight.
    KeepAll,
    /// Each write is left whole or not at all; of each directory's changes and each file's lengths a prefix.
    Random(u64),
    /// As `Random`, and most writes are torn: some of their sectors are new, some old.
    Torn(u64),
}

impl CrashPlan {
    pub(super) fn keeps(self, key: u64) -> bool {
        match self {
            Self::DropAll => false,
            Self::KeepAll => true,
            Self::Random(seed) | Self::Torn(seed) => mix(mix(seed, 1), key) & 1 == 0,
        }
    }

    /// How many of `count` ordered changes are left.
    pub(super) fn prefix(self, key: u64, count: usize) -> usize {
        match self {
            Self::DropAll => 0,
            Self::KeepAll => count,
            Self::Random(seed) | Self::Torn(seed) => {
                (mix(mix(seed, 2), key) % (count as u64 + 1)) as usize
            }
        }
    }

    /// Whether sector `index` of the `count` sectors of write `write` is left.
    pub(super) fn keeps_sector(self, write: u64, index: u64, count: u64) -> bool {
        let Self::Torn(seed) = self else { return self.keeps(write) };
        let draw = mix(mix(seed, 3), write);
        let cut = 1 + mix(draw, 4) % (count - 1).max(1);
        match draw % 6 {
            0 => true,
            1 => false,
            2 => index < cut,
            3 => index >= cut,
            _ => mix(draw, index) & 1 == 0,
        }
    }
}

/// A kind of operation, for [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the operation of its name")]
pub enum OpKind {
    Any,
    Open,
    Close,
    Write,
    Read,
    Sync,
    Advise,
    Allocate,
    Truncate,
    Length,
    Rename,
    Unlink,
    MakeDir,
    RemoveDir,
    List,
}

impl OpKind {
    pub(super) fn of(op: &Op) -> Self {
        match op {
            Op::Open { .. } => Self::Open,
            Op::Close { .. } => Self::Close,
            Op::Write { .. } => Self::Write,
            Op::Read { .. } => Self::Read,
            Op::Sync { .. } => Self::Sync,
            Op::Advise { .. } => Self::Advise,
            Op::Allocate { .. } => Self::Allocate,
            Op::Truncate { .. } => Self::Truncate,
            Op::Length { .. } => Self::Length,
            Op::Rename { .. } => Self::Rename,
            Op::Unlink { .. } => Self::Unlink,
            Op::MakeDir { .. } => Self::MakeDir,
            Op::RemoveDir { .. } => Self::RemoveDir,
            Op::List { .. } => Self::List,
        }
    }
}

/// Which of the matching operations a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Only the n-th from now; the next one is 1.
    Nth(u64),
    /// The n-th from now and all after it.
    From(u64),
    /// One in so many, drawn from the disk's seed.
    OneIn(u64),
}

/// What a fault does to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It fails with this error number. With `landed` its effect is there all the same, as that of a
    /// finished and unflushed operation; of a sync: everything became durable. Without, it had no
    /// effect; and bytes that a failed sync should have flushed are never flushed by a later one, as in
    /// Linux's page cache.
    Fail {
        /// Such as `libc::EIO`.
        errno: i32,
        /// Whether it took effect.
        landed: bool,
    },
    /// It takes so many nanoseconds longer.
    Delay {
        /// How much longer.
        ns: u64,
    },
}

/// One rule of what goes wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Operations of this kind,
    pub kind: OpKind,
    /// on a path with this end (as text; the old path of a rename; for an open file: where it was opened),
    pub path_suffix: String,
    /// which of them,
    pub when: When,
    /// and what happens.
    pub effect: Effect,
}

impl Fault {
    /// The `n`-th (from 1) matching operation fails with `errno` and has no effect.
    pub fn nth(kind: OpKind, path_suffix: &str, n: u64, errno: i32) -> Self {
        let effect = Effect::Fail { errno, landed: false };
        Self { kind, path_suffix: path_suffix.to_owned(), when: When::Nth(n), effect }
    }

    /// The same fault, but failed operations took effect.
    #[must_use]
    pub fn landed(mut self) -> Self {
        if let Effect::Fail { landed, .. } = &mut self.effect {
            *landed = true;
        }
        self
    }

    /// The same fault at other times.
    #[must_use]
    pub fn when(self, when: When) -> Self {
        Self { when, ..self }
    }
}

/// The rules in force, in order; the first that hits decides.
#[derive(Clone, Default)]
pub(super) struct Faults {
    rules: Vec<(Fault, u64)>,
    pub(super) hits: u64,
}

impl Faults {
    pub(super) fn inject(&mut self, fault: Fault) {
        self.rules.push((fault, 0));
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// What happens to operation number `order`, drawn with `seed`.
    pub(super) fn hit(
        &mut self,
        kind: OpKind,
        path: &Path,
        seed: u64,
        order: u64,
    ) -> Option<Effect> {
        let path = path.to_string_lossy();
        let mut effect = None;
        for (rule, seen) in &mut self.rules {
            let matches = (rule.kind == OpKind::Any || rule.kind == kind)
                && path.ends_with(&*rule.path_suffix);
            if !matches {
                continue;
            }
            *seen += 1;
            let hit = match rule.when {
                When::Nth(n) => *seen == n,
                When::From(n) => *seen >= n,
                When::OneIn(n) => mix(mix(seed, 5), order).is_multiple_of(n),
            };
            if hit && effect.is_none() {
                effect = Some(rule.effect);
                self.hits += 1;
            }
        }
        effect
    }
}

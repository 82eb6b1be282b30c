//! Deliberate defects, each of which the simulator must find. Outside of tests every question is answered "no" by
//! the compiler.

/// A mistake that would lose or invent acknowledged batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// Recovery takes groups of older epochs for its own.
    ReplayStaleGroups,
    /// A checkpoint lets groups go before their bytes are flushed.
    FreeBeforeFlush,
    /// A group that landed is acknowledged although the one before it has not.
    AckOutOfOrder,
    /// Recovery overlooks the last group of the ring.
    LoseRingEnd,
    /// Recovery lays bytes over segments that a truncation voided.
    SkipIgnoreRecords,
    /// A padded tail is not remembered: the next journal entry does not carry its block.
    ForgetPadding,
    /// An ack does not wait for the segment's directory entry.
    AckBeforeEntry,
    /// A flush counts what was written after it had begun.
    CountLaterWrites,
    /// A plain write of blocks counts as durable.
    AckPlainWrites,
    /// The landed successor of a torn group counts.
    AcceptSuccessor,
    /// A deletion is acknowledged before the log's start is durable.
    AckDeletionEarly,
    /// A compacted segment takes its place before it is flushed.
    SwapBeforeFlush,
    /// Recovery lays journaled bytes over a segment that was compacted since.
    LayOverCompacted,
    /// A reader's mark is not held against the cuts since.
    ForgetCuts,
    /// A reader's epoch is not held against the log's.
    ForgetEpochs,
    /// A truncation does not wait for the reads under way, and they do not look whether there was one.
    CutUnderReaders,
}

#[cfg(test)]
thread_local! {
    static ON: std::cell::Cell<Option<Defect>> = const { std::cell::Cell::new(None) };
}

/// Whether the engine is to make this mistake.
#[cfg(test)]
pub(crate) fn is(defect: Defect) -> bool {
    ON.get() == Some(defect)
}

/// Whether the engine is to make this mistake: never.
#[cfg(not(test))]
pub(crate) const fn is(_: Defect) -> bool {
    false
}

/// Runs `body` with the defect on.
#[cfg(test)]
pub(crate) fn with<T>(defect: Defect, body: impl FnOnce() -> T) -> T {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            ON.set(None);
        }
    }
    let _off = Off;
    ON.set(Some(defect));
    body()
}

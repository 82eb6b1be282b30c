#![doc = include_str!("limits.md")]

/// Largest batch that is accepted, in bytes, header included. A configuration may lower it.
pub const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Largest record that is accepted, in bytes as encoded: what is left of the largest batch beside its
/// header.
pub const RECORD_BYTES_MAX: usize = BATCH_BYTES_MAX - 64;

/// Most records in one accepted batch. A compressed batch states its count without showing that many
/// records, and every record takes an offset: this bounds what a few bytes can claim.
pub const BATCH_RECORDS_MAX: u32 = 4 * 1024 * 1024;

/// Most headers on one record.
pub const RECORD_HEADERS_MAX: u32 = 65_536;

/// Most bytes that one batch's records may have once decompressed, unless the caller says otherwise.
pub const DECOMPRESSED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Largest window a zstd frame may ask for, as a power of two: 128 MiB, which level 22 announces for
/// content of unknown size, as Kafka's clients write it.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;

const _: () = {
    assert!(BATCH_BYTES_MAX <= i32::MAX as usize, "a batch's length is a signed 32-bit number");
    assert!(BATCH_RECORDS_MAX <= i32::MAX as u32, "a record count is a signed 32-bit number");
    assert!(RECORD_BYTES_MAX < BATCH_BYTES_MAX);
    assert!(DECOMPRESSED_BYTES_MAX >= BATCH_BYTES_MAX, "whatever is accepted can be read back");
    assert!(1 << ZSTD_WINDOW_LOG_MAX <= DECOMPRESSED_BYTES_MAX);
};

// The shard.

/// Appends in flight per shard, from the client's call to its ack.
pub const REQUESTS_MAX: usize = 16_384;

/// Batches up to this many bytes are copied into the inbox; larger ones change hands.
pub const COPIED_BATCH_BYTES_MAX: usize = 4096;

/// Bytes of an inbox for copied batches: what a core's own cache holds.
pub const COPIED_BYTES_MAX: usize = 1024 * 1024;

/// Segment writes in flight per shard.
pub const WRITES_IN_FLIGHT_MAX: usize = 128;

/// Entries in one journal group.
pub const GROUP_ENTRIES_MAX: usize = 4096;

/// Bytes from which a second journal group goes out while one is in flight, however large that one is.
pub const GATHERED_BYTES_MAX: u64 = 256 * 1024;

/// Bytes of batches for which a shard is roused while it waits for a group anyway: taken in pieces, they are in
/// memory when the group ends, and each piece is worth the wake-up.
pub const PATIENCE_BYTES_MAX: u64 = 16 * 1024;

/// Bytes of one partition from which a second durable write goes out while one is in flight, however much that is.
pub const DIRECT_GATHER_BYTES: u64 = 512 * 1024;

/// Bytes from which a group of a partition that no other waits with goes straight to its segment: in the journal
/// its bytes would be written twice, and nobody would share its flush.
pub const DIRECT_ALONE_BYTES: u64 = 128 * 1024;

/// Segments of one partition in its tail: the active one, and those that wait to be sealed.
pub const TAIL_SEGMENTS_MAX: usize = 64;

/// Journaled bytes of one partition from which they are written back without waiting for a checkpoint. While more than
/// that are yet to be, its groups go to the journal, however large: they would wait behind them.
pub const WRITE_BACK_BYTES: u64 = 512 * 1024;

/// Bytes in flight of what is written back, from which no other such write begins, each of which is at most a chunk:
/// enough for a disk's bandwidth, and little to wait behind where a disk tells of no end before it has carried out all
/// it was given.
pub const WRITE_BACK_BYTES_IN_FLIGHT: u64 = 1024 * 1024;

/// Writes in flight of what is written back.
pub const WRITE_BACKS_IN_FLIGHT: usize = 32;

/// Memory of a shard beside its arena, for writes that free memory: two journal groups in flight, and padded tails.
pub const RESERVE_BYTES: usize = 3 * crate::buffers::CHUNK_BYTES_MAX;

/// Largest copy that joins small chunks into one write.
pub const COALESCED_BYTES_MAX: usize = 128 * 1024;

/// File flushes of a checkpoint in flight.
pub const CHECKPOINT_SYNCS_IN_FLIGHT: usize = 16;

/// Space that is readied at first, in bytes.
pub const PREPARE_BYTES_MIN: u64 = 64 * 1024;

/// Space that is readied at once at most, and that is to be ready ahead of a segment's bytes, in bytes.
pub const PREPARE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Space that a new segment gets at first at most, in bytes: acks wait for it.
pub const PREPARE_FIRST_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Time whose bytes a new segment gets ready at first, in milliseconds.
pub const PREPARE_AHEAD_MS: u64 = 250;

/// Space that is readied at once at most while other segments of the shard wait for theirs, in bytes.
pub const PREPARE_BYTES_SHARED: u64 = 512 * 1024;

/// Segments of a shard that are prepared at once.
pub const PREPARERS_MAX: usize = 8;

/// Zeros that are written of a segment in a millisecond at least, however few bytes come to it, in bytes.
pub const PREZERO_BYTES_PER_MS_MIN: u64 = 256 * 1024;

/// Zeros that are written before they are due, in bytes: what becomes due between two looks.
pub const PREZERO_BYTES_AT_ONCE: u64 = 2 * 1024 * 1024;

/// How often it is looked whether more zeros are due.
pub const PREZERO_LOOK_NS: u64 = 500_000;

/// Writes of zeros of a shard in flight, of one chunk each, while more segments want some than are prepared at once,
/// and nobody waits for them: the next group waits behind them.
pub const ZEROERS_MAX: usize = 1;

/// Writes of zeros in flight per segment that is being prepared.
pub const PREZERO_WRITES_IN_FLIGHT: usize = 2;

/// Time between two attempts to ready space on a full disk, in nanoseconds.
pub const FULL_RETRY_NS: u64 = 200_000_000;

/// Woken procedures polled in one turn.
pub const EXECUTOR_BUDGET: usize = 256;

/// Bytes between two noted batch boundaries of a segment.
pub const MARK_BYTES: u64 = 1024 * 1024;

/// Batches from this size on enter a segment's checksum by combination with their own, not byte by byte.
pub const COMBINE_FROM_BYTES: usize = 4096;

/// Bytes appended to a partition after which its recovery point is brought forward.
pub const RECOVERY_STRIDE_BYTES: u64 = 32 * 1024 * 1024;

/// Least time between two recovery points of a partition, in nanoseconds: each costs flushes, and what a device writes
/// in this time it reads in as much.
pub const RECOVERY_INTERVAL_NS: u64 = 1_000_000_000;

/// Journal groups older than this are written back even if the journal has room, in nanoseconds.
pub const CHECKPOINT_AGE_NS: u64 = 5_000_000_000;

/// Least time between two checkpoints for want of memory, in nanoseconds.
pub const PRESSURE_INTERVAL_NS: u64 = 5_000_000;

/// Memory of a shard that is taken before written bytes that nobody reads are given back, an eighth of the arena at
/// most: what appends, groups and write-back have under way, and no more than the last level of a processor's caches
/// holds.
pub const UNREAD_BYTES_MAX: usize = 16 << 20;

/// How long written bytes of a tail that was read stay in memory for the next reader, in nanoseconds.
pub const KEPT_FOR_READERS_NS: u64 = 10_000_000_000;

/// While more than [`UNREAD_BYTES_MAX`] is taken, all logs are gone through for what may go this often, in nanoseconds.
pub const SWEEP_INTERVAL_NS: u64 = 10_000_000_000;

/// Files kept aside for all but segments: journals, small files, the embedder's own.
pub const FILES_RESERVED: usize = 192;

/// Segment files a shard keeps open at least, however low the system's limit.
pub const FILES_MIN: usize = 16;

/// Segment files a shard keeps open to be read at least: a quarter of its files.
pub const READ_FILES_MIN: usize = 4;

/// Segment files a shard keeps open to be read at most. Opening one costs less than a read of the device, and each
/// holds memory of the kernel's.
pub const READ_FILES_MAX: usize = 1024;

/// Idle files closed at once.
pub const IDLE_CLOSED_AT_ONCE: usize = 64;

/// Size of a shard's submission queue; four times as many operations may be in flight.
pub const RING_ENTRIES: u32 = 256;

/// Partitions made, or closed, at once.
pub const CREATIONS_IN_FLIGHT: usize = 64;

/// Memory that recovery reads with, in bytes.
pub const RECOVERY_MEMORY_BYTES: usize = 64 * 1024 * 1024;

/// Time between two attempts to write the recovery points while another shard is at it, in nanoseconds.
pub const POINTS_RETRY_NS: u64 = 1_000_000;

/// Partitions recovered at once: so many flushes share the device's.
pub const RECOVERIES_IN_FLIGHT: usize = 64;

/// Partitions whose segments are read at once in a recovery, each [`READ_AHEAD`] chunks ahead.
pub const RECOVERY_READERS_MAX: usize = 8;

/// Segments without a seal that a shard reads as a whole at once.
pub const RESEALERS_MAX: usize = 1;

/// Bytes of an index that are read, and kept, at once.
pub const INDEX_BLOCK_BYTES: usize = 4096;

/// Memory of a shard for what lookups found in indexes, in bytes: a sixteenth of its arena, at least this much.
pub const LOOKUP_BYTES_MIN: usize = 256 * 1024;

/// And at most this much: the index blocks and batches of ten thousand segments that are looked into.
pub const LOOKUP_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes that a lookup reads of a segment at once, at most: an index interval as a rule, two of them by time.
pub const LOOKUP_READ_BYTES_MAX: usize = 64 * 1024;

/// Seals that a search by time reads at once.
pub const SEALS_IN_FLIGHT: usize = 32;

/// Fetches of a shard that have not ended, whether they wait or read: 100 MiB of memory beside the shard's budget if
/// all of them wait.
pub const FETCHES_MAX: usize = 65_536;

/// Most bytes one fetch is given, but for a batch that is larger: an answer is memory beside the shard's budget.
pub const FETCH_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes read at once to look at batches' headers: an index interval and a header behind it, in whole blocks.
pub const HEADER_READ_BYTES: u64 = 8192;

/// Places where a log's end was taken back that are told apart: older ones are told as if they had gone deeper.
pub const CUTS_KEPT_MAX: usize = 64;

/// Most bytes of data in a segment that is appended to: a last block that is padded, of the largest size there is,
/// still has positions. Kafka's own may be longer.
pub const SEGMENT_DATA_BYTES_MAX: u64 = i32::MAX as u64 - 64 * 1024;

/// Largest journal of a shard, in bytes. What lies behind is none of the engine's, and is not read.
pub const JOURNAL_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Most bytes that are read of any file but a segment or a journal. The longest is an index with an entry for every 64
/// bytes of the largest segment.
pub const SMALL_FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

const _: () = {
    let entries = (1 << 31) / 64;
    assert!(SMALL_FILE_BYTES_MAX >= 12 * entries, "every index can be read");
};

/// Reads in flight ahead of a scan, of one chunk each.
pub const READ_AHEAD: usize = 4;

/// Bytes that can lie behind a torn tail under `group`: the largest batch and all that can be in flight
/// behind its beginning. A constant of the format: recovery takes more for corruption.
pub const TORN_WINDOW_BYTES: u64 = (BATCH_BYTES_MAX + IN_FLIGHT_BYTES_MAX) as u64;

/// Bytes of one segment between the first unfinished write and the last one that may begin.
pub const SEGMENT_IN_FLIGHT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Bytes of one partition that can be on their way to its segment at once: the writes, the last of which
/// begins within the bound, and two journal groups.
const IN_FLIGHT_BYTES_MAX: usize =
    SEGMENT_IN_FLIGHT_BYTES_MAX as usize + 3 * crate::buffers::CHUNK_BYTES_MAX;

// Retention and compaction.

/// Time between two looks at what retention and compaction want done, in nanoseconds.
pub const KEEP_INTERVAL_NS: u64 = 30_000_000_000;

/// Deleted files of a shard that are being cut up and removed at once.
pub const REMOVERS_MAX: usize = 1;

/// A deleted file is cut shorter by so many bytes at a time: freeing a whole segment at once would hold up the file
/// system's journal, and every flush that waits for it. With `discard` among the mount's options it holds up all
/// writes too while the device discards: 11 ms for 64 MiB where this was chosen (`cargo bench --bench keep`).
pub const REMOVE_STEP_BYTES: u64 = 4 * 1024 * 1024;

/// Time between two attempts to remove a deleted file, or to complete a swap, in nanoseconds.
pub const KEEP_RETRY_NS: u64 = 1_000_000_000;

/// Times that a deleted file is tried to be removed, and a swap to be completed, before it is left to the next opening.
pub const REMOVE_ATTEMPTS_MAX: u32 = 3;

/// Bytes that a scrub reads at once: what an append may have to wait behind, a fraction of a millisecond.
pub const SCRUB_PIECE_BYTES: u64 = 256 * 1024;

/// Nanoseconds from the beginning of one scrub of a shard to that of the next, a day: reading all is worth no more than
/// that, since rot does not go away.
pub const SCRUB_INTERVAL_NS: u64 = 24 * 3600 * 1_000_000_000;

/// Nanoseconds until a scrub tries again that found no memory.
pub const SCRUB_RETRY_NS: u64 = 100_000_000;

/// Rotten segments that a shard remembers; all are counted.
pub const SCRUB_ROTTEN_MAX: usize = 1024;

/// Logs of a shard that are compacted at once.
pub const COMPACTORS_MAX: usize = 1;

/// Memory of the keys that one compaction knows, in bytes, beside the shard's own and only while it runs: a million
/// keys. With more, several compactions see the log through.
pub const COMPACTION_MAP_BYTES: usize = 32 * 1024 * 1024;

/// Bytes that a compaction reads and writes in a second.
pub const COMPACTION_BYTES_PER_SECOND: u64 = 64 * 1024 * 1024;

/// Bytes that a compaction deals with in one turn of the shard, or one batch.
pub const COMPACTION_PIECE_BYTES: u64 = 64 * 1024;

/// Producers, and aborted transactions, that a compaction keeps in mind.
pub const COMPACTION_TRANSACTIONS_MAX: usize = 65_536;

/// The last batch of a producer that has written nothing for so long need not be kept, in milliseconds: Kafka's
/// `producer.id.expiration.ms`.
pub const PRODUCER_KEPT_MS: i64 = 24 * 3600 * 1000;

// Servers inside a shard.

/// Sockets of a shard that are open at once; further connections are closed as they are accepted.
pub const SOCKETS_MAX: usize = 256 * 1024;

/// Connections of a listener that the ring has accepted and nobody has asked for. The kernel keeps further ones.
pub const ACCEPTED_WAITING_MAX: usize = 64;

/// The share of a shard's arena that bytes from sockets are received into, for all connections together: one part in
/// so many.
pub const RECEIVE_MEMORY_SHARE: usize = 16;

/// Time that the services of an engine that is closed are given to end, in milliseconds.
pub const SERVICE_STOP_MS: u64 = 5_000;

/// Pieces in a connection's send queue: buffers, ranges of a log.
pub const SEND_PIECES_MAX: usize = 64;

/// Bytes from which a piece of a send queue is not appended to any more.
pub const SEND_JOIN_BYTES: usize = 16 * 1024;

/// Bytes of a log that one step of a connection sends: the shard's turn is as long as copying them takes.
pub const SEND_STEP_BYTES: usize = 512 * 1024;

/// Bytes of a cold segment that are read at once, and kept together in memory.
pub const COLD_BLOCK_BYTES: usize = 256 * 1024;

/// The share of a shard's arena that blocks of cold segments are kept in: one part in so many.
pub const COLD_MEMORY_SHARE: usize = 16;

/// Reads of cold blocks in flight in a shard: a reader that is a day behind leaves the device to writers.
pub const COLD_READS_IN_FLIGHT: usize = 2;

/// Bytes of cold segments that a shard sends in a second to all its readers together, while writes are under way
/// without a pause. With writes for a quarter of the time it is four times as much, with none there is no bound.
pub const COLD_BYTES_PER_S: u64 = 64 * 1024 * 1024;

/// Blocks that were dropped from memory and are remembered, to tell what is read again.
pub const COLD_GHOSTS_MAX: usize = 4096;

/// Time within which what is read again is brought into the page cache, in nanoseconds.
pub const COLD_AGAIN_NS: u64 = 30_000_000_000;

/// Bytes of what a peer still sends that a connection being finished reads and throws away.
pub const FINISH_BYTES_MAX: usize = 16 * 1024 * 1024;

const _: () = {
    assert!(GATHERED_BYTES_MAX <= crate::buffers::CHUNK_BYTES_MAX as u64);
    assert!(DIRECT_GATHER_BYTES <= crate::buffers::CHUNK_BYTES_MAX as u64);
    assert!(COALESCED_BYTES_MAX <= crate::buffers::CHUNK_BYTES_MAX);
    assert!(GROUP_ENTRIES_MAX * 64 <= crate::buffers::CHUNK_BYTES_MAX);
    assert!(PREPARE_BYTES_MIN <= PREPARE_FIRST_BYTES_MAX);
    assert!(PREPARE_FIRST_BYTES_MAX <= PREPARE_BYTES_MAX);
    // A binary search through the largest index touches fewer blocks than stay in memory.
    assert!(LOOKUP_BYTES_MIN >= 32 * 2 * INDEX_BLOCK_BYTES && LOOKUP_BYTES_MIN <= LOOKUP_BYTES_MAX);
    assert!(READ_FILES_MIN < FILES_MIN && READ_FILES_MIN <= READ_FILES_MAX);
    assert!(COLD_BLOCK_BYTES <= crate::buffers::CHUNK_BYTES_MAX);
    assert!(FETCH_BYTES_MAX >= BATCH_BYTES_MAX);
    assert!(CUTS_KEPT_MAX > 1);
};

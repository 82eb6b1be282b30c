package peer;

import static peer.Common.*;

import java.io.File;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.message.LeaderChangeMessage;
import org.apache.kafka.common.record.internal.CompressionType;
import org.apache.kafka.common.record.internal.ControlRecordType;
import org.apache.kafka.common.record.internal.EndTransactionMarker;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.record.internal.SimpleRecord;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.server.common.RequestLocal;
import org.apache.kafka.server.util.KafkaScheduler;
import org.apache.kafka.storage.internals.checkpoint.CleanShutdownFileHandler;
import org.apache.kafka.storage.internals.checkpoint.OffsetCheckpointFile;
import org.apache.kafka.storage.internals.log.AppendOrigin;
import org.apache.kafka.storage.internals.log.Cleaner;
import org.apache.kafka.storage.internals.log.LogConfig;
import org.apache.kafka.storage.internals.log.LogSegment;
import org.apache.kafka.storage.internals.log.LogStartOffsetIncrementReason;
import org.apache.kafka.storage.internals.log.LogToClean;
import org.apache.kafka.storage.internals.log.SkimpyOffsetMap;
import org.apache.kafka.storage.internals.log.UnifiedLog;
import org.apache.kafka.storage.internals.log.VerificationGuard;
import org.apache.kafka.storage.internals.utils.Throttler;

/** Writes a data directory with Kafka's UnifiedLog: one partition for each thing that can be in a log. */
final class Writer {
    private final File data;
    private final boolean clean;
    private final KafkaScheduler scheduler = new KafkaScheduler(1);
    private final Map<String, UnifiedLog> logs = new LinkedHashMap<>();
    private final Random random = new Random(5);

    Writer(File data, boolean clean) {
        this.data = data;
        this.clean = clean;
        scheduler.startup();
    }

    void run(File lines) throws Exception {
        Files.createDirectories(data.toPath());
        for (CompressionType type : CompressionType.values()) codec(type);
        transactions();
        compacted();
        appendTime();
        epochs();
        start();
        noTimestamps();
        controls();
        create("empty-0", config());
        if (!clean) preallocated();
        for (UnifiedLog log : logs.values()) log.flush(true);
        if (clean) close(); else tear();
        KafkaPeer.list(data, lines);
    }

    private UnifiedLog create(String name, LogConfig config) throws IOException {
        File partition = new File(data, name);
        Files.createDirectory(partition.toPath());
        UnifiedLog log = open(partition, config, scheduler, new long[] {0, 0}, true);
        log.assignTopicId(Uuid.randomUuid());
        log.partitionMetadataFile().get().maybeFlush();
        logs.put(name, log);
        return log;
    }

    private SimpleRecord record(long nth) {
        byte[] key = nth % 5 == 3 ? null : ("key " + nth % 97).getBytes(StandardCharsets.UTF_8);
        byte[] value = null;
        if (nth % 11 != 7) {
            value = new byte[random.nextInt(nth % 50 == 0 ? 20_000 : 300)];
            for (int at = 0; at < value.length; at++) value[at] = (byte) ('a' + random.nextInt(26));
        }
        Header[] headers = new Header[(int) (nth % 3)];
        for (int at = 0; at < headers.length; at++) {
            byte[] text = at == 1 ? null : ("header of " + nth).getBytes(StandardCharsets.UTF_8);
            headers[at] = new RecordHeader("h" + at, text);
        }
        // Out of order, as the clocks of many producers are.
        return new SimpleRecord(NOW_MS + nth * 10 + random.nextInt(2_000) - 1_000, key, value, headers);
    }

    private SimpleRecord[] records(long from, int count) {
        SimpleRecord[] out = new SimpleRecord[count];
        for (int at = 0; at < count; at++) out[at] = record(from + at);
        return out;
    }

    private void fill(UnifiedLog log, Compression compression, int batches, int epoch) throws IOException {
        for (int nth = 0; nth < batches; nth++) {
            int count = 1 + random.nextInt(nth % 10 == 0 ? 150 : 30);
            log.appendAsLeader(MemoryRecords.withRecords(compression, records(log.logEndOffset(), count)), epoch);
        }
        log.updateHighWatermark(log.logEndOffset());
    }

    private void codec(CompressionType type) throws IOException {
        UnifiedLog log = create(type.name + "-0", config());
        fill(log, Compression.of(type).build(), 120, 0);
        ensure(type != CompressionType.NONE || log.numberOfSegments() > 3, "several segments");
    }

    /** Two producers whose transactions overlap, one commits and one aborts, over several segments. */
    private void transactions() throws IOException {
        UnifiedLog log = create("transactions-0", config());
        int[] sequence = new int[2];
        for (int round = 0; round < 30; round++) {
            for (int producer = 0; producer < 2; producer++) {
                SimpleRecord[] records = records(log.logEndOffset(), 1 + random.nextInt(40));
                log.appendAsLeader(MemoryRecords.withTransactionalRecords(Compression.of(CompressionType.LZ4).build(),
                    1000 + producer, (short) 3, sequence[producer], records), 1);
                sequence[producer] += records.length;
            }
            for (int producer = 0; producer < 2; producer++) mark(log, 1000 + producer, 3, producer == 0, 1);
        }
        log.updateHighWatermark(log.logEndOffset());
        ensure(log.numberOfSegments() > 1, "several segments");
    }

    private void mark(UnifiedLog log, long producer, int epoch, boolean commit, int leaderEpoch) throws IOException {
        ControlRecordType type = commit ? ControlRecordType.COMMIT : ControlRecordType.ABORT;
        MemoryRecords marker = MemoryRecords.withEndTransactionMarker(producer, (short) epoch,
            new EndTransactionMarker(type, 7));
        log.appendAsLeader(marker, leaderEpoch, AppendOrigin.COORDINATOR, RequestLocal.noCaching(),
            VerificationGuard.SENTINEL, (short) 1);
    }

    /** Cleaned twice, so that there are gaps, tombstones with a horizon, and batches without a record. */
    private void compacted() throws Exception {
        UnifiedLog log = create("compacted-0", config("cleanup.policy", "compact", "delete.retention.ms", "1000"));
        int sequence = 0;
        for (int round = 0; round < 150; round++) {
            Compression compression = Compression.of(CompressionType.values()[round % 5]).build();
            SimpleRecord[] records = new SimpleRecord[10];
            for (int at = 0; at < records.length; at++) {
                byte[] key = ("key " + random.nextInt(60)).getBytes(StandardCharsets.UTF_8);
                byte[] value = random.nextInt(6) == 0 ? null : ("value " + "x".repeat(random.nextInt(900)) + round)
                    .getBytes(StandardCharsets.UTF_8);
                records[at] = new SimpleRecord(NOW_MS + round, key, value);
            }
            boolean transactional = round % 4 == 0;
            long producer = 2000 + round % 2;
            log.appendAsLeader(transactional
                ? MemoryRecords.withTransactionalRecords(compression, producer, (short) 0, sequence, records)
                : MemoryRecords.withRecords(compression, records), 2);
            if (transactional) {
                mark(log, producer, 0, round % 8 == 0, 2);
                sequence += records.length;
            }
        }
        // A producer's last batch stays when its records are gone: the broker needs its sequence number.
        log.appendAsLeader(MemoryRecords.withIdempotentRecords(Compression.NONE, 3000, (short) 1, 0,
            new SimpleRecord(NOW_MS, "key 1".getBytes(), "gone".getBytes())), 2);
        log.appendAsLeader(MemoryRecords.withRecords(Compression.NONE,
            new SimpleRecord(NOW_MS, "key 1".getBytes(), "newest".getBytes())), 2);
        log.roll();
        log.appendAsLeader(MemoryRecords.withRecords(Compression.NONE, record(1)), 2);
        log.updateHighWatermark(log.logEndOffset());
        long now = Time.SYSTEM.milliseconds();
        for (long at : new long[] {now, now + 10_000, now + 20_000}) {
            Cleaner cleaner = new Cleaner(0, new SkimpyOffsetMap(1 << 20), 1 << 20, 1 << 20, 0.9,
                new Throttler(Double.MAX_VALUE, 300, "cleaner", "entries", Time.SYSTEM), Time.SYSTEM, name -> { });
            cleaner.doClean(new LogToClean(log, 0, log.activeSegment().baseOffset(), false), at);
        }
        boolean horizon = false;
        boolean empty = false;
        for (LogSegment segment : log.logSegments()) {
            for (RecordBatch batch : segment.log().batches()) {
                horizon |= batch.deleteHorizonMs().isPresent();
                empty |= batch.countOrNull() == 0;
            }
        }
        ensure(horizon && empty, "the cleaner left horizons (%s) and batches without a record (%s)", horizon, empty);
    }

    private void appendTime() throws IOException {
        UnifiedLog log = create("appendtime-0", config("message.timestamp.type", "LogAppendTime"));
        fill(log, Compression.of(CompressionType.ZSTD).build(), 20, 0);
        fill(log, Compression.NONE, 20, 0);
    }

    private void epochs() throws IOException {
        UnifiedLog log = create("epochs-0", config());
        for (int epoch : new int[] {0, 1, 5, 6, 40}) {
            log.assignEpochStartOffset(epoch, log.logEndOffset());
            fill(log, Compression.NONE, 15, epoch);
        }
    }

    /** The log begins within a batch of its second segment; the first one is gone. */
    private void start() throws IOException {
        UnifiedLog log = create("start-0", config());
        fill(log, Compression.of(CompressionType.GZIP).build(), 10, 0);
        fill(log, Compression.NONE, 60, 0);
        long second = log.logSegments().get(1).baseOffset();
        log.maybeIncrementLogStartOffset(second + 5, LogStartOffsetIncrementReason.ClientRecordDeletion);
        log.deleteOldSegments();
        ensure(log.logSegments().get(0).baseOffset() == second, "the first segment is gone");
    }

    private void noTimestamps() throws IOException {
        UnifiedLog log = create("notime-0", config());
        for (int nth = 0; nth < 300; nth++) {
            log.appendAsLeader(MemoryRecords.withRecords(Compression.NONE,
                new SimpleRecord(RecordBatch.NO_TIMESTAMP, null, new byte[500])), 0);
        }
        log.updateHighWatermark(log.logEndOffset());
    }

    /** What Raft writes into its log beside records: a new leader. */
    private void controls() throws IOException {
        UnifiedLog log = create("controls-0", config());
        LeaderChangeMessage leader = new LeaderChangeMessage().setLeaderId(4);
        log.appendAsFollower(MemoryRecords.withLeaderChangeMessage(0, NOW_MS, 1, ByteBuffer.allocate(256), leader), 1);
        fill(log, Compression.NONE, 5, 1);
        long at = log.logEndOffset();
        log.appendAsFollower(MemoryRecords.withLeaderChangeMessage(at, NOW_MS, 2, ByteBuffer.allocate(256), leader), 2);
    }

    private void preallocated() throws IOException {
        UnifiedLog log = create("preallocated-0", config("preallocate", "true"));
        fill(log, Compression.NONE, 40, 0);
    }

    private void close() throws Exception {
        Map<TopicPartition, Long> points = new HashMap<>();
        Map<TopicPartition, Long> starts = new HashMap<>();
        for (UnifiedLog log : logs.values()) {
            points.put(log.topicPartition(), log.logEndOffset());
            if (log.logStartOffset() > log.logSegments().get(0).baseOffset()) {
                starts.put(log.topicPartition(), log.logStartOffset());
            }
            log.close();
        }
        new OffsetCheckpointFile(new File(data, "recovery-point-offset-checkpoint"), null).write(points);
        new OffsetCheckpointFile(new File(data, "log-start-offset-checkpoint"), null).write(starts);
        new OffsetCheckpointFile(new File(data, "replication-offset-checkpoint"), null).write(points);
        new OffsetCheckpointFile(new File(data, "cleaner-offset-checkpoint"), null).write(Map.of());
        new CleanShutdownFileHandler(data.getPath()).write(5);
        Files.writeString(data.toPath().resolve("meta.properties"), "version=1\nnode.id=1\n");
    }

    /** The power went: recovery points lag behind, one log ends within a batch, another with bytes of nothing. */
    private void tear() throws Exception {
        Map<TopicPartition, Long> points = new HashMap<>();
        Map<TopicPartition, Long> starts = new HashMap<>();
        for (UnifiedLog log : logs.values()) {
            points.put(log.topicPartition(), log.activeSegment().baseOffset());
            starts.put(log.topicPartition(), log.logStartOffset());
        }
        new OffsetCheckpointFile(new File(data, "recovery-point-offset-checkpoint"), null).write(points);
        new OffsetCheckpointFile(new File(data, "log-start-offset-checkpoint"), null).write(starts);
        File torn = logs.get("snappy-0").activeSegment().log().file();
        try (RandomAccessFile file = new RandomAccessFile(torn, "rw")) {
            file.setLength(file.length() - 9);
        }
        File noisy = logs.get("lz4-0").activeSegment().log().file();
        byte[] noise = new byte[777];
        random.nextBytes(noise);
        Files.write(noisy.toPath(), noise, java.nio.file.StandardOpenOption.APPEND);
    }
}

package peer;

import static peer.Common.*;

import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.server.storage.log.FetchIsolation;
import org.apache.kafka.server.util.KafkaScheduler;
import org.apache.kafka.storage.internals.checkpoint.CleanShutdownFileHandler;
import org.apache.kafka.storage.internals.checkpoint.OffsetCheckpointFile;
import org.apache.kafka.storage.internals.log.LogSegment;
import org.apache.kafka.storage.internals.log.TimestampOffset;
import org.apache.kafka.storage.internals.log.UnifiedLog;

/** What Kafka's loader looks at, and more; then Kafka takes the directory over and reads it whole. */
final class Check {
    private final File data;
    private final Map<String, List<Line>> expected;
    private final KafkaScheduler scheduler = new KafkaScheduler(1);
    private long records;
    private long segments;

    Check(File data, Map<String, List<Line>> expected) {
        this.data = data;
        this.expected = expected;
        scheduler.startup();
    }

    void run() throws Exception {
        boolean closed = new File(data, "ringmain.clean").exists();
        // The engine makes no such mark: Kafka reads the active segments and makes their indexes anew.
        boolean isClean = new CleanShutdownFileHandler(data.getPath()).exists();
        File pointsFile = new File(data, "recovery-point-offset-checkpoint");
        Map<TopicPartition, Long> points = new OffsetCheckpointFile(pointsFile, null).read();
        Map<TopicPartition, Long> starts = starts(data);
        for (File partition : partitions(data)) {
            List<Line> lines = expected.getOrDefault(partition.getName(), List.of());
            TopicPartition name = UnifiedLog.parseTopicPartitionName(partition);
            for (File segment : segments(partition)) segment(segment, lines);
            Map<File, byte[]> before = indexes(partition);
            long start = starts.getOrDefault(name, 0L);
            ensure(!closed || points.containsKey(name), "%s has no recovery point", name);
            long[] at = {start, points.getOrDefault(name, 0L)};
            UnifiedLog log = open(partition, config(), scheduler, at, isClean);
            taken(log, lines);
            log.close();
            Map<File, byte[]> after = indexes(partition);
            // Where a log had no file, Kafka makes its first segment.
            for (File file : before.keySet()) {
                ensure(Arrays.equals(before.get(file), after.get(file)), "Kafka changed %s", file);
            }
        }
        ensure(partitions(data).size() >= expected.size(), "partitions are missing");
        System.out.printf("%s: %d partitions, %d segments, %d records as Kafka wants them%n", data.getName(),
            partitions(data).size(), segments, records);
    }

    private static Map<File, byte[]> indexes(File partition) throws IOException {
        Map<File, byte[]> out = new TreeMap<>();
        File[] found = partition.listFiles(file -> file.getName().matches(".*\\.(time)?index"));
        for (File file : found) out.put(file, Files.readAllBytes(file.toPath()));
        return out;
    }

    /** One segment, opened as a broker opens it. Every offset and many times are looked up through its indexes. */
    private void segment(File file, List<Line> lines) throws IOException {
        segments++;
        long base = UnifiedLog.offsetFromFile(file);
        File dir = file.getParentFile();
        ensure(new File(dir, file.getName().replace(".log", ".index")).length() % 8 == 0, "%s: .index", file);
        ensure(new File(dir, file.getName().replace(".log", ".timeindex")).length() % 12 == 0, "%s: .timeindex", file);
        try (LogSegment segment = LogSegment.open(dir, base, config(), Time.SYSTEM, true, 0, false, "")) {
            segment.sanityCheck(false);
            segment.offsetIndex().sanityCheck();
            segment.timeIndex().sanityCheck();
            TimestampOffset newest = TimestampOffset.UNKNOWN;
            TreeMap<Long, Integer> positions = new TreeMap<>();
            List<Record> all = new ArrayList<>();
            int position = 0;
            for (RecordBatch batch : segment.log().batches()) {
                batch.ensureValid();
                if (batch.maxTimestamp() > newest.timestamp()) {
                    newest = new TimestampOffset(batch.maxTimestamp(), batch.lastOffset());
                }
                positions.put(batch.lastOffset(), position);
                position += batch.sizeInBytes();
                for (Record record : batch) all.add(record);
            }
            same((long) position, file.length(), "bytes of batches in %s", file);
            if (newest.timestamp() >= 0) {
                same(newest, segment.timeIndex().lastEntry(), "the last entry of the time index of %s", file);
            } else {
                ensure(segment.timeIndex().entries() == 0, "times in %s", file);
            }
            int due = position / (16 * 1024);
            ensure(segment.offsetIndex().entries() >= Math.min(due, positions.size() / 4), "%s: a thin index", file);
            for (Record record : all) {
                int found = segment.translateOffset(record.offset()).position;
                same(positions.ceilingEntry(record.offset()).getValue(), found, "%d in %s", record.offset(), file);
            }
            for (int at = 0; at < all.size(); at += 1 + all.size() / 50) {
                long time = all.get(at).timestamp();
                Optional<Record> first = all.stream().filter(record -> record.timestamp() >= time).findFirst();
                long found = segment.findOffsetByTimestamp(time, base).get().offset;
                if (time >= 0) same(first.get().offset(), found, "time %d in %s", time, file);
            }
        }
    }

    /** Reads the whole log as a broker serves it, and compares. */
    private void taken(UnifiedLog log, List<Line> lines) throws IOException {
        String name = log.dir().getName();
        List<Line> found = new ArrayList<>();
        long next = log.logStartOffset();
        while (next < log.logEndOffset()) {
            long at = next;
            for (RecordBatch batch : log.read(next, READ_BYTES, FetchIsolation.LOG_END, true).records.batches()) {
                batch.ensureValid();
                for (Record record : batch) {
                    if (record.offset() >= log.logStartOffset()) found.add(Line.of(name, batch, record));
                }
                next = batch.nextOffset();
            }
            ensure(next > at, "%s: nothing to read at %d, the log ends at %d", name, at, log.logEndOffset());
        }
        compare(name, lines, found);
        records += found.size();
        // Of a segment without timestamps Kafka says that its newest record is as old as the file.
        if (lines.stream().anyMatch(line -> line.timestamp() < 0)) return;
        for (int at = 0; at < lines.size(); at += 1 + lines.size() / 100) {
            long time = lines.get(at).timestamp();
            long first = lines.stream().filter(line -> line.timestamp() >= time).findFirst().get().offset();
            long asked = log.fetchOffsetByTimestamp(time, Optional.empty()).timestampAndOffsetOpt().get().offset;
            same(first, asked, "time %d in %s", time, name);
        }
    }
}

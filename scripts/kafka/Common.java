package peer;

import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.CorruptRecordException;
import org.apache.kafka.common.record.internal.FileRecords;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.server.util.KafkaScheduler;
import org.apache.kafka.storage.internals.checkpoint.OffsetCheckpointFile;
import org.apache.kafka.storage.internals.log.LogConfig;
import org.apache.kafka.storage.internals.log.LogDirFailureChannel;
import org.apache.kafka.storage.internals.log.ProducerStateManagerConfig;
import org.apache.kafka.storage.internals.log.UnifiedLog;
import org.apache.kafka.storage.log.metrics.BrokerTopicStats;

/** What the parts of this program share. */
final class Common {
    static final HexFormat HEX = HexFormat.of();
    static final long NOW_MS = 1_700_000_000_000L;
    static final int SEGMENT_BYTES = 128 << 10;
    static final int READ_BYTES = 64 << 10;

    static String hex(byte[] bytes) {
        return bytes == null ? null : HEX.formatHex(bytes);
    }

    static String hex(ByteBuffer bytes) {
        if (bytes == null) return null;
        byte[] copy = new byte[bytes.remaining()];
        bytes.duplicate().get(copy);
        return HEX.formatHex(copy);
    }

    static void ensure(boolean holds, String what, Object... details) {
        if (!holds) throw new IllegalStateException(String.format(what, details));
    }

    static void same(Object expected, Object found, String what, Object... details) {
        if (!expected.equals(found)) {
            throw new IllegalStateException(
                String.format(what, details) + "\n  expected " + expected + "\n  found    " + found);
        }
    }

    static List<File> partitions(File data) {
        File[] found = data.listFiles(file -> file.isDirectory() && file.getName().matches(".+-\\d+"));
        Arrays.sort(found);
        return List.of(found);
    }

    static List<File> segments(File partition) {
        File[] found = partition.listFiles(file -> file.getName().endsWith(".log"));
        Arrays.sort(found);
        return List.of(found);
    }

    /** A segment's batches up to the first that is none: where Kafka's recovery, too, would cut. */
    static List<RecordBatch> valid(FileRecords records) {
        List<RecordBatch> out = new ArrayList<>();
        try {
            for (RecordBatch batch : records.batches()) {
                batch.ensureValid();
                out.add(batch);
            }
        } catch (CorruptRecordException end) {
            return out;
        }
        return out;
    }

    static Map<TopicPartition, Long> starts(File data) throws IOException {
        File file = new File(data, "log-start-offset-checkpoint");
        return file.exists() ? new OffsetCheckpointFile(file, null).read() : Map.of();
    }

    static LogConfig config(Object... settings) {
        Properties properties = new Properties();
        properties.put("internal.segment.bytes", Integer.toString(SEGMENT_BYTES));
        properties.put("segment.index.bytes", Integer.toString(1 << 20));
        properties.put("file.delete.delay.ms", "0");
        properties.put("retention.ms", "-1");
        properties.put("message.timestamp.after.max.ms", Long.toString(Long.MAX_VALUE));
        for (int at = 0; at < settings.length; at += 2) properties.put(settings[at], settings[at + 1]);
        return new LogConfig(properties);
    }

    static UnifiedLog open(File partition, LogConfig config, KafkaScheduler scheduler, long[] points,
                                   boolean clean) throws IOException {
        return UnifiedLog.create(partition, config, points[0], points[1], scheduler, new BrokerTopicStats(),
            Time.SYSTEM, 300_000, new ProducerStateManagerConfig(86_400_000, false), 600_000,
            new LogDirFailureChannel(10), clean, Optional.empty());
    }

    static void compare(String name, List<Line> expected, List<Line> found) {
        for (int at = 0; at < Math.min(expected.size(), found.size()); at++) {
            same(expected.get(at), found.get(at), "record %d of %s", at, name);
        }
        same(expected.size(), found.size(), "records of %s", name);
    }
}

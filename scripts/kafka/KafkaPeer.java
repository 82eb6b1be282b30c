// Kafka's own code on the other side of scripts/check-kafka-format: it writes directories for the engine to read, and
// reads, checks and takes over directories that the engine wrote. No broker runs: these are the classes a broker keeps
// its logs with (kafka-storage, kafka-clients).
//
//   KafkaPeer write DATA LINES          a directory as a clean shutdown leaves it
//   KafkaPeer write-unclean DATA LINES  one as a killed broker leaves it
//   KafkaPeer list DATA LINES           what Kafka reads in a directory, line by line
//   KafkaPeer check DATA LINES          Kafka's checks of a directory, and its content against the lines
//   KafkaPeer dumped DUMP LINES         what DumpLogSegments printed, against the lines
//   KafkaPeer ports                     two ports of loopback that are free
//   KafkaPeer produce ADDRESS           records to a broker, of every kind a producer can make
//
// A line is a record as JSON; keys, values and headers in hexadecimal.

package peer;

import static peer.Common.*;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.PrintWriter;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.record.internal.FileRecords;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.storage.internals.log.UnifiedLog;

public final class KafkaPeer {
    public static void main(String[] arguments) throws Exception {
        String what = arguments[0];
        File data = new File(arguments.length > 1 ? arguments[1] : ".");
        File lines = arguments.length > 2 ? new File(arguments[2]) : null;
        switch (what) {
            case "write" -> new Writer(data, true).run(lines);
            case "write-unclean" -> new Writer(data, false).run(lines);
            case "list" -> list(data, lines);
            case "check" -> new Check(data, read(lines)).run();
            case "dumped" -> Dumped.check(data.toPath(), read(lines));
            case "ports" -> ports();
            case "produce" -> new Produce(arguments[1]).run();
            default -> throw new IllegalArgumentException(what);
        }
        // A killed broker closes nothing: its logs stay as they are, and so do a scheduler's threads.
        Runtime.getRuntime().halt(0);
    }

    private static Map<String, List<Line>> read(File lines) throws IOException {
        ObjectMapper mapper = new ObjectMapper();
        Map<String, List<Line>> out = new TreeMap<>();
        try (BufferedReader reader = Files.newBufferedReader(lines.toPath())) {
            for (String text = reader.readLine(); text != null; text = reader.readLine()) {
                Line line = mapper.readValue(text, Line.class);
                out.computeIfAbsent(line.partition(), name -> new ArrayList<>()).add(line);
            }
        }
        ensure(!out.isEmpty(), "%s is empty", lines);
        return out;
    }

    private static void ports() throws IOException {
        try (ServerSocket one = new ServerSocket(0, 1, InetAddress.getLoopbackAddress());
             ServerSocket other = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            System.out.println(one.getLocalPort() + " " + other.getLocalPort());
        }
    }

    /** What Kafka reads in a directory from each log's start on, without opening it as its own. */
    static void list(File data, File lines) throws Exception {
        ObjectMapper mapper = new ObjectMapper();
        Map<TopicPartition, Long> starts = starts(data);
        try (PrintWriter out = new PrintWriter(lines, StandardCharsets.UTF_8)) {
            for (File partition : partitions(data)) {
                long start = starts.getOrDefault(UnifiedLog.parseTopicPartitionName(partition), 0L);
                for (File segment : segments(partition)) {
                    try (FileRecords records = FileRecords.open(segment, false)) {
                        for (RecordBatch batch : valid(records)) {
                            for (Record record : batch) {
                                if (record.offset() < start) continue;
                                out.println(mapper.writeValueAsString(Line.of(partition.getName(), batch, record)));
                            }
                        }
                    }
                }
            }
        }
    }
}

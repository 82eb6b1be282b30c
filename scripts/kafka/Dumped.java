package peer;

import static peer.Common.*;

import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** What DumpLogSegments printed, held against what was written. */
final class Dumped {
    private static final Pattern DUMPED = Pattern.compile("\\| offset: (\\d+) (\\w+): (-?\\d+) keySize: (-?\\d+) "
        + "valueSize: (-?\\d+) sequence: (-?\\d+) headerKeys: \\[(.*?)]"
        + "(?: key: ([0-9a-f]*))?(?: payload: ([0-9a-f]*))?");

    /** The texts DumpLogSegments printed. What it prints to its error stream is a complaint. */
    static void check(Path dump, Map<String, List<Line>> expected) throws IOException {
        for (String name : List.of("sanity.err", "index.err")) {
            String text = Files.readString(dump.resolve(name));
            ensure(text.isEmpty(), "DumpLogSegments complained, %s:%n%s", name, text);
        }
        gaps(dump.resolve("log.err"), expected);
        for (String text : Files.readAllLines(dump.resolve("sanity.out"))) {
            boolean good = text.endsWith(" passed sanity check.") || text.endsWith(" is empty.");
            ensure(good || text.startsWith("Dumping "), "DumpLogSegments said: %s", text);
        }
        Map<String, Integer> next = new HashMap<>();
        String partition = null;
        long batches = 0;
        for (String text : Files.readAllLines(dump.resolve("log.out"))) {
            if (text.startsWith("Dumping ")) {
                partition = new File(text.substring(8)).getParentFile().getName();
            } else if (text.startsWith("baseOffset: ")) {
                ensure(text.endsWith(" isvalid: true"), "in %s: %s", partition, text);
                batches++;
            } else if (text.startsWith("|")) {
                List<Line> lines = expected.getOrDefault(partition, List.of());
                int at = next.getOrDefault(partition, 0);
                Matcher found = DUMPED.matcher(text);
                ensure(found.lookingAt(), "in %s: %s", partition, text);
                ensure(at < lines.size(), "one too many in %s: %s", partition, text);
                // A segment still has the records of its batches before the log's start.
                if (Long.parseLong(found.group(1)) < lines.get(0).offset()) continue;
                same(printed(lines.get(at)), found.group(), "record %d of %s", at, partition);
                next.put(partition, at + 1);
            } else {
                ensure(text.startsWith("Log starting offset: "), "DumpLogSegments said: %s", text);
            }
        }
        for (String name : expected.keySet()) {
            same(expected.get(name).size(), next.getOrDefault(name, 0), "records of %s", name);
        }
        System.out.printf("%d batches dumped as they were written%n", batches);
    }

    /** Each segment is told to begin behind -1; other gaps are those of the lines. */
    private static void gaps(Path file, Map<String, List<Line>> expected) throws IOException {
        String partition = null;
        for (String text : Files.readAllLines(file)) {
            if (text.startsWith("Non-consecutive offsets in ")) {
                partition = new File(text.substring(27)).getParentFile().getName();
                continue;
            }
            Matcher gap = Pattern.compile("  (-?\\d+) is followed by (\\d+)").matcher(text);
            ensure(gap.matches(), "DumpLogSegments complained: %s", text);
            long before = Long.parseLong(gap.group(1));
            long after = Long.parseLong(gap.group(2));
            boolean filled = expected.getOrDefault(partition, List.of()).stream()
                .anyMatch(line -> line.offset() > before && line.offset() < after);
            ensure(before == -1 || !filled, "%s: %s", partition, text);
        }
    }

    private static String printed(Line line) {
        StringBuilder out = new StringBuilder("| offset: " + line.offset());
        out.append(line.append_time() ? " LogAppendTime: " : " CreateTime: ").append(line.timestamp());
        out.append(" keySize: ").append(line.key() == null ? -1 : line.key().length() / 2);
        out.append(" valueSize: ").append(line.value() == null ? -1 : line.value().length() / 2);
        out.append(" sequence: ").append(line.sequence()).append(" headerKeys: [");
        List<String> keys = line.headers().stream()
            .map(header -> new String(HEX.parseHex(header.get(0)), StandardCharsets.UTF_8)).toList();
        out.append(String.join(",", keys)).append("]");
        if (line.key() != null && !line.control()) out.append(" key: ").append(line.key());
        if (line.value() != null && !line.control()) out.append(" payload: ").append(line.value());
        return out.toString();
    }
}

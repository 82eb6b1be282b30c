package peer;

import static peer.Common.*;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;

/** A record as it was written, or as it was found. */
record Line(String partition, long offset, long timestamp, String key, String value, List<List<String>> headers,
            String codec, boolean append_time, boolean transactional, boolean control, long producer_id,
            short producer_epoch, int sequence, int epoch) {
    static Line of(String partition, RecordBatch batch, Record record) {
        List<List<String>> headers = new ArrayList<>();
        for (Header header : record.headers()) {
            headers.add(Arrays.asList(hex(header.key().getBytes(StandardCharsets.UTF_8)), hex(header.value())));
        }
        return new Line(partition, record.offset(), record.timestamp(), hex(record.key()), hex(record.value()),
            headers, batch.compressionType().name, batch.timestampType() == TimestampType.LOG_APPEND_TIME,
            batch.isTransactional(), batch.isControlBatch(), batch.producerId(), batch.producerEpoch(),
            record.sequence(), batch.partitionLeaderEpoch());
    }
}

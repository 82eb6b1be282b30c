package peer;

import static peer.Common.*;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.internal.CompressionType;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** A producer's records of every kind, to a broker of one node. */
record Produce(String address) {
    void run() throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", address))) {
            List<NewTopic> topics = new ArrayList<>();
            for (CompressionType type : CompressionType.values()) {
                topics.add(new NewTopic("broker-" + type.name, 2, (short) 1)
                    .configs(Map.of("segment.bytes", "1048576")));
            }
            topics.add(new NewTopic("broker-transactions", 1, (short) 1));
            topics.add(new NewTopic("broker-appendtime", 1, (short) 1)
                .configs(Map.of("message.timestamp.type", "LogAppendTime")));
            admin.createTopics(topics).all().get();
        }
        for (CompressionType type : CompressionType.values()) produce("broker-" + type.name, type.name, null);
        produce("broker-appendtime", "lz4", null);
        produce("broker-transactions", "zstd", "a transaction");
    }

    private void produce(String topic, String compression, String transaction) throws Exception {
        Map<String, Object> settings = new HashMap<>(Map.of("bootstrap.servers", address,
            "compression.type", compression,
            "request.timeout.ms", "10000", "delivery.timeout.ms", "60000",
            "linger.ms", "5", "batch.size", "40000", "max.request.size", "1000000"));
        if (transaction != null) settings.put("transactional.id", transaction);
        Random random = new Random(topic.hashCode());
        ByteArraySerializer bytes = new ByteArraySerializer();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings, bytes, bytes)) {
            if (transaction != null) producer.initTransactions();
            for (int round = 0; round < 10; round++) {
                if (transaction != null) producer.beginTransaction();
                List<Future<RecordMetadata>> sent = new ArrayList<>();
                for (int nth = 0; nth < 300; nth++) {
                    byte[] key = nth % 7 == 0 ? null : ("key " + nth).getBytes(StandardCharsets.UTF_8);
                    String text = ("v" + random.nextInt()).repeat(random.nextInt(300));
                    byte[] value = nth % 13 == 0 ? null : text.getBytes(StandardCharsets.UTF_8);
                    List<Header> headers = nth % 3 == 0 ? List.of(new RecordHeader("origin", value)) : List.of();
                    long time = NOW_MS + random.nextInt(100_000);
                    sent.add(producer.send(new ProducerRecord<>(topic, null, time, key, value, headers)));
                }
                producer.flush();
                for (Future<RecordMetadata> future : sent) future.get();
                if (transaction != null && round % 3 == 1) producer.abortTransaction();
                else if (transaction != null) producer.commitTransaction();
            }
        }
    }
}

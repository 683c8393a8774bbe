package conformance;

import static conformance.Target.bytes;
import static conformance.Target.text;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.header.Header;

/** Records come back as they went in, whatever compresses them. */
final class CodecBehaviours {
    private static final int RECORDS = 200;
    private static final long FIRST_TIMESTAMP = 1_600_000_000_000L;

    static void add(Suite suite) {
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            suite.add("codec." + codec, target -> roundTrip(target, codec, Target.KEEP));
        }
        suite.add("topic.compression_type", target -> {
            for (String codec : List.of("uncompressed", "gzip", "zstd", "producer")) {
                roundTrip(target, "lz4", Map.of("compression.type", codec, "retention.ms", "-1"));
            }
        });
    }

    private static void roundTrip(Target target, String codec, Map<String, String> configs) throws Exception {
        String topic = target.newTopic("codec-" + codec, 1, configs);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (var producer = target.producer("compression.type", codec, "linger.ms", 50)) {
            for (int i = 0; i < RECORDS; i++) {
                sent.add(producer.send(record(topic, i)));
            }
        }
        for (int i = 0; i < RECORDS; i++) {
            Check.equal((long) i, sent.get(i).get().offset(), "offset in the answer");
        }
        List<ConsumerRecord<byte[], byte[]>> read = target.readBack(topic, 0, RECORDS);
        for (int i = 0; i < RECORDS; i++) {
            check(record(topic, i), read.get(i), i);
        }
    }

    private static ProducerRecord<byte[], byte[]> record(String topic, int i) {
        byte[] key = i % 3 == 0 ? null : bytes("key-" + i);
        byte[] value = i % 5 == 0 ? null : i % 7 == 0 ? new byte[0] : bytes("value-" + i + "-" + "x".repeat(i));
        var record = new ProducerRecord<>(topic, 0, FIRST_TIMESTAMP + 1000L * i, key, value);
        record.headers().add("twice", bytes("first")).add("other", null).add("twice", bytes("second-" + i));
        return record;
    }

    private static void check(ProducerRecord<byte[], byte[]> sent, ConsumerRecord<byte[], byte[]> read, int i) {
        Check.equal((long) i, read.offset(), "offset");
        Check.equal(text(sent.key()), text(read.key()), "key of " + i);
        Check.equal(text(sent.value()), text(read.value()), "value of " + i);
        Check.equal(sent.timestamp(), read.timestamp(), "timestamp of " + i);
        Check.equal(headers(sent.headers().toArray()), headers(read.headers().toArray()), "headers of " + i);
    }

    private static List<String> headers(Header[] headers) {
        return java.util.Arrays.stream(headers).map(header -> header.key() + "=" + text(header.value())).toList();
    }
}

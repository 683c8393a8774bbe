package conformance;

import static conformance.Target.bytes;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.errors.InvalidTimestampException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.record.TimestampType;

final class ProduceBehaviours {
    static void add(Suite suite) {
        suite.add("produce.acks_0", ProduceBehaviours::acksNone);
        suite.add("produce.acks_1", target -> acks(target, "1"));
        suite.add("produce.acks_all", target -> acks(target, "all"));
        suite.add("produce.idempotent", ProduceBehaviours::idempotent);
        suite.add("produce.large_record", ProduceBehaviours::largeRecord);
        suite.add("produce.too_large", ProduceBehaviours::tooLarge);
        suite.add("produce.batch_split", ProduceBehaviours::batchSplit);
        suite.add("produce.many_partitions", ProduceBehaviours::manyPartitions);
        suite.add("produce.auto_create", ProduceBehaviours::autoCreate);
        suite.add("produce.invalid_topic", ProduceBehaviours::invalidTopic);
        suite.add("produce.log_append_time", ProduceBehaviours::logAppendTime);
        suite.add("produce.timestamp_bounds", ProduceBehaviours::timestampBounds);
        suite.add("produce.transactional", ProduceBehaviours::transactional);
        suite.add("topic.compact_last_values", ProduceBehaviours::compactKeepsLast);
        suite.add("topic.compact_removes", ProduceBehaviours::compactRemoves);
        suite.add("topic.retention", ProduceBehaviours::retention);
        suite.add("topic.small_limits", target -> target.newTopic("small", 1, Map.of("segment.ms", "100",
            "retention.ms", "100", "max.message.bytes", "100", "segment.bytes", "1048576")));
    }

    private static void acksNone(Target target) throws Exception {
        String topic = target.newTopic("acks-0", 1);
        List<RecordMetadata> answers = target.fill(topic, 0, "v", 500, "acks", "0", "enable.idempotence", false);
        Check.equal(-1L, answers.get(0).offset(), "offset without an answer");
        Check.equal(Target.numbered("v", 0, 500), Target.values(target.readBack(topic, 0, 500)), "values");
    }

    private static void acks(Target target, String acks) throws Exception {
        String topic = target.newTopic("acks-" + acks, 1);
        var answers = target.fill(topic, 0, "v", 500, "acks", acks, "enable.idempotence", false);
        Check.equal(499L, answers.get(499).offset(), "offset of the last answer");
        Check.equal(Target.numbered("v", 0, 500), Target.values(target.readBack(topic, 0, 500)), "values");
    }

    /** Small batches, five under way at a time. */
    private static void idempotent(Target target) throws Exception {
        String topic = target.newTopic("idempotent", 1);
        var answers = target.fill(topic, 0, "v", 3000, "enable.idempotence", true, "acks", "all", "batch.size", 200,
            "max.in.flight.requests.per.connection", 5);
        Check.equal(2999L, answers.get(2999).offset(), "offset of the last answer");
        Check.equal(Target.numbered("v", 0, 3000), Target.values(target.readBack(topic, 0, 3000)), "values");
    }

    private static byte[] incompressible(int length) {
        byte[] bytes = new byte[length];
        new Random(length).nextBytes(bytes);
        return bytes;
    }

    private static void largeRecord(Target target) throws Exception {
        String topic = target.newTopic("large", 1);
        byte[] large = incompressible(1_000_000);
        try (var producer = target.producer("batch.size", 1_000_000, "compression.type", "zstd")) {
            producer.send(new ProducerRecord<>(topic, 0, null, bytes("before"))).get();
            producer.send(new ProducerRecord<>(topic, 0, null, large)).get();
            producer.send(new ProducerRecord<>(topic, 0, null, bytes("after"))).get();
        }
        // More than the consumer asks for: it is given one whole batch all the same.
        var read = target.readBack(topic, 0, 3, "max.partition.fetch.bytes", 1000, "fetch.max.bytes", 1000);
        Check.that(java.util.Arrays.equals(large, read.get(1).value()), "the large record came back changed");
    }

    private static void tooLarge(Target target) throws Exception {
        String topic = target.newTopic("too-large", 1);
        String narrow = target.newTopic("narrow", 1, Map.of("max.message.bytes", "2000"));
        try (var producer = target.producer("max.request.size", 10_000_000)) {
            byte[] huge = incompressible(2_000_000);
            Check.fails(RecordTooLargeException.class, () -> producer.send(new ProducerRecord<>(topic, huge)).get());
            byte[] wide = incompressible(5000);
            Check.fails(RecordTooLargeException.class, () -> producer.send(new ProducerRecord<>(narrow, wide)).get());
            producer.send(new ProducerRecord<>(narrow, incompressible(1000))).get();
        }
    }

    /** A batch of several records that is refused as too large is split by the producer and sent again. */
    private static void batchSplit(Target target) throws Exception {
        String topic = target.newTopic("split", 1, Map.of("max.message.bytes", "30000"));
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (var producer = target.producer("batch.size", 500_000, "linger.ms", 500)) {
            for (int i = 0; i < 40; i++) {
                sent.add(producer.send(new ProducerRecord<>(topic, 0, bytes("k" + i), incompressible(9000))));
            }
            for (var future : sent) {
                future.get();
            }
        }
        List<String> keys = target.readBack(topic, 0, 40).stream().map(one -> Target.text(one.key())).toList();
        Check.equal(Target.numbered("k", 0, 40), keys, "keys");
    }

    private static void manyPartitions(Target target) throws Exception {
        String topic = target.newTopic("many", 12);
        try (var producer = target.producer("linger.ms", 5)) {
            for (int i = 0; i < 3000; i++) {
                producer.send(new ProducerRecord<>(topic, bytes("key-" + i % 60), bytes("" + i)));
            }
            producer.flush();
        }
        try (var consumer = target.consumer()) {
            consumer.assign(Target.partitions(topic, 12));
            consumer.seekToBeginning(consumer.assignment());
            var last = new java.util.HashMap<String, Integer>();
            for (ConsumerRecord<byte[], byte[]> record : Target.take(consumer, 3000)) {
                String key = Target.text(record.key());
                int number = Integer.parseInt(Target.text(record.value()));
                Check.that(last.getOrDefault(key, -1) < number, "records of " + key + " came out of order");
                last.put(key, number);
            }
        }
    }

    private static void autoCreate(Target target) throws Exception {
        String topic = Target.unique("auto-created");
        try (var producer = target.producer()) {
            producer.send(new ProducerRecord<>(topic, bytes("hello"))).get();
            Check.equal(3, producer.partitionsFor(topic).size(), "partitions of an auto-created topic");
        }
    }

    private static void invalidTopic(Target target) throws Exception {
        try (var producer = target.producer()) {
            Check.fails(InvalidTopicException.class,
                () -> producer.send(new ProducerRecord<>("not/a topic", bytes("x"))).get());
        }
    }

    private static void logAppendTime(Target target) throws Exception {
        String topic = target.newTopic("append-time", 1, Map.of("message.timestamp.type", "LogAppendTime"));
        long before = System.currentTimeMillis() - 1000;
        for (String codec : List.of("none", "lz4")) {
            try (var producer = target.producer("compression.type", codec)) {
                var answer = producer.send(new ProducerRecord<>(topic, 0, 12345L, null, bytes("x"))).get();
                Check.that(answer.timestamp() >= before, "the answer's timestamp is " + answer.timestamp());
            }
        }
        for (var record : target.readBack(topic, 0, 2)) {
            Check.equal(TimestampType.LOG_APPEND_TIME, record.timestampType(), "timestamp type");
            Check.that(record.timestamp() >= before, "the record's timestamp is " + record.timestamp());
        }
    }

    private static void timestampBounds(Target target) throws Exception {
        String topic = target.newTopic("bounds", 1, Map.of("message.timestamp.before.max.ms", "1000000"));
        try (var producer = target.producer()) {
            Check.fails(InvalidTimestampException.class,
                () -> producer.send(new ProducerRecord<>(topic, 0, 12345L, null, bytes("x"))).get());
            producer.send(new ProducerRecord<>(topic, bytes("now"))).get();
        }
    }

    /** Transactions either work or are refused at once, and never retried for ever. */
    private static void transactional(Target target) throws Exception {
        String topic = target.newTopic("transaction", 1);
        try (KafkaProducer<byte[], byte[]> producer = target.producer("transactional.id", Target.unique("id"))) {
            long begun = System.nanoTime();
            try {
                producer.initTransactions();
            } catch (RuntimeException refused) {
                Check.that(!(refused instanceof RetriableException), "refused as if a retry would help: " + refused);
                Check.that(System.nanoTime() - begun < 10_000_000_000L, "refused late: " + refused);
                return;
            }
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, bytes("committed")));
            producer.commitTransaction();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, bytes("aborted")));
            producer.flush();
            producer.abortTransaction();
        }
        var read = target.readBack(topic, 0, 1, "isolation.level", "read_committed");
        Check.equal(List.of("committed"), Target.values(read), "values");
    }

    private static final Map<String, String> COMPACT = Map.of("cleanup.policy", "compact", "segment.ms", "1000",
        "min.cleanable.dirty.ratio", "0.01", "delete.retention.ms", "0");

    /** Twenty rounds over ten keys, in segments that are closed soon; one key ends with a tombstone. */
    private static String compactTopic(Target target) throws Exception {
        String topic = target.newTopic("compact", 1, COMPACT);
        try (var producer = target.producer()) {
            for (int round = 0; round < 20; round++) {
                for (int key = 0; key < 10; key++) {
                    byte[] value = round == 19 && key == 9 ? null : bytes(round + "/" + key);
                    producer.send(new ProducerRecord<>(topic, 0, bytes("k" + key), value));
                }
                producer.flush();
            }
        }
        return topic;
    }

    private static Map<String, String> lastValues(Target target, String topic, int[] count) throws Exception {
        try (var consumer = target.consumer()) {
            var where = Target.partitions(topic, 1);
            consumer.assign(where);
            consumer.seekToBeginning(where);
            long end = consumer.endOffsets(where).get(where.get(0));
            Map<String, String> last = new java.util.TreeMap<>();
            while (consumer.position(where.get(0)) < end) {
                for (var record : consumer.poll(java.time.Duration.ofMillis(200))) {
                    String key = Target.text(record.key());
                    count[0] += key.startsWith("k") ? 1 : 0;
                    last.put(key, String.valueOf(Target.text(record.value())));
                }
            }
            return last;
        }
    }

    private static void checkLastValues(Map<String, String> last) {
        for (int key = 0; key < 9; key++) {
            Check.equal("19/" + key, last.get("k" + key), "last value of a key");
        }
        Check.that(last.getOrDefault("k9", "null").equals("null"), "a value before the tombstone: " + last.get("k9"));
    }

    private static void compactKeepsLast(Target target) throws Exception {
        checkLastValues(lastValues(target, compactTopic(target), new int[1]));
    }

    private static void compactRemoves(Target target) throws Exception {
        String topic = compactTopic(target);
        try (var producer = target.producer()) {
            Check.eventually(java.time.Duration.ofSeconds(90), () -> {
                // A look every few seconds is enough, and does not keep what is read in memory.
                Thread.sleep(3000);
                // Kafka closes a segment by age only when it is written to.
                producer.send(new ProducerRecord<>(topic, 0, bytes("wake"), bytes("x"))).get();
                int[] count = new int[1];
                checkLastValues(lastValues(target, topic, count));
                return count[0] < 100;
            }, () -> topic + " still holds more than half of the older values");
        }
    }

    private static void retention(Target target) throws Exception {
        String topic = target.newTopic("retention", 1, Map.of("retention.ms", "1000", "segment.ms", "1000"));
        target.fill(topic, 0, "v", 10);
        try (var consumer = target.consumer(); var producer = target.producer()) {
            var where = Target.partitions(topic, 1);
            Check.eventually(java.time.Duration.ofSeconds(90), () -> {
                producer.send(new ProducerRecord<>(topic, 0, null, bytes("later"))).get();
                return consumer.beginningOffsets(where).get(where.get(0)) >= 10;
            }, () -> "the log start has not moved");
        }
    }
}

package conformance;

import static conformance.Target.bytes;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** Offsets of a log: its bounds, by time, deletion of what lies before one. */
final class OffsetBehaviours {
    private static final long T = 1_700_000_000_000L;

    static void add(Suite suite) {
        suite.add("offsets.bounds", OffsetBehaviours::bounds);
        suite.add("offsets.for_times", OffsetBehaviours::forTimes);
        suite.add("offsets.seek_by_time", OffsetBehaviours::seekByTime);
        suite.add("admin.list_offsets", OffsetBehaviours::listOffsets);
        suite.add("admin.delete_records", OffsetBehaviours::deleteRecords);
        suite.add("admin.describe_producers", OffsetBehaviours::describeProducers);
    }

    /** Timestamps T, T+2000, T+1000, T+3000, T+3000, then T+500: not in order, as producers may send. */
    private static TopicPartition timed(Target target) throws Exception {
        String topic = target.newTopic("timed", 1, Target.KEEP);
        try (var producer = target.producer("linger.ms", 0)) {
            for (long after : List.of(0L, 2000L, 1000L, 3000L, 3000L, 500L)) {
                producer.send(new ProducerRecord<>(topic, 0, T + after, null, bytes("+" + after))).get();
            }
        }
        return new TopicPartition(topic, 0);
    }

    private static void bounds(Target target) throws Exception {
        TopicPartition where = timed(target);
        String empty = target.newTopic("empty", 1);
        TopicPartition nothing = new TopicPartition(empty, 0);
        try (var consumer = target.consumer()) {
            var both = List.of(where, nothing);
            Check.equal(Map.of(where, 0L, nothing, 0L), consumer.beginningOffsets(both), "beginning");
            Check.equal(Map.of(where, 6L, nothing, 0L), consumer.endOffsets(both), "end");
            consumer.assign(both);
            Check.equal(6L, Target.take(consumer, 6).size() + 0L, "records");
            Check.equal(0L, consumer.currentLag(where).orElse(-1), "lag at the end");
        }
    }

    private static void forTimes(Target target) throws Exception {
        TopicPartition where = timed(target);
        try (var consumer = target.consumer()) {
            Map<Long, Long> expected = new HashMap<>();
            expected.put(0L, 0L);
            expected.put(T, 0L);
            expected.put(T + 1, 1L);
            expected.put(T + 2000, 1L);
            expected.put(T + 2001, 3L);
            expected.put(T + 3000, 3L);
            for (var entry : expected.entrySet()) {
                var found = consumer.offsetsForTimes(Map.of(where, entry.getKey())).get(where);
                Check.equal(entry.getValue(), found == null ? null : found.offset(), "offset at " + entry.getKey());
            }
            var at = consumer.offsetsForTimes(Map.of(where, T + 1)).get(where);
            Check.equal(T + 2000, at.timestamp(), "timestamp of the record found");
            var none = consumer.offsetsForTimes(Map.of(where, T + 3001));
            Check.that(none.containsKey(where) && none.get(where) == null, "an offset after all: " + none);
        }
    }

    private static void seekByTime(Target target) throws Exception {
        TopicPartition where = timed(target);
        try (var consumer = target.consumer()) {
            consumer.assign(List.of(where));
            consumer.seek(where, consumer.offsetsForTimes(Map.of(where, T + 2500)).get(where).offset());
            Check.equal(List.of("+3000", "+3000", "+500"), Target.values(Target.take(consumer, 3)), "values");
        }
    }

    private static ListOffsetsResultInfo listed(Admin admin, TopicPartition where, OffsetSpec spec) throws Exception {
        return admin.listOffsets(Map.of(where, spec)).partitionResult(where).get();
    }

    private static void listOffsets(Target target) throws Exception {
        TopicPartition where = timed(target);
        try (Admin admin = target.admin()) {
            Check.equal(0L, listed(admin, where, OffsetSpec.earliest()).offset(), "earliest");
            Check.equal(6L, listed(admin, where, OffsetSpec.latest()).offset(), "latest");
            Check.equal(1L, listed(admin, where, OffsetSpec.forTimestamp(T + 1500)).offset(), "by time");
            var newest = listed(admin, where, OffsetSpec.maxTimestamp());
            Check.equal(3L, newest.offset(), "offset of the highest timestamp");
            Check.equal(T + 3000, newest.timestamp(), "highest timestamp");
            Check.equal(-1L, listed(admin, where, OffsetSpec.forTimestamp(T + 9999)).offset(), "after all");
            TopicPartition absent = new TopicPartition(Target.unique("absent"), 0);
            Check.fails(UnknownTopicOrPartitionException.class,
                () -> admin.listOffsets(Map.of(absent, OffsetSpec.latest()), new
                    org.apache.kafka.clients.admin.ListOffsetsOptions().timeoutMs(3000)).partitionResult(absent).get());
        }
    }

    private static long delete(Admin admin, TopicPartition where, long before) throws Exception {
        var deleted = admin.deleteRecords(Map.of(where, RecordsToDelete.beforeOffset(before)));
        return deleted.lowWatermarks().get(where).get().lowWatermark();
    }

    private static void deleteRecords(Target target) throws Exception {
        String topic = target.newTopic("delete-records", 1);
        target.fill(topic, 0, "v", 100, "batch.size", 100);
        TopicPartition where = new TopicPartition(topic, 0);
        try (Admin admin = target.admin(); var consumer = target.consumer("auto.offset.reset", "earliest")) {
            Check.equal(37L, delete(admin, where, 37), "low watermark");
            Check.equal(37L, delete(admin, where, 20), "low watermark after a lower offset");
            Check.equal(37L, listed(admin, where, OffsetSpec.earliest()).offset(), "earliest");
            consumer.assign(List.of(where));
            consumer.seek(where, 0);
            Check.equal(Target.numbered("v", 37, 100), Target.values(Target.take(consumer, 63)), "values");
            Check.fails(OffsetOutOfRangeException.class, () -> delete(admin, where, 101));
            Check.equal(100L, delete(admin, where, -1), "low watermark after all were deleted");
            Check.equal(100L, listed(admin, where, OffsetSpec.latest()).offset(), "latest");
            Check.equal(100L, target.fill(topic, 0, "w", 1).get(0).offset(), "offset of the next record");
        }
    }

    private static void describeProducers(Target target) throws Exception {
        String topic = target.newTopic("producers", 1);
        TopicPartition where = new TopicPartition(topic, 0);
        try (Admin admin = target.admin(); var producer = target.producer("enable.idempotence", true)) {
            for (int i = 0; i < 3; i++) {
                producer.send(new ProducerRecord<>(topic, 0, null, bytes("v" + i))).get();
            }
            var states = admin.describeProducers(List.of(where)).partitionResult(where).get().activeProducers();
            Check.equal(1, states.size(), "producers");
            Check.equal(2, states.get(0).lastSequence(), "last sequence");
            Check.that(states.get(0).producerId() >= 0, "producer id " + states.get(0).producerId());
        }
    }
}

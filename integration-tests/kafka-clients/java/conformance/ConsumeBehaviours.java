package conformance;

import static conformance.Target.bytes;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.NoOffsetForPartitionException;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

final class ConsumeBehaviours {
    static void add(Suite suite) {
        suite.add("consume.seek", ConsumeBehaviours::seek);
        suite.add("consume.reset_earliest", target -> reset(target, "earliest", 0));
        suite.add("consume.reset_latest", target -> reset(target, "latest", 10));
        suite.add("consume.reset_none", ConsumeBehaviours::resetNone);
        suite.add("consume.reset_by_duration", target -> reset(target, "by_duration:PT1H", 0));
        suite.add("consume.out_of_range", ConsumeBehaviours::outOfRange);
        suite.add("consume.pause_resume", ConsumeBehaviours::pauseResume);
        suite.add("consume.small_fetches", ConsumeBehaviours::smallFetches);
        suite.add("consume.max_poll_records", ConsumeBehaviours::maxPollRecords);
        suite.add("consume.long_poll", ConsumeBehaviours::longPoll);
        suite.add("consume.min_bytes", ConsumeBehaviours::minBytes);
        suite.add("consume.read_committed", ConsumeBehaviours::readCommitted);
        suite.add("consume.leader_epoch", ConsumeBehaviours::leaderEpoch);
        suite.add("consume.pattern", ConsumeBehaviours::pattern);
        suite.add("consume.metadata", ConsumeBehaviours::metadata);
        suite.add("consume.new_partitions", ConsumeBehaviours::newPartitions);
    }

    private static TopicPartition filled(Target target, String hint, int records) throws Exception {
        String topic = target.newTopic(hint, 1);
        target.fill(topic, 0, "v", records, "batch.size", 100);
        return new TopicPartition(topic, 0);
    }

    private static void seek(Target target) throws Exception {
        TopicPartition where = filled(target, "seek", 100);
        try (var consumer = target.consumer()) {
            consumer.assign(List.of(where));
            for (int from : List.of(50, 0, 99, 37)) {
                consumer.seek(where, from);
                var values = Target.values(Target.take(consumer, 100 - from));
                Check.equal(Target.numbered("v", from, 100), values, "values from " + from);
            }
            consumer.seekToEnd(List.of(where));
            Check.equal(100L, consumer.position(where), "position at the end");
            consumer.seekToBeginning(List.of(where));
            Check.equal(0L, consumer.position(where), "position at the beginning");
        }
    }

    private static void reset(Target target, String reset, long expected) throws Exception {
        TopicPartition where = filled(target, "reset", 10);
        try (var consumer = target.consumer("auto.offset.reset", reset, "group.id", Target.unique("group"))) {
            consumer.assign(List.of(where));
            Check.equal(expected, consumer.position(where), "position");
        }
    }

    private static void resetNone(Target target) throws Exception {
        TopicPartition where = filled(target, "reset", 10);
        try (var consumer = target.consumer("auto.offset.reset", "none", "group.id", Target.unique("group"))) {
            consumer.assign(List.of(where));
            Check.fails(NoOffsetForPartitionException.class, () -> consumer.poll(Duration.ofSeconds(20)));
        }
    }

    private static void outOfRange(Target target) throws Exception {
        TopicPartition where = filled(target, "range", 10);
        try (var consumer = target.consumer("auto.offset.reset", "none")) {
            consumer.assign(List.of(where));
            consumer.seek(where, 10);
            Check.that(consumer.poll(Duration.ofMillis(700)).isEmpty(), "records at the end of the log");
            consumer.seek(where, 11);
            var thrown = Check.fails(OffsetOutOfRangeException.class, () -> consumer.poll(Duration.ofSeconds(20)));
            Check.equal(Set.of(where), thrown.offsetOutOfRangePartitions().keySet(), "partitions out of range");
        }
        try (var consumer = target.consumer("auto.offset.reset", "earliest")) {
            consumer.assign(List.of(where));
            consumer.seek(where, 1_000_000);
            Check.equal(Target.numbered("v", 0, 10), Target.values(Target.take(consumer, 10)), "values");
        }
    }

    private static void pauseResume(Target target) throws Exception {
        String topic = target.newTopic("pause", 2);
        target.fill(topic, 0, "a", 10);
        target.fill(topic, 1, "b", 10);
        var both = Target.partitions(topic, 2);
        try (var consumer = target.consumer()) {
            consumer.assign(both);
            consumer.pause(both.subList(0, 1));
            Check.equal(Target.numbered("b", 0, 10), Target.values(Target.take(consumer, 10)), "values while paused");
            Check.that(consumer.poll(Duration.ofMillis(500)).isEmpty(), "records of a paused partition");
            consumer.resume(both);
            Check.equal(Target.numbered("a", 0, 10), Target.values(Target.take(consumer, 10)), "values after that");
        }
    }

    private static void smallFetches(Target target) throws Exception {
        String topic = target.newTopic("small", 3);
        for (int partition = 0; partition < 3; partition++) {
            target.fill(topic, partition, "v", 300, "batch.size", 500);
        }
        try (var consumer = target.consumer("fetch.max.bytes", 1500, "max.partition.fetch.bytes", 600)) {
            consumer.assign(Target.partitions(topic, 3));
            Target.take(consumer, 900);
        }
    }

    private static void maxPollRecords(Target target) throws Exception {
        TopicPartition where = filled(target, "max-poll", 100);
        try (var consumer = target.consumer("max.poll.records", 7)) {
            consumer.assign(List.of(where));
            List<String> values = new ArrayList<>();
            Check.eventually(Target.SOON, () -> {
                var records = consumer.poll(Duration.ofMillis(200));
                Check.that(records.count() <= 7, "a poll returned " + records.count());
                records.forEach(record -> values.add(Target.text(record.value())));
                return values.size() == 100;
            }, () -> "only " + values.size() + " records");
            Check.equal(Target.numbered("v", 0, 100), values, "values");
        }
    }

    /** A fetch that waits is answered when a record arrives, long before its time is up. */
    private static void longPoll(Target target) throws Exception {
        String topic = target.newTopic("long-poll", 1);
        var executor = Executors.newSingleThreadExecutor();
        try (var consumer = target.consumer("fetch.max.wait.ms", 10000); var producer = target.producer()) {
            TopicPartition where = new TopicPartition(topic, 0);
            consumer.assign(List.of(where));
            consumer.seekToBeginning(List.of(where));
            consumer.poll(Duration.ofMillis(500));
            producer.partitionsFor(topic);
            var polled = executor.submit(() -> consumer.poll(Duration.ofSeconds(10)).count());
            producer.send(new ProducerRecord<>(topic, 0, null, bytes("wake up"))).get();
            Check.equal(1, polled.get(5, TimeUnit.SECONDS), "records within five seconds");
        } finally {
            executor.shutdown();
        }
    }

    /** Less than the minimum is answered when the time is up. */
    private static void minBytes(Target target) throws Exception {
        TopicPartition where = filled(target, "min-bytes", 1);
        try (var consumer = target.consumer("fetch.min.bytes", 100_000, "fetch.max.wait.ms", 3000)) {
            consumer.assign(List.of(where));
            consumer.seek(where, 0);
            long begun = System.nanoTime();
            Target.take(consumer, 1);
            double seconds = (System.nanoTime() - begun) / 1e9;
            Check.that(seconds >= 2 && seconds < 15, "one record after " + seconds + " s");
        }
    }

    private static void readCommitted(Target target) throws Exception {
        TopicPartition where = filled(target, "committed", 50);
        try (var consumer = target.consumer("isolation.level", "read_committed")) {
            consumer.assign(List.of(where));
            Check.equal(Target.numbered("v", 0, 50), Target.values(Target.take(consumer, 50)), "values");
            Check.equal(50L, consumer.endOffsets(List.of(where)).get(where), "last stable offset");
        }
    }

    private static void leaderEpoch(Target target) throws Exception {
        TopicPartition where = filled(target, "epoch", 10);
        try (var consumer = target.consumer("group.id", Target.unique("group"))) {
            consumer.assign(List.of(where));
            var records = Target.take(consumer, 10);
            var epoch = records.get(4).leaderEpoch();
            Check.that(epoch.isPresent(), "records without a leader epoch");
            // The position is validated with OffsetForLeaderEpoch before the next fetch.
            consumer.seek(where, new OffsetAndMetadata(5, epoch, ""));
            Check.equal(Target.numbered("v", 5, 10), Target.values(Target.take(consumer, 5)), "values");
        }
    }

    private static void pattern(Target target) throws Exception {
        String prefix = Target.unique("pattern");
        try (KafkaConsumer<byte[], byte[]> consumer = target.consumer("group.id", prefix, "metadata.max.age.ms", 500)) {
            String first = target.newTopic(prefix + "-first", 1);
            target.fill(first, 0, "first", 1);
            consumer.subscribe(java.util.regex.Pattern.compile(prefix + ".*"));
            Check.equal(List.of("first0"), Target.values(Target.take(consumer, 1)), "values");
            consumer.commitSync();
            String second = target.newTopic(prefix + "-second", 1);
            target.fill(second, 0, "second", 1);
            Check.equal(List.of("second0"), Target.values(Target.take(consumer, 1)), "values of a topic made later");
        }
    }

    private static void metadata(Target target) throws Exception {
        String topic = target.newTopic("metadata", 5);
        try (var consumer = target.consumer()) {
            var partitions = consumer.partitionsFor(topic);
            Check.equal(5, partitions.size(), "partitions");
            Check.that(partitions.stream().allMatch(one -> one.leader() != null && one.replicas().length > 0
                && one.inSyncReplicas().length > 0), "a partition without leader or replicas: " + partitions);
            Check.equal(5, consumer.listTopics().get(topic).size(), "partitions in the list of topics");
        }
    }

    /** Partitions that are added while a group consumes are found by it. */
    private static void newPartitions(Target target) throws Exception {
        String topic = target.newTopic("grow", 1);
        try (var member = Member.start(target, Target.settings("group.id", topic, "metadata.max.age.ms", 500), topic);
                var admin = target.admin(); var producer = target.producer("metadata.max.age.ms", 500)) {
            Member.awaitShared(topic, 1, 1, member);
            producer.send(new ProducerRecord<>(topic, 0, null, bytes("before"))).get();
            var grown = java.util.Map.of(topic, org.apache.kafka.clients.admin.NewPartitions.increaseTo(3));
            admin.createPartitions(grown).all().get();
            Member.awaitShared(topic, 3, 3, member);
            Check.eventually(Target.SOON, () -> producer.partitionsFor(topic).size() == 3, () -> "no new partitions");
            producer.send(new ProducerRecord<>(topic, 2, null, bytes("after"))).get();
            Check.eventually(Target.SOON, () -> member.values().contains("after"), () -> "found " + member.values());
        }
    }
}

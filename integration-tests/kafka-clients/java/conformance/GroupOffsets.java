package conformance;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.OffsetMetadataTooLarge;

/** What a group commits, and where it goes on. */
final class GroupOffsets {
    static void add(Suite suite) {
        suite.add("commit.metadata", GroupOffsets::metadata);
        suite.add("commit.resume", GroupOffsets::resume);
        suite.add("commit.auto", GroupOffsets::auto);
        suite.add("commit.async", GroupOffsets::async);
        suite.add("commit.manual_assignment", GroupOffsets::manual);
        suite.add("commit.metadata_too_large", GroupOffsets::tooLarge);
    }

    private static void metadata(Target target) throws Exception {
        String topic = target.newTopic("commit", 2);
        var both = Target.partitions(topic, 2);
        try (var consumer = target.consumer("group.id", topic)) {
            consumer.assign(both);
            consumer.commitSync(Map.of(both.get(0), new OffsetAndMetadata(7, Optional.of(0), "a note, \u00e9\u4e2d")));
        }
        try (var consumer = target.consumer("group.id", topic)) {
            var found = consumer.committed(Set.copyOf(both));
            Check.equal(7L, found.get(both.get(0)).offset(), "offset");
            Check.equal("a note, \u00e9\u4e2d", found.get(both.get(0)).metadata(), "metadata");
            Check.equal(Optional.of(0), found.get(both.get(0)).leaderEpoch(), "leader epoch");
            Check.equal(null, found.get(both.get(1)), "of a partition without a commit");
        }
    }

    private static void resume(Target target) throws Exception {
        String topic = target.newTopic("resume", 1);
        target.fill(topic, 0, "v", 20);
        for (int from = 0; from < 20; from += 5) {
            try (var consumer = target.consumer("group.id", topic, "max.poll.records", 5)) {
                consumer.subscribe(List.of(topic));
                Check.equal(Target.numbered("v", from, from + 5), Target.values(Target.take(consumer, 5)), "values");
                consumer.commitSync();
            }
        }
    }

    private static long committed(Target target, String group, TopicPartition where) throws Exception {
        try (var consumer = target.consumer("group.id", group)) {
            var found = consumer.committed(Set.of(where)).get(where);
            return found == null ? -1 : found.offset();
        }
    }

    private static void auto(Target target) throws Exception {
        String topic = target.newTopic("auto", 1);
        target.fill(topic, 0, "v", 20);
        TopicPartition where = new TopicPartition(topic, 0);
        var settings = Target.settings("group.id", topic, "enable.auto.commit", true, "auto.commit.interval.ms", 300);
        try (Member member = Member.start(target, settings, topic)) {
            Check.eventually(Target.SOON, () -> committed(target, topic, where) == 20,
                () -> "not committed while polling");
            target.fill(topic, 0, "w", 5);
            Check.eventually(Target.SOON, () -> member.records.size() == 25, () -> "got " + member.records.size());
        }
        Check.equal(25L, committed(target, topic, where), "committed when it closed");
    }

    private static void async(Target target) throws Exception {
        String topic = target.newTopic("async", 1);
        TopicPartition where = new TopicPartition(topic, 0);
        CompletableFuture<Exception> done = new CompletableFuture<>();
        try (var consumer = target.consumer("group.id", topic)) {
            consumer.assign(List.of(where));
            consumer.commitAsync(Map.of(where, new OffsetAndMetadata(3)), (offsets, failure) -> done.complete(failure));
            Check.eventually(Target.SOON, () -> {
                consumer.poll(Duration.ofMillis(100));
                return done.isDone();
            }, () -> "no answer");
        }
        Check.equal(null, done.get(1, TimeUnit.SECONDS), "failure");
        Check.equal(3L, committed(target, topic, where), "committed");
    }

    /** Without membership, and over what was committed before. */
    private static void manual(Target target) throws Exception {
        String topic = target.newTopic("manual", 1);
        TopicPartition where = new TopicPartition(topic, 0);
        for (long offset : List.of(5L, 2L, 9L)) {
            try (var consumer = target.consumer("group.id", topic)) {
                consumer.assign(List.of(where));
                consumer.commitSync(Map.of(where, new OffsetAndMetadata(offset)));
                Check.equal(offset, consumer.committed(Set.of(where)).get(where).offset(), "offset");
            }
        }
    }

    private static void tooLarge(Target target) throws Exception {
        String topic = target.newTopic("note", 1);
        TopicPartition where = new TopicPartition(topic, 0);
        try (var consumer = target.consumer("group.id", topic)) {
            consumer.assign(List.of(where));
            Check.fails(OffsetMetadataTooLarge.class, () -> {
                consumer.commitSync(Map.of(where, new OffsetAndMetadata(1, "x".repeat(5000))));
                return "committed";
            });
        }
    }
}

package conformance;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.UnreleasedInstanceIdException;
import org.apache.kafka.common.errors.UnsupportedAssignorException;

/** Groups with the protocol of KIP-848: the coordinator shares out the partitions. */
final class ConsumerProtocol {
    static void add(Suite suite) {
        suite.add("group848.uniform", target -> joinAndLeave(target, "uniform"));
        suite.add("group848.range", target -> joinAndLeave(target, "range"));
        suite.add("group848.incremental", ConsumerProtocol::incremental);
        suite.add("group848.unknown_assignor", ConsumerProtocol::unknownAssignor);
        suite.add("group848.static", ConsumerProtocol::staticMember);
        suite.add("group848.static_unreleased", ConsumerProtocol::unreleased);
        suite.add("group848.killed_member",
            target -> ClassicGroups.killed(target, settings("x"), Duration.ofSeconds(75)));
        suite.add("group848.pattern", ConsumerProtocol::pattern);
        suite.add("group848.commit", ConsumerProtocol::commit);
        suite.add("group848.upgrade", ConsumerProtocol::upgrade);
        suite.add("group848.describe", ConsumerProtocol::describe);
    }

    private static Properties settings(String group, Object... pairs) {
        Properties settings = Target.settings("group.id", group, "group.protocol", "consumer");
        settings.putAll(Target.settings(pairs));
        return settings;
    }

    private static void joinAndLeave(Target target, String assignor) throws Exception {
        String topic = target.newTopic("group848", 6);
        ClassicGroups.joinAndLeave(target, topic, settings(topic, "group.remote.assignor", assignor));
    }

    /** Only the partitions that move are taken away. */
    private static void incremental(Target target) throws Exception {
        String topic = target.newTopic("incremental", 6);
        try (Member first = Member.start(target, settings(topic), topic)) {
            Member.awaitShared(topic, 6, 6, first);
            try (Member second = Member.start(target, settings(topic), topic)) {
                Member.awaitShared(topic, 6, 3, first, second);
                Check.equal(3, first.revoked.get(), "partitions taken from the first member");
            }
        }
    }

    private static void unknownAssignor(Target target) throws Exception {
        String topic = target.newTopic("assignor", 1);
        try (var consumer = target.consumer(settings(topic, "group.remote.assignor", "nobody"))) {
            consumer.subscribe(List.of(topic));
            Check.fails(UnsupportedAssignorException.class, () -> {
                for (int i = 0; i < 50; i++) {
                    consumer.poll(Duration.ofMillis(200));
                }
                return "polled";
            });
        }
    }

    private static void staticMember(Target target) throws Exception {
        String topic = target.newTopic("static848", 6);
        try (Member stays = Member.start(target, settings(topic, "group.instance.id", "stays"), topic)) {
            Member goes = Member.start(target, settings(topic, "group.instance.id", "goes"), topic);
            Member.awaitShared(topic, 6, 3, stays, goes);
            Set<TopicPartition> had = goes.assignment();
            int rebalances = stays.rebalances.get();
            goes.close();
            try (Member back = Member.start(target, settings(topic, "group.instance.id", "goes"), topic)) {
                Check.eventually(Target.SOON, () -> back.assignment().equals(had),
                    () -> "had " + had + ", has " + back.assignment());
                Check.equal(rebalances, stays.rebalances.get(), "rebalances of the member that stayed");
            }
        }
    }

    /** Here it is the newcomer that is refused, as long as the first has not gone. */
    private static void unreleased(Target target) throws Exception {
        String topic = target.newTopic("unreleased", 2);
        try (Member first = Member.start(target, settings(topic, "group.instance.id", "one"), topic)) {
            Member.awaitShared(topic, 2, 2, first);
            try (Member second = Member.start(target, settings(topic, "group.instance.id", "one"), topic)) {
                Check.eventually(Target.SOON, () -> second.failure() instanceof UnreleasedInstanceIdException,
                    () -> "the second of two members with one instance id: " + second.failure());
                Member.awaitShared(topic, 2, 2, first);
            }
        }
    }

    /** The expression is the broker's to resolve (RE2). */
    private static void pattern(Target target) throws Exception {
        String prefix = Target.unique("re2j");
        target.fill(target.newTopic(prefix + "-first", 1), 0, "first", 1);
        target.newTopic("other-" + prefix, 1);
        try (var consumer = target.consumer(settings(prefix))) {
            consumer.subscribe(new SubscriptionPattern(prefix + "-.*"));
            Check.equal(List.of("first0"), Target.values(Target.take(consumer, 1)), "values");
            target.fill(target.newTopic(prefix + "-second", 1), 0, "second", 1);
            Check.equal(List.of("second0"), Target.values(Target.take(consumer, 1)), "values of a topic made later");
        }
    }

    private static void commit(Target target) throws Exception {
        String topic = target.newTopic("commit848", 1);
        target.fill(topic, 0, "v", 20);
        TopicPartition where = new TopicPartition(topic, 0);
        try (var consumer = target.consumer(settings(topic, "max.poll.records", 5))) {
            consumer.subscribe(List.of(topic));
            Target.take(consumer, 5);
            consumer.commitSync(Map.of(where, new OffsetAndMetadata(5, "noted")));
        }
        try (var consumer = target.consumer(settings(topic))) {
            consumer.subscribe(List.of(topic));
            var values = Target.values(Target.take(consumer, 15));
            Check.equal(Target.numbered("v", 5, 20), values, "values after a restart");
            Check.equal("noted", consumer.committed(Set.of(where)).get(where).metadata(), "metadata");
            consumer.commitSync();
            Check.equal(20L, consumer.committed(Set.of(where)).get(where).offset(), "committed offset");
        }
    }

    /** A group of classic members goes over to the new protocol member by member. */
    private static void upgrade(Target target) throws Exception {
        String topic = target.newTopic("upgrade", 4);
        Properties classic = Target.settings("group.id", topic, "session.timeout.ms", 6000,
            "heartbeat.interval.ms", 500, "partition.assignment.strategy",
            "org.apache.kafka.clients.consumer.CooperativeStickyAssignor");
        Member oldOne = Member.start(target, classic, topic);
        try (oldOne) {
            Member.awaitShared(topic, 4, 4, oldOne);
            try (Member newOne = Member.start(target, settings(topic), topic)) {
                Member.awaitShared(topic, 4, 2, oldOne, newOne);
                oldOne.close();
                Member.awaitShared(topic, 4, 4, newOne);
            }
        }
    }

    private static void describe(Target target) throws Exception {
        String topic = target.newTopic("describe848", 2);
        try (Member member = Member.start(target, settings(topic, "client.id", "someone"), topic);
                var admin = target.admin()) {
            Member.awaitShared(topic, 2, 2, member);
            var group = admin.describeConsumerGroups(List.of(topic)).all().get().get(topic);
            Check.equal("CONSUMER", group.type().name(), "type");
            Check.equal("STABLE", group.groupState().name(), "state");
            Check.equal("uniform", group.partitionAssignor(), "assignor");
            var described = group.members().iterator().next();
            Check.equal("someone", described.clientId(), "client id");
            var all = Set.copyOf(Target.partitions(topic, 2));
            Check.equal(all, described.assignment().topicPartitions(), "assignment");
        }
    }
}

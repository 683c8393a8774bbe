package conformance;

import java.time.Duration;
import java.util.Properties;
import java.util.Set;
import java.util.regex.Pattern;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;

/** Groups with the classic protocol: the members themselves share out the partitions. */
final class ClassicGroups {
    private static final String PACKAGE = "org.apache.kafka.clients.consumer.";

    static void add(Suite suite) {
        suite.add("group.range", target -> joinAndLeave(target, PACKAGE + "RangeAssignor"));
        suite.add("group.roundrobin", target -> joinAndLeave(target, PACKAGE + "RoundRobinAssignor"));
        suite.add("group.sticky", target -> joinAndLeave(target, PACKAGE + "StickyAssignor"));
        suite.add("group.cooperative", ClassicGroups::cooperative);
        suite.add("group.static", ClassicGroups::staticMember);
        suite.add("group.static_fenced", ClassicGroups::staticFenced);
        suite.add("group.killed_member", target -> killed(target, settings("x"), Duration.ofSeconds(40)));
        suite.add("group.slow_member", ClassicGroups::slowMember);
        suite.add("group.pattern", ClassicGroups::pattern);
        suite.add("group.many_members", ClassicGroups::manyMembers);
    }

    private static Properties settings(String group) {
        return Target.settings("group.id", group, "session.timeout.ms", 6000, "heartbeat.interval.ms", 500);
    }

    private static Properties with(Properties settings, Object... pairs) {
        Properties all = new Properties();
        all.putAll(settings);
        all.putAll(Target.settings(pairs));
        return all;
    }

    private static void joinAndLeave(Target target, String assignor) throws Exception {
        String topic = target.newTopic("group", 6);
        joinAndLeave(target, topic, with(settings(topic), "partition.assignment.strategy", assignor));
    }

    /** Members come and go; each record is read by somebody, and by one only while nobody moves. */
    static void joinAndLeave(Target target, String topic, Properties settings) throws Exception {
        try (Member first = Member.start(target, settings, topic)) {
            Member.awaitShared(topic, 6, 6, first);
            Member second = Member.start(target, settings, topic);
            Member.awaitShared(topic, 6, 3, first, second);
            for (int partition = 0; partition < 6; partition++) {
                target.fill(topic, partition, partition + "/", 20);
            }
            Check.eventually(Target.SOON, () -> first.records.size() + second.records.size() >= 120,
                () -> first.records.size() + " and " + second.records.size() + " of 120 records");
            Check.equal(60, first.records.size(), "records of the first member");
            Check.equal(60, second.records.size(), "records of the second member");
            try (Member third = Member.start(target, settings, topic)) {
                Member.awaitShared(topic, 6, 2, first, second, third);
            }
            Member.awaitShared(topic, 6, 3, first, second);
            second.close();
            Member.awaitShared(topic, 6, 6, first);
        }
    }

    private static void cooperative(Target target) throws Exception {
        String topic = target.newTopic("cooperative", 6);
        var settings = with(settings(topic), "partition.assignment.strategy", PACKAGE + "CooperativeStickyAssignor");
        try (Member first = Member.start(target, settings, topic)) {
            Member.awaitShared(topic, 6, 6, first);
            try (Member second = Member.start(target, settings, topic)) {
                Member.awaitShared(topic, 6, 3, first, second);
                Check.equal(3, first.revoked.get(), "partitions taken from the first member");
            }
            Member.awaitShared(topic, 6, 6, first);
            Check.equal(3, first.revoked.get(), "partitions taken from the first member in all");
        }
    }

    /** A static member that comes back has its partitions again, and the others do not notice. */
    private static void staticMember(Target target) throws Exception {
        String topic = target.newTopic("static", 6);
        Properties settings = with(settings(topic), "session.timeout.ms", 30000);
        try (Member stays = Member.start(target, with(settings, "group.instance.id", "stays"), topic)) {
            Member goes = Member.start(target, with(settings, "group.instance.id", "goes"), topic);
            Member.awaitShared(topic, 6, 3, stays, goes);
            Set<TopicPartition> had = goes.assignment();
            int rebalances = stays.rebalances.get();
            goes.close();
            try (Member back = Member.start(target, with(settings, "group.instance.id", "goes"), topic)) {
                Check.eventually(Target.SOON, () -> back.assignment().equals(had),
                    () -> "had " + had + ", has " + back.assignment());
                Check.equal(rebalances, stays.rebalances.get(), "rebalances of the member that stayed");
            }
        }
    }

    private static void staticFenced(Target target) throws Exception {
        String topic = target.newTopic("fenced", 2);
        Properties settings = with(settings(topic), "group.instance.id", "one");
        try (Member first = Member.start(target, settings, topic)) {
            Member.awaitShared(topic, 2, 2, first);
            try (Member second = Member.start(target, settings, topic)) {
                Check.eventually(Target.SOON, () -> first.failure() instanceof FencedInstanceIdException,
                    () -> "the first of two members with one instance id goes on: " + first.failure());
                Member.awaitShared(topic, 2, 2, second);
            }
        }
    }

    /** A member that is killed is missed after its session time-out, and its partitions are given away. */
    static void killed(Target target, Properties template, Duration limit) throws Exception {
        String topic = target.newTopic("killed", 4);
        Properties settings = with(template, "group.id", topic);
        try (Member survivor = Member.start(target, settings, topic)) {
            Member.awaitShared(topic, 4, 4, survivor);
            try (MemberProcess victim = MemberProcess.start(target, settings, topic)) {
                victim.awaitAssigned(2);
                survivor.awaitSize(2);
                victim.kill();
                Check.eventually(limit, () -> survivor.assignment().size() == 4,
                    () -> "the survivor has " + survivor.assignment());
            }
        }
    }

    /** A member that does not poll in time leaves, and must not commit what is no longer its own. */
    private static void slowMember(Target target) throws Exception {
        String topic = target.newTopic("slow", 2);
        target.fill(topic, 0, "v", 5);
        Properties settings = settings(topic);
        try (var slow = target.consumer(with(settings, "max.poll.interval.ms", 2000))) {
            slow.subscribe(java.util.List.of(topic));
            Target.take(slow, 5);
            try (Member other = Member.start(target, settings, topic)) {
                Member.awaitShared(topic, 2, 2, other);
                Check.fails(CommitFailedException.class, () -> {
                    slow.commitSync();
                    return "committed";
                });
            }
        }
    }

    private static void pattern(Target target) throws Exception {
        String prefix = Target.unique("pattern");
        String first = target.newTopic(prefix, 2);
        Properties settings = with(settings(prefix), "metadata.max.age.ms", 500);
        try (Member member = Member.start(target, settings, Pattern.compile(prefix + ".*"))) {
            Member.awaitShared(first, 2, 2, member);
            target.newTopic(prefix, 2);
            Check.eventually(Target.SOON, () -> member.assignment().size() == 4, () -> "has " + member.assignment());
        }
    }

    private static void manyMembers(Target target) throws Exception {
        String topic = target.newTopic("members", 20);
        Member[] members = new Member[10];
        try {
            for (int i = 0; i < members.length; i++) {
                members[i] = Member.start(target, settings(topic), topic);
            }
            Member.awaitShared(topic, 20, 2, members);
        } finally {
            for (Member member : members) {
                if (member != null) {
                    member.close();
                }
            }
        }
    }
}

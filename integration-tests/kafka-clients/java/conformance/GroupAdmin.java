package conformance;

import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.GroupSubscribedToTopicException;
import org.apache.kafka.common.errors.UnknownMemberIdException;

final class GroupAdmin {
    static void add(Suite suite) {
        suite.add("admin.list_groups", GroupAdmin::list);
        suite.add("admin.describe_group", GroupAdmin::describe);
        suite.add("admin.describe_unknown_group", GroupAdmin::describeUnknown);
        suite.add("admin.delete_group", GroupAdmin::delete);
        suite.add("admin.list_group_offsets", GroupAdmin::listOffsets);
        suite.add("admin.alter_group_offsets", GroupAdmin::alterOffsets);
        suite.add("admin.delete_group_offsets", GroupAdmin::deleteOffsets);
        suite.add("admin.remove_members", GroupAdmin::removeMembers);
    }

    private static Member member(Target target, String topic, Object... pairs) {
        var settings = Target.settings("group.id", topic, "session.timeout.ms", 6000, "heartbeat.interval.ms", 500);
        settings.putAll(Target.settings(pairs));
        return Member.start(target, settings, topic);
    }

    /** A group without members that has committed to one partition. */
    private static TopicPartition emptyGroup(Target target, String hint) throws Exception {
        String topic = target.newTopic(hint, 1);
        target.fill(topic, 0, "v", 10);
        TopicPartition where = new TopicPartition(topic, 0);
        try (var consumer = target.consumer("group.id", topic)) {
            consumer.assign(List.of(where));
            consumer.commitSync(Map.of(where, new OffsetAndMetadata(4, "noted")));
        }
        return where;
    }

    private static void list(Target target) throws Exception {
        String empty = emptyGroup(target, "list").topic();
        String topic = target.newTopic("list", 1);
        try (Member member = member(target, topic); Admin admin = target.admin()) {
            Member.awaitShared(topic, 1, 1, member);
            var groups = admin.listGroups().all().get();
            var found = groups.stream().filter(one -> one.groupId().equals(topic)).findFirst().orElse(null);
            Check.that(found != null, "the group is not in the list");
            Check.equal("consumer", found.protocol(), "protocol");
            Check.equal(GroupState.STABLE, found.groupState().orElse(null), "state");
            Check.equal("Classic", found.type().map(Object::toString).orElse(null), "type");
            var only = new ListGroupsOptions().inGroupStates(Set.of(GroupState.EMPTY));
            Set<String> names = new java.util.HashSet<>();
            admin.listGroups(only).all().get().forEach(one -> names.add(one.groupId()));
            Check.that(names.contains(empty) && !names.contains(topic), "listed by state: " + names);
        }
    }

    private static void describe(Target target) throws Exception {
        String topic = target.newTopic("describe", 4);
        try (Member one = member(target, topic, "client.id", "one", "group.instance.id", "static-one");
                Member two = member(target, topic, "client.id", "two"); Admin admin = target.admin()) {
            Member.awaitShared(topic, 4, 2, one, two);
            var group = admin.describeConsumerGroups(List.of(topic)).all().get().get(topic);
            Check.equal(GroupState.STABLE, group.groupState(), "state");
            Check.equal("range", group.partitionAssignor(), "assignor");
            Check.equal(2, group.members().size(), "members");
            Check.that(group.coordinator() != null && group.coordinator().id() >= 0, "no coordinator");
            for (var described : group.members()) {
                Member member = described.clientId().equals("one") ? one : two;
                Check.equal(member.assignment(), described.assignment().topicPartitions(), "assignment");
                Check.equal(member == one ? "static-one" : null, described.groupInstanceId().orElse(null), "instance");
                Check.equal(member.metadata().memberId(), described.consumerId(), "member id");
                Check.that(!described.host().isEmpty(), "no host");
            }
        }
    }

    private static void describeUnknown(Target target) throws Exception {
        String absent = Target.unique("absent");
        try (Admin admin = target.admin()) {
            Check.fails(GroupIdNotFoundException.class,
                () -> admin.describeConsumerGroups(List.of(absent)).all().get());
        }
    }

    private static void delete(Target target) throws Exception {
        String empty = emptyGroup(target, "delete").topic();
        String topic = target.newTopic("delete", 1);
        try (Member member = member(target, topic); Admin admin = target.admin()) {
            Member.awaitShared(topic, 1, 1, member);
            Check.fails(GroupNotEmptyException.class, () -> admin.deleteConsumerGroups(List.of(topic)).all().get());
            admin.deleteConsumerGroups(List.of(empty)).all().get();
            Check.that(admin.listGroups().all().get().stream().noneMatch(one -> one.groupId().equals(empty)),
                "the group is still listed");
            Check.fails(GroupIdNotFoundException.class,
                () -> admin.deleteConsumerGroups(List.of(Target.unique("absent"))).all().get());
        }
    }

    private static void listOffsets(Target target) throws Exception {
        TopicPartition first = emptyGroup(target, "offsets");
        TopicPartition second = emptyGroup(target, "offsets");
        try (Admin admin = target.admin()) {
            for (var where : List.of(first, second)) {
                var found = admin.listConsumerGroupOffsets(where.topic()).partitionsToOffsetAndMetadata().get();
                Check.equal(Set.of(where), found.keySet(), "partitions");
                Check.equal(4L, found.get(where).offset(), "offset");
                Check.equal("noted", found.get(where).metadata(), "metadata");
            }
        }
    }

    private static void alterOffsets(Target target) throws Exception {
        TopicPartition where = emptyGroup(target, "alter");
        String topic = target.newTopic("alter", 1);
        try (Admin admin = target.admin()) {
            admin.alterConsumerGroupOffsets(where.topic(), Map.of(where, new OffsetAndMetadata(8))).all().get();
            var found = admin.listConsumerGroupOffsets(where.topic()).partitionsToOffsetAndMetadata().get();
            Check.equal(8L, found.get(where).offset(), "offset");
            try (Member member = member(target, topic)) {
                Member.awaitShared(topic, 1, 1, member);
                var there = Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(0));
                // The group has members, and the one who commits is none of them.
                Check.fails(UnknownMemberIdException.class,
                    () -> admin.alterConsumerGroupOffsets(topic, there).all().get());
            }
        }
    }

    private static void deleteOffsets(Target target) throws Exception {
        TopicPartition where = emptyGroup(target, "forget");
        String topic = target.newTopic("forget", 1);
        try (Admin admin = target.admin()) {
            admin.deleteConsumerGroupOffsets(where.topic(), Set.of(where)).all().get();
            var found = admin.listConsumerGroupOffsets(where.topic()).partitionsToOffsetAndMetadata().get();
            Check.equal(null, found.get(where), "offset");
            try (Member member = member(target, topic)) {
                Member.awaitShared(topic, 1, 1, member);
                Check.fails(GroupSubscribedToTopicException.class, () -> admin
                    .deleteConsumerGroupOffsets(topic, Set.of(new TopicPartition(topic, 0))).all().get());
            }
        }
    }

    private static void removeMembers(Target target) throws Exception {
        String topic = target.newTopic("remove", 2);
        try (Member goes = member(target, topic, "group.instance.id", "goes", "session.timeout.ms", 60000);
                Member stays = member(target, topic); Admin admin = target.admin()) {
            Member.awaitShared(topic, 2, 1, goes, stays);
            goes.close();
            var options = new RemoveMembersFromConsumerGroupOptions(List.of(new MemberToRemove("goes")));
            admin.removeMembersFromConsumerGroup(topic, options).all().get();
            Member.awaitShared(topic, 2, 2, stays);
        }
    }
}

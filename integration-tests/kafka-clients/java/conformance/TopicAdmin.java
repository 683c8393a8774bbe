package conformance;

import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.SecurityDisabledException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicIdException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.errors.UnsupportedVersionException;

final class TopicAdmin {
    static void add(Suite suite) {
        suite.add("admin.create_topic", TopicAdmin::create);
        suite.add("admin.create_topic_refused", TopicAdmin::createRefused);
        suite.add("admin.replication_factor", TopicAdmin::replicationFactor);
        suite.add("admin.describe_topic", TopicAdmin::describe);
        suite.add("admin.list_topics", TopicAdmin::list);
        suite.add("admin.delete_topic", TopicAdmin::delete);
        suite.add("admin.unknown_topic", TopicAdmin::unknown);
        suite.add("admin.create_partitions", TopicAdmin::createPartitions);
        suite.add("admin.describe_cluster", TopicAdmin::describeCluster);
        suite.add("admin.describe_log_dirs", TopicAdmin::describeLogDirs);
        suite.add("admin.describe_features", TopicAdmin::describeFeatures);
        suite.add("admin.acls_refused", TopicAdmin::acls);
    }

    private static void create(Target target) throws Exception {
        String name = Target.unique("create");
        String automatic = Target.unique("create");
        try (Admin admin = target.admin()) {
            var topics = List.of(
                new NewTopic(name, Optional.of(4), Optional.empty()).configs(Map.of("retention.ms", "3600000")),
                new NewTopic(automatic, Optional.empty(), Optional.empty()));
            var created = admin.createTopics(topics);
            Check.equal(4, created.numPartitions(name).get(), "partitions");
            Check.equal(3, created.numPartitions(automatic).get(), "partitions when none were asked for");
            Check.equal("3600000", created.config(name).get().get("retention.ms").value(), "retention.ms");
            Uuid id = created.topicId(name).get();
            Check.that(!id.equals(Uuid.ZERO_UUID), "no topic id");
            Target.awaitLeaders(admin, name, 4);
            Check.equal(id, admin.describeTopics(List.of(name)).allTopicNames().get().get(name).topicId(), "topic id");
        }
    }

    private static void createRefused(Target target) throws Exception {
        String name = target.newTopic("refused", 1);
        String absent = Target.unique("refused");
        try (Admin admin = target.admin()) {
            Check.fails(TopicExistsException.class, () -> one(admin, new NewTopic(name, 1, (short) 1)));
            Check.fails(InvalidPartitionsException.class, () -> one(admin, new NewTopic(absent, 0, (short) 1)));
            Check.fails(InvalidTopicException.class, () -> one(admin, new NewTopic("not/a topic", 1, (short) 1)));
            Check.fails(InvalidTopicException.class, () -> one(admin, new NewTopic("x".repeat(250), 1, (short) 1)));
            for (var config : List.of(Map.of("retention.ms", "soon"), Map.of("no.such.config", "1"))) {
                Check.fails(InvalidConfigurationException.class,
                    () -> one(admin, new NewTopic(absent, Optional.of(1), Optional.empty()).configs(config)));
            }
            var dry = new CreateTopicsOptions().validateOnly(true);
            admin.createTopics(List.of(new NewTopic(absent, Optional.of(1), Optional.empty())), dry).all().get();
            Check.that(!admin.listTopics().names().get().contains(absent), "created by a dry run");
        }
    }

    private static void replicationFactor(Target target) throws Exception {
        try (Admin admin = target.admin()) {
            String name = Target.unique("replicas");
            Check.fails(InvalidReplicationFactorException.class, () -> one(admin, new NewTopic(name, 1, (short) 99)));
            Check.fails(InvalidReplicationFactorException.class, () -> one(admin, new NewTopic(name, 1, (short) 0)));
            one(admin, new NewTopic(name, 1, (short) 1));
            one(admin, new NewTopic(Target.unique("replicas"), 1, (short) -1));
        }
    }

    private static Object one(Admin admin, NewTopic topic) throws Exception {
        return admin.createTopics(List.of(topic)).all().get();
    }

    private static void describe(Target target) throws Exception {
        String name = target.newTopic("describe", 3);
        try (Admin admin = target.admin()) {
            var byName = admin.describeTopics(List.of(name)).allTopicNames().get().get(name);
            Check.equal(3, byName.partitions().size(), "partitions");
            for (var partition : byName.partitions()) {
                Check.that(partition.leader() != null && !partition.replicas().isEmpty() && !partition.isr().isEmpty(),
                    "partition " + partition);
            }
            Check.equal(false, byName.isInternal(), "internal");
            var id = byName.topicId();
            var byId = admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds().get().get(id);
            Check.equal(name, byId.name(), "name by id");
        }
    }

    private static void list(Target target) throws Exception {
        String name = target.newTopic("list", 1);
        try (Admin admin = target.admin()) {
            var found = admin.listTopics().namesToListings().get();
            Check.that(found.containsKey(name), "the topic is not in the list");
            Check.that(found.values().stream().noneMatch(one -> one.isInternal()), "internal topics in the list");
        }
    }

    private static void delete(Target target) throws Exception {
        String name = target.newTopic("delete", 2);
        String other = target.newTopic("delete", 2);
        target.fill(name, 0, "v", 10);
        try (Admin admin = target.admin()) {
            admin.deleteTopics(List.of(name)).all().get();
            Uuid id = admin.describeTopics(List.of(other)).allTopicNames().get().get(other).topicId();
            admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all().get();
            Check.eventually(Target.SOON, () -> {
                Set<String> names = admin.listTopics().names().get();
                return !names.contains(name) && !names.contains(other);
            }, () -> "still there");
            // The same name again is another topic, and empty.
            admin.createTopics(List.of(new NewTopic(name, Optional.of(1), Optional.empty()))).all().get();
            Target.awaitLeaders(admin, name, 1);
        }
        Check.equal(0L, target.fill(name, 0, "again", 1).get(0).offset(), "offset in the new topic of that name");
    }

    private static void unknown(Target target) throws Exception {
        String absent = Target.unique("absent");
        try (Admin admin = target.admin()) {
            Check.fails(UnknownTopicOrPartitionException.class,
                () -> admin.describeTopics(List.of(absent)).allTopicNames().get());
            Check.fails(UnknownTopicOrPartitionException.class, () -> admin.deleteTopics(List.of(absent)).all().get());
            Check.fails(UnknownTopicOrPartitionException.class,
                () -> admin.createPartitions(Map.of(absent, NewPartitions.increaseTo(2))).all().get());
            var id = TopicCollection.ofTopicIds(List.of(Uuid.randomUuid()));
            Check.fails(UnknownTopicIdException.class, () -> admin.describeTopics(id).allTopicIds().get());
            Check.that(!admin.listTopics().names().get().contains(absent), "asking for a topic has created it");
        }
    }

    private static void createPartitions(Target target) throws Exception {
        String name = target.newTopic("grow", 2);
        try (Admin admin = target.admin()) {
            for (int count : List.of(1, 2)) {
                Check.fails(InvalidPartitionsException.class,
                    () -> admin.createPartitions(Map.of(name, NewPartitions.increaseTo(count))).all().get());
            }
            admin.createPartitions(Map.of(name, NewPartitions.increaseTo(5))).all().get();
            Target.awaitLeaders(admin, name, 5);
        }
        Check.equal(0L, target.fill(name, 4, "v", 1).get(0).offset(), "offset in a new partition");
    }

    private static void describeCluster(Target target) throws Exception {
        try (Admin admin = target.admin()) {
            var cluster = admin.describeCluster();
            Check.that(!cluster.clusterId().get().isEmpty(), "no cluster id");
            Check.that(!cluster.nodes().get().isEmpty(), "no nodes");
            Check.that(cluster.controller().get() != null, "no controller");
        }
    }

    private static void describeLogDirs(Target target) throws Exception {
        String name = target.newTopic("log-dirs", 2);
        target.fill(name, 0, "value", 100);
        try (Admin admin = target.admin()) {
            var brokers = admin.describeCluster().nodes().get().stream().map(node -> node.id()).toList();
            long size = 0;
            int replicas = 0;
            for (var folders : admin.describeLogDirs(brokers).allDescriptions().get().values()) {
                for (var folder : folders.values()) {
                    for (var replica : folder.replicaInfos().entrySet()) {
                        if (replica.getKey().topic().equals(name)) {
                            replicas++;
                            size += replica.getValue().size();
                        }
                    }
                }
            }
            Check.that(replicas >= 2 && size > 500, replicas + " replicas of " + size + " bytes");
        }
    }

    private static void describeFeatures(Target target) throws Exception {
        try (Admin admin = target.admin()) {
            Check.that(admin.describeFeatures().featureMetadata().get() != null, "no features");
        }
    }

    /** What is not there is refused at once. */
    private static void acls(Target target) throws Exception {
        try (Admin admin = target.admin()) {
            try {
                admin.describeAcls(AclBindingFilter.ANY).values().get();
                throw new Check.Failed("ACLs are described where there are none");
            } catch (java.util.concurrent.ExecutionException refused) {
                Throwable cause = refused.getCause();
                Check.that(cause instanceof SecurityDisabledException || cause instanceof UnsupportedVersionException,
                    "refused with " + cause);
            }
        }
    }
}

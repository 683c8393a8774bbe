package conformance;

import java.util.Collection;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.AlterConfigOp.OpType;
import org.apache.kafka.clients.admin.AlterConfigsOptions;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

final class ConfigAdmin {
    static void add(Suite suite) {
        suite.add("admin.describe_configs", ConfigAdmin::describe);
        suite.add("admin.describe_broker_configs", ConfigAdmin::describeBroker);
        suite.add("admin.alter_configs", ConfigAdmin::alter);
        suite.add("admin.alter_configs_refused", ConfigAdmin::alterRefused);
        suite.add("admin.alter_configs_in_force", ConfigAdmin::inForce);
    }

    private static ConfigResource topic(String name) {
        return new ConfigResource(ConfigResource.Type.TOPIC, name);
    }

    private static Config described(Admin admin, ConfigResource resource) throws Exception {
        var options = new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true);
        return admin.describeConfigs(List.of(resource), options).all().get().get(resource);
    }

    private static Object set(Admin admin, ConfigResource resource, String name, String value, OpType type)
            throws Exception {
        Collection<AlterConfigOp> operations = List.of(new AlterConfigOp(new ConfigEntry(name, value), type));
        return admin.incrementalAlterConfigs(Map.of(resource, operations)).all().get();
    }

    /** Changes may reach the one that answers a moment later. */
    private static void awaitValue(Admin admin, ConfigResource resource, String name, String value) throws Exception {
        Check.eventually(Target.SOON, () -> value.equals(described(admin, resource).get(name).value()),
            () -> name + " is not " + value);
    }

    private static void describe(Target target) throws Exception {
        ConfigResource plain = topic(target.newTopic("configs", 1));
        ConfigResource own = topic(target.newTopic("configs", 1, Map.of("retention.ms", "7200000")));
        try (Admin admin = target.admin()) {
            ConfigEntry unset = described(admin, plain).get("retention.ms");
            Check.equal("604800000", unset.value(), "retention.ms");
            Check.that(unset.isDefault() && !unset.isReadOnly() && !unset.isSensitive(), "flags of " + unset);
            Check.equal(ConfigEntry.ConfigType.LONG, unset.type(), "type of retention.ms");
            Check.that(unset.documentation() != null && !unset.documentation().isEmpty(), "no documentation");
            ConfigEntry set = described(admin, own).get("retention.ms");
            Check.equal("7200000", set.value(), "retention.ms");
            Check.equal(ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, set.source(), "source");
            Check.that(!set.synonyms().isEmpty(), "no synonyms");
            Check.equal("7200000", set.synonyms().get(0).value(), "value of the first synonym");
            for (String name : List.of("cleanup.policy", "compression.type", "max.message.bytes", "retention.bytes",
                    "message.timestamp.type", "min.insync.replicas", "segment.bytes", "segment.ms")) {
                Check.that(described(admin, plain).get(name) != null, "no " + name);
            }
            Check.fails(UnknownTopicOrPartitionException.class,
                () -> described(admin, topic(Target.unique("absent"))));
        }
    }

    private static void describeBroker(Target target) throws Exception {
        try (Admin admin = target.admin()) {
            String id = admin.describeCluster().nodes().get().iterator().next().idString();
            Config config = described(admin, new ConfigResource(ConfigResource.Type.BROKER, id));
            Check.that(!config.entries().isEmpty(), "no configs");
            Check.that(config.get("auto.create.topics.enable") != null, "no auto.create.topics.enable");
        }
    }

    private static void alter(Target target) throws Exception {
        ConfigResource resource = topic(target.newTopic("alter", 1));
        try (Admin admin = target.admin()) {
            set(admin, resource, "retention.ms", "86400000", OpType.SET);
            awaitValue(admin, resource, "retention.ms", "86400000");
            set(admin, resource, "max.message.bytes", "5000", OpType.SET);
            awaitValue(admin, resource, "max.message.bytes", "5000");
            awaitValue(admin, resource, "retention.ms", "86400000");
            set(admin, resource, "retention.ms", null, OpType.DELETE);
            awaitValue(admin, resource, "retention.ms", "604800000");
            set(admin, resource, "cleanup.policy", "compact", OpType.APPEND);
            Check.eventually(Target.SOON, () -> {
                String value = described(admin, resource).get("cleanup.policy").value();
                return java.util.Set.of(value.split(",")).equals(java.util.Set.of("compact", "delete"));
            }, () -> "appending has no effect");
            set(admin, resource, "cleanup.policy", "delete", OpType.SUBTRACT);
            awaitValue(admin, resource, "cleanup.policy", "compact");
        }
    }

    private static void alterRefused(Target target) throws Exception {
        ConfigResource resource = topic(target.newTopic("alter", 1));
        try (Admin admin = target.admin()) {
            for (var bad : Map.of("retention.ms", "soon", "no.such.config", "1", "cleanup.policy", "burn",
                    "max.message.bytes", "-7", "compression.type", "rar").entrySet()) {
                Check.fails(InvalidConfigurationException.class,
                    () -> set(admin, resource, bad.getKey(), bad.getValue(), OpType.SET));
            }
            Check.fails(UnknownTopicOrPartitionException.class,
                () -> set(admin, topic(Target.unique("absent")), "retention.ms", "1000", OpType.SET));
            Collection<AlterConfigOp> operations =
                List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "1000"), OpType.SET));
            var dry = new AlterConfigsOptions().validateOnly(true);
            admin.incrementalAlterConfigs(Map.of(resource, operations), dry).all().get();
            Check.equal("604800000", described(admin, resource).get("retention.ms").value(), "after a dry run");
        }
    }

    /** A limit that is changed is kept from then on. */
    private static void inForce(Target target) throws Exception {
        String name = target.newTopic("in-force", 1);
        target.fill(name, 0, "x".repeat(3000), 1);
        try (Admin admin = target.admin()) {
            set(admin, topic(name), "max.message.bytes", "2000", OpType.SET);
            Check.eventually(Target.SOON, () -> {
                try {
                    target.fill(name, 0, "x".repeat(3000), 1);
                    return false;
                } catch (java.util.concurrent.ExecutionException refused) {
                    return refused.getCause() instanceof RecordTooLargeException;
                }
            }, () -> "a record larger than max.message.bytes is accepted");
        }
    }
}

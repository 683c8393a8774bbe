package conformance;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.UUID;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The cluster under test, and clients of it. Time-outs are short, so that a failure is known soon. */
final class Target {
    static final Duration SOON = Duration.ofSeconds(30);

    /** For topics whose records have timestamps long past. */
    static final Map<String, String> KEEP = Map.of("retention.ms", "-1");

    final String bootstrap;

    Target(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    /** A name that nothing else has. */
    static String unique(String hint) {
        return hint + "-" + UUID.randomUUID().toString().substring(0, 8);
    }

    static Properties settings(Object... pairs) {
        Properties settings = new Properties();
        for (int i = 0; i < pairs.length; i += 2) {
            settings.put(pairs[i], String.valueOf(pairs[i + 1]));
        }
        return settings;
    }

    private Properties common(Properties more) {
        Properties all = settings("bootstrap.servers", bootstrap, "request.timeout.ms", 15000,
            "metadata.max.age.ms", 2000);
        all.putAll(more);
        return all;
    }

    Admin admin() {
        return Admin.create(common(settings("default.api.timeout.ms", 30000)));
    }

    KafkaProducer<byte[], byte[]> producer(Object... pairs) {
        Properties all = common(settings("max.block.ms", 20000, "delivery.timeout.ms", 40000));
        all.putAll(settings(pairs));
        return new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
    }

    KafkaConsumer<byte[], byte[]> consumer(Object... pairs) {
        return consumer(settings(pairs));
    }

    KafkaConsumer<byte[], byte[]> consumer(Properties more) {
        Properties all = common(settings("default.api.timeout.ms", 20000, "auto.offset.reset", "earliest",
            "enable.auto.commit", false));
        all.putAll(more);
        return new KafkaConsumer<>(all, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    String newTopic(String hint, int partitions) throws Exception {
        return newTopic(hint, partitions, Map.of());
    }

    /** Creates a topic and returns once every partition has a leader. */
    String newTopic(String hint, int partitions, Map<String, String> configs) throws Exception {
        String name = unique(hint);
        try (Admin admin = admin()) {
            NewTopic topic = new NewTopic(name, Optional.of(partitions), Optional.empty()).configs(configs);
            admin.createTopics(List.of(topic)).all().get();
            awaitLeaders(admin, name, partitions);
        }
        return name;
    }

    static void awaitLeaders(Admin admin, String topic, int partitions) throws Exception {
        Check.eventually(SOON, () -> {
            try {
                var found = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions();
                return found.size() == partitions
                    && found.stream().allMatch(one -> one.leader() != null && !one.leader().isEmpty());
            } catch (java.util.concurrent.ExecutionException notYet) {
                return false;
            }
        }, () -> topic + " has no leaders for " + partitions + " partitions");
    }

    static byte[] bytes(String text) {
        return text == null ? null : text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }

    /** Writes {@code prefix0} to {@code prefixN} into one partition, all acknowledged. */
    List<RecordMetadata> fill(String topic, int partition, String prefix, int count, Object... pairs) throws Exception {
        try (var producer = producer(pairs)) {
            List<java.util.concurrent.Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = 0; i < count; i++) {
                sent.add(producer.send(new ProducerRecord<>(topic, partition, null, bytes(prefix + i))));
            }
            producer.flush();
            List<RecordMetadata> answers = new ArrayList<>();
            for (var future : sent) {
                answers.add(future.get());
            }
            return answers;
        }
    }

    /** All that the consumer returns until there are so many records. */
    static List<ConsumerRecord<byte[], byte[]>> take(KafkaConsumer<byte[], byte[]> consumer, int count)
            throws Exception {
        List<ConsumerRecord<byte[], byte[]>> taken = new ArrayList<>();
        Check.eventually(SOON, () -> {
            consumer.poll(Duration.ofMillis(200)).forEach(taken::add);
            return taken.size() >= count;
        }, () -> "only " + taken.size() + " of " + count + " records came");
        Check.equal(count, taken.size(), "number of records");
        return taken;
    }

    /** Reads a partition from its start. */
    List<ConsumerRecord<byte[], byte[]>> readBack(String topic, int partition, int count, Object... pairs)
            throws Exception {
        try (var consumer = consumer(pairs)) {
            TopicPartition where = new TopicPartition(topic, partition);
            consumer.assign(List.of(where));
            consumer.seekToBeginning(List.of(where));
            return take(consumer, count);
        }
    }

    static List<String> values(Collection<ConsumerRecord<byte[], byte[]>> records) {
        return records.stream().map(record -> text(record.value())).toList();
    }

    /** {@code prefix0} to {@code prefixN}, as {@link #fill} writes them. */
    static List<String> numbered(String prefix, int from, int to) {
        return java.util.stream.IntStream.range(from, to).mapToObj(i -> prefix + i).toList();
    }

    static List<TopicPartition> partitions(String topic, int count) {
        return java.util.stream.IntStream.range(0, count).mapToObj(i -> new TopicPartition(topic, i)).toList();
    }
}

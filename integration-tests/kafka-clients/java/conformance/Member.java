package conformance;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Properties;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import java.util.regex.Pattern;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;

/** A member of a group in a thread of its own, which polls until it is closed. */
final class Member implements AutoCloseable {
    final List<ConsumerRecord<byte[], byte[]>> records = java.util.Collections.synchronizedList(new ArrayList<>());
    final AtomicInteger revoked = new AtomicInteger();
    final AtomicInteger rebalances = new AtomicInteger();
    private final ConcurrentLinkedQueue<Consumer<KafkaConsumer<byte[], byte[]>>> calls = new ConcurrentLinkedQueue<>();
    private final KafkaConsumer<byte[], byte[]> consumer;
    private final Thread thread;
    private volatile Set<TopicPartition> assignment = Set.of();
    private volatile boolean ended;
    private volatile Exception failure;

    private Member(KafkaConsumer<byte[], byte[]> consumer, Consumer<ConsumerRebalanceListener> subscribe) {
        this.consumer = consumer;
        subscribe.accept(new ConsumerRebalanceListener() {
            @Override
            public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                revoked.addAndGet(partitions.size());
            }

            @Override
            public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                rebalances.incrementAndGet();
            }
        });
        this.thread = new Thread(this::poll, "member");
        thread.setDaemon(true);
        thread.start();
    }

    static Member start(Target target, Properties settings, String topic) {
        KafkaConsumer<byte[], byte[]> consumer = target.consumer(settings);
        return new Member(consumer, listener -> consumer.subscribe(List.of(topic), listener));
    }

    static Member start(Target target, Properties settings, Pattern topics) {
        KafkaConsumer<byte[], byte[]> consumer = target.consumer(settings);
        return new Member(consumer, listener -> consumer.subscribe(topics, listener));
    }

    private void poll() {
        try (consumer) {
            while (!ended) {
                consumer.poll(Duration.ofMillis(50)).forEach(records::add);
                assignment = Set.copyOf(consumer.assignment());
                for (var call = calls.poll(); call != null; call = calls.poll()) {
                    call.accept(consumer);
                }
            }
        } catch (Exception ended) {
            failure = ended;
        }
        assignment = Set.of();
    }

    Set<TopicPartition> assignment() {
        return assignment;
    }

    /** What ended it, if it did not end by {@link #close}. */
    Exception failure() {
        return failure;
    }

    /** Calls the consumer from the thread to which it belongs, and waits for that. */
    void call(Consumer<KafkaConsumer<byte[], byte[]>> call) throws Exception {
        CountDownLatch done = new CountDownLatch(1);
        Exception[] thrown = new Exception[1];
        calls.add(consumer -> {
            try {
                call.accept(consumer);
            } catch (Exception failed) {
                thrown[0] = failed;
            }
            done.countDown();
        });
        Check.that(done.await(30, TimeUnit.SECONDS), "the member's thread does not answer: " + failure);
        if (thrown[0] != null) {
            throw thrown[0];
        }
    }

    ConsumerGroupMetadata metadata() throws Exception {
        ConsumerGroupMetadata[] found = new ConsumerGroupMetadata[1];
        call(consumer -> found[0] = consumer.groupMetadata());
        return found[0];
    }

    List<String> values() {
        synchronized (records) {
            return Target.values(records);
        }
    }

    /** Leaves the group, unless it is a static member of a classic group. */
    @Override
    public void close() {
        ended = true;
        try {
            thread.join(30_000);
        } catch (InterruptedException timedOut) {
            Thread.currentThread().interrupt();
        }
    }

    /** Waits until the members have all partitions between them, none twice, each at least {@code least}. */
    static void awaitShared(String topic, int partitions, int least, Member... members) throws Exception {
        Set<TopicPartition> all = Set.copyOf(Target.partitions(topic, partitions));
        Check.eventually(Duration.ofSeconds(75), () -> {
            List<TopicPartition> held = new ArrayList<>();
            boolean enough = true;
            for (Member member : members) {
                Check.that(member.failure == null, "a member ended: " + member.failure);
                Set<TopicPartition> assignment = member.assignment;
                held.addAll(assignment);
                enough &= assignment.size() >= least;
            }
            return enough && held.size() == partitions && all.equals(Set.copyOf(held));
        }, () -> partitions + " partitions are not shared: " + describe(members));
    }

    /** Waits until the live view of one member has so many partitions of the topic. */
    void awaitSize(int partitions) throws Exception {
        Check.eventually(Duration.ofSeconds(75), () -> assignment.size() == partitions,
            () -> partitions + " partitions expected, found " + describe(this));
    }

    private static String describe(Member... members) {
        List<String> held = new ArrayList<>();
        for (Member member : members) {
            TreeSet<Integer> numbers = new TreeSet<>();
            member.assignment.forEach(partition -> numbers.add(partition.partition()));
            held.add(numbers.toString());
        }
        return String.join(" ", held);
    }
}

package conformance;

import java.util.Arrays;
import java.util.List;
import java.util.Properties;

/**
 * The Java client's part of the conformance suite: {@code Main BOOTSTRAP [BEHAVIOUR,...]} prints one line of JSON a
 * behaviour. {@code Main member BOOTSTRAP TOPIC NAME=VALUE...} is a member of a group that others may kill.
 */
public final class Main {
    public static void main(String[] arguments) throws Exception {
        if (arguments.length > 1 && arguments[0].equals("member")) {
            beMember(Arrays.asList(arguments));
            return;
        }
        Suite suite = new Suite("java", arguments[0], arguments.length > 1 ? arguments[1] : "");
        CodecBehaviours.add(suite);
        ProduceBehaviours.add(suite);
        ConsumeBehaviours.add(suite);
        OffsetBehaviours.add(suite);
        ClassicGroups.add(suite);
        ConsumerProtocol.add(suite);
        GroupOffsets.add(suite);
        TopicAdmin.add(suite);
        ConfigAdmin.add(suite);
        GroupAdmin.add(suite);
        suite.run();
        // Threads of clients that were left behind by a behaviour that timed out must not keep the process.
        System.exit(0);
    }

    /** Says its assignment whenever that changes, until the process ends. */
    private static void beMember(List<String> arguments) throws Exception {
        Properties settings = new Properties();
        for (String word : arguments.subList(3, arguments.size())) {
            String[] pair = word.split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        Target target = new Target(arguments.get(1));
        Member member = Member.start(target, settings, arguments.get(2));
        int said = -1;
        while (true) {
            int size = member.assignment().size();
            if (size != said) {
                System.out.println("assigned " + size);
                said = size;
            }
            Thread.sleep(20);
        }
    }
}

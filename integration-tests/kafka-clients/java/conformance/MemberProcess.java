package conformance;

import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;

/** A member of a group in a process of its own, which can be killed. */
final class MemberProcess implements AutoCloseable {
    private final Process process;
    private volatile int assigned;

    private MemberProcess(Process process) {
        this.process = process;
        Thread reader = new Thread(this::read, "member-process");
        reader.setDaemon(true);
        reader.start();
    }

    static MemberProcess start(Target target, Properties settings, String topic) throws Exception {
        String java = System.getProperty("java.home") + File.separator + "bin" + File.separator + "java";
        List<String> command = new ArrayList<>(List.of(java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp",
            System.getProperty("java.class.path"), Main.class.getName(), "member", target.bootstrap, topic));
        settings.forEach((name, value) -> command.add(name + "=" + value));
        return new MemberProcess(new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.DISCARD).start());
    }

    private void read() {
        try (var lines = new BufferedReader(new InputStreamReader(process.getInputStream()))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                assigned = Integer.parseInt(line.substring("assigned ".length()));
            }
        } catch (java.io.IOException ended) {
            assigned = 0;
        }
    }

    void awaitAssigned(int partitions) throws Exception {
        Check.eventually(java.time.Duration.ofSeconds(60), () -> assigned == partitions,
            () -> "the member in a process of its own has " + assigned + " partitions");
    }

    void kill() {
        process.destroyForcibly().onExit().join();
    }

    @Override
    public void close() {
        kill();
    }
}

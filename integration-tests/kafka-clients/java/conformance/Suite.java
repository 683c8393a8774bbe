package conformance;

import java.io.PrintWriter;
import java.io.StringWriter;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.stream.Collectors;

/** Named behaviours, run some at a time, each against its own topics and groups and within its own time. */
final class Suite {
    /** Most of a behaviour's time is waiting. */
    private static final int AT_ONCE = 4;
    private static final int SECONDS_EACH = 100;

    /** Returns when the behaviour holds, and throws when it does not. */
    @FunctionalInterface
    interface Body {
        void run(Target target) throws Exception;
    }

    private final String client;
    private final Target target;
    private final Set<String> only;
    private final Map<String, Body> bodies = new LinkedHashMap<>();

    Suite(String client, String bootstrap, String only) {
        this.client = client;
        this.target = new Target(bootstrap);
        this.only = only.isEmpty() ? Set.of() : Set.of(only.split(","));
    }

    void add(String behaviour, Body body) {
        if (bodies.put(behaviour, body) != null) {
            throw new IllegalStateException(behaviour + " is there twice");
        }
    }

    void run() throws Exception {
        if (!only.isEmpty()) {
            bodies.keySet().retainAll(only);
        }
        String names = bodies.keySet().stream().map(Suite::quote).collect(Collectors.joining(","));
        print("{\"client\":" + quote(client) + ",\"plan\":[" + names + "]}");
        ExecutorService outer = Executors.newFixedThreadPool(AT_ONCE);
        ExecutorService inner = Executors.newCachedThreadPool();
        List<Future<?>> runs = bodies.entrySet().stream()
            .<Future<?>>map(entry -> outer.submit(() -> runOne(inner, entry.getKey(), entry.getValue())))
            .toList();
        for (Future<?> run : runs) {
            run.get();
        }
        outer.shutdown();
        inner.shutdownNow();
    }

    private void runOne(ExecutorService inner, String behaviour, Body body) {
        long begun = System.nanoTime();
        Future<?> run = inner.submit(() -> {
            body.run(target);
            return null;
        });
        String detail = null;
        try {
            run.get(SECONDS_EACH, TimeUnit.SECONDS);
        } catch (TimeoutException late) {
            run.cancel(true);
            detail = "not done after " + SECONDS_EACH + " s";
        } catch (ExecutionException failed) {
            detail = describe(failed.getCause());
        } catch (InterruptedException interrupted) {
            detail = "interrupted";
        }
        double seconds = (System.nanoTime() - begun) / 1e9;
        print(String.format(java.util.Locale.ROOT,
            "{\"client\":%s,\"behaviour\":%s,\"outcome\":\"%s\",\"seconds\":%.1f,\"detail\":%s}",
            quote(client), quote(behaviour), detail == null ? "pass" : "fail", seconds,
            quote(detail == null ? "" : detail)));
    }

    private static synchronized void print(String line) {
        System.out.println(line);
        System.out.flush();
    }

    /** The message, and the line of this suite that saw it. */
    private static String describe(Throwable failure) {
        Throwable cause = failure;
        while (cause instanceof ExecutionException && cause.getCause() != null) {
            cause = cause.getCause();
        }
        String kind = cause instanceof Check.Failed ? "" : cause.getClass().getSimpleName() + ": ";
        for (StackTraceElement frame : failure.getStackTrace()) {
            if (frame.getClassName().startsWith("conformance.") && !frame.getClassName().contains("Check")) {
                return kind + cause.getMessage() + " (" + frame.getFileName() + ":" + frame.getLineNumber() + ")";
            }
        }
        StringWriter stack = new StringWriter();
        cause.printStackTrace(new PrintWriter(stack));
        return stack.toString();
    }

    private static String quote(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                quoted.append('\\').append(c);
            } else if (c < ' ') {
                quoted.append(String.format("\\u%04x", (int) c));
            } else {
                quoted.append(c);
            }
        }
        return quoted.append('"').toString();
    }
}

package conformance;

import java.time.Duration;
import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.function.Supplier;

/** What a behaviour expects. */
final class Check {
    static final class Failed extends RuntimeException {
        private static final long serialVersionUID = 1;

        Failed(String message) {
            super(message);
        }
    }

    static void that(boolean holds, String what) {
        if (!holds) {
            throw new Failed(what);
        }
    }

    static void equal(Object expected, Object found, String what) {
        if (!Objects.equals(expected, found)) {
            throw new Failed(what + ": expected " + expected + ", found " + found);
        }
    }

    /** Runs what must fail in this way; futures and their causes are unwrapped. */
    static <E extends Throwable> E fails(Class<E> expected, Callable<?> body) throws Exception {
        Object answer;
        try {
            answer = body.call();
        } catch (Exception failure) {
            Throwable cause = failure instanceof ExecutionException ? failure.getCause() : failure;
            if (expected.isInstance(cause)) {
                return expected.cast(cause);
            }
            throw new Failed("expected " + expected.getSimpleName() + ", found " + cause);
        }
        throw new Failed("expected " + expected.getSimpleName() + ", found the answer " + answer);
    }

    /** Waits for what comes about at a time that nobody tells. */
    static void eventually(Duration limit, Callable<Boolean> holds, Supplier<String> what) throws Exception {
        long deadline = System.nanoTime() + limit.toNanos();
        while (!holds.call()) {
            if (System.nanoTime() > deadline) {
                throw new Failed("not within " + limit.toSeconds() + " s: " + what.get());
            }
            Thread.sleep(50);
        }
    }
}

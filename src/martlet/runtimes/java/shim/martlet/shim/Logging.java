package martlet.shim;

import java.io.PrintWriter;
import java.io.StringWriter;
import java.util.logging.Formatter;
import java.util.logging.Handler;
import java.util.logging.Level;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import java.util.logging.SimpleFormatter;

/** Sends what java.util.logging (and with it System.Logger) logs as frames whose stream is the level. */
public final class Logging {
    /** Called by the LogManager, once. */
    public Logging() {
        Logger root = Logger.getLogger("");
        root.setLevel(Level.INFO);
        root.addHandler(new Frames());
    }

    private static final class Frames extends Handler {
        private final Formatter formatter = new SimpleFormatter();

        @Override
        public void publish(LogRecord record) {
            StringWriter text = new StringWriter();
            text.write(String.valueOf(formatter.formatMessage(record)));
            if (record.getThrown() != null) {
                text.write('\n');
                record.getThrown().printStackTrace(new PrintWriter(text, true));
            }
            Log.write(level(record.getLevel().intValue()), text.toString().stripTrailing());
        }

        @Override
        public void flush() {}

        @Override
        public void close() {}

        private static String level(int value) {
            if (value >= Level.SEVERE.intValue()) {
                return "error";
            }
            if (value >= Level.WARNING.intValue()) {
                return "warning";
            }
            return value >= Level.CONFIG.intValue() ? "info" : "debug";
        }
    }
}

package peer;

import static peer.Common.*;

/** For DumpLogSegments: keys and values that need not be text. */
public final class Hex implements org.apache.kafka.tools.api.Decoder<String> {
    @Override
    public String fromBytes(byte[] bytes) {
        return HEX.formatHex(bytes);
    }
}

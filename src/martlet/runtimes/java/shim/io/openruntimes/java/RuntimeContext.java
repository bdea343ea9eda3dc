package io.openruntimes.java;

import io.openruntimes.Call;

/** What a function of Open Runtimes is given. */
public final class RuntimeContext {
    private final Call call;
    private final RuntimeRequest req;
    private final RuntimeResponse res = new RuntimeResponse();

    /** The context of a call. */
    public RuntimeContext(Call call) {
        this.call = call;
        this.req = new RuntimeRequest(call);
    }

    /** The request. */
    public RuntimeRequest getReq() {
        return req;
    }

    /** What makes responses. */
    public RuntimeResponse getRes() {
        return res;
    }

    /** Writes a line of the log. */
    public void log(Object... messages) {
        call.log("info", messages);
    }

    /** Writes a line of the log that is an error. */
    public void error(Object... messages) {
        call.log("error", messages);
    }
}

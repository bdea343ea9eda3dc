package io.openruntimes.java;

import java.util.HashMap;
import java.util.Map;

public class Main {
    public RuntimeOutput main(RuntimeContext context) throws Exception {
        RuntimeRequest req = context.getReq();
        RuntimeResponse res = context.getRes();
        switch (req.getPath()) {
            case "/text":
                return res.text("text ✓");
            case "/json":
                Map<String, Object> json = new HashMap<>();
                json.put("hello", "world");
                json.put("unicode", "żółw 🐢");
                return res.json(json);
            case "/binary":
                byte[] bytes = new byte[256];
                for (int value = 0; value < 256; value++) {
                    bytes[value] = (byte) value;
                }
                return res.binary(bytes);
            case "/empty":
                return res.empty();
            case "/redirect":
                return res.redirect("/target");
            case "/request":
                Map<String, Object> request = new HashMap<>();
                request.put("method", req.getMethod());
                request.put("url", req.getUrl());
                request.put("scheme", req.getScheme());
                request.put("host", req.getHost());
                request.put("port", req.getPort());
                request.put("path", req.getPath());
                request.put("query", req.getQuery());
                request.put("queryString", req.getQueryString());
                request.put("headers", req.getHeaders());
                request.put("bodyText", req.getBodyText());
                return res.json(request);
            case "/body":
                return res.json(req.getBodyJson());
            case "/log":
                context.log("info line");
                context.error("error line");
                return res.text("logged");
            case "/nothing":
                return null;
            case "/raise":
                throw new IllegalStateException("the reason ✗");
            default:
                return res.text("no such path", 404);
        }
    }
}

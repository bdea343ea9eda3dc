#include "RuntimeContext.h"
#include "RuntimeOutput.h"
#include "RuntimeRequest.h"
#include "RuntimeResponse.h"

#include <stdexcept>

namespace runtime {

class Handler {
  public:
    /// Does what every runtime's function for Open Runtimes does.
    static RuntimeOutput main(RuntimeContext& context) {
        RuntimeRequest req = context.req;
        RuntimeResponse res = context.res;
        Json::Value json;

        if (req.path == "/text") {
            return res.text("text ✓");
        } else if (req.path == "/json") {
            json["hello"] = "world";
            json["unicode"] = "żółw 🐢";
            return res.json(json);
        } else if (req.path == "/binary") {
            std::vector<std::byte> bytes;
            for (int value = 0; value < 256; ++value) {
                bytes.push_back(std::byte(value));
            }
            return res.binary(bytes);
        } else if (req.path == "/empty") {
            return res.empty();
        } else if (req.path == "/redirect") {
            return res.redirect("/target");
        } else if (req.path == "/request") {
            json["method"] = req.method;
            json["url"] = req.url;
            json["scheme"] = req.scheme;
            json["host"] = req.host;
            json["port"] = req.port;
            json["path"] = req.path;
            json["query"] = req.query;
            json["queryString"] = req.queryString;
            json["headers"] = req.headers;
            json["bodyText"] = req.bodyText;
            return res.json(json);
        } else if (req.path == "/body") {
            return res.json(req.bodyJson);
        } else if (req.path == "/log") {
            context.log("info line");
            context.error("error line");
            return res.text("logged");
        } else if (req.path == "/nothing") {
            return {};
        } else if (req.path == "/raise") {
            throw std::runtime_error("the reason ✗");
        }
        return res.text("there is no " + req.path, 404);
    }
};

} // namespace runtime

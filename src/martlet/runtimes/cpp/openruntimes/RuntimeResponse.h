// Makes what a function for Open Runtimes returns.
#pragma once

#include <json/writer.h>

#include "RuntimeOutput.h"

namespace runtime {

class RuntimeResponse {
  public:
    RuntimeOutput binary(const std::vector<std::byte>& bytes, int statusCode = 200, Json::Value headers = {}) {
        return made("application/octet-stream", bytes, statusCode, headers);
    }

    RuntimeOutput text(const std::string& body, int statusCode = 200, Json::Value headers = {}) {
        return made("text/plain", bytes(body), statusCode, headers);
    }

    RuntimeOutput send(const std::string& body, int statusCode = 200, Json::Value headers = {}) {
        return text(body, statusCode, headers);
    }

    RuntimeOutput json(const Json::Value& document, int statusCode = 200, Json::Value headers = {}) {
        Json::StreamWriterBuilder writer;
        writer["indentation"] = "";
        writer["emitUTF8"] = true;
        headers["content-type"] = "application/json";
        return made("", bytes(Json::writeString(writer, document)), statusCode, headers);
    }

    RuntimeOutput empty() { return {{}, 204, Json::objectValue}; }

    RuntimeOutput redirect(const std::string& url, int statusCode = 301, Json::Value headers = {}) {
        headers["location"] = url;
        return {{}, statusCode, headers};
    }

  private:
    static std::vector<std::byte> bytes(const std::string& text) {
        auto first = reinterpret_cast<const std::byte*>(text.data());
        return {first, first + text.size()};
    }

    static RuntimeOutput made(const char* type, std::vector<std::byte> body, int statusCode, Json::Value& headers) {
        if (!headers.isMember("content-type")) {
            headers["content-type"] = type;
        }
        return {std::move(body), statusCode, headers};
    }
};

} // namespace runtime

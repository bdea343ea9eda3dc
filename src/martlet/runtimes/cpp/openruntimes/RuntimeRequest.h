// The request as a function for Open Runtimes sees it. Names of headers are in lower case.
#pragma once

#include <any>
#include <cstddef>
#include <string>
#include <vector>

#include <json/value.h>

namespace runtime {

struct RuntimeRequest {
    std::string method;
    std::string scheme;
    std::string host;
    int port = 80;
    std::string path;
    Json::Value query{Json::objectValue};
    std::string queryString;
    Json::Value headers{Json::objectValue};
    std::any body;
    std::vector<std::byte> bodyBinary;
    std::string bodyRaw;
    std::string bodyText;
    Json::Value bodyJson;
    std::string url;
};

} // namespace runtime

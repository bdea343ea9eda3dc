// What a function for Open Runtimes returns.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <json/value.h>

namespace runtime {

struct RuntimeOutput {
    std::vector<std::byte> body;
    int statusCode = 0;
    Json::Value headers;
};

} // namespace runtime

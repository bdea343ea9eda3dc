// What a function for Open Runtimes is given.
#pragma once

#include <martlet.hpp>

#include "RuntimeRequest.h"
#include "RuntimeResponse.h"

namespace runtime {

class RuntimeContext {
  public:
    RuntimeRequest req;
    RuntimeResponse res;
    bool silent = false;

    void log(const std::string& message) { write("info", message); }
    void error(const std::string& message) { write("error", message); }

  private:
    void write(const char* level, const std::string& message) {
        if (!silent) {
            martlet::log::write(level, message);
        }
    }
};

} // namespace runtime

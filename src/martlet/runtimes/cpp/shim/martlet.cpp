// All of the shim in one translation unit: its headers are read once.
#include "answer.cpp"
#include "http1.cpp"
#include "json.cpp"
#include "logs.cpp"
#include "server.cpp"

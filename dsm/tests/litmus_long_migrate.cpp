// What litmus_migrate_long_test runs: see litmus_long_test.cpp.
extern const char* const litmus_protocol;
const char* const litmus_protocol = "migrate";

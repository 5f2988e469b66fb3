// The examples of dsm/examples/calls_c.c and calls.cpp: there is one for each call of the headers, it makes that call,
// and all of them do what they say, in jobs of 1, 2 and 4 ranks under both protocols.
#include <gtest/gtest.h>

#include <cctype>
#include <regex>
#include <string>
#include <vector>

#include "dsm/tests/library_bench.hpp"

namespace {

using dsm::library::testing::build_folder;
using dsm::library::testing::text_of;

struct Call {
  std::string name;     // as it is called
  std::string example;  // the function of the examples that shows it
};

// dsm.h declares from the first column on; nothing else there begins with a letter.
std::vector<Call> calls_of_c() {
  const std::regex declaration(R"(^[a-z][\w *]*\b(dsm_\w+)\()");
  std::istringstream header(text_of("dsm/include/dsm/dsm.h"));
  std::vector<Call> calls;
  std::smatch found;
  for (std::string line; std::getline(header, line);) {
    if (std::regex_search(line, found, declaration)) calls.push_back({found[1], "example_" + std::string(found[1])});
  }
  return calls;
}

// FindMe -> find_me
std::string with_small_letters(const std::string& name) {
  std::string small;
  for (const char c : name) {
    if (std::isupper(static_cast<unsigned char>(c)) != 0 && !small.empty()) small += '_';
    small += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return small;
}

// The classes and aliases of dsm.hpp, and the classes' public functions that have a name: two blanks before the
// declaration. Constructors are shown with their class.
std::vector<Call> calls_of_cxx() {
  const std::regex type(R"(^(?:class|using) (\w+))"), access(R"(^ (public|private):)"), comment(R"(^ *//)");
  const std::regex function(R"(^  (?:\[\[nodiscard\]\] )?(?:[\w:<>*&]+ )+(?!operator)(\w+)\()");
  std::istringstream header(text_of("dsm/include/dsm/dsm.hpp"));
  std::vector<Call> calls;
  std::smatch found;
  std::string of;
  bool shown = false;
  for (std::string line; std::getline(header, line);) {
    if (std::regex_search(line, comment)) continue;
    if (std::regex_search(line, found, type)) {
      of = "example_" + with_small_letters(found[1]);
      calls.push_back({found[1], of});
    } else if (std::regex_search(line, found, access)) {
      shown = found[1] == "public";
    } else if (line == "};") {
      shown = false;
    } else if (shown && std::regex_search(line, found, function) && of != "example_" + with_small_letters(found[1])) {
      if (calls.back().name != found[1]) calls.push_back({found[1], of + "_" + std::string(found[1])});
    }
  }
  return calls;
}

// From the function's parameters to the brace that closes it; empty if there is none.
std::string body(const std::string& examples, const std::string& function) {
  const std::string beginning = "void " + function;
  const std::size_t begin = examples.find(beginning + "(");
  if (begin == std::string::npos) return "";
  return examples.substr(begin + beginning.size(), examples.find("\n}", begin) - begin);
}

void expect_an_example_of_each(const std::vector<Call>& calls, const char* file) {
  const std::string examples = text_of(file);
  for (const Call& call : calls) {
    EXPECT_TRUE(std::regex_search(body(examples, call.example), std::regex("\\b" + call.name + "\\b")))
        << file << " has no function " << call.example << " that uses " << call.name;
  }
}

// That an example is called is seen by -Wunused-function, as an error.
class Calls : public dsm::library::testing::Bench {
 protected:
  void expect_ok(const std::string& said) {
    const std::string dsmexec = (build_folder() / "bin/dsmexec").string();
    for (const char* protocol : {"migrate", "msi"}) {
      for (const char* ranks : {"1", "2", "4"}) {
        const int code = run({dsmexec, "--output", "plain", "--timeout", "60", "-p", protocol, "-n", ranks, "--size",
                              "16M", "machine_file", path("calls")});
        EXPECT_EQ(code, 0) << protocol << ", " << ranks << " ranks:\n" << output();
        EXPECT_NE(output().find(said), std::string::npos) << protocol << ", " << ranks << " ranks:\n" << output();
      }
    }
  }
};

TEST_F(Calls, of_c_have_an_example_each) {
  const std::vector<Call> calls = calls_of_c();
  EXPECT_GE(calls.size(), 31U);
  expect_an_example_of_each(calls, "dsm/examples/calls_c.c");
}

TEST_F(Calls, of_cxx_have_an_example_each) {
  const std::vector<Call> calls = calls_of_cxx();
  EXPECT_GE(calls.size(), 25U);
  expect_an_example_of_each(calls, "dsm/examples/calls.cpp");
}

TEST_F(Calls, of_c_do_what_their_examples_say) {
  const std::string lib = (build_folder() / "lib").string();
  compile({"gcc", "-std=c11", "-Wconversion", "-o", path("calls"), "dsm/examples/calls_c.c"},
          {"-L" + lib, "-ldsm", "-Wl,-rpath," + lib});
  expect_ok("calls_c: OK\n");
}

TEST_F(Calls, of_cxx_do_what_their_examples_say) {
  const std::string dsmcxx = (build_folder() / "bin/dsmc++").string();
  compile({dsmcxx, "-Wconversion", "-o", path("calls"), "dsm/examples/calls.cpp"}, {});
  expect_ok("calls: OK\n");
}

}  // namespace

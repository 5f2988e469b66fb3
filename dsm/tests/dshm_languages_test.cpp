// Programs in other languages, which have never heard of us, share by key: on two hosts under dshmrun, and not natively.
#include <gtest/gtest.h>

#include "dsm/tests/dshm_bench.hpp"
#include "dsm/tests/dshm_scripts.hpp"
#include "dsm/tests/job_bench.hpp"

namespace dsm::dshm::testing {
namespace {

using launch::testing::has_line;
using launch::testing::text;

constexpr int rounds = 50, increments = 200;

Words with(const Script& script, int role, const std::string& key, int count) {
  Words line = script.line;
  line.insert(line.end(), {std::to_string(role), key, std::to_string(count)});
  return line;
}

class DshmLanguages : public Dshm {
 protected:
  // Whether this machine has what the script is for.
  bool is_there(const Script& script) const {
    const bool php = std::string(script.name).rfind("php", 0) == 0;
    const Words asks =
        php ? Words{"php", "-r", "shmop_open(...); sem_get(...);"} : Words{"/usr/bin/python3", "-c", "import sysv_ipc"};
    return std::string(script.name).rfind("perl", 0) == 0 || run({1, User::root, true}, asks).code() == 0;
  }
  // Role 0 on host 1, role 1 on host 2; what role 0 has said.
  std::string share(const Script& zero, const Script& one, int count, User user) const {
    SCOPED_TRACE(std::string(zero.name) + " and " + one.name + (user == User::root ? ", root" : ", ordinary user"));
    const std::string key = new_key();
    std::vector<std::unique_ptr<Program>> both;
    both.push_back(start({1, user}, with(zero, 0, key, count)));
    if (!both[0]->shows("ready")) return "";
    both.push_back(start({2, user}, with(one, 1, key, count)));
    expect_well(both);
    return both[0]->wait().out;
  }
  using Users = std::initializer_list<User>;
  void expect_rounds(const Script& zero, const Script& one, Users users = {User::root, User::ordinary}) const {
    for (const User user : users) {
      EXPECT_EQ(share(zero, one, rounds, user), "ready\n" + std::to_string(rounds) + " rounds\n");
    }
  }
  void expect_sum(const Script& zero, const Script& one, Users users) const {
    for (const User user : users) {
      EXPECT_EQ(share(zero, one, increments, user), "ready\n" + std::to_string(2 * increments) + "\n");
    }
  }
};

TEST_F(DshmLanguages, PerlSharesByKey) {
  expect_rounds(perl_rounds(), perl_rounds());
  expect_rounds(perl_object_rounds(), perl_object_rounds(), {User::ordinary});
}
TEST_F(DshmLanguages, PhpSharesByKey) {
  if (!is_there(php_rounds())) GTEST_SKIP() << "no php with shmop and sysvsem: make deps-dshm";
  expect_rounds(php_rounds(), php_rounds());
}
TEST_F(DshmLanguages, PythonSharesByKey) {
  if (!is_there(python_rounds())) GTEST_SKIP() << "no sysv_ipc: make deps-dshm";
  expect_rounds(python_rounds(), python_rounds());
}
TEST_F(DshmLanguages, OneLanguageReadsWhatAnotherWrites) {
  if (!is_there(python_rounds()) || !is_there(php_rounds())) GTEST_SKIP() << "no sysv_ipc, or no php: make deps-dshm";
  expect_rounds(perl_rounds(), python_rounds(), {User::root});
  expect_rounds(python_rounds(), php_rounds(), {User::ordinary});
  expect_rounds(php_rounds(), perl_object_rounds(), {User::root});
}

TEST_F(DshmLanguages, PerlLocksBySemaphores) { expect_sum(perl_adding(), perl_adding(), {User::root}); }
TEST_F(DshmLanguages, PhpLocksBySemaphores) {
  if (!is_there(php_adding())) GTEST_SKIP() << "no php with shmop and sysvsem: make deps-dshm";
  expect_sum(php_adding(), php_adding(), {User::ordinary});
}
TEST_F(DshmLanguages, PythonAndPerlLockEachOtherOut) {
  if (!is_there(python_adding())) GTEST_SKIP() << "no sysv_ipc: make deps-dshm";
  expect_sum(python_adding(), python_adding(), {User::root});
  expect_sum(perl_adding(), python_adding(), {User::ordinary});
}

// Each host has an IPC namespace of its own, as machines have. And on one host they do share: the scripts are well.
TEST_F(DshmLanguages, NativelyNothingIsSharedAcrossHosts) {
  std::vector<Script> scripts = {perl_rounds(), perl_object_rounds()};
  for (const Script& script : {php_rounds(), python_rounds()}) {
    if (is_there(script)) scripts.push_back(script);
  }
  for (const Script& script : scripts) {
    SCOPED_TRACE(script.name);
    const std::string key = new_key();
    const auto zero = start({1, User::root, true}, with(script, 0, key, rounds));
    ASSERT_TRUE(zero->shows("ready"));
    const Ended elsewhere = run({2, User::root, true}, with(script, 1, key, rounds));
    EXPECT_NE(elsewhere.code(), 0) << text(elsewhere);
    EXPECT_TRUE(has_line(elsewhere.err + elsewhere.out, {"No such file or directory"}) ||
                has_line(elsewhere.err + elsewhere.out, {"No shared memory exists with the key"}))
        << text(elsewhere);
    const Ended here = run({1, User::root, true}, with(script, 1, key, rounds));
    EXPECT_EQ(here.code(), 0) << text(here);
    EXPECT_EQ(zero->wait().code(), 0) << text(zero->wait());
  }
}

}  // namespace
}  // namespace dsm::dshm::testing

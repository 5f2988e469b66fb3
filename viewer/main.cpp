// dsmtop - shows who owns which page of a running job.
//
//   $ build/bin/dsmexec machine_file demo &
//   $ build/bin/dsmtop                  # q quits, ? explains
//   $ build/bin/dsmtop --once --json | jq '.ranks[].owned'
#include <fmt/format.h>
#include <langinfo.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>

#include "viewer/options.hpp"
#include "viewer/print.hpp"
#include "viewer/shell.hpp"

namespace {

int run(int argc, char** argv) {
  using viewer::Options;
  const Options options = viewer::parse_options(argc, argv);
  if (options.what == Options::What::help || options.what == Options::What::version) {
    fmt::print("{}", options.what == Options::What::help ? options.help : std::string("dsmtop 0.1\n"));
    return 0;
  }
  std::setlocale(LC_ALL, "");
  const bool utf8 = !options.ascii && std::string_view(::nl_langinfo(CODESET)) == "UTF-8";
  if (options.what != Options::What::watch) return viewer::print(options, utf8);
  if (::isatty(STDIN_FILENO) == 0 || ::isatty(STDOUT_FILENO) == 0) {
    throw viewer::Misuse("standard input and output are no terminal; try --once");
  }
  // https://no-color.org: an environment that asks for none is heard unless the command line says otherwise.
  const char* no_color = std::getenv("NO_COLOR");
  const bool wished = no_color == nullptr || *no_color == '\0';
  const bool color = options.color == Options::Color::always || (options.color == Options::Color::automatic && wished);
  return viewer::run_shell({options.job, utf8, color});
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const viewer::Misuse& misuse) {
    fmt::print(stderr, "dsmtop: {}\n", misuse.what());
    return 2;
  } catch (const std::exception& error) {
    fmt::print(stderr, "dsmtop: {}\n", error.what());
    return 1;
  }
}

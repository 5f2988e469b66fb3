#include "dsm/launch/options.hpp"

#include <fmt/format.h>
#include <wordexp.h>

#include <boost/program_options.hpp>
#include <charconv>
#include <cmath>
#include <cstdlib>

namespace dsm::launch {
namespace {

namespace po = boost::program_options;

po::options_description visible_options() {
  po::options_description all("options");
  auto add = all.add_options();
  add("ranks,n", po::value<std::string>()->value_name("N"),
      "start N ranks (default: one for each slot of machine_file)");
  add_usual_region_options(all);
  add("timeout", po::value<std::string>()->value_name("SECONDS"), "end the job after so long, with exit code 124");
  add("output", po::value<std::string>()->value_name("tag|plain|DIR"),
      "tag each line with its rank, or not, or write a file for each rank and stream into DIR (default: tag)");
  add("wdir", po::value<std::string>()->value_name("DIR"), "start the ranks in DIR");
  add("keep-going", "let the other ranks go on when one fails");
  add("verbose,v", "say what happens, and who knocks without a key");
  add("help,h", "this text");
  add("help-all", "the other options, too");
  add("version", "the version");
  return all;
}

po::options_description further_options() {
  po::options_description all("other options");
  add_other_region_options(all);
  auto add = all.add_options();
  add("launcher", po::value<std::string>()->value_name("auto|local|ssh|slurm"),
      "how ranks come to their machines: auto, by fork on this one and by ssh on others (the default); local, by fork "
      "only; ssh, also on this one; slurm, by srun on the nodes of the Slurm job that dsmexec runs inside of (the "
      "default if machine_file is -)");
  add("ssh", po::value<std::string>()->value_name("COMMAND"),
      "the ssh command, with options of its own if need be: --ssh 'ssh -F file' (default: ssh)");
  add("export,x", po::value<std::vector<std::string>>()->value_name("NAME[=VALUE]")->composing(),
      "give the ranks this variable of the environment, of which those on other machines get no other; may be "
      "repeated");
  add("send", "copy the program to machines that do not have it (it is gone there when the job is)");
  add("iface", po::value<std::string>()->value_name("ADDRESS"),
      "the address of this machine that other machines are to connect to (default: the one from which ssh or srun came "
      "to them)");
  add("port-range", po::value<std::string>()->value_name("FIRST-LAST"),
      "the ports at which dsmexec and the ranks may listen, as 4000-4099 (default: whichever the kernel chooses)");
  add("open-rendezvous", "let any program exchange data on the rendezvous port, without the job's key");
  add("encrypt", "encrypt what ranks say to each other and to dsmexec (it costs time; see SECURITY.md)");
  add("timestamp", "put the time of day in front of each line of the ranks' output");
  add("stdin", po::value<std::string>()->value_name("RANK|all|none"),
      "who reads dsmexec's standard input; the others see its end at once (default: 0). With all, those who read get "
      "it "
      "as fast as the slowest of them");
  add("control", po::value<std::string>()->value_name("FIFO"),
      "read orders from this FIFO, which is made if it is not there: a line 'status' or 'abort' each");
  add("debug", po::value<std::string>()->value_name("gdb|valgrind|strace"),
      "run the ranks under this program, and wait for them as long as it takes; gdb: one rank, which reads commands "
      "from "
      "dsmexec's standard input, and Ctrl-C interrupts it (before dsm_init, say 'handle SIGSEGV stop' to see a wild "
      "pointer)");
  add("debug-rank", po::value<std::string>()->value_name("RANK"),
      "only this rank runs under the program of --debug (default: all; for gdb: 0)");
  add("dry-run", "say what would be started, where and how, and start nothing");
  return all;
}

// Boost would look for options behind the first positional too. As an extra style parser, asked before all others, this
// takes everything from machine_file on. A lone token is left to Boost: as one of several calls it asks with one token
// whether an option's value looks like an option itself, and it must hear "no".
std::vector<po::option> take_positionals(std::vector<std::string>& arguments) {
  std::vector<po::option> taken;
  if (arguments.size() < 2) return taken;
  const std::string& first = arguments.front();
  if (!first.empty() && first.front() == '-' && first != "-") return taken;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    po::option option;
    option.position_key = static_cast<int>(i);
    option.value.push_back(arguments[i]);
    option.original_tokens.push_back(arguments[i]);
    taken.push_back(std::move(option));
  }
  arguments.clear();
  return taken;
}

int parse_ranks(const std::string& text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > max_job_ranks) {
    throw UsageError(fmt::format("-n {}: the number of ranks is 1 to {}", text, max_job_ranks));
  }
  return value;
}

std::chrono::milliseconds parse_timeout(const std::string& text) {
  constexpr double most = 1e9;  // seconds: some thirty years
  double seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds, std::chars_format::fixed);
  if (error != std::errc() || end != text.data() + text.size() || !(seconds > 0) || seconds > most) {
    throw UsageError(
        fmt::format("--timeout {}: a number of seconds greater than 0 is needed, as in 90 or 0.5", text));
  }
  return std::chrono::milliseconds(static_cast<std::int64_t>(std::ceil(seconds * 1000)));
}

int parse_rank(const char* option, const std::string& text, const char* which) {
  int rank = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rank);
  if (error != std::errc() || end != text.data() + text.size() || rank < 0) {
    throw UsageError(fmt::format("--{} {}: {} is needed", option, text, which));
  }
  return rank;
}

int parse_input(const std::string& text) {
  if (text == "all") return Options::everybody;
  if (text == "none") return Options::nobody;
  return parse_rank("stdin", text, "a rank, all or none");
}

// Nothing shall listen on all addresses, and nobody can connect to "all".
std::string parse_interface(const std::string& text) {
  if (text.empty() || text == "0.0.0.0" || text == "::")
    throw UsageError(fmt::format("--iface {}: one address of this machine is needed", text));
  return text;
}

net::PortRange parse_port_range(const std::string& text) {
  const auto ports = net::parse_ports(text);
  if (!ports)
    throw UsageError(fmt::format("--port-range {}: two ports from 1 to 65535 are needed, as 4000-4099", text));
  return *ports;
}

// "NAME=value", or "NAME" for the value that it has here; one that is not set here is left out.
std::optional<std::string> exported(const std::string& text) {
  const std::string name = text.substr(0, text.find('='));
  if (name.empty()) throw UsageError(fmt::format("-x {}: the name of a variable is needed", text));
  if (name.rfind("DSMEXEC_", 0) == 0) throw UsageError(fmt::format("-x {}: that name is dsmexec's own", text));
  if (name.size() < text.size()) return text;
  const char* const value = std::getenv(name.c_str());
  return value != nullptr ? std::optional(name + "=" + value) : std::nullopt;
}

// A command as a shell would read it: words, perhaps in quotes.
std::vector<std::string> parse_command(const std::string& text) {
  wordexp_t words{};
  const int error = ::wordexp(text.c_str(), &words, WRDE_NOCMD | WRDE_UNDEF);
  if (error != 0) {
    const char* const why = error == WRDE_SYNTAX   ? "a quote or brace is not closed"
                            : error == WRDE_CMDSUB ? "a command inside a command is not run"
                            : error == WRDE_BADVAL ? "a variable in it is not set"
                                                   : "a character in it must be quoted: one of | & ; < > ( ) { }";
    throw UsageError(fmt::format("--ssh {}: {}", text, why));
  }
  std::vector<std::string> out(words.we_wordv, words.we_wordv + words.we_wordc);
  ::wordfree(&words);
  if (out.empty() || out.front().empty()) throw UsageError("--ssh needs a command");
  return out;
}

// Boost's texts, in one line each and in our words.
std::string misuse(const po::error& error) {
  if (const auto* unknown = dynamic_cast<const po::unknown_option*>(&error)) {
    return fmt::format("unknown option '{}'", unknown->get_option_name());
  }
  if (const auto* twice = dynamic_cast<const po::multiple_occurrences*>(&error)) {
    return fmt::format("option '{}' is given twice", twice->get_option_name());
  }
  return error.what();
}

po::variables_map parse(const std::vector<std::string>& arguments, std::vector<std::string>& positionals) {
  po::options_description all;
  all.add(visible_options()).add(further_options()).add_options()("positional", po::value<std::vector<std::string>>());
  po::positional_options_description rest;
  rest.add("positional", -1);
  po::variables_map values;
  try {
    const auto style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
    const auto parsed = po::command_line_parser(arguments)
                            .options(all)
                            .positional(rest)
                            .style(style)
                            .extra_style_parser(take_positionals)
                            .run();
    // Taken from the tokens, not from the map: there, an empty argument could not be told from none.
    for (const po::option& option : parsed.options) {
      if (option.position_key >= 0) positionals.insert(positionals.end(), option.value.begin(), option.value.end());
    }
    po::store(parsed, values);
    po::notify(values);
  } catch (const po::error& error) {
    throw UsageError(misuse(error));
  }
  return values;
}

using Values = po::variables_map;

const std::string* text(const Values& values, const char* name) { return text_of(values, name); }

// How they come to their machines.
void read_launch(const Values& values, Options& out) {
  choose(values, "launcher", "auto, local, ssh or slurm", out.launcher,
         [](const std::string& name, Launcher& to) { return parse(name, to); });
  if (const auto* command = text(values, "ssh")) out.ssh = parse_command(*command);
  if (values.count("export") != 0) {
    for (const std::string& each : values["export"].as<std::vector<std::string>>()) {
      if (auto variable = exported(each)) out.exported.push_back(std::move(*variable));
    }
  }
  if (const auto* address = text(values, "iface")) out.interface = parse_interface(*address);
  if (const auto* ports = text(values, "port-range")) out.ports = parse_port_range(*ports);
  if (const auto* wdir = text(values, "wdir")) out.wdir = *wdir;
  out.send = values.count("send") != 0;
  out.open_rendezvous = values.count("open-rendezvous") != 0;
  out.encrypt = values.count("encrypt") != 0;
  out.dry_run = values.count("dry-run") != 0;
}

// Under gdb one rank can be spoken to, by standard input.
void read_debug(const Values& values, Options& out) {
  choose(values, "debug", "gdb, valgrind or strace", out.debugger,
         [](const std::string& name, Debugger& to) { return launch::parse(name, to); });
  const auto* rank = text(values, "debug-rank");
  if (rank != nullptr && out.debugger == Debugger::none)
    throw UsageError("--debug-rank needs --debug gdb, valgrind or strace");
  if (rank != nullptr) out.debugged = parse_rank("debug-rank", *rank, "a rank");
  if (out.debugger != Debugger::gdb) return;
  if (rank == nullptr) out.debugged = 0;
  if (values.count("stdin") != 0 && out.input != out.debugged) {
    throw UsageError(fmt::format(
        "--debug gdb: rank {} reads gdb's commands from standard input, so --stdin cannot name another", out.debugged));
  }
  out.input = out.debugged;
}

// What becomes of what they read and write, and of the job when something happens.
void read_run(const Values& values, Options& out) {
  if (const auto* ranks = text(values, "ranks")) out.ranks = parse_ranks(*ranks);
  if (const auto* timeout = text(values, "timeout")) out.timeout = parse_timeout(*timeout);
  if (const auto* output = text(values, "output")) out.output = *output;
  if (const auto* reader = text(values, "stdin")) out.input = parse_input(*reader);
  if (const auto* fifo = text(values, "control")) out.control = *fifo;
  if (values.count("control") != 0 && out.control.empty()) throw UsageError("--control needs the name of a FIFO");
  if (out.output.empty()) throw UsageError("--output needs tag, plain or the name of a folder");
  out.timestamp = values.count("timestamp") != 0;
  out.keep_going = values.count("keep-going") != 0;
  out.verbose = values.count("verbose") != 0;
}

Options read(const Values& values, const std::vector<std::string>& positionals) {
  Options out;
  out.help = values.count("help") != 0;
  out.help_all = values.count("help-all") != 0;
  out.version = values.count("version") != 0;
  if (out.help || out.help_all || out.version) return out;
  static_cast<Region&>(out) = read_region(values);
  read_launch(values, out);
  read_run(values, out);
  read_debug(values, out);
  if (positionals.empty()) throw UsageError("no machine_file and no program are given");
  if (positionals.size() == 1)
    throw UsageError(fmt::format("no program is given after machine_file '{}'", positionals[0]));
  out.machine_file = positionals[0];
  if (out.machine_file == "-" && values.count("launcher") == 0) out.launcher = Launcher::slurm;
  out.program = positionals[1];
  out.arguments.assign(positionals.begin() + 2, positionals.end());
  return out;
}

}  // namespace

Options parse_options(const std::vector<std::string>& arguments) {
  try {
    std::vector<std::string> positionals;
    const Values values = parse(arguments, positionals);
    return read(values, positionals);
  } catch (const UsageError& misuse) {
    throw UsageError(std::string(misuse.what()) + " (see dsmexec --help)");
  }
}

std::string help_text(bool all) {
  return fmt::format(
      "usage: dsmexec [options] machine_file program [arguments]\n\n"
      "Starts `program` once for each rank on the machines that machine_file names, one per line. Options end at\n"
      "machine_file: what follows `program` is the program's. A program name without '/' is looked up beside dsmexec,\n"
      "then on PATH. `-` as machine_file: the nodes of the Slurm job that dsmexec runs inside of.\n\n{}\n"
      "Exit code: 0 if every rank ended with 0, else that of the rank that failed first (128 + signal if a signal\n"
      "ended it); 124 timeout, 125 dsmexec failed or was misused, 126 program not executable, 127 not found.\n",
      [all] {
        std::ostringstream text;
        text << visible_options();
        if (all) text << '\n' << further_options();
        return text.str();
      }());
}

std::string version_text() { return "dsmexec 0.1\n"; }

}  // namespace dsm::launch

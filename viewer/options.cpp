#include "viewer/options.hpp"

#include <boost/program_options.hpp>
#include <sstream>
#include <vector>

namespace viewer {
namespace {

namespace po = boost::program_options;

Options::Color parse_color(const std::string& text) {
  if (text == "auto") return Options::Color::automatic;
  if (text == "never") return Options::Color::never;
  if (text == "always") return Options::Color::always;
  throw Misuse("--color is auto, never or always, not '" + text + "'");
}

}  // namespace

Options parse_options(int argc, const char* const* argv) {
  std::string color = "auto";
  Options out;
  po::options_description shown("Options"), all;
  shown.add_options()("list", "the jobs one can watch, newest first")(
      "once", "one frame as text, then leave; never waits for a job")(
      "json", "with --once: everything, as one line of JSON")("batch", po::value(&out.frames)->value_name("N"),
                                                              "N frames as text, one a second")(
      "color", po::value(&color)->value_name("WHEN"), "auto, never or always")(
      "ascii", "draw with ASCII characters only")("help,h", "this text")("version", "the version");
  all.add(shown).add_options()("job", po::value(&out.job));
  po::positional_options_description positional;
  positional.add("job", 1);

  po::variables_map given;
  try {
    using style = po::command_line_style::style_t;
    const int strict = po::command_line_style::unix_style & ~style::allow_guessing;
    po::store(po::command_line_parser(argc, argv).options(all).positional(positional).style(strict).run(), given);
    po::notify(given);
  } catch (const po::too_many_positional_options_error&) {
    throw Misuse("one job at a time; see --help");
  } catch (const po::error& error) {
    throw Misuse(std::string(error.what()) + "; see --help");
  }

  out.color = parse_color(color);
  out.ascii = given.count("ascii") != 0;
  if (given.count("help") != 0) {
    std::ostringstream text;
    text
        << "Usage: dsmtop [options] [JOB]\n"
           "Shows a running job, or a session of dsmd's: its ranks, and who owns which page. JOB is a name from --list, the\n"
           "process id of its dsmexec, or the name of its program or session; without it, your newest job, or the first\n"
           "that starts.\n\n"
        << shown << "\nKeys: q quit, ? help, Space pause, arrows move the cursor.\n";
    out.help = text.str();
    out.what = Options::What::help;
    return out;
  }
  if (given.count("version") != 0) {
    out.what = Options::What::version;
    return out;
  }
  if (given.count("list") + given.count("once") + given.count("batch") > 1) {
    throw Misuse("--list, --once and --batch exclude each other");
  }
  if (given.count("json") != 0 && given.count("once") == 0) throw Misuse("--json goes with --once");
  if (given.count("list") != 0 && !out.job.empty()) throw Misuse("--list takes no job");
  if (given.count("batch") != 0 && out.frames < 1) throw Misuse("--batch takes a number of frames, 1 or more");
  if (given.count("list") != 0) out.what = Options::What::list;
  if (given.count("once") != 0) out.what = given.count("json") != 0 ? Options::What::json : Options::What::once;
  if (given.count("batch") != 0) out.what = Options::What::batch;
  return out;
}

}  // namespace viewer

// kinfsd: the program. Runs in the foreground and logs to standard error; what starts it (systemd, a lab) keeps it.
#include <fmt/format.h>
#include <signal.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "daemon/config.h"
#include "daemon/daemon.h"
#include "daemon/exit_code.h"
#include "daemon/key_file.h"
#include "daemon/usage.h"
#include "storage/bytes.h"
#include "storage/heap.h"

namespace kinfs::daemon {
namespace {

int complain(const Error& error, int code) {
  fmt::print(stderr, "kinfsd: {}\n", error.text);
  return code;
}

int make_key(const std::string& file) {
  auto keys = make_key_file(file);
  if (!keys) return complain(keys.error(), exit_code_of(keys.error().code));
  fmt::print("{}\n", to_hex(keys->public_key));
  return kExitDone;
}

void block_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

int serve(Config config) {
  block_signals();
  if (auto log = start_log(config); !log) return complain(log.error(), kExitRefused);
  auto daemon = Daemon::open(std::move(config));
  if (!daemon) {
    spdlog::critical("{}", daemon.error().text);
    // An absent key file or directory is a refusal, not a lookup that found nothing.
    const auto code = daemon.error().code == Errc::kNotFound ? kExitRefused : exit_code_of(daemon.error().code);
    if (spdlog::default_logger()->name() == "file") complain(daemon.error(), code);
    return code;
  }
  if (auto ran = (*daemon)->run(); !ran) {
    spdlog::critical("{}", ran.error().text);
    return kExitInternal;
  }
  return kExitDone;
}

int main_of(int argc, char** argv) {
  CLI::App app("kinfsd: a member of a kinfs cluster. Serves mounts and kinfs on this host through a Unix socket.",
               "kinfsd");
  std::string config_file;
  std::string key_file;
  bool check = false;
  app.add_option("--config", config_file,
                 fmt::format("the configuration ({}; without that file, defaults hold)", kDefaultConfigFile));
  app.add_flag("--check-config", check, "read the configuration, say what is wrong with it, and end");
  app.add_option("--make-key", key_file, "make a key pair, write it to this new file, print the public key, and end");
  app.set_version_flag("--version", "kinfsd " KINFS_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    fmt::print(stderr, "{}\nSee kinfsd --help.\n",
               usage_error(app, e, std::vector<std::string>(argv + 1, argv + argc)));
    return kExitUsage;
  }
  if (!key_file.empty()) return make_key(key_file);
  const bool named = !config_file.empty();
  const std::string file = named ? config_file : kDefaultConfigFile;
  auto config = load_config(file);
  const bool absent = !config && config.error().code == Errc::kNotFound && !named;
  if (absent) config = default_config();
  if (!config) return complain(config.error(), kExitUsage);
  if (check) {
    fmt::print("{}: {}; host {}, cluster {} of {}\n", file, absent ? "not there, so defaults hold" : "good",
               config->name, config->cluster_id, config->members.empty() ? 1 : config->members.size());
    return kExitDone;
  }
  return serve(std::move(*config));
}

}  // namespace
}  // namespace kinfs::daemon

int main(int argc, char** argv) {
  kinfs::keep_block_memory();
  try {
    return kinfs::daemon::main_of(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "kinfsd: internal error: {}\n", e.what());
    return kinfs::daemon::kExitInternal;
  }
}

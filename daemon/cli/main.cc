// kinfs: the command line. This file says which commands and options there are; each command is a function.
#include <fmt/format.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "daemon/cli/conflicts.h"
#include "daemon/cli/kv.h"
#include "daemon/cli/lab.h"
#include "daemon/cli/leave.h"
#include "daemon/cli/mount.h"
#include "daemon/cli/nodes.h"
#include "daemon/cli/scrub.h"
#include "daemon/cli/session.h"
#include "daemon/cli/setup.h"
#include "daemon/cli/status.h"
#include "daemon/usage.h"

namespace kinfs::daemon {
namespace {

/// Everything that options fill in; the command that was named reads its part.
struct Words {
  std::string socket;
  KvOptions kv;
  StatusOptions status;
  RingOptions ring;
  ConflictsOptions conflicts;
  MountOptions mount;
  UmountOptions umount;
  InitOptions init;
  InviteOptions invite;
  JoinOptions join;
  LeaveOptions leave;
  NodesOptions nodes_of;
  ScrubOptions scrub;
  std::string lab;
  std::string lab_host;
  std::vector<std::string> lab_hosts;
  int nodes = 3;
  bool json = false;
  bool daemon_only = false;
};

using Run = std::function<int()>;

constexpr int kMaxReplicas = 15;  // as quorum.n of the configuration

void add_set_up(CLI::App& app, Words& w, Run& run) {
  const auto host = [](CLI::App* c, SetUpOptions& o) {
    c->add_option("--name", o.name, "this host's name in the cluster (the host name)");
    c->add_option("--address", o.address, "HOST or HOST:PORT under which the others reach it (found out)");
    c->add_option("--mount", o.mount, "mount volume home at this folder, which is made");
    c->add_option("--config", o.config, fmt::format("the configuration to write ({})", kDefaultConfigFile));
  };
  auto* i = app.add_subcommand("init", "make a cluster of this host, to which others can be invited");
  host(i, w.init.host);
  i->add_option("--copies", w.init.copies, "how many hosts keep each file (3)")->check(whole_number(1, kMaxReplicas));
  i->callback([&] { run = [&] { return init(w.init); }; });
  auto* v = app.add_subcommand("invite", "print a word by which one host can join");
  v->add_option("--valid", w.invite.valid, "how long: a number and s, m, h or d (1h)");
  v->callback([&] { run = [&] { return invite(w.invite); }; });
  auto* j = app.add_subcommand("join", "make this host a member, by the word that `kinfs invite` printed");
  j->add_option("WORD", w.join.word, "the invitation")->required();
  host(j, w.join.host);
  j->callback([&] { run = [&] { return join(w.join); }; });
  auto* l = app.add_subcommand("leave", "take this host, or one that is lost, out of its cluster");
  auto* lost = l->add_option("--lost", w.leave.lost, "this host, which will not come back, and is waited for no more");
  l->add_flag("--force", w.leave.force, "even if half of the hosts or more cannot be reached")->needs(lost);
  l->callback([&] { run = [&] { return leave(w.leave); }; });
}

void add_nodes(CLI::App& app, Words& w, Run& run) {
  auto* n = app.add_subcommand("nodes", "how much each host is to hold, and where it stands; or changes that");
  n->add_option("HOST", w.nodes_of.host, "whose weight or zone is to change");
  n->add_option("--weight", w.nodes_of.weight, "it holds so many times as much as a host of weight 1")
      ->check(whole_number(1, kMaxWeight));
  n->add_option("--zone", w.nodes_of.zone, "copies are kept in different zones where there are any; '' for none");
  n->add_flag("--json", w.nodes_of.json, "one list");
  n->callback([&] { run = [&] { return nodes(w.nodes_of); }; });
}

void add_kv(CLI::App& app, Words& w, Run& run) {
  const auto common = [&w](CLI::App* c) {
    c->add_option("KEY", w.kv.key, "the key")->required();
    c->add_option("--volume", w.kv.volume, "a volume of kind kv (kv)");
    c->add_option("--r", w.kv.r, "replicas that answer a read; only the volume's own number for now")
        ->check(whole_number(1, kMaxReplicas));
    c->add_option("--w", w.kv.w, "replicas that confirm a write; only the volume's own number for now")
        ->check(whole_number(1, kMaxReplicas));
  };
  const auto writes = [&w](CLI::App* c) {
    auto* context = c->add_option("--context", w.kv.context, "supersede what that `get --json` showed");
    c->add_flag("--all", w.kv.all, "supersede every version, not only the one that `get` prints")->excludes(context);
  };
  auto* get = app.add_subcommand("get", "print the value of a key; exit 1 when it is absent or has siblings");
  common(get);
  get->add_flag("--all", w.kv.all, "every concurrent version");
  get->add_flag("--json", w.kv.json, "one object a line: key, key_base64, value (base64), host, time, event, context");
  get->callback([&] { run = [&] { return kv_get(w.kv); }; });
  auto* put = app.add_subcommand("put", "store standard input under a key");
  common(put);
  writes(put);
  put->callback([&] { run = [&] { return kv_put(w.kv); }; });
  auto* del = app.add_subcommand("del", "remove a key; exit 1 when it is absent");
  common(del);
  writes(del);
  del->callback([&] { run = [&] { return kv_del(w.kv); }; });
}

void add_views(CLI::App& app, Words& w, Run& run) {
  auto* s = app.add_subcommand("status", "hosts, replicas, disk; exit 1 when something needs attention");
  s->add_flag("--json", w.status.json, "one object");
  s->callback([&] { run = [&] { return status(w.status); }; });
  auto* r = app.add_subcommand("ring", "which host owns what");
  r->add_option("--key", w.ring.key, "also the owners of this key");
  r->add_option("--volume", w.ring.volume, "the key's volume (kv)");
  r->add_flag("--json", w.ring.json, "one object");
  r->callback([&] { run = [&] { return ring(w.ring); }; });
  auto* scrubs = app.add_subcommand("scrub", "read all blocks here now; exit 1 when one was damaged");
  scrubs->callback([&] { run = [&] { return scrub(w.scrub); }; });
  auto* c = app.add_subcommand("conflicts", "names with more than one version; exit 1 when there are any");
  c->add_option("PATH", w.conflicts.path, "a file or folder in a mount; without it, all of volume home");
  c->add_flag("--json", w.conflicts.json, "one object a line: path, plain, siblings[{name, host, time, type, size}]");
  c->callback([&] { run = [&] { return conflicts(w.conflicts); }; });
}

void add_mounts(CLI::App& app, Words& w, Run& run) {
  auto* m = app.add_subcommand("mount", "mount a volume of kind fs");
  m->add_option("VOLUME", w.mount.volume, "home")->required();
  m->add_option("DIR", w.mount.directory, "where")->required();
  m->add_option("-o", w.mount.options, "options of mount.kinfs, NAME=VALUE,…")->allow_extra_args(false);
  m->callback([&] { run = [&] { return mount(w.mount); }; });
  auto* u = app.add_subcommand("umount", "unmount, and wait until all that was written is published");
  u->add_option("DIR", w.umount.directory, "where")->required();
  u->callback([&] { run = [&] { return umount(w.umount); }; });
}

void add_lab(CLI::App& app, Words& w, Run& run) {
  auto* lab = app.add_subcommand("lab", "a cluster of several hosts on this one machine");
  lab->require_subcommand(1);
  const auto verb = [&](const char* name, const char* words, bool needs_directory = true) {
    auto* c = lab->add_subcommand(name, words);
    c->add_option("DIR", w.lab, "the lab's folder; host N is mounted at DIR/N")->required(needs_directory);
    return c;
  };
  auto* up = verb("up", "start host1, host2, … and mount them at DIR/1, DIR/2, …");
  up->add_option("--nodes", w.nodes, "how many hosts (3)")->check(whole_number(1, kMaxLabHosts));
  up->callback([&] { run = [&] { return lab_up(w.lab, w.nodes); }; });
  auto* s = verb("status", "the hosts of a lab, or all labs; exit 1 when one is dead or cut off", false);
  s->add_flag("--json", w.json, "one object a line");
  s->callback([&] { run = [&] { return lab_status(w.lab, w.json); }; });
  auto* cut = verb("cut", "drop all traffic between these hosts and all others, silently");
  cut->add_option("HOST", w.lab_hosts, "1, 2, … or host1, host2, …")->required();
  cut->callback([&] { run = [&] { return lab_cut(w.lab, w.lab_hosts); }; });
  auto* heal = verb("heal", "end all cuts");
  heal->callback([&] { run = [&] { return lab_heal(w.lab); }; });
  auto* kill = verb("kill", "kill -9 of a host, daemon and mount");
  kill->add_option("HOST", w.lab_host, "1, 2, … or host1, host2, …")->required();
  kill->add_flag("--daemon", w.daemon_only, "the daemon alone");
  kill->callback([&] { run = [&] { return lab_kill(w.lab, w.lab_host, w.daemon_only); }; });
  auto* start = verb("start", "bring back what was killed, mounted again");
  start->add_option("HOST", w.lab_host, "1, 2, … or host1, host2, …")->required();
  start->callback([&] { run = [&] { return lab_start(w.lab, w.lab_host); }; });
  auto* down = verb("down", "unmount and end all hosts, and delete all that the lab holds");
  down->callback([&] { run = [&] { return lab_down(w.lab); }; });
}

int main_of(int argc, char** argv) {
  // A reader that goes away is an error of write(2), with words and an exit code.
  signal(SIGPIPE, SIG_IGN);
  CLI::App app("kinfs: one shared directory on many hosts that never says no.", "kinfs");
  app.footer(
      "Exit codes: 0 done, 1 needs attention or was not found, 2 usage, 3 not reachable, 4 refused, 5 internal.");
  app.set_version_flag("--version", "kinfs " KINFS_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  Words words;
  Run run;
  app.add_option("--socket", words.socket, "of the daemon (KINFS_SOCKET, else /run/kinfs/kinfsd.sock)");
  add_set_up(app, words, run);
  add_nodes(app, words, run);
  add_kv(app, words, run);
  add_views(app, words, run);
  add_mounts(app, words, run);
  add_lab(app, words, run);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    fmt::print(stderr, "{}\nSee kinfs --help, or kinfs COMMAND --help.\n",
               usage_error(app, e, std::vector<std::string>(argv + 1, argv + argc)));
    return kExitUsage;
  }
  words.kv.socket = words.status.socket = words.ring.socket = words.conflicts.socket = words.mount.socket =
      words.invite.socket = words.leave.socket = words.nodes_of.socket = words.scrub.socket = words.socket;
  const int code = run ? run() : kExitUsage;
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    complain("cannot write to standard output");
    return kExitInternal;
  }
  return code;
}

}  // namespace
}  // namespace kinfs::daemon

int main(int argc, char** argv) {
  try {
    return kinfs::daemon::main_of(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "kinfs: internal error: {}\n", e.what());
    return kinfs::daemon::kExitInternal;
  }
}

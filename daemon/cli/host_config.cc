#include "daemon/cli/host_config.h"

#include <fmt/format.h>

#include <sstream>

namespace kinfs::daemon {
namespace {

constexpr const char* kNodeSection = "[node]";

std::string without_indent(const std::string& line) {
  const auto begin = line.find_first_not_of(" \t");
  return begin == std::string::npos ? "" : line.substr(begin);
}

bool says_listen(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto words = without_indent(line);
    if (words.starts_with("listen") || words.starts_with("node.listen")) return true;
  }
  return false;
}

/// Empty: the default will do.
std::string listen_line(const std::string& address) {
  const auto parsed = parse_address(address);
  if (!parsed) return "";
  // IPv4's wildcard does not listen on IPv6; the other one does on both.
  const auto listen = fmt::format("tcp://{}:{}", parsed->first.starts_with('[') ? "[::]" : "0.0.0.0", parsed->second);
  return listen == Config().listen ? "" : fmt::format("listen = {}\n", toml_string(listen));
}

/// Into the section [node], which is made where there is none: a section may stand in a file once.
std::string with_node_line(const std::string& text, const std::string& added) {
  std::string out;
  bool done = added.empty();
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    out += line + '\n';
    if (done || !without_indent(line).starts_with(kNodeSection)) continue;
    out += added;
    done = true;
  }
  return done ? out : fmt::format("{}\n{}\n{}", out, kNodeSection, added);
}

}  // namespace

std::string full_address(const std::string& word, std::uint16_t port) {
  if (word.find("://") != std::string::npos) return word;
  const auto colon = word.rfind(':');
  const bool has_port = colon != std::string::npos && colon > 0 && word.find(']', colon) == std::string::npos &&
                        (word.find(':') == colon || word[colon - 1] == ']');
  if (has_port) return "tcp://" + word;
  const bool bare_ipv6 = word.find(':') != std::string::npos && word.front() != '[';
  return bare_ipv6 ? fmt::format("tcp://[{}]:{}", word, port) : fmt::format("tcp://{}:{}", word, port);
}

std::string config_text(const std::optional<std::string>& before, const std::string& name, const ClusterPart& part) {
  auto text = before.value_or(
      fmt::format("# The configuration of kinfsd on this host: kinfs.toml(5). Every other key has a default.\n"
                  "{}\nname = {}\n",
                  kNodeSection, toml_string(name)));
  text = with_node_line(text, says_listen(text) ? "" : listen_line(part.address));
  text += fmt::format("\n[cluster]\nid = {}\nby_invitation = true\naddress = {}\n", toml_string(part.cluster_id),
                      toml_string(part.address));
  for (const auto& m : part.others) {
    text += fmt::format("\n[[cluster.member]]\nname = {}\naddress = {}\npublic_key = {}\n", toml_string(m.name),
                        toml_string(m.address), toml_string(to_hex(m.public_key)));
  }
  if (part.copies != 3) text += fmt::format("\n[quorum]\nn = {}\n", part.copies);
  return text;
}

}  // namespace kinfs::daemon

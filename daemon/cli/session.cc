#include "daemon/cli/session.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>

#include "daemon/config.h"

namespace kinfs::daemon {
std::string socket_path_of(const std::string& option) {
  if (!option.empty()) return option;
  const char* from_environment = std::getenv("KINFS_SOCKET");
  if (from_environment != nullptr && *from_environment != '\0') return from_environment;
  return kDefaultSocket;
}

void complain(const std::string& words) { fmt::print(stderr, "kinfs: {}\n", words); }

int give_up(const Error& error) {
  complain(error.text);
  return exit_code_of(error.code);
}

int give_up_unreadable(const Json::exception& error) {
  complain(fmt::format("the daemon's answer cannot be read ({}); is it as new as kinfs?", error.what()));
  return exit_code_of(Errc::kInternal);
}

void print_json(const Json& json) { fmt::print("{}\n", json.dump(-1, ' ', false, Json::error_handler_t::replace)); }

std::string printable(std::string_view name) {
  std::string out;
  for (std::size_t i = 0; i < name.size();) {
    const auto c = static_cast<unsigned char>(name[i]);
    const std::size_t length = c < 0x80 ? 1 : c >= 0xf0 && c < 0xf8 ? 4 : c >= 0xe0 ? 3 : c >= 0xc2 ? 2 : 0;
    bool good = length != 0 && c < 0xf8 && i + length <= name.size() && c >= 0x20 && c != 0x7f;
    for (std::size_t j = 1; good && j < length; ++j) good = (static_cast<unsigned char>(name[i + j]) & 0xc0) == 0x80;
    if (good) {
      out.append(name.substr(i, length));
      i += length;
    } else {
      out += fmt::format("\\x{:02x}", c);
      ++i;
    }
  }
  return out;
}

Result<Session> Session::connect(cluster::SocketClientOptions options) {
  Session session;
  const auto path = options.socket_path;
  session.strand_ = std::make_unique<std::mutex>();
  auto client = cluster::SocketClient::connect(std::move(options), *session.strand_);
  if (!client) {
    if (client.error().code != Errc::kUnavailable) return pass(std::move(client));
    return fail(Errc::kUnavailable,
                fmt::format("no kinfsd answers at {} ({}); start it with `kinfsd --config FILE`, or name another "
                            "socket with --socket or KINFS_SOCKET",
                            path, client.error().text));
  }
  session.client_ = std::move(*client);
  return session;
}

Result<Session> Session::open(const std::string& socket_path, std::uint32_t timeout_ms) {
  return connect({.socket_path = socket_path, .timeout_ms = timeout_ms});
}

Result<Session> Session::open_for_writing(const std::string& socket_path) {
  auto asking = open(socket_path);
  if (!asking) return asking;
  auto lent = asking->admin("identity");
  if (!lent) return pass(std::move(lent));
  try {
    const auto hex = lent->at("client").get<std::string>();
    std::uint64_t client = 0;
    std::from_chars(hex.data(), hex.data() + hex.size(), client, 16);
    auto session = connect({.socket_path = socket_path,
                            .client = ClientId{client},
                            .boot = lent->at("boot").get<std::uint64_t>(),
                            .host = lent->at("host").get<std::string>()});
    if (session) session->slot_ = lent->at("slot").get<std::int64_t>();
    return session;
  } catch (const Json::exception& e) {
    return fail(Errc::kInternal, fmt::format("the daemon lent an identity that cannot be read: {}", e.what()));
  }
}

Session::~Session() {
  if (client_ == nullptr || slot_ == kNone) return;
  // If the daemon has gone meanwhile, the identity runs out by itself.
  (void)admin("identity-done", {std::to_string(slot_)});
}

Result<Json> Session::admin(const std::string& command, std::vector<std::string> arguments) {
  auto text = call([&](cluster::SocketClient& c) { return c.admin(command, std::move(arguments)); });
  if (!text) return pass(std::move(text));
  auto json = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) {
    return fail(Errc::kInternal, fmt::format("the daemon's answer to {} is no JSON object", command));
  }
  return json;
}

}  // namespace kinfs::daemon

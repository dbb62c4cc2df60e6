#include "cluster/introduction.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace kinfs::cluster {
namespace {

using Json = nlohmann::ordered_json;

/// Empty when it is no key.
Bytes key_of(const std::string& hex) {
  if (hex.size() != 2 * kKeyBytes) return {};
  return from_hex(hex).value_or(Bytes{});
}

}  // namespace

std::string encode_introduction(const Introduction& introduction) {
  Json hosts = Json::array();
  for (const auto& host : introduction.hosts) {
    hosts.push_back({{"name", host.name}, {"address", host.address}, {"public_key", to_hex(host.public_key)}});
  }
  const Json out = {{"public_key", to_hex(introduction.client_keys.public_key)},
                    {"secret_key", to_hex(introduction.client_keys.secret_key)},
                    {"ready", introduction.ready},
                    {"hosts", std::move(hosts)}};
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<Introduction> decode_introduction(std::string_view json) {
  try {
    const auto in = Json::parse(json);
    Introduction out;
    out.client_keys = {key_of(in.at("public_key").get<std::string>()), key_of(in.at("secret_key").get<std::string>())};
    out.ready = in.at("ready").get<bool>();
    bool good = !out.client_keys.public_key.empty() && !out.client_keys.secret_key.empty();
    for (const auto& host : in.at("hosts")) {
      out.hosts.push_back({host.at("name").get<std::string>(), host.at("address").get<std::string>(),
                           key_of(host.at("public_key").get<std::string>())});
      good = good && !out.hosts.back().public_key.empty();
    }
    if (good) return out;
    return fail(Errc::kCorrupt, "kinfsd told of other hosts with keys that are none");
  } catch (const Json::exception& e) {
    return fail(Errc::kCorrupt, fmt::format("what kinfsd told of other hosts cannot be read: {}", e.what()));
  }
}

std::string encode_ready(bool ready) { return Json{{"ready", ready}}.dump(); }

bool decode_ready(std::string_view json) {
  const auto in = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  return !in.is_object() || in.value("ready", Json(true)) != Json(false);
}

}  // namespace kinfs::cluster

// Mounts of several hosts on one fake ring, with paths instead of node ids: what a kernel would do, written down short.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "fake_client.h"
#include "fs/filesystem.h"
#include "fs/keys.h"

/// Ends the test, with the error's words, unless the Result is a value.
#define MUST(expression)                                   \
  do {                                                     \
    const auto must_result = (expression);                 \
    ASSERT_TRUE(must_result) << must_result.error().text;  \
  } while (false)

namespace kinfs::fs::test {

/// Threads 10..19 are one process, 20..29 another.
class TestEnv : public Env {
 public:
  explicit TestEnv(FakeCluster& cluster) : cluster_(cluster) {}
  std::int64_t mono_us() override { return cluster_.now_ms() * 1000 + ++calls_; }  // never the same twice
  std::int64_t wall_ns() override { return cluster_.now_ms() * 1'000'000 + ++calls_; }
  bool same_process(std::uint32_t then, std::int64_t, std::uint32_t now) override { return then / 10 == now / 10; }

 private:
  FakeCluster& cluster_;
  std::int64_t calls_ = 0;
};

class Mount {
 public:
  Mount(FakeCluster& ring, std::size_t index)
      : cluster(ring),
        client(ring, index, "host" + std::to_string(index + 1), ClientId{1000 + index}),
        env(ring),
        fs(client, env, kVolumeHome) {}

  struct Open {
    std::uint64_t node = 0;
    std::uint64_t handle = 0;
  };

  // --- lookups ---
  Result<std::uint64_t> parent_of(const std::string& path) {
    const auto slash = path.rfind('/');
    if (slash == std::string::npos) return kRootNode;
    return node_of(path.substr(0, slash));
  }
  static std::string name_in(const std::string& path) { return path.substr(path.rfind('/') + 1); }
  Result<Found> lookup(const std::string& path) {
    auto parent = parent_of(path);
    if (!parent) return pass(std::move(parent));
    return cluster.wait(fs.lookup(*parent, name_in(path), caller));
  }
  Result<std::uint64_t> node_of(const std::string& path) {
    if (path.empty()) return kRootNode;
    auto found = lookup(path);
    if (!found) return pass(std::move(found));
    if (found->attr.node == 0) return fail(Errc::kNotFound, path);
    return found->attr.node;
  }
  Result<Attr> stat(const std::string& path) {
    auto node = node_of(path);
    if (!node) return pass(std::move(node));
    return cluster.wait(fs.getattr(*node));
  }
  bool exists(const std::string& path) {
    const auto found = lookup(path);
    return found && found->attr.node != 0;
  }

  // --- files ---
  Result<Open> open(const std::string& path, OpenFlags flags) {
    auto node = node_of(path);
    if (!node) return pass(std::move(node));
    auto opened = cluster.wait(fs.open(*node, flags, caller));
    if (!opened && opened.error().code == Errc::kNotFound) {  // ESTALE: the kernel looks the path up anew, once
      node = node_of(path);
      if (!node) return pass(std::move(node));
      opened = cluster.wait(fs.open(*node, flags, caller));
    }
    if (!opened) return pass(std::move(opened));
    return Open{*node, opened->handle};
  }
  Result<Open> create(const std::string& path, bool exclusive = false) {
    auto parent = parent_of(path);
    if (!parent) return pass(std::move(parent));
    const OpenFlags flags{true, true, false, exclusive};
    auto created = cluster.wait(fs.create(*parent, name_in(path), 0644, flags, caller));
    if (!created) return pass(std::move(created));
    return Open{created->found.attr.node, created->opened.handle};
  }
  Result<std::size_t> write_at(const Open& file, std::uint64_t offset, std::string data, bool append = false) {
    return cluster.wait(fs.write(file.handle, offset, std::move(data), append));
  }
  std::string read_at(const Open& file, std::uint64_t offset = 0, std::size_t size = 1 << 20) {
    auto bytes = cluster.wait(fs.read(file.handle, offset, size));
    return bytes ? *bytes : "error: " + bytes.error().text;
  }
  Result<Unit> flush(const Open& file) { return cluster.wait(fs.flush(file.handle)); }
  /// close(2).
  Result<Unit> close(const Open& file) {
    auto done = flush(file);
    fs.release(file.handle);
    cluster.run();
    return done;
  }
  /// echo -n data > path
  Result<Unit> write(const std::string& path, const std::string& data) {
    auto file = exists(path) ? open(path, OpenFlags{false, true, true, false}) : create(path);
    if (!file) return pass(std::move(file));
    auto written = write_at(*file, 0, data);
    if (!written) return pass(std::move(written));
    return close(*file);
  }
  /// cat path
  std::string read(const std::string& path) {
    auto file = open(path, OpenFlags{true, false, false, false});
    if (!file) return "error: " + file.error().text;
    auto out = read_at(*file);
    (void)close(*file);
    return out;
  }

  // --- names ---
  Result<Unit> mkdir(const std::string& path) {
    auto parent = parent_of(path);
    if (!parent) return pass(std::move(parent));
    auto made = cluster.wait(fs.mkdir(*parent, name_in(path), 0755, caller));
    if (!made) return pass(std::move(made));
    return Unit{};
  }
  Result<Unit> rm(const std::string& path) {
    auto parent = parent_of(path);
    if (!parent) return pass(std::move(parent));
    return cluster.wait(fs.unlink(*parent, name_in(path)));
  }
  Result<Unit> rmdir(const std::string& path) {
    auto parent = parent_of(path);
    if (!parent) return pass(std::move(parent));
    return cluster.wait(fs.rmdir(*parent, name_in(path)));
  }
  Result<Unit> mv(const std::string& from, const std::string& to, RenameFlags flags = {}) {
    auto source = parent_of(from);
    if (!source) return pass(std::move(source));
    auto target = parent_of(to);
    if (!target) return pass(std::move(target));
    return cluster.wait(fs.rename(*source, name_in(from), *target, name_in(to), flags, caller));
  }
  /// What listing with replies of `size` bytes returns, in its order, without the dots.
  std::vector<Listed> listing(const std::string& path, std::size_t size = 4096, bool attributes = false) {
    std::vector<Listed> out;
    const auto node = node_of(path);
    if (!node) return out;
    const auto handle = fs.opendir(*node);
    if (!handle) return out;
    for (std::uint64_t cookie = 0;;) {
      auto page = cluster.wait(fs.readdir(*handle, cookie, size, attributes));
      if (!page || page->empty()) break;
      cookie = page->back().cookie;
      for (auto& name : *page) {
        if (name.name != "." && name.name != "..") out.push_back(std::move(name));
      }
    }
    fs.releasedir(*handle);
    return out;
  }
  std::vector<std::string> ls(const std::string& path = "") {
    std::vector<std::string> names;
    for (const auto& name : listing(path)) names.push_back(name.name);
    std::sort(names.begin(), names.end());
    return names;
  }
  /// rm -rf
  Result<Unit> remove_all(const std::string& path) {
    for (const auto& name : listing(path)) {
      const auto below = path + "/" + name.name;
      auto done = name.type == FileType::kDirectory ? remove_all(below) : rm(below);
      if (!done) return done;
    }
    return rmdir(path);
  }

  FakeCluster& cluster;
  FakeClient client;
  TestEnv env;
  Filesystem fs;
  Caller caller{1000, 100, 10};
};

/// Three hosts. No cached name outlives later().
class Hosts : public ::testing::Test {
 protected:
  void later(std::int64_t ms = 1000) {
    cluster.advance_ms(ms);
    for (auto* host : {&a, &b, &c}) host->fs.tick();
    cluster.run();
  }
  void cut(Mount& host) { cluster.cut(static_cast<std::size_t>(&host == &a ? 0 : &host == &b ? 1 : 2)); }
  void heal() {
    cluster.heal();
    later();
  }
  /// All hosts list `names` in `path`.
  void agree(const std::vector<std::string>& names, const std::string& path = "") {
    later();
    auto sorted = names;
    std::sort(sorted.begin(), sorted.end());
    for (auto* host : {&a, &b, &c}) EXPECT_EQ(host->ls(path), sorted) << "on " << host->client.host();
  }
  void everywhere(const std::string& path, const std::string& data) {
    later();
    for (auto* host : {&a, &b, &c}) EXPECT_EQ(host->read(path), data) << path << " on " << host->client.host();
  }

  FakeCluster cluster{3};
  Mount a{cluster, 0};
  Mount b{cluster, 1};
  Mount c{cluster, 2};
};

}  // namespace kinfs::fs::test

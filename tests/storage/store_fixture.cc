// See store_fixture.h.
#include "store_fixture.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "storage/mem_store.h"
#include "storage/rocks_store.h"

namespace kinfs::test {
namespace {

class MemHarness : public Harness {
 public:
  Store& store() override { return store_; }
  void reopen() override { store_.crash(false); }
  void damage_block(const BlockKey& key, ByteView) override { ASSERT_TRUE(store_.damage_block(key)); }

 private:
  MemStore store_;
};

class RocksHarness : public Harness {
 public:
  RocksHarness() : store_(open_rocks(directory_ / "data")) {}
  Store& store() override { return *store_; }
  void reopen() override {
    store_.reset();
    store_ = open_rocks(directory_ / "data");
  }
  void damage_block(const BlockKey&, ByteView bytes) override {
    for (const auto& entry : std::filesystem::directory_iterator(directory_ / "data/blocks")) {
      std::string content = read_file(entry.path());
      const auto at = content.find(bytes);
      if (at == std::string::npos) continue;
      content[at + bytes.size() / 2] ^= 1;
      write_file(entry.path(), content);
      return;
    }
    FAIL() << "the block is in no segment";
  }

 private:
  TempDirectory directory_;
  std::unique_ptr<Store> store_;
};

}  // namespace

TempDirectory::TempDirectory() {
  std::string name = std::filesystem::temp_directory_path() / "kinfs-test-XXXXXX";
  if (::mkdtemp(name.data()) != nullptr) path_ = name;
}

TempDirectory::~TempDirectory() {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

std::unique_ptr<Harness> make_mem_harness() { return std::make_unique<MemHarness>(); }
std::unique_ptr<Harness> make_rocks_harness() { return std::make_unique<RocksHarness>(); }

std::unique_ptr<Store> open_rocks(const std::string& path) {
  auto store = RocksStore::open(path);
  if (!store) {
    ADD_FAILURE() << store.error().text;
    std::abort();
  }
  return std::move(*store);
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  if (!file.is_open()) file.open(path, std::ios::binary);
  file << bytes;
}

}  // namespace kinfs::test

// A damaged block is found, and written anew from what another owner has.
#include "core_fixture.h"

namespace kinfs::cluster {
namespace {

class ScrubTest : public CoreTest {
 protected:
  void SetUp() override {
    config.scrub_interval_ms = 1000;
    for (const auto* bytes : {"one", "two", "three"}) store(bytes);
    start();
  }
  static BlockKey key_of(const Bytes& bytes) { return {VolumeId{2}, "file", 0, sha256(bytes)}; }
  void store(const Bytes& bytes) { ASSERT_TRUE(disk.put_block(key_of(bytes), share(bytes))); }
  /// The next block that is asked for; nullopt: none, in many passes.
  std::optional<Message> asks() { return next<ReadBlock>(1000); }
};

TEST_F(ScrubTest, WhatIsWholeIsReadAgainAndAgain) {
  EXPECT_FALSE(asks());
  EXPECT_GE(node->counters().scrub_passes, 2u);
  EXPECT_GE(node->counters().blocks_scrubbed, 3 * node->counters().scrub_passes);
  EXPECT_EQ(node->counters().blocks_damaged, 0u);
}

TEST_F(ScrubTest, WhatIsDamagedIsWrittenAnew) {
  ASSERT_TRUE(disk.damage_block(key_of("two")));
  ASSERT_FALSE(disk.get_block(key_of("two")));
  const auto asked = asks();
  ASSERT_TRUE(asked);
  EXPECT_EQ(std::get<ReadBlock>(asked->body).key, key_of("two"));
  receive(asked->to, asked->id, ReadBlockReply{share("two")});
  EXPECT_EQ(**disk.get_block(key_of("two")), "two");
  EXPECT_EQ(node->counters().blocks_mended, 1u);
  EXPECT_EQ(node->beyond_repair(), 0u);
  EXPECT_FALSE(asks());
}

TEST_F(ScrubTest, WhatCouldNotBeWrittenIsNotMended) {
  ASSERT_TRUE(disk.damage_block(key_of("two")));
  auto asked = asks();
  ASSERT_TRUE(asked);
  disk.full = true;
  receive(asked->to, asked->id, ReadBlockReply{share("two")});
  EXPECT_EQ(node->counters().blocks_mended, 0u);
  disk.full = false;
  asked = asks();
  ASSERT_TRUE(asked);
  receive(asked->to, asked->id, ReadBlockReply{share("two")});
  EXPECT_EQ(node->counters().blocks_mended, 1u);
  EXPECT_TRUE(disk.get_block(key_of("two")));
}

TEST_F(ScrubTest, WhoHasOtherBytesOrNoneIsNotBelieved) {
  ASSERT_TRUE(disk.damage_block(key_of("two")));
  auto asked = asks();
  ASSERT_TRUE(asked);
  receive(asked->to, asked->id, ReadBlockReply{share("other bytes")});
  const auto again = next<ReadBlock>(0);
  ASSERT_TRUE(again);
  EXPECT_NE(again->to, asked->to);
  receive(again->to, again->id, ReadBlockReply{nullptr});
  EXPECT_EQ(node->beyond_repair(), 1u);
  EXPECT_EQ(node->counters().blocks_mended, 0u);
  // It is asked for in each pass: one of them may have been mended.
  asked = asks();
  ASSERT_TRUE(asked);
  receive(asked->to, asked->id, ReadBlockReply{share("two")});
  EXPECT_EQ(node->beyond_repair(), 0u);
  EXPECT_TRUE(disk.get_block(key_of("two")));
}

TEST_F(ScrubTest, WhoDoesNotAnswerIsNotWaitedForLong) {
  ASSERT_TRUE(disk.damage_block(key_of("two")));
  const auto asked = asks();
  ASSERT_TRUE(asked);
  const auto again = next<ReadBlock>(static_cast<int>(config.request_timeout_ms) / 10 + 1);
  ASSERT_TRUE(again);
  EXPECT_NE(again->to, asked->to);
  receive(asked->to, asked->id, ReadBlockReply{share("two")});  // too late: it is asked for elsewhere
  receive(again->to, again->id, Refusal{{Errc::kIo, "a disk that fails"}});
  EXPECT_EQ(node->beyond_repair(), 1u);
}

}  // namespace
}  // namespace kinfs::cluster

#include "cluster/frame_stream.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <random>

namespace kinfs::cluster {
namespace {

struct Pair {
  int a = -1, b = -1;
  Pair() {
    int fds[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0) a = fds[0], b = fds[1];
  }
  ~Pair() {
    ::close(a);
    ::close(b);
  }
};

constexpr HopBytes kNoHop{};

TEST(FrameStream, FramesOfAllSizesArriveWholeAndInOrder) {
  Pair pair;
  FrameWriter writer(pair.a);
  FrameReader reader(pair.b);
  std::mt19937_64 random(3);
  std::vector<std::pair<Bytes, SharedBytes>> sent;
  for (int i = 0; i < 200; ++i) {
    const std::size_t header = 1 + random() % (i % 10 == 0 ? 300'000 : 300);
    const std::size_t payload = i % 3 != 0 ? 0 : i % 30 == 0 ? kMaxBlockBytes : random() % 100'000;
    sent.emplace_back(Bytes(header, static_cast<char>(i)),
                      payload == 0 ? nullptr : share(Bytes(payload, static_cast<char>(i + 1))));
    writer.queue(share(sent.back().first), kNoHop, sent.back().second);
  }
  std::size_t got = 0;
  while (got < sent.size()) {
    ASSERT_TRUE(writer.flush());
    const auto input = reader.fill();
    ASSERT_TRUE(input) << input.error().text;
    for (;;) {
      auto frame = reader.next();
      ASSERT_TRUE(frame) << frame.error().text;
      if (!*frame) break;
      const auto& [header, payload] = sent.at(got++);
      ASSERT_EQ((*frame)->header.size(), header.size() + kHopBytes);
      EXPECT_EQ((*frame)->header.substr(0, header.size()), header);
      ASSERT_EQ((*frame)->payload == nullptr, payload == nullptr);
      if (payload) {
        EXPECT_EQ(*(*frame)->payload, *payload);
      }
    }
  }
  EXPECT_TRUE(writer.empty());
  EXPECT_EQ(writer.pending_bytes(), 0u);
}

TEST(FrameStream, LengthsOutOfBoundsAreRefusedBeforeAnythingIsAllocated) {
  for (const Bytes& prefix : {Bytes("\0\0\0\0\0\0\0\0", 8), Bytes("\xff\xff\xff\xff\0\0\0\0", 8),
                              Bytes("\1\0\0\0\xff\xff\xff\x7f", 8), Bytes("\1\0\0\0\1\0\x10\0", 8)}) {
    Pair pair;
    ASSERT_EQ(::write(pair.a, prefix.data(), prefix.size()), 8);
    FrameReader reader(pair.b);
    ASSERT_TRUE(reader.fill());
    const auto frame = reader.next();
    ASSERT_FALSE(frame);
    EXPECT_EQ(frame.error().code, Errc::kCorrupt);
  }
}

TEST(FrameStream, AnEndWithinAFrameIsToldFromAnEndBetweenTwo) {
  Pair whole;
  FrameReader clean(whole.b);
  ::shutdown(whole.a, SHUT_WR);
  EXPECT_EQ(clean.fill(), FrameReader::Input::kEnd);

  Pair cut;
  ASSERT_EQ(::write(cut.a, "\5\0\0\0\0\0\0\0ab", 10), 10);
  ::shutdown(cut.a, SHUT_WR);
  FrameReader reader(cut.b);
  ASSERT_TRUE(reader.fill());
  const auto nothing = reader.next();
  ASSERT_TRUE(nothing);
  EXPECT_FALSE(nothing->has_value());
  const auto end = reader.fill();
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code, Errc::kCorrupt);
}

TEST(FrameStream, AWriterTellsWhatItHolds) {
  Pair pair;
  FrameWriter writer(pair.a);
  const auto payload = share(Bytes(kMaxBlockBytes, 'x'));
  for (int i = 0; i < 8; ++i) writer.queue(share("h"), kNoHop, payload);
  const auto all = writer.pending_bytes();
  const auto done = writer.flush();
  ASSERT_TRUE(done);
  EXPECT_FALSE(*done);  // nobody reads
  EXPECT_LT(writer.pending_bytes(), all);
  EXPECT_GT(writer.pending_bytes(), 0u);
  ::close(pair.b);
  pair.b = -1;
  EXPECT_FALSE(writer.flush());  // and no SIGPIPE
}

}  // namespace
}  // namespace kinfs::cluster

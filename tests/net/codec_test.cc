// The codec: nothing is lost on the way, old bytes stay readable, and nothing that comes from a socket gets
// through malformed or brings the process down.
#include <gtest/gtest.h>

#include <random>

#include "cluster/hop.h"
#include "samples.h"

namespace kinfs::cluster {
namespace {

std::vector<ClientFrame> sample_frames() {
  std::vector<ClientFrame> out;
  for (auto& request : sample_requests()) out.push_back({9, 5000, Hlc{4}, std::move(request)});
  for (auto& answer : sample_answers()) out.push_back({10, 0, Hlc{5}, std::move(answer)});
  return out;
}

template <class T>
std::string why(const Result<T>& result) {
  return result ? "no error" : fmt::format("{}: {}", errc_name(result.error().code), result.error().text);
}

Message message_of(Body body) { return {NodeId{1}, NodeId{2}, 3, {}, 100, {}, std::move(body)}; }

/// The error of a message that this process would never make.
Error refused(Body body) {
  const auto encoded = encode(message_of(std::move(body)));
  auto decoded = decode_message(encoded.header, encoded.payload);
  return decoded ? Error{Errc::kInternal, "was accepted"} : decoded.error();
}

TEST(Codec, EveryMessageComesBackWhole) {
  for (const auto& message : sample_messages()) {
    const auto encoded = encode(message);
    const auto decoded = decode_message(encoded.header, encoded.payload);
    ASSERT_TRUE(decoded) << why(decoded);
    EXPECT_EQ(Dump{}(*decoded), Dump{}(message));
  }
}

TEST(Codec, EveryClientFrameComesBackWhole) {
  for (const auto& frame : sample_frames()) {
    const auto encoded = encode(frame);
    const auto decoded = decode_client_frame(encoded.header, encoded.payload);
    ASSERT_TRUE(decoded) << why(decoded);
    EXPECT_EQ(Dump{}(*decoded), Dump{}(frame));
  }
}

TEST(Codec, BlocksAreNotCopied) {
  const auto block = share(Bytes(kMaxBlockBytes, 'x'));
  const auto encoded = encode(message_of(WriteBlock{sample_block_key(), block, false, {}}));
  EXPECT_EQ(encoded.payload, block);
  EXPECT_LT(encoded.header.size(), 200u);
  const auto decoded = decode_message(encoded.header, encoded.payload);
  ASSERT_TRUE(decoded) << why(decoded);
  EXPECT_EQ(std::get<WriteBlock>(decoded->body).bytes, block);
}

TEST(Codec, TheHopReplacesThePatience) {
  auto encoded = encode(message_of(Ping{}));
  const auto hop = encode_hop({0x1122334455667788u, -42, 77});
  encoded.header.append(hop.data(), hop.size());
  const auto received = receive_message(encoded.header, nullptr);
  ASSERT_TRUE(received) << why(received);
  EXPECT_EQ(received->value.ttl_ms, 77u);
  EXPECT_EQ(received->hop.boot, 0x1122334455667788u);
  EXPECT_EQ(received->hop.sent_us, -42);
  EXPECT_TRUE(std::holds_alternative<Ping>(received->value.body));
}

// Bytes of protocol version 2. These never change: a program of any later release must read them.
TEST(Codec, GoldenBytesOfVersion2) {
  const Message ping{NodeId{0x0102030405060708u}, NodeId{0x1112131415161718u}, 300, {2, 0xabcdu}, 750, Hlc{5}, Ping{}};
  EXPECT_EQ(to_hex(encode(ping).header),
            "08021108070605040302011918171615141312112"
            "0ac02280231cdab000000000000390500000000000000"
            "6dee020000820100");
  const Message read{NodeId{1}, NodeId{2}, 7, {}, 1000, {}, ReadRow{{VolumeId{1}, "dir", "name"}}};
  EXPECT_EQ(to_hex(encode(read).header),
            "080211010000000000000019020000000000000020076de80300009a010d08011203646972"
            "1a046e616d65");
  const ClientFrame block{9, 0, Hlc{1}, Answer{BlockFound{share("abc")}}};
  EXPECT_EQ(to_hex(encode(block).header), "0802200939010000000000000040038a01023200");
  const ClientFrame error{9, 0, {}, Answer{Error{Errc::kUnavailable, "no"}}};
  EXPECT_EQ(to_hex(encode(error).header), "080220098a01080a06080b12026e6f");
  const auto hop = encode_hop({1, 2, 3});
  EXPECT_EQ(to_hex({hop.data(), hop.size()}), "6d03000000710100000000000000790200000000000000");
}

TEST(Codec, AnotherVersionIsNamed) {
  auto header = encode(message_of(Ping{})).header;
  ASSERT_EQ(header[0], '\x08');
  header[1] = 1;
  const auto decoded = decode_message(header, nullptr);
  ASSERT_FALSE(decoded);
  EXPECT_EQ(decoded.error().code, Errc::kFormat);
  EXPECT_NE(decoded.error().text.find("version 1;"), std::string::npos) << decoded.error().text;
}

TEST(Codec, AnUnknownKindIsNamed) {
  const auto header = encode(message_of(Ping{})).header;
  const auto without_body = header.substr(0, header.size() - 3);
  const auto decoded = decode_message(without_body, nullptr);
  ASSERT_FALSE(decoded);
  EXPECT_EQ(decoded.error().code, Errc::kFormat);
}

TEST(Codec, LimitsHold) {
  const Bytes long_key(kMaxKeyBytes + 1, 'k');
  const Bytes full_key(kMaxKeyBytes, 'k');
  EXPECT_EQ(refused(ReadRow{{VolumeId{1}, full_key, full_key}}).text, "was accepted");
  EXPECT_EQ(refused(ReadRow{{VolumeId{1}, long_key, ""}}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(ForwardReply{PutResult{{{{}, {Dot{}}, {}}}, false}}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(ForwardReply{PutResult{{{{}, {}, {Dot{NodeId{1}, 0}}, {Hlc{}}}}, false}}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(ForwardReply{PutResult{{{{}, {}, {Dot{NodeId{1}, 1}}}}, false}}).code, Errc::kCorrupt);
  EXPECT_EQ(
      refused(Forward{PutRequest{VolumeId{1}, "", {RowPut{"", {}, {sample_version(1ull << 62, "")}, {}}}, {}}}).code,
      Errc::kCorrupt);
  EXPECT_EQ(refused(ReadRow{{VolumeId{1}, "", long_key}}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(ReadPage{VolumeId{1}, "", long_key, {}}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(ReadPage{VolumeId{1}, "", "", {1ull << 40, 5}}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(ReadPage{VolumeId{1}, "", "", {1, 0}}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(WriteRows{VolumeId{1}, "", {{long_key, Row{}}}, false, {}}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(WriteRows{VolumeId{1}, "", {}, false, {NodeId{0}}}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(WriteBlock{sample_block_key(), nullptr, false, {}}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(WriteBlock{sample_block_key(), share(Bytes(kMaxBlockBytes + 1, 'b')), false, {}}).code,
            Errc::kCorrupt);
  EXPECT_EQ(refused(ReadBlock{{VolumeId{1}, Bytes(256, 'f'), 0, {}}}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(Gossip{{{NodeId{1}, "n", "a", Bytes(31, 'k'), 1, "", 1}}, false}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(Gossip{{{NodeId{1}, "n", "a", Bytes(32, 'k'), 1u << 30, "", 1}}, false}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(Gossip{{{NodeId{1}, Bytes(256, 'n'), "a", Bytes(32, 'k'), 1, "", 1}}, false}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(ReadPageReply{{{{"b", Row{}}, {"a", Row{}}}, true}, {}}).code, Errc::kCorrupt);

  EXPECT_EQ(refused(ComparePartitions{{{ItemKind::kRow, kPartitions, 0, {}}}}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(ComparePartitionsReply{{3, 3}}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(CompareItems{ItemKind::kRow, 0, "", {}, true}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(CompareItems{ItemKind::kRow, 0, "b", {{"a", 1, {}}}, false}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(CompareItems{ItemKind::kRow, 0, "", {{"a", 1, {}}}, true}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(CompareItems{ItemKind::kRow, 0, Bytes(4 * kMaxKeyBytes, 'a'), {{"", 0, {}}}, true}).code,
            Errc::kCorrupt);
  EXPECT_EQ(refused(CompareItemsReply{{}, {{"b", {}}, {"a", {}}}, true}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(CompareItemsReply{{}, {}, false}).code, Errc::kCorrupt);

  auto put = [](Version v) { return Forward{PutRequest{VolumeId{1}, "p", {RowPut{"s", {}, {std::move(v)}}}, {}}}; };
  EXPECT_EQ(refused(put(sample_version(1, Bytes(kMaxValueBytes, 'v')))).text, "was accepted");
  EXPECT_EQ(refused(put(sample_version(1, Bytes(kMaxValueBytes + 1, 'v')))).code, Errc::kCorrupt);
  auto with_dot = sample_version(1, "v");
  with_dot.dot = {NodeId{1}, 1};
  EXPECT_EQ(refused(put(with_dot)).code, Errc::kCorrupt);
  EXPECT_EQ(refused(Forward{PutRequest{VolumeId{1}, "p", {}, {}}}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(Forward{AdminRequest{Bytes(300, 'c'), {}}}).code, Errc::kCorrupt);
  EXPECT_EQ(refused(Forward{AdminRequest{"c", std::vector<std::string>(300)}}).code, Errc::kCorrupt);

  Message nobody = message_of(Ping{});
  nobody.from = NodeId{0};
  EXPECT_FALSE(decode_message(encode(nobody).header, nullptr));
}

TEST(Codec, PayloadsMustBeTheOnesAnnounced) {
  const auto write = encode(message_of(WriteBlock{sample_block_key(), share("abc"), false, {}}));
  EXPECT_FALSE(decode_message(write.header, nullptr));
  EXPECT_FALSE(decode_message(write.header, share("abcd")));
  EXPECT_FALSE(decode_message(encode(message_of(Ping{})).header, share("abc")));
}

TEST(Codec, LongErrorTextsAreCutNotRefused) {
  EXPECT_EQ(refused(Refusal{{Errc::kIo, Bytes(100'000, 't')}}).text, "was accepted");
}

template <class T>
void maul(const Encoded& whole, Result<T> (*decode)(ByteView, SharedBytes), std::mt19937_64& random) {
  for (std::size_t cut = 0; cut < std::min<std::size_t>(whole.header.size(), 300); ++cut) {
    (void)decode(ByteView(whole.header).substr(0, cut), whole.payload).has_value();
  }
  for (int i = 0; i < 400; ++i) {
    auto bytes = whole.header;
    for (auto flips = random() % 4 + 1; flips > 0; --flips) {
      bytes[random() % std::min<std::size_t>(bytes.size(), 400)] ^= static_cast<char>(1u << random() % 8);
    }
    const auto decoded = decode(bytes, whole.payload);
    if (!decoded) {
      EXPECT_TRUE(decoded.error().code == Errc::kCorrupt || decoded.error().code == Errc::kFormat);
      EXPECT_FALSE(decoded.error().text.empty());
      continue;
    }
    // What was let through is well formed: it survives another turn.
    const auto again = encode(*decoded);
    EXPECT_TRUE(decode(again.header, again.payload)) << why(decode(again.header, again.payload));
  }
}

TEST(Codec, FlippedAndCutBytesNeverCrash) {
  std::mt19937_64 random(1);
  for (const auto& message : sample_messages()) maul(encode(message), decode_message, random);
  for (const auto& frame : sample_frames()) maul(encode(frame), decode_client_frame, random);
  for (int i = 0; i < 20'000; ++i) {
    Bytes noise(random() % 200, '\0');
    for (auto& c : noise) c = static_cast<char>(random());
    EXPECT_FALSE(decode_message(noise, nullptr) && decode_client_frame(noise, nullptr));
  }
}

TEST(QueueDelay, TellsWaitingFromClocksThatDiffer) {
  QueueDelay delay;
  const std::int64_t offset = 1'000'000'000;  // the sender's clock is far behind
  std::int64_t now = 5'000'000'000;
  const auto arrives = [&](std::int64_t flight_us, std::uint64_t boot = 1) {
    return delay.observe({boot, now - offset - flight_us, 0}, now);
  };
  EXPECT_EQ(arrives(300), 0);
  now += 1000;
  EXPECT_EQ(arrives(200), 0);
  now += 1000;
  EXPECT_NEAR(static_cast<double>(arrives(500'200)), 500'000, 10);
  // A minute's silence, then a message that waited through it.
  now += 60'000'000;
  const auto waited = arrives(60'000'200);
  EXPECT_GT(waited, 59'900'000);
  EXPECT_LE(waited, 60'000'000);
  // A sender that was started anew has another clock.
  EXPECT_EQ(delay.observe({2, 17, 0}, now), 0);
  // Numbers without sense do not overflow.
  (void)delay.observe({2, std::numeric_limits<std::int64_t>::min(), 0}, now);
  (void)delay.observe({2, std::numeric_limits<std::int64_t>::max(), 0}, now);
  EXPECT_EQ(ttl_after(100, 99'999), 1u);
  EXPECT_EQ(ttl_after(100, 100'000), 0u);
}

TEST(QueueDelay, ALongerPathBecomesTheMeasure) {
  QueueDelay delay;
  std::int64_t now = 1'000'000'000;
  for (int i = 0; i < 100; ++i, now += 1'000'000) {
    const auto waited = delay.observe({1, now - (i < 20 ? 1000 : 500'000), 0}, now);
    if (i == 20) {
      EXPECT_GT(waited, 400'000);
    }
    if (i > 60) {
      EXPECT_LT(waited, 100);
    }
  }
}

}  // namespace
}  // namespace kinfs::cluster

// What is sent in the background makes way for what people wait for.
#include "cluster/pacer.h"

#include <gtest/gtest.h>

namespace kinfs::cluster {
namespace {

/// As many as that, each of which took that long.
void confirm(Pacer& pacer, int times, std::int64_t took_ms, std::int64_t now_ms = 1000) {
  for (int i = 0; i < times; ++i) pacer.confirmed(took_ms, now_ms);
}

TEST(Pacer, WhatTakesNoLongerThanAtBestGrowsUpToTheMost) {
  Pacer pacer;
  EXPECT_EQ(pacer.window(), 1u);
  confirm(pacer, 10, 40);  // far away, and nothing in the way
  EXPECT_GT(pacer.window(), 3u);
  confirm(pacer, 1000, 40);
  EXPECT_EQ(pacer.window(), static_cast<std::size_t>(Pacer::kMost));
}

TEST(Pacer, WhatQueuesGoesDownToOne) {
  Pacer pacer;
  confirm(pacer, 1000, 5);
  confirm(pacer, 100, 5 + 2 * Pacer::kTargetMs);
  EXPECT_EQ(pacer.window(), 1u);
  confirm(pacer, 1000, 5 + Pacer::kTargetMs);
  EXPECT_EQ(pacer.window(), 1u);
  confirm(pacer, 10, 5);
  EXPECT_GT(pacer.window(), 1u);
}

TEST(Pacer, WhatIsLostHalvesIt) {
  Pacer pacer;
  confirm(pacer, 1000, 5);
  pacer.lost();
  EXPECT_EQ(pacer.window(), static_cast<std::size_t>(Pacer::kMost / 2));
}

// A network that has become slower for good is no queue.
TEST(Pacer, WhatWasBestTwoMinutesAgoIsForgotten) {
  Pacer pacer;
  confirm(pacer, 100, 5, 60'000);
  confirm(pacer, 100, 50, 130'000);
  EXPECT_EQ(pacer.window(), 1u);
  confirm(pacer, 100, 50, 200'000);
  EXPECT_GT(pacer.window(), 1u);
}

}  // namespace
}  // namespace kinfs::cluster

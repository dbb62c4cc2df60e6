// Identities of runs of the command line: never two at once, never many.
#include <gtest/gtest.h>

#include <set>

#include "daemon/admin.h"

namespace kinfs::daemon {
namespace {

TEST(IdentityPool, OneAfterTheOtherIsOneClient) {
  IdentityPool pool(NodeId{1}, 5);
  const auto first = pool.lend(0);
  ASSERT_TRUE(first);
  pool.give_back(first->slot);
  const auto second = pool.lend(0);
  ASSERT_TRUE(second);
  EXPECT_EQ(first->client, second->client);
  EXPECT_GT(second->boot, first->boot);
}

TEST(IdentityPool, TwoAtOnceAreTwoClients) {
  IdentityPool pool(NodeId{1}, 5);
  std::set<ClientId> clients;
  for (std::uint32_t i = 0; i < IdentityPool::kMaxSlots; ++i) {
    const auto lent = pool.lend(0);
    ASSERT_TRUE(lent);
    EXPECT_TRUE(clients.insert(lent->client).second);
  }
  EXPECT_EQ(pool.lend(0).error().code, Errc::kBusy);
  // Runs that never said that they ended.
  EXPECT_TRUE(pool.lend(IdentityPool::kKeepMs));
}

TEST(IdentityPool, ARestartForgetsWhoHoldsWhat) {
  IdentityPool before(NodeId{1}, 5), after(NodeId{1}, 6), other(NodeId{2}, 5);
  const auto a = before.lend(0), b = after.lend(0), c = other.lend(0);
  EXPECT_NE(a->client, b->client);
  EXPECT_NE(a->client, c->client);
  IdentityPool much_later(NodeId{1}, 5 + IdentityPool::kGenerations);
  const auto d = much_later.lend(0);
  EXPECT_EQ(a->client, d->client);
  EXPECT_GT(d->boot, a->boot);
}

}  // namespace
}  // namespace kinfs::daemon

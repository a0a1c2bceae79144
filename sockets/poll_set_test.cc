// Who is told what, and in which order, without a NIC.
#include "sockets/poll_set.h"

#include <vector>

#include "gtest/gtest.h"

namespace devwire {
namespace {

class PollSetTest : public ::testing::Test {
 protected:
  // Listener `number` in the poller, acceptable from the start.
  void Add(uint32_t number, bool is_edge = false) {
    PollSet::Entry entry;
    entry.poller = poller_;
    entry.interest = kAcceptable;
    entry.is_edge = is_edge;
    entry.user_data = number;
    entry.ready = kAcceptable;
    ASSERT_TRUE(set_.AddListener(ListenerId{number}, entry));
  }
  // The user data of what one Collect of `room` tells.
  std::vector<uint64_t> Collect(size_t room) {
    std::vector<Poller::Ready> out(room);
    out.resize(set_.Collect(
        poller_, out, [](const PollSet::Entry& entry) { return entry.ready; }));
    std::vector<uint64_t> told;
    for (const Poller::Ready& ready : out) told.push_back(ready.user_data);
    return told;
  }

  PollSet set_{16};
  const uint32_t poller_ = set_.NewPoller();
};

using Told = std::vector<uint64_t>;

// As epoll_wait(2) with few events: nobody is passed over for ever.
TEST_F(PollSetTest, LevelsTakeTurnsWhenThereIsRoomForFew) {
  for (uint32_t i = 1; i <= 5; ++i) Add(i);
  EXPECT_EQ(Collect(2), (Told{1, 2}));
  EXPECT_EQ(Collect(2), (Told{3, 4}));
  EXPECT_EQ(Collect(2), (Told{5, 1}));
  EXPECT_EQ(Collect(9), (Told{2, 3, 4, 5, 1})) << "each once";
  set_.OnListenerReady(ListenerId{2}, /*is_ready=*/false, /*is_new=*/false);
  EXPECT_EQ(Collect(9), (Told{3, 4, 5, 1}));
}

TEST_F(PollSetTest, EdgesBehindLevelsAreToldOnce) {
  Add(1);
  Add(2, /*is_edge=*/true);
  Add(3);
  EXPECT_EQ(Collect(1), (Told{1}));
  EXPECT_EQ(Collect(1), (Told{2}));
  EXPECT_EQ(Collect(9), (Told{3, 1}));
}

TEST_F(PollSetTest, NoRoomTellsNothingAndLosesNothing) {
  Add(1, /*is_edge=*/true);
  EXPECT_EQ(Collect(0), Told());
  EXPECT_EQ(Collect(1), (Told{1}));
}

// A server that makes a poller per client does not grow.
TEST_F(PollSetTest, ADroppedPollersPlaceIsTakenAgain) {
  const uint32_t first = set_.NewPoller();
  const uint32_t second = set_.NewPoller();
  set_.DropPoller(first);
  EXPECT_EQ(set_.NewPoller(), first);
  EXPECT_NE(set_.NewPoller(), second);
  Add(1);
  set_.DropPoller(poller_);
  EXPECT_EQ(set_.NewPoller(), poller_);
  EXPECT_EQ(Collect(9), Told()) << "nothing is left of its entries";
}

}  // namespace
}  // namespace devwire

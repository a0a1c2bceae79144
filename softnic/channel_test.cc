// Completion channels: an application that sleeps is woken, once for each time
// that it asked.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>

#include <cerrno>
#include <thread>

#include "softnic/cable_fixture.h"
#include "softnic/verbs_fixture.h"

namespace softnic {
namespace {

// Two devices, b receives and has a channel.
class Channel : public Cable {
 protected:
  void Start(const std::string& options_b = "") {
    Plug("", options_b);
    channel_ = b_->UseChannel();
    fcntl(channel_->fd, F_SETFL, O_NONBLOCK);
    tx_ = a_->Qp();
    rx_ = b_->Qp();
    b_->TakeAll(rx_);
    to_ = b_->Host(2048);
    for (uint64_t i = 0; i < 60; ++i) {
      ASSERT_EQ(b_->Recv(rx_, i, {to_.Sge(0, 2048)}), 0);
    }
  }
  void Arm(bool solicited_only = false) {
    ASSERT_EQ(ibv_req_notify_cq(b_->cq(), solicited_only), 0);
  }
  // One frame from a, delivered at b.
  void Deliver() {
    const uint64_t before = b_->counters().rx_delivered;
    ASSERT_EQ(SendFrame(tx_, true, Pattern(50)), 0);
    ASSERT_TRUE(Eventually([&] {
      a_->Poll();
      MoveOn();
      return b_->counters().rx_delivered == before + 1;
    }));
    // It is counted before its completion shows; a command is executed after.
    b_->PortState();
  }
  // An inline device works in calls alone; none of them may take completions.
  void MoveOn() {
    if (IsInline()) ibv_poll_cq(idle_cq(), 1, &unused_);
  }
  ibv_cq* idle_cq() {
    if (idle_cq_ == nullptr) {
      idle_cq_ = Verbs().create_cq(b_->context(), 1, nullptr, nullptr, 0);
    }
    return idle_cq_;
  }
  bool IsReadable(int milliseconds) const {
    pollfd wait = {channel_->fd, POLLIN, 0};
    return poll(&wait, 1, milliseconds) == 1;
  }
  // Takes one event; false: there is none.
  bool Take() {
    ibv_cq* cq = nullptr;
    void* context = nullptr;
    errno = 0;
    if (Verbs().get_cq_event(channel_, &cq, &context) != 0) {
      EXPECT_EQ(errno, EAGAIN);
      return false;
    }
    EXPECT_EQ(cq, b_->cq());
    EXPECT_EQ(context, b_.get());
    Verbs().ack_cq_events(cq, 1);
    return true;
  }
  void TearDown() override {
    DropIdleCq();
    Cable::TearDown();
  }
  void DropIdleCq() {
    if (idle_cq_ == nullptr) return;
    EXPECT_EQ(Verbs().destroy_cq(idle_cq_), 0);
    idle_cq_ = nullptr;
  }

  ibv_comp_channel* channel_ = nullptr;
  ibv_cq* idle_cq_ = nullptr;
  ibv_wc unused_;
  ibv_qp* tx_ = nullptr;
  ibv_qp* rx_ = nullptr;
  HostBuffer to_;
};
INSTANTIATE_TEST_SUITE_P(Modes, Channel,
                         testing::Values("inline", "thread", "process"),
                         ModeName);

TEST_P(Channel, OneEventForEachTimeItWasArmed) {
  Start();
  Deliver();
  EXPECT_FALSE(IsReadable(0));  // It was not armed.
  Arm();
  EXPECT_FALSE(IsReadable(0));  // What was there before raises none.
  Deliver();
  EXPECT_TRUE(IsReadable(10'000));
  Deliver();
  EXPECT_TRUE(Take());
  EXPECT_FALSE(Take());  // It was armed once.
  Arm();
  Arm();
  Deliver();
  Deliver();
  EXPECT_TRUE(IsReadable(10'000));
  EXPECT_TRUE(Take());
  EXPECT_FALSE(Take());
  EXPECT_EQ(b_->Await(5).size(), 5u);
  // Counted after it was raised.
  EXPECT_TRUE(Eventually([&] { return b_->counters().cq_events == 2; }));
}

// On Ethernet nothing is solicited: errors alone wake who asked for that, and
// a wider request holds.
TEST_P(Channel, SolicitedMeansErrors) {
  Start();
  Arm(/*solicited_only=*/true);
  Deliver();
  EXPECT_FALSE(Take());
  Configure("dev=b,cqe_error_at=1");
  ASSERT_EQ(SendFrame(tx_, true, Pattern(50)), 0);
  EXPECT_TRUE(Eventually([&] {
    a_->Poll();
    MoveOn();
    return IsReadable(0);
  }));
  EXPECT_TRUE(Take());
}

TEST_P(Channel, AWiderRequestHolds) {
  Start();
  Arm();
  Arm(/*solicited_only=*/true);
  Deliver();
  EXPECT_TRUE(IsReadable(10'000));
}

// Who sleeps on the channel and calls nothing is woken. An inline device needs
// calls.
class Sleeper : public Channel {};
INSTANTIATE_TEST_SUITE_P(Modes, Sleeper, testing::Values("thread", "process"),
                         ModeName);

TEST_P(Sleeper, WakesWhoCallsNothing) {
  Start();
  for (int i = 0; i < 20; ++i) {
    Arm();
    EXPECT_EQ(b_->Poll().size(), 0u);
    ASSERT_EQ(SendFrame(tx_, true, Pattern(50)), 0);
    ASSERT_TRUE(IsReadable(10'000)) << i;
    EXPECT_TRUE(Take());
    EXPECT_EQ(b_->Await(1).size(), 1u);
  }
}

// A frame that the wire holds back wakes, too.
TEST_P(Sleeper, WakesForADelayedFrame) {
  Start("delay=20ms,fault_side=rx");
  Arm();
  ASSERT_EQ(SendFrame(tx_, true, Pattern(50)), 0);
  EXPECT_TRUE(IsReadable(10'000));
}

TEST_P(Channel, LostEvents) {
  Start("lost_event=1");
  Arm();
  Deliver();
  EXPECT_TRUE(
      Eventually([&] { return b_->counters().cq_events_dropped == 1; }));
  EXPECT_FALSE(IsReadable(0));
  Configure("dev=b,lost_event=0");
  // The queue believes that it has told.
  Deliver();
  EXPECT_FALSE(IsReadable(0));
  Arm();
  Deliver();
  EXPECT_TRUE(IsReadable(10'000));
}

// A channel in use stays; a queue waits until its events are acknowledged.
TEST_P(Channel, DestroyedInOrder) {
  Start();
  EXPECT_EQ(Verbs().destroy_comp_channel(channel_), EBUSY);
  ibv_comp_channel* other = Verbs().create_comp_channel(b_->context());
  ASSERT_NE(other, nullptr);
  EXPECT_EQ(Verbs().create_cq(a_->context(), 1, nullptr, other, 0), nullptr);
  EXPECT_EQ(errno, EINVAL);  // Of another context.
  EXPECT_EQ(Verbs().destroy_comp_channel(other), 0);

  Arm();
  Deliver();
  ASSERT_TRUE(IsReadable(10'000));
  ibv_cq* cq = nullptr;
  void* context = nullptr;
  ASSERT_EQ(Verbs().get_cq_event(channel_, &cq, &context), 0);
  DropIdleCq();
  std::thread acknowledge([&] { Verbs().ack_cq_events(cq, 1); });
  a_ = nullptr;
  b_ = nullptr;
  acknowledge.join();
}

// A thread with nothing to do sleeps, too.
class DeviceThread : public Channel {};
INSTANTIATE_TEST_SUITE_P(Modes, DeviceThread, testing::Values("thread"),
                         ModeName);

TEST_P(DeviceThread, SleepsWhenIdle) {
  Start();
  Deliver();
  Arm();
  const auto switches = [] {
    rusage use = {};
    getrusage(RUSAGE_SELF, &use);
    return use.ru_nvcsw;
  };
  // It may be finishing what it did.
  EXPECT_TRUE(Eventually([&] {
    const long before = switches();
    poll(nullptr, 0, 50);
    return switches() - before <= 3;
  }));
}

}  // namespace
}  // namespace softnic

// Hardware trouble: queues in error, revoked regions, rules that are refused or
// slow. Streams on sound memory survive; no slot is lost.
#include <errno.h>

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "gtest/gtest.h"
#include "transport/verbs/two_hosts.h"
#include "transport/verbs/verbs_packet_io.h"

namespace devwire {
namespace {

class Trouble : public TwoHosts {
 protected:
  // Sends until a frame arrives again: some are lost while a queue is remade.
  void ExpectTrafficRecovers() {
    std::array<RxFrame, 8> frames;
    EXPECT_TRUE(Eventually([&] {
      a_->Send({.to = &*b_, .payload_bytes = 100});
      a_->io().TxFlush();
      PollBoth();
      const size_t n = b_->io().RxBurst(frames);
      for (size_t i = 0; i < n; ++i) FreeSlot(*b_, frames[i]);
      b_->io().Replenish();
      return n > 0;
    }));
  }
  // Polls b, giving slots back, until `done`.
  bool PollB(const std::function<bool()>& done) {
    return Eventually([&] {
      std::array<RxFrame, 8> frames;
      PollBoth();
      const size_t n = b_->io().RxBurst(frames);
      for (size_t i = 0; i < n; ++i) FreeSlot(*b_, frames[i]);
      b_->io().Replenish();
      return done();
    });
  }
};

TEST_F(Trouble, ReceiveErrorRebuildsTheQueueInPlace) {
  Connect(TwoDevices());
  SteerToB(DataQueue(*b_));
  for (int round = 1; round <= 3; ++round) {
    ExpectTrafficRecovers();
    ChangeSoftnic("dev=sn1,cqe_error_at=1");
    a_->Send({.to = &*b_, .payload_bytes = 100});
    a_->io().TxFlush();
    const uint64_t want = static_cast<uint64_t>(round);
    EXPECT_TRUE(PollB(
        [&] { return b_->io().counters().queues_remade.value() == want; }));
    EXPECT_EQ(b_->io().counters().rx_errors.value(), want);
    ExpectTrafficRecovers();
  }
  EXPECT_EQ(b_->io().counters().regions_revoked.value(), 0u);
  EXPECT_GT(b_->io().counters().rx_flushed.value(), 0u);
  b_->pool().CheckInvariants();
  EXPECT_EQ(b_->pool().owners().posted, 32u);
}

TEST_F(Trouble, RebuildOverDeviceProcesses) {
  Connect(TwoDevices(",mode=process"));
  SteerToB(DataQueue(*b_));
  ExpectTrafficRecovers();
  const auto send_until_remade = [&](const TestHost& host) {
    return PollB([&] {
      a_->Send({.to = &*b_, .payload_bytes = 100});
      a_->io().TxFlush();
      return host.io().counters().queues_remade.value() == 1;
    });
  };
  ChangeSoftnic("dev=sn1,cqe_error_at=1");
  EXPECT_TRUE(send_until_remade(*b_));
  ExpectTrafficRecovers();
  ChangeSoftnic("dev=sn0,qp_error_at=1");
  EXPECT_TRUE(send_until_remade(*a_));
  ExpectTrafficRecovers();
}

TEST_F(Trouble, ControlQueueIsRebuiltWithItsRules) {
  Connect(TwoDevices());
  ASSERT_EQ(b_->AwaitRule(b_->io().AddRule(
                {.kind = FlowMatch::Kind::kOwnedHost}, kControlQueue)),
            0);
  ExpectTrafficRecovers();
  ChangeSoftnic("dev=sn1,cqe_error_at=1");
  ExpectTrafficRecovers();
  EXPECT_EQ(b_->io().counters().queues_remade.value(), 1u);
}

TEST_F(Trouble, SendErrorRebuildsTheQueueInPlace) {
  Connect(TwoDevices());
  SteerToB(DataQueue(*b_));
  ExpectTrafficRecovers();
  ChangeSoftnic("dev=sn0,cqe_error_at=2");
  std::optional<uint64_t> last;
  for (int i = 0; i < 10; ++i) {
    last = a_->Send({.to = &*b_, .payload_bytes = 100});
    ASSERT_TRUE(last.has_value());
  }
  a_->io().TxFlush();
  EXPECT_TRUE(
      PollB([&] { return a_->io().counters().queues_remade.value() == 1; }));
  // Nothing refers to the memory of the frames that were lost.
  EXPECT_GE(a_->io().tx_completed(), *last);
  EXPECT_EQ(a_->io().counters().tx_errors.value(), 1u);
  EXPECT_GT(a_->io().counters().tx_lost.value(), 0u);
  ExpectTrafficRecovers();
}

// The pair goes to ERR between two requests: an asynchronous event says so.
TEST_F(Trouble, QueuePairErrorIsNoticedAndRepaired) {
  Connect(TwoDevices());
  SteerToB(DataQueue(*b_));
  ExpectTrafficRecovers();
  ChangeSoftnic("dev=sn1,qp_error_at=1");
  ExpectTrafficRecovers();
  EXPECT_TRUE(
      PollB([&] { return b_->io().counters().queues_remade.value() == 1; }));
  ChangeSoftnic("dev=sn0,qp_error_at=1");
  ExpectTrafficRecovers();
  EXPECT_TRUE(
      PollB([&] { return a_->io().counters().queues_remade.value() == 1; }));
  EXPECT_GT(b_->io().control_counters().async_events.value(), 0u);
}

// A request that the provider refuses outright (more than max_tso).
TEST_F(Trouble, RefusedSendRebuildsTheQueue) {
  Connect(TwoDevices());
  SteerToB(DataQueue(*b_));
  ExpectTrafficRecovers();
  const auto ticket =
      a_->Send({.to = &*b_, .payload_bytes = 1u << 20, .tso_mss = 1448});
  ASSERT_TRUE(ticket.has_value());
  a_->io().TxFlush();
  EXPECT_TRUE(
      PollB([&] { return a_->io().counters().queues_remade.value() == 1; }));
  EXPECT_GE(a_->io().tx_completed(), *ticket);
  ExpectTrafficRecovers();
}

// A region that its owner revoked ends alone: it is named, its queue goes, the
// control queue does not notice.
TEST_F(Trouble, RevokedReceiveRegionIsNamedAndGoesAlone) {
  Connect(TwoDevices());
  ASSERT_EQ(b_->AwaitRule(b_->io().AddRule(
                {.kind = FlowMatch::Kind::kOwnedHost}, kControlQueue)),
            0);
  const QueueId queue = DataQueue(*b_);
  const RuleId rule = b_->Steer(*a_, kFrom, kTo, queue);
  ASSERT_EQ(b_->AwaitRule(rule), 0);
  ExpectTrafficRecovers();
  ChangeSoftnic("dev=sn1,revoke_lkey=" + std::to_string(b_->region().lkey()));
  std::array<RegionEvent, 4> events;
  size_t count = 0;
  EXPECT_TRUE(PollB([&] {
    a_->Send({.to = &*b_, .payload_bytes = 100});
    a_->io().TxFlush();
    count = b_->io().PollRegions(events);
    return count > 0;
  }));
  ASSERT_EQ(count, 1u);
  EXPECT_EQ(events[0], (RegionEvent{.is_receive = true,
                                    .pool = kDevicePoolId,
                                    .lkey = b_->region().lkey()}));
  RuleEvent gone[2];
  EXPECT_TRUE(PollB([&] { return b_->io().PollRules(gone) == 1; }));
  EXPECT_EQ(gone[0].rule, rule);
  EXPECT_EQ(gone[0].error, ENODEV);
  EXPECT_TRUE(
      PollB([&] { return b_->io().counters().queues_dropped.value() == 1; }));
  EXPECT_EQ(b_->pool().owners().free, b_->pool().slot_count());
  const auto again =
      b_->io().OpenDataQueue(kDevicePoolId, HeaderShape::kIpv4Timestamps);
  EXPECT_EQ(again.status().code(), absl::StatusCode::kFailedPrecondition);
  ExpectTrafficRecovers();  // By the control queue.
  EXPECT_EQ(b_->io().PollRegions(events), 0u);
}

TEST_F(Trouble, RevokedSendRegionIsNamedOnce) {
  Connect(TwoDevices());
  SteerToB(DataQueue(*b_));
  ExpectTrafficRecovers();
  ChangeSoftnic("dev=sn0,revoke_lkey=" + std::to_string(a_->region().lkey()));
  std::array<RegionEvent, 4> events;
  for (uint64_t round = 1; round <= 2; ++round) {
    EXPECT_TRUE(PollB([&] {
      a_->Send({.to = &*b_, .payload_bytes = 100});
      a_->io().TxFlush();
      return a_->io().counters().queues_remade.value() == round;
    }));
  }
  ASSERT_EQ(a_->io().PollRegions(events), 1u);
  EXPECT_FALSE(events[0].is_receive);
  EXPECT_EQ(events[0].lkey, a_->region().lkey());
  // Frames without payload still leave.
  EXPECT_TRUE(PollB([&] {
    a_->Send({.to = &*b_, .payload_bytes = 0});
    a_->io().TxFlush();
    return b_->io().counters().rx_frames.value() > 1;
  }));
}

// The device does not let a queue be made again: a data queue goes alone, the
// send queue and the control queue take the stack with them.
class NoRemaking : public Trouble {
 protected:
  void Connect() {
    // The control threads of both hosts inherit it.
    const WithoutNetRaw dropped;
    Trouble::Connect(TwoDevices());
  }
  void FailNext(const std::string& device) {
    ChangeSoftnic("dev=" + device + ",require_cap_net_raw=1,cqe_error_at=1");
    a_->Send({.to = &*b_, .payload_bytes = 100});
    a_->io().TxFlush();
  }
};

TEST_F(NoRemaking, DataQueueGoesAlone) {
  Connect();
  const QueueId queue = DataQueue(*b_);
  const RuleId rule = b_->Steer(*a_, kFrom, kTo, queue);
  ASSERT_EQ(b_->AwaitRule(rule), 0);
  ExpectTrafficRecovers();
  FailNext("sn1");
  RuleEvent events[1];
  EXPECT_TRUE(PollB([&] { return b_->io().PollRules(events) == 1; }));
  EXPECT_EQ(events[0].rule, rule);
  EXPECT_EQ(events[0].error, ENODEV);
  EXPECT_EQ(b_->io().counters().queues_dropped.value(), 1u);
  EXPECT_EQ(b_->io().fatal_error(), 0);
  EXPECT_EQ(b_->pool().owners().free, b_->pool().slot_count());
  EXPECT_EQ(b_->AwaitRule(b_->Steer(*a_, kFrom, kTo, queue)), ENODEV);
  // Nor are new rules allowed.
  EXPECT_EQ(b_->AwaitRule(b_->Steer(*a_, kFrom, kTo, kControlQueue)), EPERM);
}

TEST_F(NoRemaking, ControlQueueIsFatal) {
  Connect();
  ASSERT_EQ(b_->AwaitRule(b_->io().AddRule(
                {.kind = FlowMatch::Kind::kOwnedHost}, kControlQueue)),
            0);
  FailNext("sn1");
  EXPECT_TRUE(PollB([&] { return b_->io().fatal_error() == EPERM; }));
}

TEST_F(NoRemaking, SendQueueIsFatal) {
  Connect();
  const auto before = a_->Send({.to = &*b_, .payload_bytes = 1});
  FailNext("sn0");
  EXPECT_TRUE(PollB([&] { return a_->io().fatal_error() == EPERM; }));
  EXPECT_GT(a_->io().tx_completed(), *before);
  EXPECT_EQ(a_->io().TxHeader(), nullptr);
}

// -- rules --------------------------------------------------------------------

TEST_F(Trouble, RuleTableFull) {
  Connect(TwoDevices(",rules=2"));
  const QueueId queue = DataQueue(*b_);
  ASSERT_EQ(b_->AwaitRule(b_->Steer(*a_, Port{1}, kTo, queue)), 0);
  const RuleId second = b_->Steer(*a_, Port{2}, kTo, queue);
  ASSERT_EQ(b_->AwaitRule(second), 0);
  EXPECT_EQ(b_->AwaitRule(b_->Steer(*a_, Port{3}, kTo, queue)), ENOMEM);
  b_->io().RemoveRule(second);
  EXPECT_EQ(b_->AwaitRule(b_->Steer(*a_, Port{3}, kTo, queue)), 0);
  b_->io().RemoveRule(second);  // Twice is nothing.
  EXPECT_EQ(b_->io().control_counters().rules_refused.value(), 1u);
}

TEST_F(Trouble, OwnLimitOfRules) {
  Connect(TwoDevices());
  std::vector<RuleId> rules;
  for (uint16_t i = 1; i <= 64; ++i) {  // The fixture's max_rules.
    rules.push_back(b_->Steer(*a_, Port{i}, kTo, kControlQueue));
    ASSERT_EQ(b_->AwaitRule(rules.back()), 0);
  }
  EXPECT_EQ(b_->AwaitRule(b_->Steer(*a_, Port{65}, kTo, kControlQueue)),
            ENOMEM);
  b_->io().RemoveRule(rules[7]);
  EXPECT_EQ(b_->AwaitRule(b_->Steer(*a_, Port{65}, kTo, kControlQueue)), 0);
}

// Insertion takes 5 ms: asking never waits, and what was taken back before its
// turn never goes in.
TEST_F(Trouble, SlowRulesDoNotStopTheEngine) {
  Connect(TwoDevices(",rule_latency_us=5000"));
  const QueueId queue = DataQueue(*b_);
  const MonotonicClock clock;
  const Instant start = clock.Now();
  std::vector<RuleId> rules;
  for (uint16_t i = 1; i <= 50; ++i) {
    rules.push_back(b_->Steer(*a_, Port{i}, kTo, queue));
  }
  for (size_t i = 10; i < rules.size(); ++i) b_->io().RemoveRule(rules[i]);
  EXPECT_LT((clock.Now() - start).milliseconds(), 50);
  size_t answers = 0;
  EXPECT_TRUE(PollB([&] {
    RuleEvent events[8];
    answers += b_->io().PollRules(events);
    const auto& c = b_->io().control_counters();
    return c.rules_cancelled.value() + c.rules_removed.value() == 40 &&
           answers >= 10;
  }));
  EXPECT_GT(b_->io().control_counters().rules_cancelled.value(), 30u);
}

// Rules asked for while their queue is being remade go in with the others.
TEST_F(Trouble, RulesDuringARebuildAreInstalledAfterIt) {
  Connect(TwoDevices(",rule_latency_us=1000"));
  const QueueId queue = DataQueue(*b_);
  SteerToB(queue);
  ExpectTrafficRecovers();
  ChangeSoftnic("dev=sn1,cqe_error_at=1");
  a_->Send({.to = &*b_, .payload_bytes = 100});
  a_->io().TxFlush();
  const RuleId during = b_->Steer(*a_, Port{77}, kTo, queue);
  const RuleId dropped = b_->Steer(*a_, Port{78}, kTo, queue);
  b_->io().RemoveRule(dropped);
  RuleEvent events[4];
  EXPECT_TRUE(PollB([&] {
    return b_->io().PollRules(events) > 0 && events[0].rule == during;
  }));
  EXPECT_EQ(events[0].error, 0);
  EXPECT_TRUE(
      PollB([&] { return b_->io().counters().queues_remade.value() == 1; }));
  ExpectTrafficRecovers();
}

}  // namespace
}  // namespace devwire

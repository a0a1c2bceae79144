// What a stream's user can set and ask: each over the wire, through softnic.
#include <linux/tcp.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "sockets/errno_map.h"
#include "sockets/poller.h"
#include "sockets/two_stacks.h"

namespace devwire {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSendFrom = 2 << 20;  // Behind the receive pool.

// -- tcp_info -----------------------------------------------------------------

#define SAME_PLACE(field)                                               \
  static_assert(offsetof(TcpInfo, field) == offsetof(tcp_info, field)); \
  static_assert(sizeof(TcpInfo::field) == sizeof(tcp_info::field))
SAME_PLACE(tcpi_state);
SAME_PLACE(tcpi_ca_state);
SAME_PLACE(tcpi_retransmits);
SAME_PLACE(tcpi_probes);
SAME_PLACE(tcpi_backoff);
SAME_PLACE(tcpi_options);
SAME_PLACE(tcpi_rto);
SAME_PLACE(tcpi_ato);
SAME_PLACE(tcpi_snd_mss);
SAME_PLACE(tcpi_rcv_mss);
SAME_PLACE(tcpi_unacked);
SAME_PLACE(tcpi_sacked);
SAME_PLACE(tcpi_lost);
SAME_PLACE(tcpi_retrans);
SAME_PLACE(tcpi_fackets);
SAME_PLACE(tcpi_last_data_sent);
SAME_PLACE(tcpi_last_ack_sent);
SAME_PLACE(tcpi_last_data_recv);
SAME_PLACE(tcpi_last_ack_recv);
SAME_PLACE(tcpi_pmtu);
SAME_PLACE(tcpi_rcv_ssthresh);
SAME_PLACE(tcpi_rtt);
SAME_PLACE(tcpi_rttvar);
SAME_PLACE(tcpi_snd_ssthresh);
SAME_PLACE(tcpi_snd_cwnd);
SAME_PLACE(tcpi_advmss);
SAME_PLACE(tcpi_reordering);
SAME_PLACE(tcpi_rcv_rtt);
SAME_PLACE(tcpi_rcv_space);
SAME_PLACE(tcpi_total_retrans);
SAME_PLACE(tcpi_pacing_rate);
SAME_PLACE(tcpi_max_pacing_rate);
SAME_PLACE(tcpi_bytes_acked);
SAME_PLACE(tcpi_bytes_received);
SAME_PLACE(tcpi_segs_out);
SAME_PLACE(tcpi_segs_in);
SAME_PLACE(tcpi_notsent_bytes);
SAME_PLACE(tcpi_min_rtt);
SAME_PLACE(tcpi_data_segs_in);
SAME_PLACE(tcpi_data_segs_out);
SAME_PLACE(tcpi_delivery_rate);
SAME_PLACE(tcpi_busy_time);
SAME_PLACE(tcpi_rwnd_limited);
SAME_PLACE(tcpi_sndbuf_limited);
SAME_PLACE(tcpi_delivered);
SAME_PLACE(tcpi_delivered_ce);
SAME_PLACE(tcpi_bytes_sent);
SAME_PLACE(tcpi_bytes_retrans);
SAME_PLACE(tcpi_dsack_dups);
SAME_PLACE(tcpi_reord_seen);
SAME_PLACE(tcpi_rcv_ooopack);
SAME_PLACE(tcpi_snd_wnd);
#undef SAME_PLACE
// Ours may be a newer one: what lies behind is ignored by who knows less.
static_assert(sizeof(TcpInfo) >= sizeof(tcp_info));

// The bit fields, which have no offset: through Linux's own eyes.
tcp_info AsLinux(const TcpInfo& info) {
  tcp_info linux_info;
  std::memcpy(&linux_info, &info, sizeof(linux_info));
  return linux_info;
}

TEST(TcpInfoTest, BitFieldsLieAsInLinux) {
  TcpInfo info;
  info.tcpi_snd_wscale = 3;
  info.tcpi_rcv_wscale = 14;
  info.tcpi_delivery_rate_app_limited = 1;
  info.tcpi_fastopen_client_fail = 2;
  const tcp_info seen = AsLinux(info);
  EXPECT_EQ(seen.tcpi_snd_wscale, 3);
  EXPECT_EQ(seen.tcpi_rcv_wscale, 14);
  EXPECT_EQ(seen.tcpi_delivery_rate_app_limited, 1);
  EXPECT_EQ(seen.tcpi_fastopen_client_fail, 2);
}

// The fields of both ends of a transfer, each against what is known of it.
TEST(TcpInfoTest, FieldsAreTrue) {
  constexpr uint64_t kBytes = 300'000;
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  PatternSender sender(*pair.client, net.client(),
                       {.bytes = kBytes, .offset = kSendFrom, .closes = false});
  PatternReceiver receiver(*pair.server, net.server(), 0);
  ASSERT_TRUE(net.Until([&] {
    const bool done = sender.Step();
    receiver.Step();
    return done && receiver.bytes() == kBytes;
  }));
  TcpInfo out;
  TcpInfo in;
  // A last update of the window may be on its way.
  EXPECT_TRUE(net.Until([&] {
    out = *pair.client->tcp_info();
    in = *pair.server->tcp_info();
    return out.tcpi_snd_wnd >> out.tcpi_snd_wscale ==
           in.tcpi_rcv_wnd >> in.tcpi_rcv_wscale;
  }));
  EXPECT_EQ(out.tcpi_state, 1);
  EXPECT_EQ(out.tcpi_options,
            TCPI_OPT_TIMESTAMPS | TCPI_OPT_SACK | TCPI_OPT_WSCALE);
  EXPECT_EQ(out.tcpi_snd_mss, 1448u);
  EXPECT_EQ(out.tcpi_advmss, 1460u);
  EXPECT_EQ(out.tcpi_pmtu, 1500u);
  EXPECT_EQ(out.tcpi_bytes_acked, kBytes);
  EXPECT_EQ(out.tcpi_bytes_sent - out.tcpi_bytes_retrans, kBytes);
  EXPECT_EQ(out.tcpi_notsent_bytes, 0u);
  EXPECT_EQ(out.tcpi_unacked, 0u);
  EXPECT_EQ(out.tcpi_snd_wscale, in.tcpi_rcv_wscale);
  EXPECT_GE(out.tcpi_snd_cwnd, 10u);  // Segments: one more for each, at most.
  EXPECT_LE(out.tcpi_snd_cwnd, 10 + out.tcpi_data_segs_out);
  EXPECT_EQ(out.tcpi_snd_ssthresh, 0x7fffffffu);
  EXPECT_GE(out.tcpi_rto, 200'000u);
  EXPECT_GT(out.tcpi_rtt, 0u);
  EXPECT_LE(out.tcpi_min_rtt, out.tcpi_rtt);
  EXPECT_EQ(out.tcpi_ato, 40'000u);
  EXPECT_GE(out.tcpi_data_segs_out, kBytes / 1448);
  EXPECT_EQ(out.tcpi_data_segs_in, 0u);
  EXPECT_EQ(out.tcpi_delivered, out.tcpi_data_segs_out + 1);  // And the SYN.
  EXPECT_GT(out.tcpi_delivery_rate, 0u);
  EXPECT_GT(out.tcpi_busy_time, 0u);
  EXPECT_LE(out.tcpi_rwnd_limited + out.tcpi_sndbuf_limited,
            out.tcpi_busy_time);
  EXPECT_EQ(out.tcpi_reordering, 3u);
  EXPECT_GT(in.tcpi_rcv_rtt, 0u);
  EXPECT_GT(in.tcpi_rcv_space, 0u);
  EXPECT_GE(in.tcpi_rcv_ssthresh, 64u << 10);
  EXPECT_EQ(in.tcpi_bytes_received, kBytes);
  EXPECT_EQ(in.tcpi_data_segs_in, out.tcpi_data_segs_out);
  EXPECT_EQ(in.tcpi_rcv_mss, 1448u);
  EXPECT_EQ(in.tcpi_segs_in, out.tcpi_segs_out);
  EXPECT_EQ(in.tcpi_data_segs_out, 0u);
  EXPECT_EQ(in.tcpi_busy_time, 0u);
}

TEST(TcpInfoTest, WhatIsSentAgainIsCounted) {
  constexpr uint64_t kBytes = 3'000'000;
  TwoStacks net({.nic = ",loss=0.02,seed=7"});
  TwoStacks::Pair pair = net.Connect();
  PatternSender sender(*pair.client, net.client(),
                       {.bytes = kBytes, .offset = kSendFrom, .closes = false});
  PatternReceiver receiver(*pair.server, net.server(), 0);
  ASSERT_TRUE(net.Until([&] {
    const bool done = sender.Step();
    receiver.Step();
    return done && receiver.bytes() == kBytes;
  }));
  const TcpInfo out = *pair.client->tcp_info();
  EXPECT_GT(out.tcpi_total_retrans, 0u);
  EXPECT_GT(out.tcpi_bytes_retrans, 0u);
  EXPECT_LE(out.tcpi_bytes_retrans, out.tcpi_total_retrans * 1448u);
  EXPECT_GE(out.tcpi_data_segs_out, kBytes / 1448 + out.tcpi_total_retrans);
}

TEST(TcpInfoTest, StatesHaveLinuxNumbers) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  const auto states = [&](int client, int server) {
    return net.Until([&] {
      return pair.client->tcp_info()->tcpi_state == client &&
             pair.server->tcp_info()->tcpi_state == server;
    });
  };
  EXPECT_TRUE(states(1, 1));  // ESTABLISHED
  ASSERT_TRUE(pair.client->CloseSend().ok());
  EXPECT_TRUE(states(5, 8));  // FIN-WAIT-2, CLOSE-WAIT
  ASSERT_TRUE(pair.server->CloseSend().ok());
  EXPECT_TRUE(states(6, 7));  // TIME-WAIT, CLOSED
}

// The engine keeps the limit of what is queued: its refusals count, as long as
// there is no room.
TEST(TcpInfoTest, TheSendBufferHeldItBack) {
  TwoStacks::Options options;
  options.stack.tcp.send_budget_bytes = 4096;  // One buffer of 16 KiB.
  options.stack.tcp.initial_window_segments = 20;
  TwoStacks net(options);
  TwoStacks::Pair pair = net.Connect(std::nullopt, std::nullopt);
  const std::vector<std::byte> text(1 << 20);
  // Until the window is full of what was sent, and the queue behind it.
  const MonotonicClock clock;
  const auto poll_for = [&](Duration time, bool is_writer) {
    const Instant start = clock.Now();
    ASSERT_TRUE(net.Until([&] {
      if (is_writer) (void)*pair.client->SendHost(text);
      return clock.Now() - start > time;
    }));
  };
  ASSERT_EQ(*pair.client->SendHost({text.data(), 1000}), 1000u);
  poll_for(20_ms, false);
  EXPECT_EQ(pair.client->tcp_info()->tcpi_sndbuf_limited, 0u);
  // Nobody acknowledges: all that the queue takes is sent, and more waits.
  const Instant start = clock.Now();
  (void)*pair.client->SendHost(text);
  while (clock.Now() - start < 30_ms) net.client().stack->Poll();
  TcpInfo info = *pair.client->tcp_info();
  EXPECT_EQ(info.tcpi_notsent_bytes, 0u);
  EXPECT_GE(info.tcpi_sndbuf_limited, 20'000u);
  // A reader who does not read: it is the window now.
  poll_for(200_ms, true);
  info = *pair.client->tcp_info();
  EXPECT_GT(info.tcpi_notsent_bytes, 0u);
  EXPECT_GE(info.tcpi_rwnd_limited, 50'000u);
  EXPECT_GE(info.tcpi_busy_time,
            info.tcpi_rwnd_limited + info.tcpi_sndbuf_limited);
}

// -- settings -----------------------------------------------------------------

TEST(Settings, ValuesOutOfRangeAreNamed) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  absl::Status status = pair.client->SetDscp(64);
  EXPECT_EQ(ErrnoOf(status), EINVAL);
  EXPECT_THAT(std::string(status.message()), HasSubstr("0 to 63"));
  status = pair.client->SetKeepAlive(KeepAliveOptions{.probes = 128});
  EXPECT_THAT(std::string(status.message()), HasSubstr("probes is 128"));
  status = pair.client->SetUserTimeout(Duration());
  EXPECT_THAT(std::string(status.message()), HasSubstr("user_timeout"));
  pair.client->Close();
  EXPECT_EQ(ErrnoOf(pair.client->SetNoDelay(true)), EBADF);
}

// A peer that reads nothing: without a mark the queue fills, with one only as
// far; and a writer is woken at half of it.
TEST(Settings, NotSentLowWaterBoundsWhatIsQueued) {
  constexpr uint64_t kMark = 32 << 10;  // The queue begins with 64 KiB.
  constexpr uint64_t kWrite = 4 << 10;
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect(std::nullopt, std::nullopt);
  auto poller = *net.client().stack->NewPoller();
  const std::vector<std::byte> bytes(kWrite);
  const auto fill = [&] {
    (void)net.Until([&] { return *pair.client->SendHost(bytes) == 0; }, 300_ms);
    (void)net.Until([] { return false; }, 20_ms);
    while (*pair.client->SendHost(bytes) > 0) continue;
    return pair.client->Info()->bytes_unsent;
  };
  ASSERT_TRUE(pair.client->SetNotSentLowWater(kMark).ok());
  EXPECT_GE(fill(), kMark);
  EXPECT_LT(fill(), kMark + kWrite);

  ASSERT_TRUE(poller->Add(*pair.client, kWritable, Trigger::kLevel, 1).ok());
  std::array<Poller::Ready, 1> ready;
  std::vector<std::byte> room(4 << 10);
  uint64_t unsent = 0;
  ASSERT_TRUE(net.Until([&] {
    (void)*pair.server->Read(room);
    unsent = pair.client->Info()->bytes_unsent;
    return *poller->Wait(ready, 0_ms) > 0;
  }));
  EXPECT_LT(unsent, kMark / 2 + kWrite)
      << "not for the first segment that left";

  ASSERT_TRUE(pair.client->SetNotSentLowWater(0).ok());
  EXPECT_GT(fill(), kMark + kWrite);
}

// A peer that is gone without a word is noticed by keep-alives alone.
TEST(Settings, KeepAliveNoticesThePeersDeath) {
  TwoStacks::Options options;
  // Its answers are challenge ACKs, and the probes come thick here.
  options.stack.tcp.challenge_ack_interval = Duration();
  TwoStacks net(options);
  TwoStacks::Pair pair = net.Connect();
  ASSERT_TRUE(pair.client
                  ->SetKeepAlive(KeepAliveOptions{
                      .idle = 20_ms, .interval = 10_ms, .probes = 3})
                  .ok());
  // While the other end is polled it answers.
  const MonotonicClock clock;
  const Instant start = clock.Now();
  ASSERT_TRUE(net.Until([&] { return clock.Now() - start > 200_ms; }));
  EXPECT_EQ(pair.client->Info()->state, "ESTABLISHED");
  // Then nobody polls it any more.
  while (pair.client->Info()->state == "ESTABLISHED" &&
         clock.Now() - start < 10_s) {
    net.client().stack->Poll();
  }
  std::array<StreamFrag, 1> frags;
  EXPECT_EQ(ErrnoOf(pair.client->ReceiveFrags(frags, 1).status()), ETIMEDOUT);
}

// Urgent data is read in line; the reader hears of it and how far it goes.
TEST(Settings, UrgentDataIsReported) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect(std::nullopt, std::nullopt);
  const std::array<std::byte, 5> text{};
  ASSERT_EQ(*pair.client->SendHost(text), 5u);
  ASSERT_TRUE(pair.client->MarkUrgent().ok());
  Reports reports = 0;
  ASSERT_TRUE(net.Until([&] {
    reports |= *pair.server->TakeReports();
    return reports != 0;
  }));
  EXPECT_EQ(reports, kReportUrgent);
  EXPECT_EQ(*pair.server->UrgentBytes(), 5u);
  EXPECT_EQ(*pair.server->TakeReports(), 0u) << "told once";
  std::array<std::byte, 3> some;
  EXPECT_EQ(pair.server->Read(some)->bytes, 3u);
  EXPECT_EQ(*pair.server->UrgentBytes(), 2u);
}

// R1: nobody answers; the stream says so and goes on. RFC 9293 SHLD-9, MUST-47.
TEST(Settings, StalledIsReported) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect(std::nullopt, std::nullopt);
  std::unique_ptr<Poller> poller = net.client().stack->NewPoller().value();
  ASSERT_TRUE(poller->Add(*pair.client, kReported, Trigger::kLevel, 7).ok());
  const std::array<std::byte, 5> text{};
  ASSERT_EQ(*pair.client->SendHost(text), 5u);
  const MonotonicClock clock;
  const Instant start = clock.Now();
  std::array<Poller::Ready, 1> ready;
  size_t count = 0;
  while (count == 0 && clock.Now() - start < 10_s) {
    net.client().stack->Poll();  // The server is deaf.
    count = poller->Wait(ready, Duration()).value();
  }
  ASSERT_EQ(count, 1u);
  EXPECT_EQ(*pair.client->TakeReports(), kReportStalled);
  EXPECT_EQ(pair.client->tcp_info()->tcpi_retransmits, 3);
  EXPECT_EQ(pair.client->Info()->state, "ESTABLISHED");
}

TEST(Settings, ReportsWakeNobodyWhoDidNotAsk) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect(std::nullopt, std::nullopt);
  std::unique_ptr<Poller> poller = net.client().stack->NewPoller().value();
  ASSERT_TRUE(poller->Add(*pair.client, kReadable, Trigger::kLevel, 7).ok());
  const std::array<std::byte, 5> text{};
  ASSERT_EQ(*pair.client->SendHost(text), 5u);
  const MonotonicClock clock;
  const Instant start = clock.Now();
  std::array<Poller::Ready, 1> ready;
  while (pair.client->tcp_info()->tcpi_retransmits < 3) {
    ASSERT_LT(clock.Now() - start, 10_s);
    net.client().stack->Poll();  // The server is deaf.
    ASSERT_EQ(poller->Wait(ready, Duration()).value(), 0u);
  }
  EXPECT_EQ(*pair.client->TakeReports(), kReportStalled);
}

// Who names no local address has the stack's, from the first SYN to the end.
TEST(Settings, TheLocalAddressIsTheStacksAllAlong) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect(std::nullopt, std::nullopt);
  const Endpoint local = pair.client->local();
  const auto is_kept = [&] {
    return pair.client->local() == local && pair.server->remote() == local;
  };
  EXPECT_EQ(local.ip, net.client().address);
  EXPECT_TRUE(is_kept());
  const std::array<std::byte, 5> text{};
  ASSERT_EQ(*pair.client->SendHost(text), 5u);
  std::array<std::byte, 5> got;
  EXPECT_TRUE(net.Until([&] { return pair.server->Read(got)->bytes == 5; }));
  EXPECT_TRUE(is_kept());
  ASSERT_TRUE(pair.client->CloseSend().ok());
  ASSERT_TRUE(pair.server->CloseSend().ok());
  EXPECT_TRUE(net.Until([&] { return pair.client->Read(got)->end_of_stream; }));
  EXPECT_TRUE(is_kept());
}

// -- buffers that follow their use --------------------------------------------

// Window and send queue begin small; a transfer that is read makes both grow.
TEST(Tuning, WindowAndSendQueueGrowWithTheTransfer) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  const auto queued = [&] {
    const std::vector<std::byte> text(1 << 20);
    return *pair.client->SendHost(text);
  };
  EXPECT_LE(pair.server->tcp_info()->tcpi_rcv_wnd, 64u << 10);
  PatternSender sender(
      *pair.client, net.client(),
      {.bytes = 2 << 20, .offset = kSendFrom, .closes = false});
  PatternReceiver receiver(*pair.server, net.server(), 0);
  ASSERT_TRUE(net.Until([&] {
    const bool done = sender.Step();
    receiver.Step();
    return done && receiver.bytes() == 2 << 20;
  }));
  EXPECT_GT(pair.server->tcp_info()->tcpi_rcv_wnd, 128u << 10);
  EXPECT_GT(pair.server->tcp_info()->tcpi_rcv_space, 0u);
  EXPECT_GT(queued(), 128u << 10);
}

TEST(Tuning, AFreshSendQueueTakesItsBeginning) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  const std::vector<std::byte> text(1 << 20);
  const size_t taken = *pair.client->SendHost(text);
  EXPECT_GE(taken, 64u << 10);
  EXPECT_LT(taken, 128u << 10);
}

// -- closing ------------------------------------------------------------------

TEST(Linger, ZeroResets) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect(std::nullopt, std::nullopt);
  pair.client->Close({.linger = Duration()});
  std::array<std::byte, 1> byte;
  absl::Status status;
  ASSERT_TRUE(net.Until([&] {
    status = pair.server->Read(byte).status();
    return !status.ok();
  }));
  EXPECT_EQ(ErrnoOf(status), ECONNRESET);
}

// With a time, Close() comes back when the peer has everything, or after it.
TEST(Linger, WaitsForTheAcknowledgmentAndNoLonger) {
  TwoStacks::Options options;
  options.stack.mode = StackOptions::Mode::kBusyThread;
  TwoStacks net(options);
  const MonotonicClock clock;
  {
    TwoStacks::Pair pair = net.Connect(std::nullopt, std::nullopt);
    const std::vector<std::byte> text(100'000);
    const size_t sent = *pair.client->SendHost(text);
    const Instant start = clock.Now();
    pair.client->Close({.linger = 20_s});
    EXPECT_LT(clock.Now() - start, 15_s);
    // All of it is there, without a further word of the client's.
    std::vector<std::byte> read(sent);
    const absl::StatusOr<Received> got = pair.server->Read(read);
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(got->bytes, sent);
    EXPECT_TRUE(got->end_of_stream);
  }
  {  // A window that stays closed.
    TwoStacks::Pair pair = net.Connect(std::nullopt, std::nullopt);
    const std::vector<std::byte> text(8 << 20);
    // Until the peer, which reads nothing, takes no more.
    for (Instant last = clock.Now(); clock.Now() - last < 200_ms;) {
      if (*pair.client->SendHost(text) > 0) last = clock.Now();
    }
    const Instant start = clock.Now();
    pair.client->Close({.linger = 200_ms});
    EXPECT_GE(clock.Now() - start, 200_ms);
    EXPECT_LT(clock.Now() - start, 10_s);
  }
}

// Closed streams with a peer that reads nothing: at the limit the next one's
// peer is reset, and none waits forever.
TEST(Orphans, AreLimited) {
  TwoStacks::Options options;
  options.stack.tcp.max_orphans = 2;
  TwoStacks net(options);
  std::vector<TwoStacks::Pair> pairs;
  for (int i = 0; i < 3; ++i) {
    pairs.push_back(net.Connect(std::nullopt, std::nullopt));
  }
  for (TwoStacks::Pair& pair : pairs) pair.client->Close();
  std::array<std::byte, 1> byte;
  ASSERT_TRUE(net.Until([&] { return !pairs[2].server->Read(byte).ok(); }));
  EXPECT_EQ(ErrnoOf(pairs[2].server->Read(byte).status()), ECONNRESET);
  for (int i = 0; i < 2; ++i) {  // These saw a FIN.
    EXPECT_TRUE(
        pairs[static_cast<size_t>(i)].server->Read(byte)->end_of_stream);
  }
  // Their peers close too: there is room again.
  for (int i = 0; i < 2; ++i) pairs[static_cast<size_t>(i)].server->Close();
  ASSERT_TRUE(net.Until([&, polls = 0]() mutable { return ++polls > 200; }));
  TwoStacks::Pair again = net.Connect(std::nullopt, std::nullopt);
  again.client->Close();
  ASSERT_TRUE(net.Until([&] {
    const auto read = again.server->Read(byte);
    return !read.ok() || read->end_of_stream;
  }));
  EXPECT_TRUE(again.server->Read(byte).ok());
}

// RFC 6191: the 4-tuple of a stream in TIME-WAIT is opened anew, by the peer's
// SYN at once, by ours after a second.
TEST(TimeWaitReuse, BothWays) {
  TwoStacks net({});
  const Endpoint server{net.server().stack->address(), Port{7777}};
  std::unique_ptr<Listener> listener =
      net.server().stack->Listen(server, {.memory = net.server().pool}).value();
  ConnectOptions from;
  from.memory = net.client().pool;
  from.local_port = Port{50'001};
  std::unique_ptr<Stream> client;
  std::unique_ptr<Stream> accepted;
  absl::Status refused;
  const auto connect = [&] {
    auto started = net.client().stack->StartConnect(server, from);
    refused = started.status();
    if (!started.ok()) return false;
    client = *std::move(started);
    return net.Until([&] {
      if (accepted == nullptr) accepted = *listener->TryAccept();
      return accepted != nullptr && client->ConnectStatus().ok();
    });
  };
  // The server closes first, so TIME-WAIT is there.
  ASSERT_TRUE(connect());
  accepted->Close();
  std::array<StreamFrag, 1> frags;
  ASSERT_TRUE(
      net.Until([&] { return client->ReceiveFrags(frags, 1)->end_of_stream; }));
  client->Close();
  accepted.reset();
  ASSERT_TRUE(net.Until([&, polls = 0]() mutable { return ++polls > 200; }));
  ASSERT_TRUE(connect()) << refused;
  // Bytes go through the new one, into device memory.
  PatternSender sender(*client, net.client(),
                       {.bytes = 20'000, .offset = kSendFrom});
  PatternReceiver receiver(*accepted, net.server(), 0);
  ASSERT_TRUE(net.Until([&] {
    sender.Step();
    return receiver.Step();
  }));
  EXPECT_EQ(receiver.bytes(), 20'000u);
  EXPECT_EQ(receiver.first_wrong(), std::nullopt);
  // Now the client has closed first.
  accepted->Close();
  ASSERT_TRUE(
      net.Until([&] { return client->ReceiveFrags(frags, 1)->end_of_stream; }));
  EXPECT_EQ(client->Info()->state, "TIME-WAIT");
  client->Close();
  accepted.reset();
  EXPECT_FALSE(connect());
  EXPECT_EQ(ErrnoOf(refused), EADDRINUSE) << "not before a second";
  const MonotonicClock clock;
  const Instant start = clock.Now();
  ASSERT_TRUE(net.Until([&] { return clock.Now() - start > 1100_ms; }));
  EXPECT_TRUE(connect()) << refused;
}

// A stream that only waits out TIME-WAIT refuses nobody.
TEST(TimeWaits, MakeRoomForNewStreams) {
  TwoStacks::Options options;
  options.stack.max_connections = 4;
  TwoStacks net(options);
  std::array<std::byte, 1> byte;
  for (int i = 0; i < 12; ++i) {
    SCOPED_TRACE(i);
    TwoStacks::Pair pair = net.Connect(std::nullopt, std::nullopt);
    ASSERT_TRUE(pair.client != nullptr && pair.server != nullptr);
    pair.client->Close();
    ASSERT_TRUE(
        net.Until([&] { return pair.server->Read(byte)->end_of_stream; }));
    pair.server->Close();
    ASSERT_TRUE(net.Until([&, polls = 0]() mutable { return ++polls > 50; }));
  }
  uint64_t evicted = 0;
  const StackCounters counters = *net.client().stack->Counters();
  for (const auto& event : counters.events) {
    if (event.name == std::string("kTimeWaitsEvicted")) evicted = event.value;
  }
  EXPECT_EQ(evicted, 8u) << "four of twelve are still there";
  // A stream that somebody holds is not evicted.
  std::vector<TwoStacks::Pair> held;
  for (int i = 0; i < 4; ++i) {
    held.push_back(net.Connect(std::nullopt, std::nullopt));
  }
  const auto fifth = net.client().stack->StartConnect(
      {net.server().stack->address(), Port{1}}, {});
  EXPECT_EQ(ErrnoOf(fifth.status()), ENOBUFS) << fifth.status();
}

// MUST-42: a port can be listened on while one of its number is being opened.
TEST(Ports, ListenBesideAnOpenFromTheSamePort) {
  TwoStacks net({});
  ConnectOptions from;
  from.local_port = Port{50'002};
  const Endpoint nobody{net.server().stack->address(), Port{1}};
  std::unique_ptr<Stream> opening =
      net.client().stack->StartConnect(nobody, from).value();
  EXPECT_EQ(opening->Info()->state, "SYN-SENT");
  const auto listener =
      net.client().stack->Listen({net.client().stack->address(), Port{50'002}});
  EXPECT_TRUE(listener.ok()) << listener.status();
  EXPECT_EQ(opening->Info()->state, "SYN-SENT") << "MUST-41";
}

}  // namespace
}  // namespace devwire

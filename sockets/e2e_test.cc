// Two stacks, device memory to device memory over softnic, inline: from one
// segment to many streams over a bad link.
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "sockets/two_stacks.h"
#include "transport/verbs/verbs_fixture.h"

namespace devwire {
namespace {

// One way, `bytes` long; both ends closed in order.
void TransferAndCheck(TwoStacks& net, TwoStacks::Pair& pair,
                      PatternSender::Options options,
                      uint64_t expect_host_bytes = 0) {
  options.offset = net.options().receive_bytes;
  PatternSender sender(*pair.client, net.client(), options);
  PatternReceiver receiver(*pair.server, net.server(), options.stream_number);
  bool sent = false;
  bool received = false;
  ASSERT_TRUE(net.Until([&] {
    sent = sender.Step();
    received = received || receiver.Step();
    return sent && received;
  })) << "sent "
      << sender.completed() << " received " << receiver.bytes() << " of "
      << options.bytes;
  EXPECT_EQ(receiver.bytes(), options.bytes);
  EXPECT_EQ(receiver.first_wrong(), std::nullopt);
  EXPECT_EQ(sender.completed(), options.bytes);
  EXPECT_EQ(receiver.host_bytes(), expect_host_bytes);
  EXPECT_EQ(receiver.device_bytes(), options.bytes - expect_host_bytes);
  ASSERT_TRUE(pair.server->CloseSend().ok());
  PatternReceiver reverse(*pair.client, net.client(), 0);
  EXPECT_TRUE(net.Until([&] { return reverse.Step(); }));
}

TEST(EndToEnd, OneSegment) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  TransferAndCheck(net, pair, {.bytes = 1000});
  EXPECT_EQ(net.server().Nic().payload_landed_host_bytes, 0u);
  EXPECT_EQ(net.server().Nic().payload_landed_dmabuf_bytes, 1000u);
  EXPECT_TRUE(net.Until([&] { return net.SlotsHeld() == 0; }));
}

TEST(EndToEnd, SixteenMegabytesClean) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  TransferAndCheck(net, pair, {.bytes = 16 << 20, .chunks = 32});
  EXPECT_EQ(net.server().Nic().payload_landed_host_bytes, 0u);
  EXPECT_TRUE(net.Until([&] { return net.SlotsHeld() == 0; }));
}

// Loss, duplication and reordering at once, both directions of the link.
TEST(EndToEnd, BadLink) {
  TwoStacks net({.nic = ",loss=0.01,dup=0.01,reorder=0.02,seed=7"});
  TwoStacks::Pair pair = net.Connect();
  TransferAndCheck(net, pair, {.bytes = 1 << 20, .chunks = 32});
  EXPECT_TRUE(net.Until([&] { return net.SlotsHeld() == 0; }));
}

TEST(EndToEnd, CorruptedFramesAreDropped) {
  TwoStacks net({.nic = ",corrupt=0.01,seed=3"});
  TwoStacks::Pair pair = net.Connect();
  TransferAndCheck(net, pair, {.bytes = 1 << 20, .chunks = 32});
  EXPECT_TRUE(net.Until([&] { return net.SlotsHeld() == 0; }));
}

// A send is handed back only when no work request refers to it: the sender
// overwrites each buffer at its completion, and softnic reads it late.
TEST(EndToEnd, LateGatherAndLateScatter) {
  TwoStacks net({.nic = ",late_gather=50us,late_scatter=200us,loss=0.02"});
  TwoStacks::Pair pair = net.Connect();
  TransferAndCheck(net, pair, {.bytes = 500'000, .chunks = 4});
}

TEST(EndToEnd, SlotSizes) {
  for (const uint32_t slot : {2048u, 4096u, 8192u, 9216u}) {
    SCOPED_TRACE(slot);
    const uint32_t mtu = slot == 9216 ? 9000 : slot == 8192 ? 8000 : 1500;
    TwoStacks net({.mtu = mtu,
                   .slot_bytes = slot,
                   .memory_bytes = 8 << 20,
                   .receive_bytes = 6 << 20});
    TwoStacks::Pair pair = net.Connect();
    TransferAndCheck(net, pair, {.bytes = 8 << 20});
    EXPECT_TRUE(net.Until([&] { return net.SlotsHeld() == 0; }));
  }
}

// RFC 4821: the path narrows in the middle of a stream, and nobody says so.
TEST(EndToEnd, ANarrowPathThatSaysNothing) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  constexpr uint64_t kBytes = 1'000'000;
  PatternSender sender(*pair.client, net.client(),
                       {.bytes = kBytes, .offset = 2 << 20});
  PatternReceiver receiver(*pair.server, net.server(), 0);
  bool is_narrow = false;
  bool end = false;
  ASSERT_TRUE(net.Until(
      [&] {
        if (!is_narrow && receiver.bytes() >= kBytes / 4) {
          is_narrow = true;
          ChangeSoftnic("dev=" + net.client().device +
                        ",fault_side=tx,path_mtu=1200");
        }
        const bool sent = sender.Step();
        end = end || receiver.Step();
        return sent && end;
      },
      60_s))
      << "received " << receiver.bytes();
  EXPECT_TRUE(is_narrow);
  EXPECT_EQ(receiver.bytes(), kBytes);
  EXPECT_EQ(receiver.first_wrong(), std::nullopt);
  EXPECT_GT(net.client().Nic().wire_tx_lost, 0u);
  EXPECT_LE(pair.client->Info()->snd_mss, 1200u - 40 - 12);
}

// Chunks of many small spans: a frame can gather only so many.
TEST(EndToEnd, SmallSpans) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  TransferAndCheck(net, pair,
                   {.bytes = 200'000, .chunk_bytes = 6400, .spans = 64});
}

TEST(EndToEnd, ShortReadsSplitFrags) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  PatternSender sender(*pair.client, net.client(),
                       {.bytes = 100'000, .offset = 2 << 20});
  PatternReceiver receiver(*pair.server, net.server(), 0);
  receiver.max_bytes = 777;
  receiver.max_frags = 3;
  bool end = false;
  ASSERT_TRUE(net.Until([&] {
    const bool sent = sender.Step();
    end = end || receiver.Step();
    return sent && end;
  }));
  EXPECT_EQ(receiver.bytes(), 100'000u);
  EXPECT_EQ(receiver.first_wrong(), std::nullopt);
  EXPECT_TRUE(net.Until([&] { return net.SlotsHeld() == 0; }));
}

// Both directions at once: every stream receives only its own bytes.
TEST(EndToEnd, SixteenStreamsBothWays) {
  constexpr int kStreams = 16;
  constexpr uint64_t kBytes = 300'000;
  TwoStacks net({.memory_bytes = 8 << 20,
                 .receive_bytes = 4 << 20,
                 .nic = ",loss=0.005,seed=5"});
  std::vector<TwoStacks::Pair> pairs;
  std::vector<std::unique_ptr<PatternSender>> senders;
  std::vector<std::unique_ptr<PatternReceiver>> receivers;
  std::vector<bool> ended(2 * kStreams);
  for (int i = 0; i < kStreams; ++i) pairs.push_back(net.Connect());
  for (uint64_t i = 0; i < kStreams; ++i) {
    const uint64_t at = (4 << 20) + i * (128 << 10);
    senders.push_back(std::make_unique<PatternSender>(
        *pairs[i].client, net.client(),
        PatternSender::Options{
            .stream_number = i, .bytes = kBytes, .offset = at}));
    senders.push_back(std::make_unique<PatternSender>(
        *pairs[i].server, net.server(),
        PatternSender::Options{
            .stream_number = 100 + i, .bytes = kBytes, .offset = at}));
    receivers.push_back(
        std::make_unique<PatternReceiver>(*pairs[i].server, net.server(), i));
    receivers.push_back(std::make_unique<PatternReceiver>(
        *pairs[i].client, net.client(), 100 + i));
  }
  ASSERT_TRUE(net.Until([&] {
    bool all = true;
    for (size_t i = 0; i < receivers.size(); ++i) {
      all &= senders[i]->Step();
      ended[i] = ended[i] || receivers[i]->Step();
      all &= ended[i];
    }
    return all;
  }));
  for (const auto& receiver : receivers) {
    EXPECT_EQ(receiver->bytes(), kBytes);
    EXPECT_EQ(receiver->first_wrong(), std::nullopt);
  }
  EXPECT_TRUE(net.Until([&] { return net.SlotsHeld() == 0; }));
}

// -- the split (docs/wire.md) -------------------------------------------------

// Both sides send and lose: ACKs with SACK blocks are longer than the split,
// and their options are fetched from the payload slot.
TEST(Split, SackBlocksBehindTheSplitAreRead) {
  TwoStacks net({.nic = ",loss=0.03,seed=11"});
  TwoStacks::Pair pair = net.Connect();
  TransferAndCheck(net, pair, {.bytes = 400'000, .chunks = 32});
  uint64_t tails = 0;
  for (TwoStacks::Side* side : {&net.client(), &net.server()}) {
    const StackCounters counters = *side->stack->Counters();
    for (const auto& event : counters.events) {
      if (event.name == "kOptionTailsRead") tails += event.value;
    }
  }
  EXPECT_GT(tails, 0u);
}

// Neither has a static neighbour: both ask. RFC 4861.
TEST(Split, Ipv6IntoDeviceMemoryUnderFull) {
  TwoStacks net({.nic = ",profile=full", .ipv6 = true});
  TwoStacks::Pair pair = net.Connect();
  TransferAndCheck(net, pair, {.bytes = 300'000});
  EXPECT_EQ(net.server().Nic().payload_landed_host_bytes, 0u);
}

// The profile mlx5 verifies no IPv6 checksum: software does, in host memory.
TEST(Split, Ipv6HostStreamUnderMlx5) {
  TwoStacks net({.nic = ",loss=0.01,corrupt=0.01,seed=5", .ipv6 = true});
  TwoStacks::Pair pair = net.Connect(std::nullopt, std::nullopt);
  std::vector<std::byte> out(300'000);
  for (size_t i = 0; i < out.size(); ++i) out[i] = PatternByte(6, i);
  std::vector<std::byte> in(out.size());
  size_t sent = 0;
  size_t got = 0;
  ASSERT_TRUE(net.Until([&] {
    sent += *pair.client->SendHost(std::span(out).subspan(sent));
    got += pair.server->Read(std::span(in).subspan(got))->bytes;
    return got == out.size();
  }));
  EXPECT_TRUE(in == out);
}

}  // namespace
}  // namespace devwire

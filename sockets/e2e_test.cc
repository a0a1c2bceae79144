// Two stacks, device memory to device memory over softnic, inline: from one
// segment to many streams over a bad link.
#include <memory>
#include <vector>

#include "base/prng.h"
#include "gtest/gtest.h"
#include "sockets/two_stacks.h"

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
  EXPECT_EQ(net.SlotsHeld(), 0u);
}

TEST(EndToEnd, SixteenMegabytesClean) {
  TwoStacks net({});
  TwoStacks::Pair pair = net.Connect();
  TransferAndCheck(net, pair, {.bytes = 16 << 20, .chunks = 32});
  EXPECT_EQ(net.server().Nic().payload_landed_host_bytes, 0u);
  EXPECT_EQ(net.SlotsHeld(), 0u);
}

}  // namespace
}  // namespace devwire

#include "bench/cable_pair.h"

#include <unistd.h>

#include <cstdlib>
#include <string>
#include <utility>

#include "base/check.h"

namespace devwire {
namespace {

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  CHECK(value.ok()) << value.status().ToString();
  return *std::move(value);
}

End OpenEnd(const char* device, uint8_t host, uint32_t mtu, bool receives) {
  End end;
  end.memory = OrDie(MemfdMemory::Allocate(kCablePoolBytes));
  StackOptions options;
  options.device = device;
  options.address = IpAddress::V4(10, 0, 0, host);
  options.mtu = mtu;
  end.stack = OrDie(Stack::Open(options));
  PoolOptions pool;
  if (!receives) pool.receive_bytes = 0;
  end.id = OrDie(end.stack->BindMemory(*end.memory, pool));
  return end;
}

}  // namespace

CablePair OpenCablePair(uint32_t mtu) {
  // Not named by our process id: a sandbox has ids of its own, and one /tmp.
  char folder[] = "/tmp/devwire-cable-XXXXXX";
  CHECK(mkdtemp(folder) != nullptr);
  const std::string wire =
      std::string(",port=shm:") + folder + "/cable,mtu=" + std::to_string(mtu);
  const std::string devices = "dev=sn0" + wire + ";dev=sn1" + wire;
  setenv("SOFTNIC", devices.c_str(), /*overwrite=*/1);
  CablePair pair{OpenEnd("sn0", 1, mtu, false), OpenEnd("sn1", 2, mtu, true)};
  End& sender = pair.sender;
  End& receiver = pair.receiver;
  const Endpoint server{receiver.stack->address(), Port{7000}};
  auto listener =
      OrDie(receiver.stack->Listen(server, {.memory = receiver.id}));
  sender.stream = OrDie(sender.stack->StartConnect(server));
  while (receiver.stream == nullptr) {
    sender.stack->Poll();
    receiver.stack->Poll();
    receiver.stream = OrDie(listener->TryAccept());
  }
  return pair;
}

[[gnu::noinline]] uint64_t PollReceiver(End& end) {
  end.stack->Poll();
  StreamFrag frags[64];
  FragToken tokens[64];
  auto got = end.stream->ReceiveFrags(frags, UINT64_MAX);
  CHECK(got.ok()) << got.status().ToString();
  for (size_t i = 0; i < got->frags; ++i) tokens[i] = frags[i].token;
  CHECK_EQ(end.stream->ReturnTokens({tokens, got->frags}),
           ReturnResult::kReturned);
  return got->bytes;
}

[[gnu::noinline]] void PollSender(End& end, SendProgress* progress) {
  end.stack->Poll();
  SendCompletion done[16];
  auto n = end.stream->PollSendCompletions(done);
  CHECK(n.ok()) << n.status().ToString();
  for (size_t i = 0; i < *n; ++i) progress->in_flight -= done[i].bytes;
  while (progress->to_send > 0 &&
         progress->in_flight + kCableSendBytes <= kCablePoolBytes) {
    const DeviceSpan span{progress->offset, kCableSendBytes};
    auto outcome = end.stream->SendDevice(end.id, {&span, 1}, 0);
    CHECK(outcome.ok()) << outcome.status().ToString();
    if (*outcome == SendOutcome::kWouldBlock) break;
    progress->offset = (progress->offset + kCableSendBytes) % kCablePoolBytes;
    progress->in_flight += kCableSendBytes;
    progress->to_send -= kCableSendBytes;
  }
}

void Transfer(CablePair& pair, uint64_t bytes) {
  SendProgress progress{.to_send = bytes};
  uint64_t received = 0;
  while (received < bytes || progress.in_flight > 0) {
    PollSender(pair.sender, &progress);
    received += PollReceiver(pair.receiver);
  }
}

}  // namespace devwire

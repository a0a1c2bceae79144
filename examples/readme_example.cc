// The example of README.md, which tools/readme_check.sh compares with this
// file. Run it with two devices on one cable:
//   SOFTNIC='dev=sn0,port=shm:/tmp/cable;dev=sn1,port=shm:/tmp/cable'
#include <cstdio>

#include "memreg/host_memory.h"
#include "sockets/stack.h"

using namespace devwire;

int main() {
  // README begins.
  StackOptions options{.mode = StackOptions::Mode::kBusyThread};
  options.device = "sn0";
  options.address = IpAddress::V4(10, 0, 0, 1);
  auto a = Stack::Open(options).value();
  options.device = "sn1";
  options.address = IpAddress::V4(10, 0, 0, 2);
  auto b = Stack::Open(options).value();
  auto gpu_a = MemfdMemory::Allocate(1 << 20).value();
  auto gpu_b = MemfdMemory::Allocate(1 << 20).value();
  PoolId from = a->BindMemory(*gpu_a, {.receive_bytes = 0}).value();
  PoolId into = b->BindMemory(*gpu_b, {}).value();

  const Endpoint server{b->address(), Port{7000}};
  auto listener = b->Listen(server, {.memory = into}).value();
  auto sender = a->Connect(server).value();
  auto receiver = listener->Accept(5_s).value();

  char text[] = "hello, device";
  const DeviceSpan span{.offset = 0, .length = sizeof(text)};
  (void)gpu_a->CopyIn(0, std::as_bytes(std::span(text)));
  (void)sender->SendDevice(from, {&span, 1}, /*cookie=*/1);

  StreamFrag frag;  // Where in gpu_b the bytes are, and the token for them.
  while (receiver->ReceiveFrags({&frag, 1}, 4096)->frags == 0) continue;
  (void)gpu_b->CopyOut(frag.offset, std::as_writable_bytes(std::span(text)));
  receiver->ReturnTokens({&frag.token, 1});
  // README ends.
  std::printf("%s\n", text);
  return 0;
}

// echo: sends every byte back, from the very device memory it arrived in.
//
//   echo serve 10.0.0.2:7                             accepts one connection
//   echo call  10.0.0.1:7 --address 10.0.0.2/24       makes it
//
// Nothing is copied: a frag is lent, queued for sending where it lies, and its
// token returned when the send has completed.
#include <cinttypes>
#include <cstdio>
#include <deque>
#include <string_view>

#include "examples/stack_flags.h"
#include "sockets/stack.h"

namespace devwire::examples {
namespace {

class Echo {
 public:
  Echo(BoundStack& bound, Stream& stream) : bound_(bound), stream_(stream) {}

  absl::Status Run() {
    bool end_of_stream = false;
    while (!end_of_stream || !unsent_.empty() || !lent_.empty()) {
      bound_.stack->Poll();
      if (unsent_.empty() && !end_of_stream) {
        auto got = TakeFrags();
        if (!got.ok()) return got.status();
        end_of_stream = got->end_of_stream;
      }
      if (absl::Status s = SendBack(); !s.ok()) return s;
      if (absl::Status s = GiveBack(); !s.ok()) return s;
    }
    std::fprintf(stderr, "echo: %" PRIu64 " bytes\n", bytes_);
    return stream_.CloseSend();
  }

 private:
  absl::StatusOr<Received> TakeFrags() {
    StreamFrag frags[64];
    auto got = stream_.ReceiveFrags(frags, UINT64_MAX);
    if (!got.ok()) return got;
    unsent_.insert(unsent_.end(), frags, frags + got->frags);
    bytes_ += got->bytes;
    return got;
  }

  absl::Status SendBack() {
    while (!unsent_.empty()) {
      StreamFrag& frag = unsent_.front();
      if (frag.host != nullptr) {
        auto sent = stream_.SendHost({frag.host, frag.length});
        if (!sent.ok()) return sent.status();
        frag.host += *sent;
        frag.length -= static_cast<uint32_t>(*sent);
        if (frag.length > 0) break;
        stream_.ReturnTokens({&frag.token, 1});
      } else {
        const DeviceSpan span{frag.offset, frag.length};
        auto outcome =
            stream_.SendDevice(bound_.id, {&span, 1}, frag.token.value);
        if (!outcome.ok()) return outcome.status();
        if (*outcome == SendOutcome::kWouldBlock) break;
        lent_.push_back(frag.token);
      }
      unsent_.pop_front();
    }
    return absl::OkStatus();
  }

  absl::Status GiveBack() {
    SendCompletion done[64];
    auto n = stream_.PollSendCompletions(done);
    if (!n.ok()) return n.status();
    for (size_t i = 0; i < *n; ++i) {
      stream_.ReturnTokens({&lent_.front(), 1});
      lent_.pop_front();
    }
    return absl::OkStatus();
  }

  BoundStack& bound_;
  Stream& stream_;
  std::deque<StreamFrag> unsent_;
  std::deque<FragToken> lent_;  // In the order of the sends.
  uint64_t bytes_ = 0;
};

absl::Status Run(bool serve, const Endpoint& endpoint,
                 const StackFlags& flags) {
  auto bound = OpenStack(flags, /*receives=*/true);
  if (!bound.ok()) return bound.status();
  absl::StatusOr<std::unique_ptr<Stream>> stream;
  if (serve) {
    auto listener = bound->stack->Listen(endpoint, {.memory = bound->id});
    if (!listener.ok()) return listener.status();
    std::fprintf(stderr, "echo: listening on %s\n",
                 (*listener)->local().ToString().c_str());
    stream = (*listener)->Accept(600_s);
  } else {
    stream = bound->stack->Connect(endpoint, {.memory = bound->id});
  }
  if (!stream.ok()) return stream.status();
  absl::Status status = Echo(*bound, **stream).Run();
  if (status.ok()) Linger(*bound->stack, **stream);
  return status;
}

int Usage() {
  std::fprintf(stderr, "echo serve|call ADDR:PORT [options]\n%s",
               kStackFlagsUsage);
  return 2;
}

}  // namespace
}  // namespace devwire::examples

int main(int argc, char** argv) {
  using namespace devwire::examples;
  const std::vector<option> table = WithStackFlags({});
  StackFlags flags;
  int flag;
  while ((flag = getopt_long(argc, argv, "", table.data(), nullptr)) != -1) {
    if (!ApplyStackFlag(flag, optarg, &flags)) return Usage();
  }
  if (argc - optind != 2) return Usage();
  const std::string_view command = argv[optind];
  const auto endpoint = devwire::Endpoint::Parse(argv[optind + 1]);
  if (!endpoint || (command != "serve" && command != "call")) return Usage();
  if (!flags.has_address) flags.stack.address = endpoint->ip;

  const absl::Status status = Run(command == "serve", *endpoint, flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "echo: %s\n", status.ToString().c_str());
  return 1;
}

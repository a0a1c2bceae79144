// dwcat listen: frags go to the GPU stand-in as they arrive in device memory;
// their tokens go back when it has written and hashed them.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "examples/dwcat_report.h"
#include "examples/dwcat_transfer.h"
#include "examples/gpu_standin.h"
#include "examples/gpu_standin_message.h"
#include "sockets/errno_map.h"

namespace devwire::examples {
namespace {

class Receiver {
 public:
  Receiver(const DwcatOptions& options, BoundStack& bound, Stream& stream,
           GpuStandin& gpu)
      : options_(options),
        bound_(bound),
        stack_(*bound.stack),
        stream_(stream),
        gpu_(gpu),
        progress_(0, options.quiet),
        watch_(bound.dmabuf->fd()) {}

  absl::Status Run() {
    watch_.Look();
    while (!end_of_stream_ || lent_ > 0) {
      stack_.Poll();
      if (absl::Status s = TakeFrags(); !s.ok()) return s;
      if (absl::Status s = GiveBack(); !s.ok()) return s;
      watch_.LookAsBytesGrow(progress_.bytes());
      if (!progress_.Tick()) {
        return ErrnoStatus(ETIMEDOUT, "the transfer stands still");
      }
    }
    auto sha256 = gpu_.Finish();
    if (!sha256.ok()) return sha256.status();
    if (absl::Status s = stream_.CloseSend(); !s.ok()) return s;
    Linger(stack_, stream_);
    watch_.Look();
    Outcome outcome{.sha256 = *sha256};
    if (auto use = stack_.Use(bound_.id); use.ok()) {
      outcome.slots_missing = use->owners.reassembly + use->owners.application;
    }
    Report(options_, stack_, stream_, bound_.id, progress_, watch_, outcome);
    if (outcome.slots_missing == 0) return absl::OkStatus();
    return absl::InternalError("slots of the pool are missing");
  }

 private:
  absl::Status TakeFrags() {
    StreamFrag frags[64];
    auto got = stream_.ReceiveFrags(frags, UINT64_MAX);
    if (!got.ok()) return got.status();
    // The stand-in already runs: what arrived must be visible to it.
    if (got->frags > 0) bound_.memory->MakeVisible();
    for (size_t i = 0; i < got->frags; ++i) {
      const StreamFrag& frag = frags[i];
      if (frag.host == nullptr) {
        gpu_.Consume(frag.offset, frag.length, frag.token.value);
      } else {
        gpu_.ConsumeHost({frag.host, frag.length}, frag.token.value);
      }
    }
    lent_ += got->frags;
    progress_.Add(got->bytes);
    end_of_stream_ = got->end_of_stream;
    return absl::OkStatus();
  }

  absl::Status GiveBack() {
    auto done = gpu_.Poll();
    if (!done.ok()) return done.status();
    for (const GpuStandin::Done& d : *done) {
      const FragToken token{d.tag};
      if (stream_.ReturnTokens({&token, 1}) != ReturnResult::kReturned) {
        return absl::InternalError("a token was refused");
      }
    }
    lent_ -= done->size();
    return absl::OkStatus();
  }

  const DwcatOptions& options_;
  BoundStack& bound_;
  Stack& stack_;
  Stream& stream_;
  GpuStandin& gpu_;
  Progress progress_;
  MappingWatch watch_;
  uint64_t lent_ = 0;
  bool end_of_stream_ = false;
};

}  // namespace

absl::Status ReceiveFile(const DwcatOptions& options, BoundStack& bound) {
  // Known before a peer sends: the stand-in could not tell until then.
  const int file =
      open(options.file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (file < 0) {
    return ErrnoStatus(errno, options.file + " cannot be written");
  }
  close(file);
  auto listener = bound.stack->Listen(options.endpoint, {.memory = bound.id});
  if (!listener.ok()) return listener.status();
  std::fprintf(stderr, "dwcat: listening on %s\n",
               (*listener)->local().ToString().c_str());
  auto stream = (*listener)->Accept(600_s);
  if (!stream.ok()) return stream.status();
  auto gpu = GpuStandin::Start({.role = GpuStandin::Role::kConsume,
                                .dmabuf_fd = bound.dmabuf->fd(),
                                .bytes = options.flags.pool_bytes,
                                .path = options.file});
  if (!gpu.ok()) return gpu.status();
  return Receiver(options, bound, **stream, *gpu).Run();
}

}  // namespace devwire::examples

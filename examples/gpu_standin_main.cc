// The process on the other end of GpuStandin: maps the device memory, and
// works.
#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "examples/gpu_standin.h"
#include "examples/gpu_standin_message.h"

namespace devwire::examples {
namespace {

using Done = GpuStandin::Done;

class Player {
 public:
  Player(bool produce, uint64_t bytes, const char* path,
         std::optional<uint64_t> corrupt_at)
      : bytes_(bytes), corrupt_at_(corrupt_at) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                   kStandinDmabufFd, 0);
    if (p == MAP_FAILED) Die("cannot map the device memory");
    memory_ = static_cast<std::byte*>(p);
    const int flags = produce ? O_RDONLY : O_WRONLY | O_CREAT | O_TRUNC;
    file_ = open(path, flags | O_CLOEXEC, 0644);
    if (file_ < 0) Die(path);
    EVP_DigestInit_ex(hash_.get(), EVP_sha256(), nullptr);
  }

  // Serves until the example closes its end.
  void Serve() {
    const size_t bytes = sizeof(Work) + kMaxHostBytes;
    auto buffer = std::make_unique<std::byte[]>(bytes);
    for (;;) {
      const ssize_t n = recv(kStandinSocketFd, buffer.get(), bytes, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return;
      Work first;
      std::memcpy(&first, buffer.get(), sizeof(first));
      if (first.kind == WorkKind::kFinish) {
        SendDigest();
      } else if (first.kind == WorkKind::kConsumeHost) {
        Keep(buffer.get() + sizeof(Work), first.length);
        const Done done{first.tag, first.length};
        Answer(&done, 1);
      } else {
        DoBatch(buffer.get(), static_cast<size_t>(n) / sizeof(Work));
      }
    }
  }

 private:
  [[noreturn]] static void Die(const char* what) {
    std::fprintf(stderr, "gpu_standin: %s: %s\n", what, std::strerror(errno));
    std::exit(1);
  }

  void DoBatch(const std::byte* works, size_t count) {
    Done done[kBatch];
    for (size_t i = 0; i < count; ++i) {
      Work work;
      std::memcpy(&work, works + i * sizeof(Work), sizeof(work));
      if (work.offset > bytes_ || work.length > bytes_ - work.offset) {
        errno = ERANGE;
        Die("a work outside the device memory");
      }
      done[i] = {work.tag, work.length};
      if (work.kind == WorkKind::kFill) {
        done[i].length = Load(memory_ + work.offset, work.length);
      } else {
        Keep(memory_ + work.offset, work.length);
      }
    }
    Answer(done, count);
  }

  // The next bytes of the file, into device memory. Returns how many.
  uint32_t Load(std::byte* to, uint32_t length) {
    uint32_t filled = 0;
    while (filled < length) {
      const ssize_t n = read(file_, to + filled, length - filled);
      if (n < 0) Die("read");
      if (n == 0) break;
      filled += static_cast<uint32_t>(n);
    }
    if (corrupt_at_ && *corrupt_at_ >= total_ &&
        *corrupt_at_ < total_ + filled) {
      to[*corrupt_at_ - total_] ^= std::byte{1};
    }
    total_ += filled;
    return filled;
  }

  void Keep(const std::byte* from, uint32_t length) {
    EVP_DigestUpdate(hash_.get(), from, length);
    while (length > 0) {
      const ssize_t n = write(file_, from, length);
      if (n <= 0) Die("write");
      from += n;
      length -= static_cast<uint32_t>(n);
    }
  }

  void Answer(const Done* done, size_t count) {
    if (send(kStandinSocketFd, done, count * sizeof(Done), MSG_NOSIGNAL) < 0) {
      std::exit(0);  // The example ended.
    }
  }

  void SendDigest() {
    unsigned char raw[32];
    EVP_DigestFinal_ex(hash_.get(), raw, nullptr);
    Digest digest;
    for (int i = 0; i < 32; ++i) {
      char hex[3];
      std::snprintf(hex, sizeof(hex), "%02x", raw[i]);
      std::memcpy(&digest.sha256_hex[2 * i], hex, 2);
    }
    send(kStandinSocketFd, &digest, sizeof(digest), MSG_NOSIGNAL);
  }

  struct FreeDigest {
    void operator()(EVP_MD_CTX* p) const { EVP_MD_CTX_free(p); }
  };

  uint64_t bytes_;
  std::optional<uint64_t> corrupt_at_;
  std::byte* memory_ = nullptr;
  int file_ = -1;
  uint64_t total_ = 0;
  std::unique_ptr<EVP_MD_CTX, FreeDigest> hash_{EVP_MD_CTX_new()};
};

}  // namespace

std::optional<int> GpuStandin::RunAsStandin(int argc, char** argv) {
  if (argc != 6 || std::strcmp(argv[1], kStandinArgument) != 0) {
    return std::nullopt;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_NAME, "gpu_standin");
  std::optional<uint64_t> corrupt_at;
  if (std::strcmp(argv[5], "none") != 0) {
    corrupt_at = std::strtoull(argv[5], nullptr, 10);
  }
  Player(std::strcmp(argv[2], "produce") == 0,
         std::strtoull(argv[3], nullptr, 10), argv[4], corrupt_at)
      .Serve();
  return 0;
}

}  // namespace devwire::examples

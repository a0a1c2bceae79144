// Gather on the host: HostGather, how pieces are cut, and the GPU's kernel
// itself, which is compiled here for the CPU and run thread by thread.
//
// DEVWIRE_SEED seeds the random layouts; a failure prints the seed.
#include "memreg/gather.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/prng.h"
#include "gtest/gtest.h"

namespace devwire {
namespace {

unsigned kernel_thread = 0, kernel_block = 0;
#define DEVWIRE_THREAD kernel_thread
#define DEVWIRE_BLOCK kernel_block
#include "memreg/gather_kernel.cu"
static_assert(sizeof(DevwireTile) == sizeof(GatherTile));

constexpr unsigned kBlocks = 2;

// What the device does with tiles, in a grid smaller than the work.
void RunKernel(std::span<const GatherTile> tiles) {
  const auto* first = reinterpret_cast<const DevwireTile*>(tiles.data());
  for (kernel_block = 0; kernel_block < kBlocks; ++kernel_block) {
    for (kernel_thread = 0; kernel_thread < DEVWIRE_BLOCK_THREADS;
         ++kernel_thread) {
      devwire_gather(first, static_cast<unsigned>(tiles.size()),
                     kBlocks * DEVWIRE_BLOCK_THREADS / 32);
    }
  }
}

uint64_t Seed() {
  const char* const given = getenv("DEVWIRE_SEED");
  return given != nullptr ? strtoull(given, nullptr, 0) : 1;
}

uint64_t AddressOf(const std::byte* p) { return reinterpret_cast<uint64_t>(p); }

// Whole pages between two that cannot be touched: a byte outside is a fault.
class GuardedPages {
 public:
  explicit GuardedPages(size_t bytes) : bytes_(bytes) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    EXPECT_EQ(bytes % page, 0u);
    whole_ = bytes + 2 * page;
    map_ = static_cast<std::byte*>(
        mmap(nullptr, whole_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    data_ = map_ + page;
    EXPECT_EQ(mprotect(data_, bytes, PROT_READ | PROT_WRITE), 0);
  }
  GuardedPages(const GuardedPages&) = delete;
  GuardedPages& operator=(const GuardedPages&) = delete;
  ~GuardedPages() { munmap(map_, whole_); }
  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  const size_t bytes_;
  size_t whole_ = 0;
  std::byte* map_ = nullptr;
  std::byte* data_ = nullptr;
};

struct Case {
  std::vector<GatherPiece> pieces;
  std::vector<std::byte> want;  // The whole target.
};

// Pieces of several streams, all sizes and alignments; what is not written
// keeps its poison.
Case RandomCase(Prng& prng, const GuardedPages& source,
                const GuardedPages& target) {
  Case c;
  c.want.assign(target.bytes(), std::byte{0xa5});
  const uint64_t streams = 1 + prng.Below(4);
  for (uint64_t s = 0; s < streams; ++s) {
    uint64_t to = target.bytes() / streams * s + prng.Below(33);
    const uint64_t end = target.bytes() / streams * (s + 1);
    while (true) {
      const uint32_t bytes = static_cast<uint32_t>(
          prng.Chance(0.3)    ? prng.Below(50)
          : prng.Chance(0.05) ? prng.Between(9217, 1 << 18)
                              : prng.Between(1, 9216));
      if (prng.Chance(0.2)) to += prng.Below(200);
      if (to + bytes > end) break;
      // Often at the very ends of the allocation.
      uint64_t from = prng.Below(source.bytes() - bytes + 1);
      if (prng.Chance(0.1)) from = 0;
      if (prng.Chance(0.1)) from = source.bytes() - bytes;
      memcpy(c.want.data() + to, source.data() + from, bytes);
      c.pieces.push_back({.from = AddressOf(source.data()) + from,
                          .to = AddressOf(target.data()) + to,
                          .bytes = bytes});
      to += bytes;
    }
  }
  return c;
}

class RandomLayouts : public testing::Test {
 protected:
  RandomLayouts() : prng_(Seed()), source_(1 << 19), target_(1 << 20) {
    for (size_t i = 0; i < source_.bytes(); ++i) {
      source_.data()[i] = static_cast<std::byte>(prng_.Next32());
    }
  }
  void Poison() { memset(target_.data(), 0xa5, target_.bytes()); }
  void ExpectTarget(const Case& c, int round) {
    ASSERT_EQ(memcmp(target_.data(), c.want.data(), c.want.size()), 0)
        << "DEVWIRE_SEED=" << prng_.seed() << " round " << round;
  }

  Prng prng_;
  GuardedPages source_, target_;
};

TEST_F(RandomLayouts, HostGather) {
  HostGather gather;
  for (int round = 0; round < 15; ++round) {
    const Case c = RandomCase(prng_, source_, target_);
    Poison();
    const auto ticket = gather.Launch(c.pieces);
    ASSERT_TRUE(ticket.ok());
    EXPECT_EQ(*gather.IsDone(*ticket), true);
    EXPECT_TRUE(gather.Wait(*ticket).ok());
    ExpectTarget(c, round);
  }
}

TEST_F(RandomLayouts, Kernel) {
  for (int round = 0; round < 15; ++round) {
    const Case c = RandomCase(prng_, source_, target_);
    Poison();
    const uint32_t tile_bytes =
        static_cast<uint32_t>(prng_.Between(1, round % 2 == 0 ? 300 : 9000));
    std::vector<GatherTile> tiles(CutTiles(c.pieces, tile_bytes, {}));
    ASSERT_EQ(CutTiles(c.pieces, tile_bytes, tiles), tiles.size());
    RunKernel(tiles);
    ExpectTarget(c, round);
  }
}

// Every pair of alignments, at the sizes where head, granules and tail begin
// and end.
TEST_F(RandomLayouts, KernelAtEveryAlignment) {
  constexpr size_t kNear = 4113 + 16 + 64;  // The largest, and some around it.
  for (const uint32_t bytes : {1u, 2u, 15u, 16u, 17u, 31u, 32u, 33u, 47u, 48u,
                               511u, 512u, 513u, 2047u, 2064u, 4113u}) {
    for (uint64_t from = 0; from < 16; ++from) {
      for (uint64_t to = 0; to < 16; ++to) {
        std::byte want[kNear];
        memset(want, 0xa5, kNear);
        memcpy(want + to, source_.data() + from, bytes);
        memset(target_.data(), 0xa5, kNear);
        const GatherTile tile = {.from = AddressOf(source_.data()) + from,
                                 .to = AddressOf(target_.data()) + to,
                                 .bytes = bytes,
                                 .unused = 0};
        RunKernel({&tile, 1});
        ASSERT_EQ(memcmp(target_.data(), want, kNear), 0)
            << bytes << " bytes from " << from << " to " << to;
      }
    }
  }
}

TEST(CutTiles, KeepsEveryByteOnceAndCutsOnLines) {
  Prng prng(Seed());
  for (int round = 0; round < 150; ++round) {
    const GatherPiece piece = {
        .from = prng.Below(1 << 20),
        .to = prng.Below(1 << 20),
        .bytes = static_cast<uint32_t>(prng.Between(0, 40000))};
    const uint32_t tile_bytes =
        static_cast<uint32_t>(prng.Between(1, round % 2 == 0 ? 200 : 20000));
    std::vector<GatherTile> tiles(CutTiles({&piece, 1}, tile_bytes, {}));
    CutTiles({&piece, 1}, tile_bytes, tiles);
    uint64_t done = 0;
    for (size_t i = 0; i < tiles.size(); ++i) {
      EXPECT_EQ(tiles[i].from, piece.from + done);
      EXPECT_EQ(tiles[i].to, piece.to + done);
      EXPECT_GT(tiles[i].bytes, 0u);
      EXPECT_LE(tiles[i].bytes, tile_bytes + 127);
      done += tiles[i].bytes;
      EXPECT_TRUE(i + 1 == tiles.size() || (piece.to + done) % 128 == 0);
    }
    EXPECT_EQ(done, piece.bytes) << "DEVWIRE_SEED=" << prng.seed();
  }
}

TEST(CutTiles, WritesNoMoreThanFit) {
  const GatherPiece pieces[] = {{0, 0, 1000}, {2000, 1000, 1000}};
  GatherTile tiles[2] = {{}, {.from = 7, .to = 7, .bytes = 7, .unused = 7}};
  EXPECT_EQ(CutTiles(pieces, 1000, {tiles, 1}), 2u);
  EXPECT_EQ(tiles[0].bytes, 1000u);
  EXPECT_EQ(tiles[1].from, 7u);
}

TEST(HostGather, RefusesWhatIsOutsideAndUnknownTickets) {
  HostGather gather;
  const GatherPiece beyond = {.from = UINT64_MAX - 3, .to = 0, .bytes = 4};
  EXPECT_EQ(gather.Launch({&beyond, 1}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(gather.Wait(GatherTicket{1}).code(),
            absl::StatusCode::kInvalidArgument);
  const GatherPiece empty = {.from = 1, .to = 1, .bytes = 0};
  EXPECT_EQ(*gather.Launch({&empty, 1}), GatherTicket{1});
  EXPECT_EQ(gather.IsDone(GatherTicket{0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(gather.IsDone(GatherTicket{2}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace devwire

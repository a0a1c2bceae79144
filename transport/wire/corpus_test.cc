// Every kept fuzz input, as an ordinary test: no fuzzer, any compiler.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#define LLVMFuzzerTestOneInput FuzzFrame
#include "transport/wire/frame_fuzz.cc"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput FuzzTcpOptions
#include "transport/wire/tcp_options_fuzz.cc"
#undef LLVMFuzzerTestOneInput

namespace devwire {
namespace {

// Runs every file of the folder; returns how many.
int RunCorpus(const std::string& name, int (*run)(const uint8_t*, size_t)) {
  int count = 0;
  const std::string folder = "transport/wire/corpus/" + name;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream in(entry.path(), std::ios::binary);
    const std::vector<uint8_t> bytes{std::istreambuf_iterator<char>(in), {}};
    SCOPED_TRACE(entry.path());
    run(bytes.data(), bytes.size());
    // And every way to cut it short.
    for (size_t n = 0; n < bytes.size(); ++n) run(bytes.data(), n);
    ++count;
  }
  return count;
}

TEST(CorpusTest, Frames) { EXPECT_GT(RunCorpus("frame_fuzz", FuzzFrame), 20); }
TEST(CorpusTest, TcpOptions) {
  EXPECT_GT(RunCorpus("tcp_options_fuzz", FuzzTcpOptions), 10);
}

}  // namespace
}  // namespace devwire

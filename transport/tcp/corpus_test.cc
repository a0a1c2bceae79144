// Every kept fuzz input, as an ordinary test: no fuzzer, any compiler.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "transport/tcp/connection_fuzz.cc"

namespace devwire {
namespace {

TEST(CorpusTest, Connections) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(
           "transport/tcp/corpus/connection_fuzz")) {
    std::ifstream in(entry.path(), std::ios::binary);
    const std::vector<uint8_t> bytes{std::istreambuf_iterator<char>(in), {}};
    SCOPED_TRACE(entry.path());
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    ++count;
  }
  EXPECT_GT(count, 50);
}

}  // namespace
}  // namespace devwire

// The scenarios of `./dev sim`, a fixed set of seeds.
#include "transport/sim/scenario.h"

#include <gtest/gtest.h>

namespace devwire {
namespace {

TEST(ScenarioTest, TcpSeeds) {
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    if (IsEngineSeed(seed)) continue;
    const TcpScenario scenario = DrawTcpScenario(seed);
    SCOPED_TRACE(scenario.name + ": ./dev sim --seeds 1 --seed " +
                 std::to_string(seed));
    ASSERT_EQ(Judge(scenario, RunTcpSim(scenario.setup)), "");
  }
}

TEST(ScenarioTest, EngineSeeds) {
  for (uint64_t seed = kEngineEvery; seed <= 400; seed += kEngineEvery) {
    ASSERT_EQ(RunEngineSim(DrawEngineScenario(seed)).failure, "");
  }
}

}  // namespace
}  // namespace devwire

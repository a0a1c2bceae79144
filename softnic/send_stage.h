// Fetches the host bytes of posted sends from the application when the device
// runs in another process: those of many work requests with one system call.
//
// Threads: those of the device core. Cost: no allocation after construction;
// unused, and empty, when the application's memory is local.
#ifndef SOFTNIC_SEND_STAGE_H_
#define SOFTNIC_SEND_STAGE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "softnic/host_memory.h"
#include "softnic/mr_table.h"
#include "softnic/queue_pair.h"

namespace softnic {

class SendStage {
 public:
  static constexpr uint32_t kMaxWqes = 32;
  static constexpr uint32_t kMaxSge = 30;
  // Two of the largest TSO sends.
  static constexpr size_t kBytes = size_t{1} << 19;

  explicit SendStage(HostMemory* host)
      : host_(host),
        bytes_(host->is_local() ? nullptr : new std::byte[kBytes]) {}

  // Where the host bytes of SGE `sge` of the next send of `qp` lie; fetches
  // those of the sends behind it too. Null: the application has no such memory.
  // `ahead`: how many sends may be fetched together, >= 1.
  std::byte* Find(QueuePair& qp, MrTable& mrs, uint32_t sge, uint32_t ahead);
  // What was fetched is stale: the queue pair was reset.
  void Forget() { count_ = 0; }

 private:
  void Fill(QueuePair& qp, MrTable& mrs, uint32_t limit);
  // False: no more room.
  bool Add(QueuePair& qp, MrTable& mrs, uint32_t ahead);

  HostMemory* const host_;
  std::unique_ptr<std::byte[]> bytes_;
  uint32_t qp_num_ = 0;
  uint32_t first_ = 0;
  uint32_t count_ = 0;
  size_t used_ = 0;
  int pieces_ = 0;
  std::array<std::array<std::byte*, kMaxSge>, kMaxWqes> at_;
  std::array<iovec, HostMemory::kMaxPieces> local_;
  std::array<iovec, HostMemory::kMaxPieces> remote_;
};

}  // namespace softnic

#endif  // SOFTNIC_SEND_STAGE_H_

#include "softnic/counter_file.h"

#include <cstdint>
#include <cstdio>

#include "softnic/counter_table.h"

namespace softnic {

void CounterFile::OnProgress(devwire::Instant now) {
  if (now < due_) return;
  due_ = now + kPeriod;
  Write();
}

bool CounterFile::Write() {
  const std::string temporary = path_ + ".new";
  FILE* file = fopen(temporary.c_str(), "we");
  if (file == nullptr) return false;
  for (const CounterRow& row : kCounterRows) {
    fprintf(file, "%s %llu\n", row.name,
            static_cast<unsigned long long>((shared_->*row.source).value()));
  }
  fprintf(file, "rules %llu\n",
          static_cast<unsigned long long>(
              shared_->rules.load(std::memory_order_relaxed)));
  if (fclose(file) != 0) return false;
  return rename(temporary.c_str(), path_.c_str()) == 0;
}

}  // namespace softnic

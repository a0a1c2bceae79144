// dlopen(3) and dlsym(3) for a table of entry points: what is missing is told
// in one Status.
//
// Threads: one at a time. Lifetime: the library is never unloaded, because
// objects of it may outlive any scope.
#ifndef MEMREG_SYMBOL_LOADER_H_
#define MEMREG_SYMBOL_LOADER_H_

#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace devwire {

class SymbolLoader {
 public:
  // Opens the first of `names` that is there. NotFound, with the loader's own
  // words for each and `next_step`, when none is.
  static absl::StatusOr<SymbolLoader> Open(std::span<const std::string> names,
                                           std::string_view next_step);

  template <typename F>
  void Required(const char* symbol, F** slot) {
    Optional(symbol, slot);
    if (*slot == nullptr && missing_.empty()) missing_ = symbol;
  }
  template <typename F>
  void Optional(const char* symbol, F** slot) {
    *slot = reinterpret_cast<F*>(Find(symbol));
  }

  // FailedPrecondition names the first required symbol that was not there.
  absl::Status status(std::string_view next_step) const;
  const std::string& library() const { return library_; }

 private:
  SymbolLoader(void* handle, std::string library)
      : handle_(handle), library_(std::move(library)) {}
  void* Find(const char* symbol) const;

  void* handle_;
  std::string library_;
  std::string missing_;
};

}  // namespace devwire

#endif  // MEMREG_SYMBOL_LOADER_H_

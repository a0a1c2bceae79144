#include "memreg/symbol_loader.h"

#include <dlfcn.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace devwire {

absl::StatusOr<SymbolLoader> SymbolLoader::Open(
    std::span<const std::string> names, std::string_view next_step) {
  std::string reasons;
  for (const std::string& name : names) {
    void* const handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle != nullptr) return SymbolLoader(handle, name);
    const char* const why = dlerror();
    absl::StrAppend(&reasons, reasons.empty() ? "" : "; ",
                    why != nullptr ? why : name.c_str());
  }
  return absl::NotFoundError(
      absl::StrFormat("cannot load %s. %s", reasons, next_step));
}

void* SymbolLoader::Find(const char* symbol) const {
  return dlsym(handle_, symbol);
}

absl::Status SymbolLoader::status(std::string_view next_step) const {
  if (missing_.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrFormat(
      "%s has no symbol %s. %s", library_, missing_, next_step));
}

}  // namespace devwire

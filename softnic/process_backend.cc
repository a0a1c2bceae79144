#include "softnic/backend.h"

namespace softnic {

std::unique_ptr<Backend> MakeProcessBackend(const DeviceConfig&,
                                            const std::vector<std::string>&,
                                            std::string* error) {
  *error = "mode=process: not built yet";
  return nullptr;
}

}  // namespace softnic

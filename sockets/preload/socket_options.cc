#include "sockets/preload/socket_options.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "sockets/preload/real_libc.h"

namespace devwire::preload {

int SocketOptions::Option::AsInt() const {
  int out = 0;
  memcpy(&out, value.data(), std::min(value.size(), sizeof(out)));
  return out;
}

void SocketOptions::Erase(int level, int name) {
  if (Find(level, name) == nullptr) return;
  auto changed = std::make_shared<std::vector<Option>>(*set_);
  std::erase_if(*changed, [&](const Option& o) {
    return o.level == level && o.name == name;
  });
  set_ = std::move(changed);
}

void SocketOptions::Set(int level, int name, const void* value,
                        socklen_t size) {
  auto changed = set_ == nullptr ? std::make_shared<std::vector<Option>>()
                                 : std::make_shared<std::vector<Option>>(*set_);
  std::erase_if(*changed, [&](const Option& o) {
    return o.level == level && o.name == name;
  });
  const char* const bytes = static_cast<const char*>(value);
  changed->push_back({level, name, std::string(bytes, bytes + size)});
  set_ = std::move(changed);
}

const SocketOptions::Option* SocketOptions::Find(int level, int name) const {
  if (set_ == nullptr) return nullptr;
  for (const Option& option : *set_) {
    if (option.level == level && option.name == name) return &option;
  }
  return nullptr;
}

int SocketOptions::Int(int level, int name, int otherwise) const {
  const Option* const found = Find(level, name);
  return found == nullptr ? otherwise : found->AsInt();
}

std::optional<Duration> SocketOptions::Linger() const {
  const Option* const found = Find(SOL_SOCKET, SO_LINGER);
  linger l = {};
  if (found == nullptr || found->value.size() < sizeof(l)) return {};
  memcpy(&l, found->value.data(), sizeof(l));
  if (l.l_onoff == 0) return std::nullopt;
  return Duration::Nanoseconds(l.l_linger * int64_t{1'000'000'000});
}

void SocketOptions::ApplyTo(int fd) const {
  ForEach([&](const Option& o) {
    (void)real().setsockopt(fd, o.level, o.name, o.value.data(),
                            static_cast<socklen_t>(o.value.size()));
  });
}

}  // namespace devwire::preload

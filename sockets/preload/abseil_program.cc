// For library_test.py: a program that has Abseil, and knows nothing of Devwire.
// Sends words to ADDRESS PORT and counts what comes back.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace {

absl::StatusOr<int> Connect(const char* address, int port) {
  sockaddr_in name = {};
  name.sin_family = AF_INET;
  name.sin_port = htons(static_cast<uint16_t>(port));
  if (inet_pton(AF_INET, address, &name.sin_addr) != 1) {
    return absl::InvalidArgumentError(absl::StrCat("no address: ", address));
  }
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(fd, reinterpret_cast<sockaddr*>(&name), sizeof(name)) != 0) {
    return absl::UnavailableError(absl::StrCat("cannot connect to ", address));
  }
  return fd;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const absl::StatusOr<int> fd = Connect(argv[1], atoi(argv[2]));
  if (!fd.ok()) {
    fprintf(stderr, "%s\n", fd.status().ToString().c_str());
    return 1;
  }
  std::string text;
  for (int i = 0; i < 1000; ++i) absl::StrAppend(&text, i, " ");
  if (write(*fd, text.data(), text.size()) < 0) return 1;
  shutdown(*fd, SHUT_WR);
  std::string got;
  char room[4096];
  for (ssize_t n; (n = read(*fd, room, sizeof(room))) > 0;) {
    got.append(room, static_cast<size_t>(n));
  }
  absl::flat_hash_map<std::string, int> words;
  for (absl::string_view word : absl::StrSplit(got, ' ', absl::SkipEmpty())) {
    ++words[std::string(word)];
  }
  printf("%zu words came back\n", words.size());
  return got == text ? 0 : 1;
}

// Binds memory with sockets/devmem_bind.h, as any C program would, and prints
// what came of it. devmem_test.py runs it, with Devwire and without.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

#include "sockets/devmem_bind.h"

static uint32_t id;

static void show(const char* what, int result) {
  if (result < 0) {
    printf("%s: %s\n", what, strerror(-result));
  } else {
    printf("%s: id %u\n", what, id);
  }
}

int main(void) {
  const unsigned lo = 1;
  uint32_t queues[65] = {0};
  for (uint32_t i = 0; i < 65; ++i) queues[i] = i;
  const int memory = memfd_create("check", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (ftruncate(memory, 1 << 20) != 0 ||
      fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK) != 0) {
    return 1;
  }
  const int all = devwire_bind_rx(lo, memory, queues, 64, &id);
  show("64 queues", all);
  show("a queue again", devwire_bind_rx(lo, memory, queues + 63, 1, &id));
  show("to send", devwire_bind_tx(lo, memory, &id));
  if (all >= 0) close(all);
  show("after the close", devwire_bind_rx(lo, memory, queues + 63, 1, &id));
  show("65 queues", devwire_bind_rx(lo, memory, queues, 65, &id));
  show("no queue", devwire_bind_rx(lo, memory, queues, 0, &id));
  show("no dmabuf", devwire_bind_tx(lo, -1, &id));
  show("no interface", devwire_bind_tx(9999, memory, &id));
  return 0;
}

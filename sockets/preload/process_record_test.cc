// What the shim and its guardian share: the record, the log, the device.
#include "sockets/preload/process_record.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "sockets/errno_map.h"
#include "sockets/preload/log.h"
#include "sockets/preload/open_stack.h"

namespace devwire::preload {
namespace {

std::string Read(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(ProcessRecord, TheGuardianSeesWhatTheProcessWrites) {
  auto ours = MappedRecord::Make("a program whose name is longer than 31", 10);
  ASSERT_TRUE(ours.ok()) << ours.status();
  const auto theirs = MappedRecord::Map(dup(ours->fd()));
  ASSERT_TRUE(theirs.ok()) << theirs.status();
  ours->CloseFd();
  (*ours)->taken = 3;
  (*ours)->connections[9].remote = *Endpoint::Parse("10.0.0.1:80");
  (*ours)->connections[9].is_open = true;
  EXPECT_EQ((*theirs)->taken, 3u);
  EXPECT_EQ((*theirs)->connection_count, 10u);
  EXPECT_TRUE((*theirs)->connections[9].is_open);
  EXPECT_EQ((*theirs)->connections[9].remote.ToString(), "10.0.0.1:80");
  EXPECT_STREQ((*theirs)->program, "a program whose name is longer ");
  EXPECT_EQ((*theirs)->pid, getpid());
}

TEST(ProcessRecord, WhatIsNoRecordIsRefused) {
  EXPECT_EQ(ErrnoOf(MappedRecord::Map(-1).status()), EBADF);
  const int fd = memfd_create("other", MFD_CLOEXEC);
  EXPECT_EQ(ErrnoOf(MappedRecord::Map(fd).status()), EINVAL);  // Empty.
  ASSERT_EQ(ftruncate(fd, 100'000), 0);
  // It says that it has no connections, and is too long for that.
  EXPECT_EQ(ErrnoOf(MappedRecord::Map(fd).status()), EINVAL);
  close(fd);
}

TEST(ProcessRecord, TheReportIsJson) {
  auto record = MappedRecord::Make("a \"b\\", 1);
  ASSERT_TRUE(record.ok());
  (*record)->pid = 7;
  (*record)->taken = 1;
  (*record)->passed = 2;
  (*record)->engine_bytes_in = 3;
  (*record)->engine_bytes_out = 4;
  EXPECT_EQ(ReportLine(**record, "exit"),
            R"({"program": "a \"b\\", "pid": 7, "end": "exit", "taken": 1, )"
            R"("passed": 2, "engine_bytes_in": 3, "engine_bytes_out": 4})");
}

TEST(Log, LevelsAndFiles) {
  const std::string path = testing::TempDir() + "/log";
  unlink(path.c_str());
  const Log log(LogLevel::kWarning, path);
  log.Say(LogLevel::kError, "one");
  log.Say(LogLevel::kWarning, ErrnoStatus(EIO, "two"));
  log.Say(LogLevel::kInfo, "three");
  log.Line("four");
  EXPECT_EQ(Read(path), "devwire: one\ndevwire: two [EIO]\nfour\n");
  Log(LogLevel::kInfo, "/nonesuch/log").Say(LogLevel::kError, "to nobody");
}

// A program that closed its standard error has something else there.
TEST(Log, StandardErrorThatIsGone) {
  const std::string path = testing::TempDir() + "/stderr";
  const int kept = dup(STDERR_FILENO);
  const Log log;
  const int other = open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
  dup2(other, STDERR_FILENO);
  log.Say(LogLevel::kError, "lost");
  const Log later;
  later.Say(LogLevel::kError, "kept");
  dup2(kept, STDERR_FILENO);
  close(other);
  close(kept);
  EXPECT_EQ(Read(path), "devwire: kept\n");
}

TEST(RdmaPortOf, AsSysfsHasIt) {
  const std::string sys = testing::TempDir() + "/sys";
  std::filesystem::create_directories(sys +
                                      "/class/net/e1/device/infiniband/mlx5_3");
  std::filesystem::create_directories(sys + "/class/net/e2/device/infiniband");
  std::filesystem::create_directories(sys + "/class/net/e3");
  std::ofstream(sys + "/class/net/e1/dev_port") << "1\n";
  const auto port = RdmaPortOf("e1", sys);
  ASSERT_TRUE(port.ok()) << port.status();
  EXPECT_EQ(port->device, "mlx5_3");
  EXPECT_EQ(port->port, 2);
  for (const char* name : {"e2", "e3", "e4"}) {
    const absl::Status status = RdmaPortOf(name, sys).status();
    EXPECT_EQ(ErrnoOf(status), ENODEV);
    EXPECT_THAT(std::string(status.message()),
                testing::HasSubstr(std::string(name) + " has no RDMA device"));
  }
}

TEST(OpenStack, SaysWhatItLacks) {
  ShimConfig config;
  config.interface = "lo";
  EXPECT_THAT(std::string(OpenStack(config, Duration()).status().message()),
              testing::HasSubstr("lo has no RDMA device"));
  config.interface.clear();
  config.stack.verbs_library = "/nonesuch.so";
  EXPECT_THAT(std::string(OpenStack(config, Duration()).status().message()),
              testing::HasSubstr("/nonesuch.so"));
}

}  // namespace
}  // namespace devwire::preload

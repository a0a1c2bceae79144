#include "base/errno_status.h"

#include <cerrno>
#include <cstdlib>
#include <optional>
#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace devwire {
namespace {

constexpr char kPayloadUrl[] = "devwire/errno";

struct Row {
  int error;
  std::string_view name;
  absl::StatusCode code;
};

// The first row of a code is the errno that stands for it.
constexpr Row kRows[] = {
    {EINVAL, "EINVAL", absl::StatusCode::kInvalidArgument},
    {EFAULT, "EFAULT", absl::StatusCode::kInvalidArgument},
    {EMSGSIZE, "EMSGSIZE", absl::StatusCode::kInvalidArgument},
    {EADDRNOTAVAIL, "EADDRNOTAVAIL", absl::StatusCode::kInvalidArgument},
    {EAFNOSUPPORT, "EAFNOSUPPORT", absl::StatusCode::kInvalidArgument},
    {ETIMEDOUT, "ETIMEDOUT", absl::StatusCode::kDeadlineExceeded},
    {ECONNREFUSED, "ECONNREFUSED", absl::StatusCode::kUnavailable},
    {ENETUNREACH, "ENETUNREACH", absl::StatusCode::kUnavailable},
    {EHOSTUNREACH, "EHOSTUNREACH", absl::StatusCode::kUnavailable},
    {EINPROGRESS, "EINPROGRESS", absl::StatusCode::kUnavailable},
    {EAGAIN, "EAGAIN", absl::StatusCode::kUnavailable},
    {EBUSY, "EBUSY", absl::StatusCode::kUnavailable},
    {ECONNRESET, "ECONNRESET", absl::StatusCode::kAborted},
    {ECONNABORTED, "ECONNABORTED", absl::StatusCode::kAborted},
    {EPIPE, "EPIPE", absl::StatusCode::kAborted},
    {EADDRINUSE, "EADDRINUSE", absl::StatusCode::kAlreadyExists},
    {EEXIST, "EEXIST", absl::StatusCode::kAlreadyExists},
    {EISCONN, "EISCONN", absl::StatusCode::kAlreadyExists},
    {ECANCELED, "ECANCELED", absl::StatusCode::kCancelled},
    {EBADF, "EBADF", absl::StatusCode::kFailedPrecondition},
    {ENOTCONN, "ENOTCONN", absl::StatusCode::kFailedPrecondition},
    {ESHUTDOWN, "ESHUTDOWN", absl::StatusCode::kFailedPrecondition},
    {EOWNERDEAD, "EOWNERDEAD", absl::StatusCode::kFailedPrecondition},
    {ENODEV, "ENODEV", absl::StatusCode::kNotFound},
    {ENOENT, "ENOENT", absl::StatusCode::kNotFound},
    {ENOMEM, "ENOMEM", absl::StatusCode::kResourceExhausted},
    {ENOBUFS, "ENOBUFS", absl::StatusCode::kResourceExhausted},
    {EOPNOTSUPP, "EOPNOTSUPP", absl::StatusCode::kUnimplemented},
    {EPERM, "EPERM", absl::StatusCode::kPermissionDenied},
    {EACCES, "EACCES", absl::StatusCode::kPermissionDenied},
    {EIO, "EIO", absl::StatusCode::kInternal},
};

const Row* FindErrno(int error) {
  for (const Row& row : kRows) {
    if (row.error == error) return &row;
  }
  return nullptr;
}

}  // namespace

absl::Status ErrnoStatus(int error, std::string_view message) {
  const Row* row = FindErrno(error);
  const std::string_view name = ErrnoName(error);
  return WithErrno(
      error,
      absl::Status(
          row == nullptr ? absl::StatusCode::kUnknown : row->code,
          absl::StrCat(absl::string_view(message.data(), message.size()), " [",
                       absl::string_view(name.data(), name.size()), "]")));
}

absl::Status WithErrno(int error, absl::Status status) {
  status.SetPayload(kPayloadUrl, absl::Cord(std::to_string(error)));
  return status;
}

int ErrnoOf(const absl::Status& status) {
  if (status.ok()) return 0;
  if (auto payload = status.GetPayload(kPayloadUrl); payload.has_value()) {
    return std::atoi(std::string(*payload).c_str());
  }
  for (const Row& row : kRows) {
    if (row.code == status.code()) return row.error;
  }
  return EIO;
}

std::string_view ErrnoName(int error) {
  const Row* row = FindErrno(error);
  return row == nullptr ? "errno unknown to Devwire" : row->name;
}

}  // namespace devwire

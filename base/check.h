// CHECK: a claim that holds unless this library has a bug; it stops the
// process with the claim, the place and the values. DCHECK is the same where
// the cost matters and is compiled out under NDEBUG (still type-checked).
//
//   CHECK(fd >= 0) << "socket " << name;
//   DCHECK_EQ(state_, State::kSynSent);
//
// For what the environment or a peer may do, see docs/decisions/0003-errors.md.
#ifndef BASE_CHECK_H_
#define BASE_CHECK_H_

#include <ostream>
#include <sstream>
#include <type_traits>

namespace devwire::check_internal {

// Collects the message and aborts when destroyed.
class Failure {
 public:
  Failure(const char* file, int line, const char* claim) {
    stream_ << file << ':' << line << ": CHECK failed: " << claim << ' ';
  }
  [[noreturn]] ~Failure();
  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

// Gives the streamed expression the type void, with the lowest precedence.
struct Voidify {
  void operator&(std::ostream&) {}
};

template <typename T>
void Print(std::ostream& out, const T& v) {
  if constexpr (std::is_enum_v<T>) {
    out << +static_cast<std::underlying_type_t<T>>(v);
  } else if constexpr (requires { out << v; }) {
    out << v;
  } else {
    out << "(unprintable)";
  }
}

template <typename A, typename B>
std::ostream& PrintBoth(std::ostream& out, const A& a, const B& b) {
  out << '(';
  Print(out, a);
  out << " vs ";
  Print(out, b);
  return out << ") ";
}

}  // namespace devwire::check_internal

#define DEVWIRE_CHECK_FAIL(claim) \
  ::devwire::check_internal::Failure(__FILE__, __LINE__, claim).stream()

#define CHECK(claim)             \
  __builtin_expect(!!(claim), 1) \
      ? (void)0                  \
      : ::devwire::check_internal::Voidify() & DEVWIRE_CHECK_FAIL(#claim)

#define DEVWIRE_CHECK_OP(a, op, b)                \
  __builtin_expect(!!((a)op(b)), 1)               \
      ? (void)0                                   \
      : ::devwire::check_internal::Voidify() &    \
            ::devwire::check_internal::PrintBoth( \
                DEVWIRE_CHECK_FAIL(#a " " #op " " #b), (a), (b))

#define CHECK_EQ(a, b) DEVWIRE_CHECK_OP(a, ==, b)
#define CHECK_NE(a, b) DEVWIRE_CHECK_OP(a, !=, b)
#define CHECK_LT(a, b) DEVWIRE_CHECK_OP(a, <, b)
#define CHECK_LE(a, b) DEVWIRE_CHECK_OP(a, <=, b)
#define CHECK_GT(a, b) DEVWIRE_CHECK_OP(a, >, b)
#define CHECK_GE(a, b) DEVWIRE_CHECK_OP(a, >=, b)

#ifdef NDEBUG
#define DEVWIRE_DCHECK_GUARD(check) true ? (void)0 : check
#else
#define DEVWIRE_DCHECK_GUARD(check) check
#endif

#define DCHECK(claim) DEVWIRE_DCHECK_GUARD(CHECK(claim))
#define DCHECK_EQ(a, b) DEVWIRE_DCHECK_GUARD(CHECK_EQ(a, b))
#define DCHECK_NE(a, b) DEVWIRE_DCHECK_GUARD(CHECK_NE(a, b))
#define DCHECK_LT(a, b) DEVWIRE_DCHECK_GUARD(CHECK_LT(a, b))
#define DCHECK_LE(a, b) DEVWIRE_DCHECK_GUARD(CHECK_LE(a, b))
#define DCHECK_GT(a, b) DEVWIRE_DCHECK_GUARD(CHECK_GT(a, b))
#define DCHECK_GE(a, b) DEVWIRE_DCHECK_GUARD(CHECK_GE(a, b))

#endif  // BASE_CHECK_H_

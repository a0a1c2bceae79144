// Every event in every state: RFC 9293 3.10, one cell each. A missing cell
// fails; tools/state_matrix.py writes the cells into docs/testing.md.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>

#include "transport/tcp/trace.h"

namespace devwire {
namespace {

Trace::Setup Timed() {
  Trace::Setup setup;
  setup.options.user_timeout = 100_s;
  return setup;
}

// States with what was exchanged so far. Our FIN, where one was sent, is 1; the
// peer's too.
const std::map<State, std::function<Trace()>>& Fixtures() {
  static const auto* fixtures = new std::map<State, std::function<Trace()>>{
      {State::kSynSent,
       [] {
         Trace t(Timed());
         t.OpenActive().Out("S 0:0(0)");
         return t;
       }},
      {State::kSynReceived, [] { return Trace::SynReceived(Timed()); }},
      {State::kEstablished, [] { return Trace::Established(Timed()); }},
      {State::kFinWait1,
       [] {
         Trace t = Trace::Established(Timed());
         t.Close().Out("F. 1:1(0) ack 1");
         return t;
       }},
      {State::kFinWait2,
       [] {
         Trace t = Trace::Established(Timed());
         t.Close().Out("F. 1:1(0) ack 1").In(".  1:1(0) ack 2");
         return t;
       }},
      {State::kCloseWait,
       [] {
         Trace t = Trace::Established(Timed());
         t.In("F. 1:1(0) ack 1").Out(".  1:1(0) ack 2");
         return t;
       }},
      {State::kClosing,
       [] {
         Trace t = Trace::Established(Timed());
         t.Close().Out("F. 1:1(0) ack 1");
         t.In("F. 1:1(0) ack 1").Out(".  2:2(0) ack 2");
         return t;
       }},
      {State::kLastAck,
       [] {
         Trace t = Trace::Established(Timed());
         t.In("F. 1:1(0) ack 1").Out(".  1:1(0) ack 2");
         t.Close().Out("F. 1:1(0) ack 2");
         return t;
       }},
      {State::kTimeWait,
       [] {
         Trace t = Trace::Established(Timed());
         t.Close().Out("F. 1:1(0) ack 1");
         t.In("F. 1:1(0) ack 2").Out(".  2:2(0) ack 2");
         return t;
       }},
  };
  return *fixtures;
}

enum class Arrival {
  kSyn,          // A new SYN in the window.
  kAckOfAll,     // An ACK of everything we sent.
  kAckUnsent,    // An ACK of something not sent.
  kNoAck,        // Text without ACK, SYN or RST.
  kText,         // Ten bytes in order, acknowledging nothing new.
  kOldText,      // Ten bytes left of the window.
  kFarText,      // Ten bytes right of the window.
  kFin,          // FIN in order, acknowledging nothing new.
  kFinAckOfAll,  // FIN in order, acknowledging everything.
  kResetExact,   // RST at RCV.NXT.
  kResetNear,    // RST in the window.
  kResetFar,     // RST outside the window.
};
constexpr int kArrivalCount = 12;

struct Cell {
  State next;
  const char* out;        // "" for nothing.
  const char* then = "";  // The segment behind it.
};

// `una` and `nxt`: what we have had acknowledged and sent; `rcv`: RCV.NXT.
std::string Write(Arrival arrival, uint32_t una, uint32_t nxt, uint32_t rcv) {
  auto n = [](uint32_t v) { return std::to_string(v); };
  auto seg = [&](const char* flags, uint32_t seq, uint32_t bytes,
                 uint32_t ack) {
    return std::string(flags) + " " + n(seq) + ":" + n(seq + bytes) + "(" +
           n(bytes) + ") ack " + n(ack);
  };
  switch (arrival) {
    case Arrival::kSyn:
      return "S " + n(rcv + 5) + ":" + n(rcv + 5) + "(0) <mss 1000>";
    case Arrival::kAckOfAll:
      return seg(".", rcv, 0, nxt);
    case Arrival::kAckUnsent:
      return seg(".", rcv, 0, nxt + 5);
    case Arrival::kNoAck:
      return "P " + n(rcv) + ":" + n(rcv + 10) + "(10)";
    case Arrival::kText:
      return seg("P.", rcv, 10, una);
    case Arrival::kOldText:
      return seg("P.", rcv - 10, 10, una);
    case Arrival::kFarText:
      return seg("P.", rcv + 100'000, 10, una);
    case Arrival::kFin:
      return seg("F.", rcv, 0, una);
    case Arrival::kFinAckOfAll:
      return seg("F.", rcv, 0, nxt);
    case Arrival::kResetExact:
      return "R. " + n(rcv) + ":" + n(rcv) + "(0) ack " + n(nxt);
    case Arrival::kResetNear:
      return "R. " + n(rcv + 5) + ":" + n(rcv + 5) + "(0) ack " + n(una);
    case Arrival::kResetFar:
      return "R. " + n(rcv + 100'000) + ":" + n(rcv + 100'000) + "(0) ack " +
             n(una);
  }
  return "";
}

// Rows in the order of Arrival.
const std::map<State, std::vector<Cell>>& Cells() {
  constexpr State kC = State::kClosed;
  static const auto* cells = new std::map<State, std::vector<Cell>>{
      // 3.10.7.3. RCV.NXT is not known: relative 0.
      {State::kSynSent,
       {{State::kSynReceived, "S. 0:0(0) ack 6"},
        {State::kSynSent, ""},
        {State::kSynSent, "R 6:6(0)", "S 0:0(0)"},
        {State::kSynSent, ""},
        {State::kSynSent, "R 0:0(0)", "S 0:0(0)"},
        {State::kSynSent, "R 0:0(0)", "S 0:0(0)"},
        {State::kSynSent, "R 0:0(0)", "S 0:0(0)"},
        {State::kSynSent, "R 0:0(0)", "S 0:0(0)"},
        {State::kSynSent, ""},
        {kC, ""},
        {State::kSynSent, ""},
        {State::kSynSent, ""}}},
      // 3.10.7.4 from here on.
      {State::kSynReceived,
       {{State::kSynReceived, ".  1:1(0) ack 1"},
        {State::kEstablished, ""},
        {State::kSynReceived, "R 6:6(0)"},
        {State::kSynReceived, ""},
        {State::kSynReceived, "R 0:0(0)"},
        {State::kSynReceived, ".  1:1(0) ack 1"},
        {State::kSynReceived, ".  1:1(0) ack 1"},
        {State::kSynReceived, "R 0:0(0)"},
        {State::kCloseWait, ".  1:1(0) ack 2"},
        {kC, ""},
        {State::kSynReceived, ".  1:1(0) ack 1"},
        {State::kSynReceived, ""}}},
      {State::kEstablished,
       {{State::kEstablished, ".  1:1(0) ack 1"},
        {State::kEstablished, ""},
        {State::kEstablished, ".  1:1(0) ack 1"},
        {State::kEstablished, ""},
        {State::kEstablished, ".  1:1(0) ack 11"},
        {State::kEstablished, ".  1:1(0) ack 1"},
        {State::kEstablished, ".  1:1(0) ack 1"},
        {State::kCloseWait, ".  1:1(0) ack 2"},
        {State::kCloseWait, ".  1:1(0) ack 2"},
        {kC, ""},
        {State::kEstablished, ".  1:1(0) ack 1"},
        {State::kEstablished, ""}}},
      {State::kFinWait1,
       {{State::kFinWait1, ".  2:2(0) ack 1"},
        {State::kFinWait2, ""},
        {State::kFinWait1, ".  2:2(0) ack 1"},
        {State::kFinWait1, ""},
        {State::kFinWait1, ".  2:2(0) ack 11"},
        {State::kFinWait1, ".  2:2(0) ack 1"},
        {State::kFinWait1, ".  2:2(0) ack 1"},
        {State::kClosing, ".  2:2(0) ack 2"},
        {State::kTimeWait, ".  2:2(0) ack 2"},
        {kC, ""},
        {State::kFinWait1, ".  2:2(0) ack 1"},
        {State::kFinWait1, ""}}},
      {State::kFinWait2,
       {{State::kFinWait2, ".  2:2(0) ack 1"},
        {State::kFinWait2, ""},
        {State::kFinWait2, ".  2:2(0) ack 1"},
        {State::kFinWait2, ""},
        {State::kFinWait2, ".  2:2(0) ack 11"},
        {State::kFinWait2, ".  2:2(0) ack 1"},
        {State::kFinWait2, ".  2:2(0) ack 1"},
        {State::kTimeWait, ".  2:2(0) ack 2"},
        {State::kTimeWait, ".  2:2(0) ack 2"},
        {kC, ""},
        {State::kFinWait2, ".  2:2(0) ack 1"},
        {State::kFinWait2, ""}}},
      {State::kCloseWait,
       {{State::kCloseWait, ".  1:1(0) ack 2"},
        {State::kCloseWait, ""},
        {State::kCloseWait, ".  1:1(0) ack 2"},
        {State::kCloseWait, ""},
        {State::kCloseWait, ".  1:1(0) ack 2"},
        {State::kCloseWait, ".  1:1(0) ack 2"},
        {State::kCloseWait, ".  1:1(0) ack 2"},
        {State::kCloseWait, ".  1:1(0) ack 2"},
        {State::kCloseWait, ".  1:1(0) ack 2"},
        {kC, ""},
        {State::kCloseWait, ".  1:1(0) ack 2"},
        {State::kCloseWait, ""}}},
      {State::kClosing,
       {{State::kClosing, ".  2:2(0) ack 2"},
        {State::kTimeWait, ""},
        {State::kClosing, ".  2:2(0) ack 2"},
        {State::kClosing, ""},
        {State::kClosing, ".  2:2(0) ack 2"},
        {State::kClosing, ".  2:2(0) ack 2"},
        {State::kClosing, ".  2:2(0) ack 2"},
        {State::kClosing, ".  2:2(0) ack 2"},
        {State::kTimeWait, ".  2:2(0) ack 2"},
        {kC, ""},
        {State::kClosing, ".  2:2(0) ack 2"},
        {State::kClosing, ""}}},
      {State::kLastAck,
       {{State::kLastAck, ".  2:2(0) ack 2"},
        {kC, ""},
        {State::kLastAck, ".  2:2(0) ack 2"},
        {State::kLastAck, ""},
        {State::kLastAck, ".  2:2(0) ack 2"},
        {State::kLastAck, ".  2:2(0) ack 2"},
        {State::kLastAck, ".  2:2(0) ack 2"},
        {State::kLastAck, ".  2:2(0) ack 2"},
        {kC, ""},
        {kC, ""},
        {State::kLastAck, ".  2:2(0) ack 2"},
        {State::kLastAck, ""}}},
      {State::kTimeWait,
       {{State::kTimeWait, ".  2:2(0) ack 2"},
        {State::kTimeWait, ""},
        {State::kTimeWait, ".  2:2(0) ack 2"},
        {State::kTimeWait, ""},
        {State::kTimeWait, ".  2:2(0) ack 2"},
        {State::kTimeWait, ".  2:2(0) ack 2"},
        {State::kTimeWait, ".  2:2(0) ack 2"},
        {State::kTimeWait, ".  2:2(0) ack 2"},
        {State::kTimeWait, ".  2:2(0) ack 2"},
        {kC, ""},
        {State::kTimeWait, ".  2:2(0) ack 2"},
        {State::kTimeWait, ""}}},
  };
  return *cells;
}

enum class Input {
  kSend,         // SEND of ten bytes.
  kReceive,      // RECEIVE, and nothing is there.
  kClose,        // CLOSE.
  kAbort,        // ABORT.
  kSecond,       // 1 s: the retransmission timer, where it runs.
  kTwoMsl,       // 60 s: 2 MSL.
  kUserTimeout,  // 100 s: the user timeout.
};
constexpr int kInputCount = 7;

void Give(Input input, Trace& t) {
  switch (input) {
    case Input::kSend:
      (void)t.connection().Send(10);
      return;
    case Input::kReceive:
      EXPECT_TRUE(t.Recv().empty());
      return;
    case Input::kClose:
      t.Close();
      return;
    case Input::kAbort:
      t.Abort();
      return;
    case Input::kSecond:
      t.At(1_s);
      return;
    case Input::kTwoMsl:
      t.At(60_s);
      return;
    case Input::kUserTimeout:
      t.At(100_s);
      return;
  }
}

// Rows in the order of Input.
const std::map<State, std::vector<Cell>>& InputCells() {
  constexpr State kC = State::kClosed;
  static const auto* cells = new std::map<State, std::vector<Cell>>{
      {State::kSynSent,
       {{State::kSynSent, ""},
        {State::kSynSent, ""},
        {kC, ""},
        {kC, ""},
        {State::kSynSent, "S 0:0(0)"},
        {State::kSynSent, "S 0:0(0)"},
        {kC, ""}}},
      {State::kSynReceived,
       {{State::kSynReceived, ""},
        {State::kSynReceived, ""},
        {State::kSynReceived, ""},
        {kC, "R. 1:1(0) ack 1"},
        {State::kSynReceived, "S. 0:0(0) ack 1"},
        {State::kSynReceived, "S. 0:0(0) ack 1"},
        {kC, ""}}},
      {State::kEstablished,
       {{State::kEstablished, "P. 1:11(10) ack 1"},
        {State::kEstablished, ""},
        {State::kFinWait1, "F. 1:1(0) ack 1"},
        {kC, "R. 1:1(0) ack 1"},
        {State::kEstablished, ""},
        {State::kEstablished, ""},
        {State::kEstablished, ""}}},
      {State::kFinWait1,
       {{State::kFinWait1, ""},
        {State::kFinWait1, ""},
        {State::kFinWait1, ""},
        {kC, "R. 2:2(0) ack 1"},
        {State::kFinWait1, "F. 1:1(0) ack 1"},
        {State::kFinWait1, "F. 1:1(0) ack 1"},
        {kC, ""}}},
      {State::kFinWait2,
       {{State::kFinWait2, ""},
        {State::kFinWait2, ""},
        {State::kFinWait2, ""},
        {kC, "R. 2:2(0) ack 1"},
        {State::kFinWait2, ""},
        {State::kFinWait2, ""},
        {State::kFinWait2, ""}}},
      {State::kCloseWait,
       {{State::kCloseWait, "P. 1:11(10) ack 2"},
        {State::kCloseWait, ""},
        {State::kLastAck, "F. 1:1(0) ack 2"},
        {kC, "R. 1:1(0) ack 2"},
        {State::kCloseWait, ""},
        {State::kCloseWait, ""},
        {State::kCloseWait, ""}}},
      {State::kClosing,
       {{State::kClosing, ""},
        {State::kClosing, ""},
        {State::kClosing, ""},
        {kC, ""},
        {State::kClosing, "F. 1:1(0) ack 2"},
        {State::kClosing, "F. 1:1(0) ack 2"},
        {kC, ""}}},
      {State::kLastAck,
       {{State::kLastAck, ""},
        {State::kLastAck, ""},
        {State::kLastAck, ""},
        {kC, ""},
        {State::kLastAck, "F. 1:1(0) ack 2"},
        {State::kLastAck, "F. 1:1(0) ack 2"},
        {kC, ""}}},
      {State::kTimeWait,
       {{State::kTimeWait, ""},
        {State::kTimeWait, ""},
        {State::kTimeWait, ""},
        {kC, ""},
        {State::kTimeWait, ""},
        {kC, ""},
        {kC, ""}}},
  };
  return *cells;
}

void ExpectOut(Trace& t, const Cell& cell) {
  if (*cell.out == '\0') {
    t.OutNothing();
  } else if (*cell.then == '\0') {
    t.Out(cell.out);
  } else {
    t.Out(cell.out, cell.then);
  }
}

TEST(StateMatrixTrace, EveryInputInEveryState) {
  ASSERT_EQ(InputCells().size(), Fixtures().size());
  for (const auto& [state, fixture] : Fixtures()) {
    auto row = InputCells().find(state);
    ASSERT_NE(row, InputCells().end());
    ASSERT_EQ(row->second.size(), static_cast<size_t>(kInputCount));
    for (int i = 0; i < kInputCount; ++i) {
      SCOPED_TRACE(std::string(StateName(state)) + " x input " +
                   std::to_string(i));
      const Cell& cell = row->second[static_cast<size_t>(i)];
      Trace t = fixture();
      Give(static_cast<Input>(i), t);
      ExpectOut(t, cell);
      t.Expect(cell.next);
    }
  }
}

TEST(StateMatrixTrace, EveryArrivalInEveryState) {
  // LISTEN and CLOSED: ListenTrace, ResetTrace.
  ASSERT_EQ(Fixtures().size(), static_cast<size_t>(kStateCount) - 2);
  for (const auto& [state, fixture] : Fixtures()) {
    auto row = Cells().find(state);
    ASSERT_NE(row, Cells().end());
    ASSERT_EQ(row->second.size(), static_cast<size_t>(kArrivalCount));
    for (int i = 0; i < kArrivalCount; ++i) {
      const Cell& cell = row->second[static_cast<size_t>(i)];
      Trace t = fixture();
      t.Expect(state);
      const Tcb& tcb = t.connection().tcb();
      const uint32_t rcv =
          state == State::kSynSent ? 0 : tcb.rcv_nxt - SeqNum(2'000'000);
      const std::string segment =
          Write(static_cast<Arrival>(i), tcb.snd_una - SeqNum(1'000'000),
                tcb.snd_nxt - SeqNum(1'000'000), rcv);
      SCOPED_TRACE(std::string(StateName(state)) + " x " + segment);
      t.At(1_ms).In(segment);
      t.Expect(cell.next);
      ExpectOut(t, cell);
    }
  }
}

}  // namespace
}  // namespace devwire

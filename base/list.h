// An intrusive doubly linked list: the links live in the elements, so linking
// allocates nothing and unlinking needs no search.
//
//   struct Timer : ListNode<Timer> { ... };
//   List<Timer> due;
//
// An element is in at most one list per ListNode base (use the Tag for more),
// and must be unlinked before it dies. Threads: none of its own.
#ifndef BASE_LIST_H_
#define BASE_LIST_H_

#include "base/check.h"

namespace devwire {

template <typename T, typename Tag>
class List;

template <typename T, typename Tag = void>
class ListNode {
 public:
  ListNode() = default;
  ListNode(const ListNode&) = delete;
  ListNode& operator=(const ListNode&) = delete;
  ~ListNode() { DCHECK(!is_linked()); }

  bool is_linked() const { return next_ != nullptr; }
  // Leaves the list it is in, if any.
  void Unlink() {
    if (!is_linked()) return;
    prev_->next_ = next_;
    next_->prev_ = prev_;
    next_ = prev_ = nullptr;
  }

 private:
  friend class List<T, Tag>;
  ListNode* next_ = nullptr;
  ListNode* prev_ = nullptr;
};

template <typename T, typename Tag = void>
class List {
 public:
  using Node = ListNode<T, Tag>;

  List() { head_.next_ = head_.prev_ = &head_; }
  List(const List&) = delete;
  List& operator=(const List&) = delete;
  ~List() {
    DCHECK(empty());
    head_.next_ = head_.prev_ = nullptr;
  }

  bool empty() const { return head_.next_ == &head_; }
  // Null when empty.
  T* front() { return empty() ? nullptr : static_cast<T*>(head_.next_); }
  // The element after t, or null at the end.
  T* Next(T* t) {
    Node* n = static_cast<Node*>(t)->next_;
    return n == &head_ ? nullptr : static_cast<T*>(n);
  }
  void PushBack(T* t) { InsertBefore(&head_, t); }
  T* PopFront() {
    T* t = front();
    if (t != nullptr) static_cast<Node*>(t)->Unlink();
    return t;
  }

 private:
  void InsertBefore(Node* at, T* t) {
    Node* n = t;
    DCHECK(!n->is_linked());
    n->prev_ = at->prev_;
    n->next_ = at;
    at->prev_->next_ = n;
    at->prev_ = n;
  }
  Node head_;
};

}  // namespace devwire

#endif  // BASE_LIST_H_

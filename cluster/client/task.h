// Task<T>: a lazily started coroutine, and the few things that coroutines wait on.
//
// A coroutine here runs on whatever thread resumes it, inside the strand of its owner (the file system's
// mutex in mount.kinfs, the one thread of a simulation): nothing in this file locks. Nothing here may be
// resumed from two threads at once.
//
// Lifetimes: a Task owns its frame and is awaited exactly once. spawn() gives the frame to itself; what a
// spawned coroutine refers to must outlive it. Parameters of coroutines are taken by value.
#pragma once

#include <coroutine>
#include <deque>
#include <exception>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace kinfs {

template <class T>
class [[nodiscard]] Task {
 public:
  struct promise_type;
  using Handle = std::coroutine_handle<promise_type>;

  struct FinalAwaiter {
    bool await_ready() noexcept { return false; }
    std::coroutine_handle<> await_suspend(Handle h) noexcept {
      // Symmetric transfer: a chain of a thousand completions does not grow the stack.
      return h.promise().continuation ? h.promise().continuation : std::noop_coroutine();
    }
    void await_resume() noexcept {}
  };

  struct promise_type {
    std::coroutine_handle<> continuation;
    std::optional<T> value;
    Task get_return_object() { return Task(Handle::from_promise(*this)); }
    std::suspend_always initial_suspend() noexcept { return {}; }
    FinalAwaiter final_suspend() noexcept { return {}; }
    template <class U>
    void return_value(U&& v) {
      value.emplace(std::forward<U>(v));
    }
    [[noreturn]] void unhandled_exception() { std::terminate(); }  // errors are Results; a throw is a bug
  };

  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    if (this != &other) {
      if (handle_) handle_.destroy();
      handle_ = std::exchange(other.handle_, nullptr);
    }
    return *this;
  }
  ~Task() {
    if (handle_) handle_.destroy();
  }

  bool await_ready() const noexcept { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> awaiting) noexcept {
    handle_.promise().continuation = awaiting;
    return handle_;
  }
  T await_resume() { return std::move(*handle_.promise().value); }

 private:
  explicit Task(Handle h) : handle_(h) {}
  Handle handle_;
};

/// What Task<void> would be; co_return Unit{}.
struct Unit {};

namespace detail {
struct Detached {
  struct promise_type {
    Detached get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    [[noreturn]] void unhandled_exception() { std::terminate(); }
  };
};
}  // namespace detail

/// Starts `task` now and lets `done` have its value when it ends. `done` runs inside the strand.
template <class T, class F>
void spawn(Task<T> task, F done) {
  [](Task<T> t, F f) -> detail::Detached { f(co_await t); }(std::move(task), std::move(done));
}
template <class T>
void spawn(Task<T> task) {
  spawn(std::move(task), [](T&&) {});
}

/// One value, set once by a callback and awaited by one coroutine: the bridge from callbacks to coroutines.
template <class T>
class Promise {
  struct State {
    std::optional<T> value;
    std::coroutine_handle<> waiter;
  };

 public:
  Promise() : state_(std::make_shared<State>()) {}
  /// Resumes the waiter, if there is one, before it returns. Copies of this Promise share one state.
  void set(T value) const {
    state_->value.emplace(std::move(value));
    if (auto w = std::exchange(state_->waiter, nullptr)) w.resume();
  }
  bool is_set() const { return state_->value.has_value(); }

  struct Awaiter {
    std::shared_ptr<State> state;
    bool await_ready() const noexcept { return state->value.has_value(); }
    void await_suspend(std::coroutine_handle<> h) noexcept { state->waiter = h; }
    T await_resume() { return std::move(*state->value); }
  };
  Awaiter operator co_await() const { return Awaiter{state_}; }

 private:
  std::shared_ptr<State> state_;
};

/// First come, first served. Held across co_await; never held while a thread blocks.
class AsyncMutex {
 public:
  class [[nodiscard]] Guard {
   public:
    Guard() = default;
    explicit Guard(AsyncMutex* m) : mutex_(m) {}
    Guard(Guard&& o) noexcept : mutex_(std::exchange(o.mutex_, nullptr)) {}
    Guard& operator=(Guard&& o) noexcept {
      if (this != &o) {
        release();
        mutex_ = std::exchange(o.mutex_, nullptr);
      }
      return *this;
    }
    ~Guard() { release(); }
    void release() {
      if (auto* m = std::exchange(mutex_, nullptr)) m->unlock();
    }

   private:
    AsyncMutex* mutex_ = nullptr;
  };

  struct Awaiter {
    AsyncMutex& mutex;
    bool await_ready() noexcept {
      if (mutex.held_) return false;
      mutex.held_ = true;
      return true;
    }
    void await_suspend(std::coroutine_handle<> h) { mutex.waiters_.push_back(h); }
    Guard await_resume() noexcept { return Guard(&mutex); }
  };
  Awaiter lock() { return Awaiter{*this}; }
  bool idle() const { return !held_; }

 private:
  void unlock() {
    if (waiters_.empty()) {
      held_ = false;
      return;
    }
    auto next = waiters_.front();
    waiters_.pop_front();
    next.resume();  // held_ stays: the lock passes on
  }
  bool held_ = false;
  std::deque<std::coroutine_handle<>> waiters_;
};

/// A counter that coroutines wait on: at most `limit` units are out at once.
class AsyncSemaphore {
 public:
  explicit AsyncSemaphore(std::size_t limit) : free_(limit), limit_(limit) {}
  struct Awaiter {
    AsyncSemaphore& s;
    bool await_ready() noexcept {
      if (s.free_ == 0) return false;
      --s.free_;
      return true;
    }
    void await_suspend(std::coroutine_handle<> h) { s.waiters_.push_back(h); }
    void await_resume() noexcept {}
  };
  Awaiter acquire() { return Awaiter{*this}; }
  void release() {
    if (waiters_.empty()) {
      ++free_;
    } else {
      auto next = waiters_.front();
      waiters_.pop_front();
      next.resume();
    }
    if (free_ == limit_) {
      for (auto h : std::exchange(drained_, {})) h.resume();
    }
  }
  /// Resumes when nothing is out.
  struct DrainAwaiter {
    AsyncSemaphore& s;
    bool await_ready() noexcept { return s.free_ == s.limit_; }
    void await_suspend(std::coroutine_handle<> h) { s.drained_.push_back(h); }
    void await_resume() noexcept {}
  };
  DrainAwaiter drained() { return DrainAwaiter{*this}; }

 private:
  std::size_t free_;
  std::size_t limit_;
  std::deque<std::coroutine_handle<>> waiters_;
  std::vector<std::coroutine_handle<>> drained_;
};

/// Awaits all of `tasks`, started together; values in the order of the tasks.
template <class T>
Task<std::vector<T>> when_all(std::vector<Task<T>> tasks) {
  struct Join {
    std::size_t left;
    std::vector<std::optional<T>> values;
    Promise<Unit> done;
  };
  auto join = std::make_shared<Join>();
  join->left = tasks.size();
  join->values.resize(tasks.size());
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    spawn(std::move(tasks[i]), [join, i](T value) {
      join->values[i].emplace(std::move(value));
      if (--join->left == 0) join->done.set(Unit{});
    });
  }
  if (join->left != 0) co_await join->done;
  std::vector<T> out;
  out.reserve(join->values.size());
  for (auto& v : join->values) out.push_back(std::move(*v));
  co_return out;
}

}  // namespace kinfs

// Calls of kernels, kept with what they were given, so that all of a step run again by a single call from Python: between
// small operations on few rows Python takes as long as they do, and longer once weights have passed through the caches.
#pragma once

#include <functional>
#include <tuple>
#include <utility>
#include <vector>

namespace umbel {

class Tape {
 public:
  // From here to `end` calls of this thread are kept as well as made.
  void begin() { now() = this; }
  void end() { now() = nullptr; }
  // The calls again, in their order, with the same addresses and sizes, and the same objects as they are now.
  void run() const {
    for (const auto& call : calls_) call();
  }
  size_t size() const { return calls_.size(); }

  template <class Call>
  static void keep(const Call& call) {
    if (now() != nullptr) now()->calls_.push_back(call);
  }

 private:
  static Tape*& now() {
    static thread_local Tape* tape = nullptr;
    return tape;
  }

  std::vector<std::function<void()>> calls_;
};

// What Python calls in the place of `act`: the same, and a tape that is recorded keeps it.
template <class... Given, class Act>
auto taped_with(Act act) {
  return [act](Given... given) {
    const auto call = [act, all = std::tuple<Given...>(given...)] { std::apply(act, all); };
    call();
    Tape::keep(call);
  };
}

template <class... Given>
auto taped(void (*act)(Given...)) {
  return taped_with<Given...>(act);
}

template <class Object, class... Given>
auto taped(void (Object::*act)(Given...) const) {
  return taped_with<const Object&, Given...>(act);
}

}  // namespace umbel
